//! stub

#[cfg(feature = "connector")]
mod connector;

#[cfg(feature = "connector")]
pub use connector::{Connector, DangerousConnector, DepthGuarded, ServerSocket};
