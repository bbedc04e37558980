//! HTTP, client and server: the one place below the session where `async` is spoken.
