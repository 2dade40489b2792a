//! Direct, end-to-end encrypted XML streams between two XMPP entities.
#![allow(dead_code)] // while it grows

mod config;
mod disco;
mod driver;
mod endpoint;
mod error;
mod reason;
pub mod security;
mod session;
pub mod stream;
mod transport;
mod wire;

pub use crate::{
    config::{Config, Dangerous, DiscoConfig, IbbConfig, Limits, Timeouts},
    driver::{ByHand, Events},
    endpoint::{Connecting, Endpoint, Incoming},
    error::{
        ApiMisuse, Direction, Error, PeerIncompatible, PeerMisbehaved, SecurityError, SignallingError, Step,
        StreamFailure, Terminated, TransportError,
    },
    reason::Reason,
    security::{Fingerprint, Identity, Trust},
    stream::{Bytestream, E2eStream, Negotiated, StreamInfo, StreamOptions, StreamReceiver, StreamSender},
};

#[cfg(feature = "connector")]
pub use crate::driver::{Connector, DangerousConnector, DepthGuarded, ServerSocket};
