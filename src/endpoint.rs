//! The user API: an endpoint on a session with the server, and the phases of a stream as types.

mod carried;
mod connecting;
mod incoming;
mod resuming;
mod secure;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use jid::{FullJid, Jid};
use tokio::runtime::{Handle as Runtime, RuntimeFlavor};
use tokio_xmpp::{Client, IqRequest, IqResponse, connect::ServerConnector};
use xmpp_parsers::{minidom::Element, presence::Presence, stanza::Stanza};

use self::resuming::Resumables;
pub use self::{connecting::Connecting, incoming::Incoming};
use crate::{
    ApiMisuse, Config, Error, Reason,
    disco::Disco,
    driver::{self, ByHand, Events, Handle, Link},
    stream::Closer,
    wire::ns,
};

/// One end of any number of e2e streams, on one session with a server.
///
/// It is cheap to clone; all clones are the same endpoint. It and its [`Events`] keep the session with the server up: when the last
/// of them and of the streams is dropped, what is open is ended on the wire and the session with the server is closed,
/// in the background. [`Endpoint::close`] does the same and waits for it: call it before the runtime ends, which would
/// otherwise take the background with it. A stream that is dropped closes as by its own `close`, too: it waits for what the
/// peer has to acknowledge, and goes on trying to be resumed, for [`Timeouts::close`](crate::Timeouts::close).
///
/// Streams do not need the session with the server while they have a bytestream of their own (SOCKS5). One whose bytestream
/// is lost is carried on over another as soon as both ends have their servers again ([`SmConfig`](crate::SmConfig)).
///
/// ```no_run
/// # async fn bot(jid: jid::Jid, password: String) -> Result<(), Box<dyn std::error::Error>> {
/// use futures::{SinkExt, StreamExt};
/// use jingle_xmlstream::{Config, Connector, Endpoint, Identity, KnownPeers};
///
/// let identity = Identity::load_or_generate_for("bot.identity.pem", &jid.to_bare())?;
/// let config = Config::new(identity, KnownPeers::open("known-peers.toml")?);
/// let (endpoint, mut events) = Endpoint::login(jid, password, Connector::default(), config);
/// tokio::spawn(async move { while let Some(_event) = events.next().await { /* the rest of the bot */ } });
///
/// let mut stream = endpoint.connect(&"juliet@capulet.lit/balcony".parse()?).await?;
/// while let Some(stanza) = stream.next().await {
///     println!("{:?}", stanza?);
/// }
/// stream.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint {
    handle: Handle,
    streams: Arc<Streams>,
    resumables: Arc<Resumables>,
}

/// The streams that are up, so that closing the endpoint can close them in good order.
#[derive(Debug, Default)]
struct Streams(Mutex<VecDeque<Closer>>);

/// Of the streams that are known, so many are looked at with each new one, so that it costs the same however many there are.
const LOOKED_AT: usize = 4;

impl Endpoint {
    /// Logs in, with a session with the server of the endpoint's own.
    ///
    /// `jid` may be full, to ask for a resource, or bare. The session is kept up and resumed like that of a
    /// `tokio_xmpp::Client`, only that a server that can't be reached is tried again after 10 s at the latest; what a `Client` gives comes out of the [`Events`]. This works on every
    /// runtime, unlike [`Endpoint::attach`]. [`Connector`](crate::Connector) is the connector to use; any other does.
    ///
    /// A wrong password does not end it: tokio-xmpp tries again for ever, and logs it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn login<C: ServerConnector>(
        jid: impl Into<Jid>,
        password: impl Into<String>,
        connector: C,
        config: Config,
    ) -> (Self, Events) {
        Self::start(Link::login(jid.into(), password.into(), connector), config)
    }

    /// Takes over a bot's `Client`, which from now on is driven by the endpoint.
    ///
    /// For bots that can't use [`Endpoint::login`]. Only on a current-thread runtime: on a multi-thread one, a `Client`
    /// of tokio-xmpp 6.0 that sends and receives at the same time sooner or later receives nothing ever again.
    ///
    /// Make the client with a [`Connector`](crate::Connector), or wrap its connector's stream in
    /// [`DepthGuarded`](crate::DepthGuarded): tokio-xmpp's own connectors let anybody end the process with a stanza of
    /// some 3,400 nested elements.
    ///
    /// A `Client` whose server has forgotten the session that it wants to resume, as Prosody after a restart, tries
    /// that again and again and never comes back. `login` does; here only the bot can, with a new client. Nor does a `Client`
    /// tell when its connection is lost: streams in-band show that when it is back, or when their peer is silent for too long.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::AttachOnMultiThread`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn attach(client: Client, config: Config) -> Result<(Self, Events), Error> {
        if Runtime::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
            return Err(ApiMisuse::AttachOnMultiThread.into());
        }
        Ok(Self::start(Link::client(client), config))
    }

    /// An endpoint that a bot's own loop drives, with whatever session with the server the bot has.
    ///
    /// ```no_run
    /// # async fn bot(mut client: tokio_xmpp::Client, config: jingle_xmlstream::Config) -> std::io::Result<()> {
    /// use futures::StreamExt;
    /// use jingle_xmlstream::Endpoint;
    ///
    /// let (endpoint, mut by_hand) = Endpoint::by_hand(config);
    /// loop {
    ///     tokio::select! {
    ///         Some(event) = client.next() => if let Some(_event) = by_hand.handle(event) {
    ///             // not ours: the rest of the bot
    ///         },
    ///         Some(stanza) = by_hand.outgoing() => drop(client.send_stanza(stanza).await?),
    ///         else => break,
    ///     }
    /// }
    /// # drop(endpoint);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`Endpoint::send_stanza`] then resolves when the stanza is handed to the loop. What [`Endpoint::attach`] says about
    /// clients holds here too.
    #[must_use]
    pub fn by_hand(config: Config) -> (Self, ByHand) {
        let (handle, by_hand) = ByHand::new(config);
        (Self::new(handle), by_hand)
    }

    fn start(link: Link, config: Config) -> (Self, Events) {
        let (handle, events) = driver::spawn(link, config);
        (Self::new(handle), events)
    }

    fn new(handle: Handle) -> Self {
        Self { handle, streams: Arc::default(), resumables: Arc::default() }
    }

    /// Opens an e2e stream to a peer: finds out what it supports, negotiates a Jingle session, opens the bytestream, runs
    /// TLS, and opens the XML stream (XEP-0247 #protocol).
    ///
    /// If the peer does the same at the same time, both get the same stream (XEP-0166 #def-action-ties).
    ///
    /// What is to be said first can go out earlier than this resolves: [`Connecting::first`].
    ///
    /// Cancel safe: dropping the future ends the session on the wire.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but [`Error::ApiMisuse`], unless the endpoint was closed; see its variants.
    pub fn connect(&self, peer: &FullJid) -> Connecting {
        Connecting::new(self.clone(), peer.clone())
    }

    /// The next session that a peer offers; `None` once the endpoint is closed.
    ///
    /// Cancel safe. Several tasks may wait; each session goes to one of them. A session that nobody takes in
    /// [`Timeouts::decision`](crate::Timeouts::decision) is declined.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let session = self.handle.incoming().await?;
            if let Some(incoming) = Incoming::new(self.clone(), session) {
                return Some(incoming);
            }
        }
    }

    /// Sends a stanza to the server; resolves when it was written.
    ///
    /// This is no proof that it arrived. While there is no session with the server, it waits for one. Not cancel safe:
    /// the stanza may or may not be sent.
    ///
    /// # Errors
    ///
    /// [`Error::Signalling`] or [`Error::Transport`] if the session with the server ended before.
    pub async fn send_stanza(&self, stanza: impl Into<Stanza>) -> Result<(), Error> {
        self.handle.send(stanza.into()).await
    }

    /// Sends an iq request over the server, to `to` or to the own account, and waits for the reply.
    ///
    /// A reply that says `error` is an `Ok`: it is the answer. Cancel safe: dropping the future forgets the request, and
    /// a reply that comes later is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] after [`Timeouts::iq`](crate::Timeouts::iq); [`Error::Signalling`] if the session with the server
    /// was lost.
    pub async fn send_iq(&self, to: Option<Jid>, request: IqRequest) -> Result<IqResponse, Error> {
        self.handle.request(to, request).await
    }

    /// Sends presence with the entity capabilities of this endpoint (XEP-0115), by which peers know without asking that it
    /// takes e2e streams.
    ///
    /// # Errors
    ///
    /// Like [`Endpoint::send_stanza`].
    pub async fn send_presence(&self, mut presence: Presence) -> Result<(), Error> {
        presence.payloads.retain(|payload| !payload.is("c", ns::CAPS));
        presence.payloads.push(self.caps());
        self.send_stanza(presence).await
    }

    /// The `<c/>` for a presence stanza that the bot sends itself (XEP-0115).
    ///
    /// It stands for the features and identities of [`Config::disco`](crate::Config::disco).
    #[must_use]
    pub fn caps(&self) -> Element {
        self.handle.with(|sessions, _| sessions.disco().caps())
    }

    /// The features that a bot which answers disco#info itself has to include ([`DiscoConfig::answer`](crate::DiscoConfig::answer)).
    #[must_use]
    pub fn features(&self) -> Vec<String> {
        self.handle.with(|sessions, _| Disco::features(sessions.config().transports))
    }

    /// Waits for the session with the server, and gives the full JID that the server assigned.
    ///
    /// # Errors
    ///
    /// [`Error::Signalling`] if it ended for good. A server that can't be reached is tried for ever.
    pub async fn online(&self) -> Result<FullJid, Error> {
        self.handle.online().await
    }

    /// Our full JID, if there is a session with the server.
    #[must_use]
    pub fn jid(&self) -> Option<FullJid> {
        self.handle.with(|sessions, _| sessions.bound().cloned())
    }

    /// Ends all sessions in good order, then the session with the server.
    ///
    /// Streams are closed as by their own `close`, all at once: they wait for what their peers have to acknowledge, and those
    /// without a bytestream go on trying to be resumed for it. Who holds one learns from it what was not acknowledged
    /// ([`Error::Undelivered`]). Sessions that are being negotiated are cancelled or declined.
    ///
    /// Each of its four steps (the streams, the sessions, what is left to send, the server) takes
    /// [`Timeouts::close`](crate::Timeouts::close) at most, all streams together no more than that, however much peers are
    /// still to acknowledge. Without a connection to the server only the first does, unless a stanza of the bot's own still
    /// waits to be sent. With [`Endpoint::by_hand`] the bot's loop has to go on meanwhile. Calling it
    /// again, or from several tasks, is fine. Cancel safe in that what was begun goes on.
    pub async fn close(&self) {
        let streams = std::mem::take(&mut *self.streams.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.handle.start_closing();
        let closed = futures::future::join_all(streams.into_iter().map(Closer::close));
        let close = self.handle.with(|sessions, _| sessions.config().timeouts.close);
        if tokio::time::timeout(close, closed).await.is_err() {
            tracing::debug!("not all streams closed in good order");
        }
        self.handle.terminate_all(&Reason::Gone);
        if tokio::time::timeout(close, self.handle.all_over()).await.is_err() {
            tracing::debug!("not all peers acknowledged the end of their session");
        }
        self.handle.finish().await;
    }

    /// Remembers a stream, and forgets those that have ended.
    fn remember(&self, stream: Closer) {
        let mut streams = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LOOKED_AT {
            if let Some(known) = streams.pop_front()
                && !known.is_closed()
            {
                streams.push_back(known);
            }
        }
        streams.push_back(stream);
    }
}
