//! The content of a torrent: Package, Pieces, Blocks, and the jobs it wants done on disk.
#![forbid(unsafe_code)]
