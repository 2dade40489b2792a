//! What benchmarks and fuzz targets call that no bot can: no API, and bound by no version.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "nothing that a peer says comes here"
)]

pub mod codec;
pub mod ibb;
pub mod session;
pub mod simulator;
pub mod socks5;
