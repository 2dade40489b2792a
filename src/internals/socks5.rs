//! The two sides of a SOCKS5 handshake.
