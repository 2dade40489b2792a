//! The handle that tests hold.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, broadcast},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use xmpp_parsers::{
    jid::{BareJid, FullJid, Jid},
    minidom::Element,
    roster::{Ask, Item, Subscription},
    sasl::Mechanism,
};

use crate::{
    hub::{Hub, Settings},
    intercept::{InterceptId, Route, Verdict},
    link::Target,
    proxy65::Proxy65,
    record::{Record, Recorded},
    route,
    session::serve,
    tls::ServerTls,
};

/// ejabberd's limit for a stanza, and near to Prosody's.
const MAX_STANZA: usize = 262_144;

/// Connections at a time, logged in or not; further ones are closed at once.
const MAX_CONNECTIONS: usize = 1024;

/// A pause after `accept` fails: file descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Settings that must be known before the server starts.
#[derive(Clone, Debug)]
pub struct Builder {
    max_stanza: usize,
    mechanisms: Vec<Mechanism>,
    /// The names in the certificate, if there is to be one.
    starttls: Option<Vec<String>>,
    resumption: Option<Duration>,
}

impl Builder {
    /// Offers stream management (XEP-0198): a client that was cut may resume its session for so long.
    #[must_use]
    pub fn stream_management(mut self, resumption: Duration) -> Self {
        self.resumption = Some(resumption);
        self
    }

    /// Requires STARTTLS, with a certificate that signs itself ([`MockServer::certificate`]) for `localhost`,
    /// `montague.lit` and `capulet.lit`.
    #[must_use]
    pub fn starttls(self) -> Self {
        self.starttls_for(["localhost", "montague.lit", "capulet.lit"])
    }

    /// As [`starttls`](Self::starttls), with the DNS names of the certificate.
    #[must_use]
    pub fn starttls_for<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.starttls = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Offers only these SASL mechanisms (of SCRAM-SHA-256, SCRAM-SHA-1 and PLAIN, which are all offered by default).
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: impl IntoIterator<Item = Mechanism>) -> Self {
        self.mechanisms = mechanisms.into_iter().collect();
        self
    }

    /// The largest stanza in bytes (default 262,144); a larger one ends the stream of its sender.
    #[must_use]
    pub fn max_stanza(mut self, bytes: usize) -> Self {
        self.max_stanza = bytes;
        self
    }

    /// Starts to listen on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// If there is no free port, or the certificate's names are not DNS names.
    pub async fn start(self) -> io::Result<MockServer> {
        let tls = self.starttls.map(ServerTls::self_signed).transpose()?;
        let certificate = tls.as_ref().map(|tls| tls.certificate.clone());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let settings = Settings {
            max_stanza: self.max_stanza,
            mechanisms: self.mechanisms,
            tls,
            resumption: self.resumption,
        };
        let hub = Arc::new(Hub::new(settings));
        let listening = Mutex::new(Some(Listening::start(hub.clone(), listener)));
        Ok(MockServer(Arc::new(Running { hub, addr, certificate, listening })))
    }
}

/// A handle to a running server. The server stops, and cuts all connections, when the last clone is dropped (a clone
/// inside an intercept counts; [`clear_intercepts`](Self::clear_intercepts) drops it).
///
/// Where a method takes a [`Jid`], a `&FullJid` or `&BareJid` fits as well; a bare one stands for all of its resources.
#[derive(Clone)]
pub struct MockServer(Arc<Running>);

struct Running {
    hub: Arc<Hub>,
    addr: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    /// `None` while the server is down.
    listening: Mutex<Option<Listening>>,
}

/// The task that owns the listener and all connections. Dropping it ends it.
struct Listening {
    task: JoinHandle<()>,
    /// Ends the task in good order.
    stop: Arc<Notify>,
}

impl Listening {
    fn start(hub: Arc<Hub>, listener: TcpListener) -> Self {
        let stop = Arc::new(Notify::new());
        Self { task: tokio::spawn(accept(hub, listener, stop.clone())), stop }
    }

    async fn stop(mut self) {
        self.stop.notify_one();
        // A task that panicked is over, too.
        (&mut self.task).await.ok();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn listening(&self) -> MutexGuard<'_, Option<Listening>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MockServer {
    /// A plaintext server with the default settings.
    ///
    /// # Panics
    ///
    /// If 127.0.0.1 has no free port: no test can go on without one.
    #[expect(clippy::expect_used, reason = "nothing a client sends leads here")]
    pub async fn start() -> Self {
        Self::builder().start().await.expect("a free port on 127.0.0.1")
    }

    /// Settings for a server that is not the default one.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            max_stanza: MAX_STANZA,
            mechanisms: vec![Mechanism::ScramSha256, Mechanism::ScramSha1, Mechanism::Plain],
            starttls: None,
            resumption: None,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// The certificate of a server with STARTTLS, which a client must trust.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.certificate.as_ref()
    }

    /// The sessions that are bound, sorted.
    #[must_use]
    pub fn online(&self) -> Vec<FullJid> {
        self.0.hub.online()
    }

    /// Starts a SOCKS5 proxy for bytestreams on another free port of 127.0.0.1. From then on it is an item of each domain,
    /// as `proxy.<domain>`. It ends with the server.
    ///
    /// # Panics
    ///
    /// If 127.0.0.1 has no free port: no test can go on without one.
    #[expect(clippy::expect_used, reason = "nothing a client sends leads here")]
    pub async fn enable_proxy65(&self) -> Proxy65 {
        Proxy65::start(&self.0.hub).await.expect("a free port on 127.0.0.1")
    }

    /// Waits until this JID is bound. Cancel safe.
    pub async fn wait_online(&self, jid: &Jid) {
        self.wait_until(jid, true).await;
    }

    /// Waits until this JID is bound no more. Cancel safe.
    pub async fn wait_offline(&self, jid: &Jid) {
        self.wait_until(jid, false).await;
    }

    async fn wait_until(&self, jid: &Jid, online: bool) {
        let mut changed = self.0.hub.changed.subscribe();
        while self.0.hub.resources(jid).is_empty() == online {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Closes the TCP connections of this JID without a word; others learn that it is unavailable. `false` if it was not
    /// online.
    ///
    /// With stream management, it stays online as far as others know, until its time to resume is over, or it is cut
    /// again before it did.
    pub fn cut(&self, jid: &Jid) -> bool {
        let resources = self.0.hub.resources(jid);
        for resource in &resources {
            if let Some(known) = self.0.hub.cut(resource) {
                route::leave(&self.0.hub, resource, known);
            }
        }
        !resources.is_empty()
    }

    /// The same, but there is nothing to resume.
    pub fn forget(&self, jid: &Jid) -> bool {
        let resources = self.0.hub.resources(jid);
        for resource in &resources {
            if let Some(known) = self.0.hub.forget(resource) {
                route::leave(&self.0.hub, resource, known);
            }
        }
        !resources.is_empty()
    }

    /// Dies: closes the listening socket and all connections without a word, and forgets all sessions, so that nothing can be
    /// resumed. Rosters, intercepts, the record and the SOCKS5 proxy stay.
    pub async fn kill(&self) {
        let listening = self.0.listening().take();
        self.0.hub.forget_all();
        if let Some(listening) = listening {
            listening.stop().await;
        }
        // Those that logged in in between.
        self.0.hub.forget_all();
    }

    /// Listens again on the same address, after [`kill`](Self::kill). Nothing happens if it does.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub async fn restart(&self) -> io::Result<()> {
        if self.0.listening().is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(self.0.addr).await?;
        *self.0.listening() = Some(Listening::start(self.0.hub.clone(), listener));
        Ok(())
    }

    /// While `true`, nothing passes to or from a client, though its connection stays: as where a router died, or a machine
    /// was unplugged. It does not hold up a login. What was held up passes later.
    pub fn black_hole(&self, target: impl Into<Target>, swallows: bool) {
        self.0.hub.links.set_black_hole(target.into(), swallows);
    }

    /// Lets somebody else have what is for this client, and speak in its name, while the client itself stays online. The
    /// impostor is whoever logs in with the address that this yields, and is shown its victim's as its own.
    ///
    /// Whoever sends to the victim reaches the impostor; whom the impostor sends to takes it for the victim. If both ends of a
    /// conversation are impersonated, their impostors are between them: each reaches the other end itself. What the server
    /// answers in its own name is the same for all. Routes, the record and ladders call the impostor by its own address.
    ///
    /// # Panics
    ///
    /// If the resource is so long that there is no such address.
    #[expect(clippy::expect_used, reason = "nothing a client sends leads here")]
    pub fn impersonate(&self, victim: &FullJid) -> FullJid {
        self.0.hub.impostors.add(victim).expect("a resource with room for some letters")
    }

    /// Ends that, and the impostor's session. `false` if the client was not impersonated.
    pub fn end_impersonation(&self, victim: &FullJid) -> bool {
        let impostor = self.0.hub.impostors.remove(victim);
        if let Some(impostor) = &impostor {
            self.0.hub.forget(impostor);
        }
        impostor.is_some()
    }

    /// While `true`, new connections are closed at once, and logins under way fail. Those online stay.
    pub fn refuse(&self, refuse: bool) {
        self.0.hub.refuse(refuse);
    }

    /// Delays each stanza to and from a client, in order. It does not delay a login. A new delay counts for what is sent
    /// from then on, and nothing overtakes what was held back before.
    pub fn delay(&self, target: impl Into<Target>, to_client: Duration, from_client: Duration) {
        self.0.hub.links.set_delay(target.into(), to_client, from_client);
    }

    /// Limits the bytes per second to and from a client; `None` for no limit. What a client sends too fast waits in its
    /// own TCP buffer, as with Prosody and ejabberd. It does not slow down a login.
    pub fn rate_limit(&self, target: impl Into<Target>, to_client: Option<u64>, from_client: Option<u64>) {
        self.0.hub.links.set_rate(target.into(), to_client, from_client);
    }

    /// Lets a closure judge each stanza on its way to one addressee, after those that were added before. It also sees what
    /// the server would answer itself, and each copy of a presence broadcast; not what is injected, nor errors that the
    /// server makes. It runs on the sender's task and must not block; it may call this handle.
    pub fn intercept(&self, judge: impl FnMut(&Route, &Element) -> Verdict + Send + 'static) -> InterceptId {
        self.0.hub.intercepts.add(judge)
    }

    /// Takes one intercept away.
    pub fn remove_intercept(&self, id: InterceptId) {
        self.0.hub.intercepts.remove(id);
    }

    /// Takes all intercepts away.
    pub fn clear_intercepts(&self) {
        self.0.hub.intercepts.clear();
    }

    /// Puts a contact into an account's roster, with this subscription, or out of it with [`Subscription::Remove`]; those of
    /// its resources that are online are told by a roster push.
    pub fn set_contact(&self, account: &BareJid, contact: BareJid, subscription: Subscription) {
        let item = Item {
            jid: contact,
            name: None,
            subscription,
            ask: Ask::None,
            groups: Vec::new(),
            approved: None,
        };
        self.0.hub.set_contact(account.clone(), item.clone());
        route::push_roster(&self.0.hub, account, &item);
    }

    /// Sends a client a stanza as it is, `from` anybody; `false` if it is not online. To a bare JID: to each resource.
    pub fn inject(&self, to: &Jid, stanza: Element) -> bool {
        let resources = self.0.hub.resources(to);
        let mut delivered = false;
        for resource in resources {
            delivered |= route::inject(&self.0.hub, &resource, stanza.clone());
        }
        delivered
    }

    /// Sends a client bytes as they are, between two stanzas; `false` if it is not online. They are not recorded.
    pub fn inject_raw(&self, to: &FullJid, bytes: impl Into<Vec<u8>>) -> bool {
        self.0.hub.deliver_raw(to, bytes.into())
    }

    /// Every routed stanza, oldest first.
    #[must_use]
    pub fn record(&self) -> Vec<Recorded> {
        self.0.hub.with_record(|record| record.all())
    }

    /// What went between two accounts in either direction, one line a stanza, as [`Recorded`] displays itself.
    #[must_use]
    pub fn ladder(&self, one: &Jid, other: &Jid) -> Vec<String> {
        self.0.hub.with_record(|record| record.ladder(one, other))
    }

    /// Forgets what was recorded. Numbers go on, and answers to earlier requests are still named after them.
    pub fn clear_record(&self) {
        self.0.hub.with_record(Record::clear);
    }

    /// Everything recorded from now on, as it happens.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Recorded> {
        self.0.hub.watchers.subscribe()
    }
}

/// Takes connections until it is told to stop, or dropped; then it closes all of them.
async fn accept(hub: Arc<Hub>, listener: TcpListener, stop: Arc<Notify>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.notified() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((tcp, _)) => take(&hub, tcp, &mut connections),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

fn take(hub: &Arc<Hub>, tcp: TcpStream, connections: &mut JoinSet<()>) {
    if !hub.is_refusing() && connections.len() < MAX_CONNECTIONS {
        connections.spawn(serve(hub.clone(), tcp));
    }
}
