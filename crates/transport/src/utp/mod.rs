//! Streams over datagrams (BEP 29).
