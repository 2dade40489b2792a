//! The server's side of SOCKS5 (RFC 1928) as far as XEP-0065 needs it, sans-IO.
