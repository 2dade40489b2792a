//! Where SOCKS5 finds no way, in-band bytestreams take its place (XEP-0260 #fallback).

use super::{net::Path, *};
