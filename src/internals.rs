//! What benchmarks and fuzz targets call that no bot can: no API, and bound by no version.

pub mod codec;
pub mod ibb;
pub mod session;
pub mod simulator;
pub mod socks5;
