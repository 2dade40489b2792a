//! From an open bytestream to an XML stream: XTLS in between, or STARTTLS on it, and the session around it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt as _};
use jid::FullJid;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::Instrument as _;

use super::Endpoint;
use crate::{
    Config, Error, Fingerprint, Reason, SecurityError, TransportInfo,
    driver::SessionHandle,
    security::tls_io::{self, Announced, Expectation, Secured},
    session::{Announced as Security, Progress, Role},
    stream::{self, Carrier, E2eStream, Established, Negotiated, StreamOptions},
    transport::io::Bytestream,
};

/// What is known of a session when its bytestream is open.
struct Opened {
    role: Role,
    peer: FullJid,
    local: FullJid,
    transport: TransportInfo,
    fallback: Option<Error>,
    security: Security,
    config: Config,
}

/// Runs TLS and opens the XML stream; with STARTTLS, the XML stream runs TLS. Whatever fails ends the session with the
/// fitting reason.
pub(super) async fn establish(endpoint: Endpoint, session: Arc<SessionHandle>) -> Result<E2eStream, Error> {
    let span = session.span();
    let secured = secure(endpoint, session).instrument(span).await;
    secured.map_err(Error::or_refusal)
}

async fn secure(endpoint: Endpoint, session: Arc<SessionHandle>) -> Result<E2eStream, Error> {
    let opened = Opened::of(&session)?;
    let io = Bytestream::new(Arc::clone(&session));
    let options = StreamOptions::new()
        .local(opened.local.clone().into())
        .peer(opened.peer.clone().into())
        .timeouts(opened.config.timeouts)
        .limits(opened.config.limits)
        .carrier(Arc::new(Carried(Arc::clone(&session))))
        .negotiated(Negotiated::on(opened.transport.clone(), opened.fallback.clone()));
    let stream = match &opened.security {
        Security::Fingerprints(announced) => {
            let secured = match handshake(&opened, announced.clone(), io).await {
                Ok(secured) => secured,
                Err(error) => return Err(give_up(&session, error)),
            };
            let established =
                Established { options: opened.config.tls.clone(), connection: secured.connection };
            let options = options.encrypted(established).map_io(tls_io::error_from_io);
            open(opened.role, secured.io, options).await?
        }
        Security::Starttls => open(opened.role, io, options.starttls(opened.config.tls.clone())).await?,
        // Since it was accepted the peer may have become known, by another session say.
        Security::Nothing if opened.config.tls.expects_proof_of(&opened.peer.to_bare()) => {
            return Err(give_up(&session, SecurityError::NotOffered.into()));
        }
        // Plaintext is only ever accepted if the user allowed it.
        Security::Nothing => open(opened.role, io, options).await?,
    };
    endpoint.remember(stream.closer());
    // Only now is the peer shown any address: it is who it should be.
    session.with(|sessions, id, now| sessions.start_move(now, id));
    Ok(stream)
}

/// Ends a session whose TLS failed, perhaps because of a session-terminate of the peer's.
fn give_up(session: &SessionHandle, error: Error) -> Error {
    let error = error.explained_by(session.error());
    session.with(|sessions, id, now| sessions.fail(now, id, error.clone()));
    error
}

/// jingle-xtls #proto: the initiator is the TLS client.
async fn handshake(
    opened: &Opened,
    announced: Vec<Fingerprint>,
    io: Bytestream,
) -> Result<Secured<Bytestream>, Error> {
    let Config { tls, timeouts, .. } = &opened.config;
    let announced = Announced::ByJingle(announced);
    let expectation = Expectation { peer: opened.peer.to_bare(), announced, options: tls.clone() };
    let handshake = async {
        match opened.role {
            Role::Initiator => tls_io::connect(io, expectation).await,
            Role::Responder => tls_io::accept(io, expectation).await,
        }
    };
    tls_io::in_time(timeouts.tls, handshake).await
}

async fn open<IO>(role: Role, io: IO, options: StreamOptions) -> Result<E2eStream, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match role {
        Role::Initiator => stream::initiate(io, options).await,
        Role::Responder => stream::accept(io, options).await,
    }
}

impl Opened {
    fn of(session: &SessionHandle) -> Result<Self, Error> {
        let opened = session.with(|sessions, id, _| {
            Some(Self {
                role: sessions.role(id)?,
                peer: sessions.peer(id)?.clone(),
                local: sessions.bound()?.clone(),
                transport: sessions.transport_info(id)?,
                fallback: sessions.unconnected(id),
                security: sessions.security(id)?.clone(),
                config: sessions.config().clone(),
            })
        });
        opened.ok_or_else(|| session.error().unwrap_or(Error::Signalling(crate::SignallingError::Offline)))
    }
}

/// The session, as the XML stream knows it.
struct Carried(Arc<SessionHandle>);

impl Carrier for Carried {
    fn terminate(&self, reason: Reason, text: Option<String>) {
        self.0.with(|sessions, id, now| sessions.terminate(now, id, reason, text.as_deref()));
    }

    fn error(&self) -> Option<Error> {
        self.0.error()
    }

    fn transport(&self) -> Option<TransportInfo> {
        self.0.transport()
    }

    fn is_relayed(&self) -> bool {
        self.0.is_relayed()
    }

    fn poll_moved(&self, cx: &Context<'_>, before: Option<&TransportInfo>) -> Poll<Option<TransportInfo>> {
        self.0.poll(cx, |sessions, id, _| match (sessions.progress(id), sessions.transport_info(id)) {
            (Progress::Ended(_), _) => Poll::Ready(None),
            (_, Some(info)) if before != Some(&info) => Poll::Ready(Some(info)),
            _ if sessions.may_move(id) => Poll::Pending,
            _ => Poll::Ready(None),
        })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        let session = Arc::clone(&self.0);
        async move { session.over().await }.boxed()
    }
}
