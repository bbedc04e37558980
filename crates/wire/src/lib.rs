//! Stateless codecs of the BitTorrent wire: bytes to values and back.
#![forbid(unsafe_code)]
