//! Finding peers: the tracker client and the tracker's book.
#![forbid(unsafe_code)]
