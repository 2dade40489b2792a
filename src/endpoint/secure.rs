//! From an open bytestream to an XML stream: XTLS in between, or STARTTLS on it, and the session around it.

use std::sync::Arc;

use jid::FullJid;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tracing::Instrument as _;
use xmpp_parsers::stanza::Stanza;

use super::{
    Endpoint,
    carried::Carried,
    resuming::{Initiator, Responder, Whereabouts},
};
use crate::{
    Candidates, Config, Error, Fingerprint, SecurityError, TransportInfo,
    driver::SessionHandle,
    security::tls_io::{self, Announced, Expectation, Secured},
    session::{Announced as Security, Role},
    stream::{self, E2eStream, Established, FirstStanzas, Negotiated, Revival, StreamOptions},
    transport::io::Bytestream,
};

/// What an XML stream is opened for: a new one, or one that is carried on.
pub(super) trait Purpose: Send {
    type Outcome: Send;

    /// Whether it may do without encryption, where the user allows that.
    const PLAINTEXT: bool;

    /// What carries the stream on when this bytestream is lost, and where its peer will be then.
    fn revival(&self, opened: &Opened) -> (Revival, Option<Arc<Whereabouts>>);

    /// Opens it. If only now it shows which stream it is that the bytestream carries, `carried` is told.
    fn open<IO>(
        self,
        role: Role,
        io: IO,
        options: StreamOptions,
        carried: &Carried,
    ) -> impl Future<Output = Result<Self::Outcome, Error>> + Send
    where
        IO: AsyncBufRead + AsyncWrite + Send + Unpin + 'static;
}

/// A stream of the user's that begins.
pub(super) struct First {
    pub(super) endpoint: Endpoint,
    /// The addresses that the peer is shown, if not the usual ones.
    pub(super) candidates: Option<Candidates>,
    /// What our user wants said before it has the stream.
    pub(super) first: Arc<[Stanza]>,
}

impl First {
    pub(super) fn accepted(endpoint: Endpoint, candidates: Option<Candidates>) -> Self {
        Self { endpoint, candidates, first: Arc::default() }
    }
}

impl Purpose for First {
    type Outcome = E2eStream;

    const PLAINTEXT: bool = true;

    fn revival(&self, opened: &Opened) -> (Revival, Option<Arc<Whereabouts>>) {
        let sm = opened.config.sm;
        // Whoever can't show a certificate again can't show that the stream is its.
        if !sm.enabled || sm.resumption.is_zero() || matches!(opened.security, Security::Nothing) {
            return (Revival::None, None);
        }
        let handle = self.endpoint.handle.clone();
        let peer = Arc::new(Whereabouts::new(handle, opened.peer.clone(), self.candidates));
        let revival = match opened.role {
            Role::Initiator => Revival::Initiator(Arc::new(Initiator::new(&self.endpoint, &peer))),
            Role::Responder => Revival::Responder(Arc::new(Responder::new(&self.endpoint, &peer))),
        };
        (revival, Some(peer))
    }

    async fn open<IO>(
        self,
        role: Role,
        io: IO,
        options: StreamOptions,
        carried: &Carried,
    ) -> Result<E2eStream, Error>
    where
        IO: AsyncBufRead + AsyncWrite + Send + Unpin + 'static,
    {
        // Whoever loses a tie is the responder of a stream that it wanted to say something on.
        let options = options.first(FirstStanzas { stanzas: self.first, responder: carried.early_data() });
        let stream = match role {
            Role::Initiator => stream::initiate_on(Box::new(io), options).await?,
            Role::Responder => stream::accept_on(Box::new(io), options).await?,
        };
        self.endpoint.remember(stream.closer());
        Ok(stream)
    }
}

/// What is known of a session when its bytestream is open.
pub(super) struct Opened {
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
pub(super) async fn open<P: Purpose>(session: Arc<SessionHandle>, purpose: P) -> Result<P::Outcome, Error> {
    let span = session.span();
    let outcome = secure(session, purpose).instrument(span).await;
    outcome.map_err(Error::or_refusal)
}

async fn secure<P: Purpose>(session: Arc<SessionHandle>, purpose: P) -> Result<P::Outcome, Error> {
    let opened = Opened::of(&session)?;
    let io = Bytestream::new(Arc::clone(&session));
    let (revival, whereabouts) = purpose.revival(&opened);
    let carried = Arc::new(Carried::new(Arc::clone(&session), whereabouts));
    let options = opened.options().revival(revival).carrier(carried.clone());
    let outcome = match &opened.security {
        Security::Fingerprints(announced) => {
            let secured = match handshake(&opened, announced.clone(), io).await {
                Ok(secured) => secured,
                Err(error) => return Err(give_up(&session, error)),
            };
            let established =
                Established { options: opened.config.tls.clone(), connection: secured.connection };
            let options = options.encrypted(established).map_io(tls_io::error_from_io);
            purpose.open(opened.role, secured.io, options, &carried).await?
        }
        Security::Starttls => {
            let options = options.starttls(opened.config.tls.clone());
            purpose.open(opened.role, stream::buffered(io), options, &carried).await?
        }
        // Since it was accepted the peer may have become known, by another session say.
        Security::Nothing if !P::PLAINTEXT || opened.config.tls.expects_proof_of(&opened.peer.to_bare()) => {
            return Err(give_up(&session, SecurityError::NotOffered.into()));
        }
        // Plaintext is only ever accepted if the user allowed it.
        Security::Nothing => purpose.open(opened.role, stream::buffered(io), options, &carried).await?,
    };
    // Only now is the peer shown any address: it is who it should be.
    session.with(|sessions, id, now| sessions.start_move(now, id));
    Ok(outcome)
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

    /// Of a stream that is carried on these are the addresses in the header: either side may have another resource than
    /// when it began.
    fn options(&self) -> StreamOptions {
        StreamOptions::new()
            .local(self.local.clone().into())
            .peer(self.peer.clone().into())
            .timeouts(self.config.timeouts)
            .limits(self.config.limits)
            .sm(self.config.sm)
            .negotiated(Negotiated::on(self.transport.clone(), self.fallback.clone()))
    }
}
