//! The commands of piecemeal.
