//! Carrying on a stream over another bytestream (XEP-0198 #resumption).

use std::{
    fmt,
    sync::{Arc, Weak},
};

use futures::future::BoxFuture;
use jid::BareJid;
use tokio::io::{AsyncBufRead, AsyncWrite};

use super::{
    StreamOptions,
    e2e_open::{Judged, Opened, Purpose, negotiate, refuse},
    e2e_peer::unanswered,
    e2e_revive::{Successor, unknown},
    e2e_shared::Shared,
    e2e_worker::Worker,
    machine::{Role, management::Resume},
    options::Session,
};
use crate::{Error, SecurityError, security::Certificate};

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
    /// The peer has forgotten it. A new one is for the same user, who knows its peer by this certificate.
    Renew(Certificate),
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

/// As initiator: asks the peer to carry on a stream.
///
/// The bytestream is encrypted with the certificate of `goal`, or will be by STARTTLS; another certificate is an error
/// before anything is said.
///
/// # Errors
///
/// As [`initiate`](super::initiate); [`Error::NotResumed`] if the peer does not know the stream.
pub(crate) async fn resume<IO>(
    io: IO,
    mut options: StreamOptions,
    resume: Resume,
    certificate: Certificate,
) -> Result<Reconnected, Error>
where
    IO: AsyncBufRead + AsyncWrite + Send + Unpin + 'static,
{
    let session = Session::new(options.carrier.take());
    let purpose = Purpose::Resume(resume, certificate);
    let Opened { worker, .. } =
        negotiate(Box::new(io), &[], Role::Initiator, session, options, purpose).await?;
    if worker.shared.with(|inner, _| inner.machine.resumed_at().is_none()) {
        return Err(refuse(worker, unknown()));
    }
    Ok(Reconnected { worker: Box::new(worker) })
}

/// As initiator: begins a new stream for the same user, who is not asked about the peer again. With another certificate than
/// this one, nothing is said, and nobody becomes known by having tried.
///
/// # Errors
///
/// As [`initiate`](super::initiate).
pub(crate) async fn renew<IO>(
    io: IO,
    mut options: StreamOptions,
    certificate: Certificate,
) -> Result<Reconnected, Error>
where
    IO: AsyncBufRead + AsyncWrite + Send + Unpin + 'static,
{
    let session = Session::new(options.carrier.take());
    let purpose = Purpose::BeginAnew(certificate);
    let opened = negotiate(Box::new(io), &[], Role::Initiator, session, options, purpose).await?;
    let Judged { worker, to_be_asked, .. } = opened.judge().await?;
    if let Some(established) = to_be_asked {
        return Err(refuse(worker, unanswered(&established.connection.presented).into()));
    }
    Ok(Reconnected { worker: Box::new(worker) })
}

/// As responder: lets the initiator carry on one of the streams that `find` finds by their id. Resolves when that stream has
/// the bytestream.
///
/// If the future is dropped after the initiator asked, the stream has the bytestream all the same.
///
/// # Errors
///
/// As [`accept`](super::accept); [`Error::NotResumed`] if there is no such stream, or not with this certificate.
pub(crate) async fn await_resume<IO>(
    io: IO,
    mut options: StreamOptions,
    find: impl Fn(&str) -> Option<Resumable> + Send,
) -> Result<(), Error>
where
    IO: AsyncBufRead + AsyncWrite + Send + Unpin + 'static,
{
    let session = Session::new(options.carrier.take());
    let Opened { worker, .. } =
        negotiate(Box::new(io), &[], Role::Responder, session, options, Purpose::AwaitResume).await?;
    let asked = worker.shared.with(|inner, _| inner.machine.asked_to_resume().cloned());
    let Some(asked) = asked else {
        return Err(refuse(worker, unknown()));
    };
    // Which of the two it is, is not for whoever has another certificate to know.
    let stream = find(&asked.previd)
        .filter(|stream| worker.certificate.as_ref() == Some(&stream.certificate))
        .and_then(|stream| stream.shared.upgrade());
    let (successor, result) = Successor::new(Box::new(worker));
    let refused = match stream {
        Some(stream) => stream.with(|inner, wakes| inner.succeed(&asked, successor, wakes)).err(),
        None => Some(successor),
    };
    if let Some(refused) = refused {
        refused.refuse();
    }
    result.await.unwrap_or_else(|_| Err(unknown()))
}

/// The peer has another certificate than the one of the stream.
pub(super) fn another(
    peer: Option<BareJid>,
    expected: &Certificate,
    presented: &Certificate,
) -> SecurityError {
    let (expected, presented) = (expected.fingerprint().clone(), presented.fingerprint().clone());
    match peer {
        Some(peer) => SecurityError::KeyChanged { peer, expected: vec![expected], presented },
        None => SecurityError::NotPinned { presented, pinned: vec![expected.to_string()] },
    }
}

impl fmt::Debug for Reconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnected").finish_non_exhaustive()
    }
}
