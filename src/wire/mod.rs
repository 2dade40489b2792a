//! XML in, Rust types out, and back; nothing else happens here.

pub(crate) mod ns;
