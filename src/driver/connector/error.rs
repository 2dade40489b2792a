//! Why a connection to the server did not come up.

use std::{io, time::Duration};

use tokio_rustls::rustls;
use tokio_xmpp::connect::ServerConnectorError;

/// What [`Connector`](crate::Connector) reports; tokio-xmpp logs it and tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{domain} does not offer STARTTLS, and nothing is sent in plaintext")]
    NoStartTls { domain: String },
    #[error("{domain} refused STARTTLS")]
    StartTlsRefused { domain: String },
    #[error("{domain} sent something else than the answer to <starttls/>: {received}")]
    StartTlsUnanswered { domain: String, received: String },
    /// Somebody in between may have put it there, to have it taken for what the server says after TLS.
    #[error("{domain} sent plaintext behind <proceed/>")]
    PlaintextBehindProceed { domain: String },
    #[error("TLS with {domain} failed: {source}")]
    TlsHandshake { domain: String, source: io::Error },
    #[error("TLS settings: {0}")]
    TlsSettings(rustls::Error),
    #[error("no trusted certificates on this system ({0}); give some with Connector::roots")]
    NoRoots(String),
    #[error("no certificate can be for the domain {0:?}")]
    BadDomain(String),
    #[error("TLS gives no channel binding: {0}")]
    ChannelBinding(io::Error),
    #[error("loading the trusted certificates was interrupted")]
    Interrupted,
    #[error("timed out after {1:?}: {0}")]
    Timeout(&'static str, Duration),
}

impl ServerConnectorError for ConnectError {}
