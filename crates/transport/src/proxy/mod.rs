//! The words to a SOCKS5 or HTTP proxy.
