//! Carrying on a stream over another bytestream (XEP-0198 #resumption).

use std::{
    fmt,
    sync::{Arc, Weak},
};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{StreamOptions, e2e_shared::Shared, e2e_worker::Worker, machine::management::Resume};
use crate::{ApiMisuse, Error, security::Certificate};

/// What carries a stream on when its bytestream is lost.
#[derive(Clone)]
pub(crate) enum Revival {
    /// Nothing.
    None,
    /// We were the initiator, so we connect again.
    Initiator(Arc<dyn Reconnect>),
    /// The initiator will connect again; this is where its stream is found.
    Responder(Arc<dyn Registry>),
}

/// Connects to the peer again.
pub(crate) trait Reconnect: Send + Sync + 'static {
    /// One attempt, by [`resume`] or [`renew`] in the end. Dropping the future ends it.
    fn reconnect(&self, goal: Goal) -> BoxFuture<'static, Result<Reconnected, Error>>;
}

/// What a reconnection is for.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// The stream goes on, with the peer that has this certificate and no other.
    Resume(Resume, Certificate),
    /// The peer has forgotten it.
    Renew,
}

/// The responder's streams, to be found by what the initiator calls them. Dropping the stream's task removes it.
pub(crate) trait Registry: Send + Sync + 'static {
    fn add(&self, id: &str, stream: Resumable);
    fn remove(&self, id: &str);
}

/// A bytestream on which the peer agreed to carry on a stream, or to begin a new one.
pub(crate) struct Reconnected {
    pub(super) worker: Box<Worker>,
}

/// A stream that its initiator may carry on.
#[derive(Clone)]
pub(crate) struct Resumable {
    pub(super) shared: Weak<Shared>,
    /// What the initiator has to present.
    pub(super) certificate: Certificate,
}

impl Resumable {
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// As initiator: asks the peer to carry on a stream.
///
/// The bytestream is encrypted with the certificate of `goal`, or will be by STARTTLS; another certificate is an error
/// before anything is said.
///
/// # Errors
///
/// As [`initiate`](super::initiate); [`Error::NotResumed`] if the peer does not know the stream.
pub(crate) async fn resume<IO>(
    _io: IO,
    _options: StreamOptions,
    _resume: Resume,
    _certificate: Certificate,
) -> Result<Reconnected, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Err(ApiMisuse::StreamClosed.into())
}

/// As initiator: begins a new stream for the same user.
///
/// # Errors
///
/// As [`initiate`](super::initiate).
pub(crate) async fn renew<IO>(_io: IO, _options: StreamOptions) -> Result<Reconnected, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Err(ApiMisuse::StreamClosed.into())
}

/// As responder: lets the initiator carry on one of the streams that `find` finds by their id. Resolves when that stream has
/// the bytestream.
///
/// # Errors
///
/// As [`accept`](super::accept); [`Error::NotResumed`] if there is no such stream, or not with this certificate.
pub(crate) async fn await_resume<IO>(
    _io: IO,
    _options: StreamOptions,
    _find: impl Fn(&str) -> Option<Resumable> + Send,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Err(ApiMisuse::StreamClosed.into())
}

impl fmt::Debug for Reconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnected").finish_non_exhaustive()
    }
}
