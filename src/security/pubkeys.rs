//! Certificates over the stream (`jingle-xtls` #exchange, XEP-0189).
