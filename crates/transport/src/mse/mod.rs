//! The obfuscated handshake (Message Stream Encryption) and its ciphers.
