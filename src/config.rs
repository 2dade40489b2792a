//! Settings, with safe defaults; what is not safe is behind [`Config::dangerous`].

mod callers;
mod sm;

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use jid::{BareJid, Jid};
use xmpp_parsers::disco::Identity as DiscoIdentity;

pub use self::{callers::Callers, sm::SmConfig};
use crate::security::{Identity, KeyExchange, Level, Secret, TlsOptions, Trust};

/// How an [`Endpoint`](crate::Endpoint) behaves: who it is, whom it trusts, how long it waits, how much it takes.
///
/// The defaults are safe: encryption is required, TLS 1.3 only, every input is bounded.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) tls: TlsOptions,
    pub(crate) encryption: Encryption,
    pub(crate) callers: Callers,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) transports: Transports,
    pub(crate) start: Start,
    pub(crate) sm: SmConfig,
    pub(crate) ibb: IbbConfig,
    pub(crate) s5b: S5bConfig,
    pub(crate) disco: DiscoConfig,
    pub(crate) pass_foreign: bool,
    pub(crate) allow_plaintext: bool,
}

impl Config {
    /// The default settings for this certificate and this trust policy.
    #[must_use]
    pub fn new(identity: Identity, trust: impl Into<Trust>) -> Self {
        Self {
            tls: TlsOptions::new(identity, trust),
            encryption: Encryption::default(),
            callers: Callers::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            transports: Transports::default(),
            start: Start::default(),
            sm: SmConfig::default(),
            ibb: IbbConfig::default(),
            s5b: S5bConfig::default(),
            disco: DiscoConfig::default(),
            pass_foreign: false,
            allow_plaintext: false,
        }
    }

    /// Who we are.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.tls.identity
    }

    /// How streams are encrypted. Default: [`Encryption::Xtls`].
    #[must_use]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = encryption;
        self
    }

    /// Who may open a session with us. Default: everybody.
    #[must_use]
    pub fn callers(mut self, callers: Callers) -> Self {
        self.callers = callers;
        self
    }

    /// A secret that every peer has to know whose certificate is not verified yet; see [`TlsOptions::secret`].
    #[must_use]
    pub fn secret(mut self, secret: Secret) -> Self {
        self.tls = self.tls.secret(secret);
        self
    }

    /// The secret that we share with this peer; see [`TlsOptions::secret_for`].
    #[must_use]
    pub fn secret_for(mut self, peer: BareJid, secret: Secret) -> Self {
        self.tls = self.tls.secret_for(peer, secret);
        self
    }

    /// What has to be shown about every peer; see [`TlsOptions::require`].
    #[must_use]
    pub fn require(mut self, level: Level) -> Self {
        self.tls = self.tls.require(level);
        self
    }

    /// What has to be shown about this peer; see [`TlsOptions::require_of`].
    #[must_use]
    pub fn require_of(mut self, peer: BareJid, level: Level) -> Self {
        self.tls = self.tls.require_of(peer, level);
        self
    }

    /// The key exchange groups, the preferred first; see [`TlsOptions::key_exchange`].
    #[must_use]
    pub fn key_exchange(mut self, groups: impl IntoIterator<Item = KeyExchange>) -> Self {
        self.tls = self.tls.key_exchange(groups);
        self
    }

    /// Replaces the deadlines.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts.bounded();
        self
    }

    /// Replaces the bounds.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Which transports may carry a stream.
    #[must_use]
    pub fn transports(mut self, transports: Transports) -> Self {
        self.transports = transports;
        self
    }

    /// What a stream that we initiate begins on.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Replaces the settings of SOCKS5 bytestreams.
    ///
    /// What can't be meant is logged at `warn`: an empty range of ports, on which nothing can listen, and external
    /// addresses without a fixed port, which are left out.
    #[must_use]
    pub fn s5b(mut self, s5b: S5bConfig) -> Self {
        self.s5b = s5b.bounded().consistent();
        self
    }

    /// Replaces the settings of stream management: acknowledgements, and streams that outlive their bytestream.
    #[must_use]
    pub fn sm(mut self, sm: SmConfig) -> Self {
        self.sm = sm.bounded();
        self
    }

    /// Replaces the settings of in-band bytestreams.
    #[must_use]
    pub fn ibb(mut self, ibb: IbbConfig) -> Self {
        self.ibb = ibb;
        self
    }

    /// Replaces what service discovery says about the bot, and who says it.
    #[must_use]
    pub fn disco(mut self, disco: DiscoConfig) -> Self {
        self.disco = disco;
        self
    }

    /// Hands Jingle sessions of other applications, and in-band bytestreams that no session of
    /// ours negotiated, to the bot as ordinary events instead of refusing them. Off by default;
    /// for a bot that does, say, file transfer with code of its own. Such a bot must answer them.
    #[must_use]
    pub fn pass_foreign(mut self, pass: bool) -> Self {
        self.pass_foreign = pass;
        self
    }

    /// The settings that give up security.
    pub fn dangerous(&mut self) -> Dangerous<'_> {
        Dangerous(self)
    }
}

/// Settings that give up security; see [`Config::dangerous`].
#[derive(Debug)]
pub struct Dangerous<'a>(&'a mut Config);

impl Dangerous<'_> {
    /// Goes on without encryption where the peer does not do XTLS.
    ///
    /// XTLS is still offered, and used with every peer that agrees to it. Where a session does run in plaintext, both
    /// servers and everybody between them can read and change every stanza, and it is logged at `warn`.
    ///
    /// With [`Encryption::XtlsOrStarttls`] and [`Encryption::Starttls`] it has no effect: where there is no XTLS, STARTTLS is
    /// required.
    ///
    /// A peer whose certificate is pinned, or was seen before ([`Trust`]), is not talked to in plaintext all the same: it
    /// does XTLS, and whoever says otherwise is in between. Nor is one that has something to prove, which it can't without
    /// encryption: where there is a secret for it, where a [`Level`] above [`Level::FirstUse`] is required of it, and where
    /// strangers are not simply believed.
    pub fn allow_plaintext(&mut self) -> &mut Self {
        tracing::warn!("plaintext e2e streams are allowed: servers can read and change what is said");
        self.0.allow_plaintext = true;
        self
    }

    /// Also speaks TLS 1.2, with peers that have nothing newer. It is logged at `warn`.
    ///
    /// There a certificate goes over the wire in the clear, and nothing protects against quantum computers to come.
    pub fn allow_tls12(&mut self) -> &mut Self {
        self.0.tls.allow_tls12();
        self
    }
}

/// How streams of an endpoint are encrypted.
///
/// Whom we trust, and what is refused, is the same for all. XTLS is offered in Jingle, where the servers can take it out of an
/// offer: with anything but [`Encryption::Xtls`], that leads to STARTTLS, with the same [`Trust`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encryption {
    /// By XTLS, before the XML stream: Jingle announces the certificates (`jingle-xtls`).
    #[default]
    Xtls,
    /// By XTLS with peers that have it, and with others by STARTTLS on the XML stream, which is required then (XEP-0246
    /// #encryption).
    ///
    /// An initiator offers XTLS to those that announce it, and goes on with STARTTLS if they accept without it.
    XtlsOrStarttls,
    /// By STARTTLS on the XML stream, where we are the initiator. Peers that offer us XTLS get it.
    Starttls,
}

/// How long each step may take. Every deadline that passes gives an
/// [`Error::Timeout`](crate::Error::Timeout) that names its step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the client-server session to come up before `connect` gives up. Default 30 s.
    pub online: Duration,
    /// For the peer's answer to disco#info. Default 15 s.
    pub disco: Duration,
    /// For the acknowledgement of a Jingle request. Default 30 s: a rate-limited server may hold it.
    pub jingle_ack: Duration,
    /// For the peer's session-accept; a person may have to decide. Default 120 s.
    pub accept: Duration,
    /// For our own user to accept or decline an [`Incoming`](crate::Incoming). Default 120 s.
    pub decision: Duration,
    /// From session-accept to an open bytestream. Default 30 s.
    pub transport: Duration,
    /// For the TLS handshake. Default 30 s.
    pub tls: Duration,
    /// For the peer's stream header, and what is negotiated behind it (STARTTLS, SASL). Default 30 s. Features that it may
    /// leave out are waited for 3 s of it.
    pub stream_header: Duration,
    /// For an acknowledgement, while blocks of in-band data wait for theirs; after that the peer is gone. Default 90 s:
    /// a rate-limited server delays a block by tens of seconds.
    pub block_ack: Duration,
    /// For the reply to an iq, on either stream. Default 60 s.
    pub iq: Duration,
    /// After this long the stream answers an incoming iq request with `service-unavailable` if the
    /// bot has not answered it (RFC 6120 §8.2.3). Default 20 s.
    pub iq_unanswered: Duration,
    /// Silence of our own after which a space is sent to keep the bytestream alive, and to show the peer that we are
    /// (RFC 6120 §4.6.1); zero for never. Default 30 s.
    pub keep_alive: Duration,
    /// For each side of an orderly close. Default 10 s.
    pub close: Duration,
    /// Silence of the peer after which it is asked whether it is there: for an acknowledgement if it has stream management
    /// (XEP-0198), and with a ping if not (XEP-0199); zero for never. Default 60 s.
    pub probe: Duration,
    /// For any sign of life after that; then the bytestream counts as lost. Default 60 s: a rate-limited server delays by tens
    /// of seconds. A peer whose bot is slow to receive still shows signs of life.
    pub silence: Duration,
}

/// Longer than any process lives, and short enough that the clock can count to its end: `Duration::MAX` from now can't be
/// named, and to try ends in a panic.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Timeouts {
    /// With deadlines that the clock can reach.
    pub(crate) fn bounded(mut self) -> Self {
        for timeout in [
            &mut self.online,
            &mut self.disco,
            &mut self.jingle_ack,
            &mut self.accept,
            &mut self.decision,
            &mut self.transport,
            &mut self.tls,
            &mut self.stream_header,
            &mut self.block_ack,
            &mut self.iq,
            &mut self.iq_unanswered,
            &mut self.keep_alive,
            &mut self.close,
            &mut self.probe,
            &mut self.silence,
        ] {
            *timeout = FOR_EVER.min(*timeout);
        }
        self
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            online: Duration::from_secs(30),
            disco: Duration::from_secs(15),
            jingle_ack: Duration::from_secs(30),
            accept: Duration::from_secs(120),
            decision: Duration::from_secs(120),
            transport: Duration::from_secs(30),
            tls: Duration::from_secs(30),
            stream_header: Duration::from_secs(30),
            block_ack: Duration::from_secs(90),
            iq: Duration::from_secs(60),
            iq_unanswered: Duration::from_secs(20),
            keep_alive: Duration::from_secs(30),
            close: Duration::from_secs(10),
            probe: Duration::from_secs(60),
            silence: Duration::from_secs(60),
        }
    }
}

/// How much a peer may make us hold. What goes beyond is refused, never silently dropped.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Sessions at the same time, in both directions together. More are answered `busy`, and so are those beyond half
    /// of it while the bot has not decided about that many: strangers can't keep it from starting its own. Default 256.
    pub sessions: usize,
    /// Incoming sessions at the same time from one bare JID. More are answered `busy`. Default 8.
    pub sessions_per_peer: usize,
    /// Size of one stanza on the e2e stream, in bytes of XML. Larger ones end the stream with
    /// `policy-violation`. Default 1 MiB.
    pub stanza_bytes: usize,
    /// Depth of element nesting in a stanza, the stanza itself being 1. Deeper ones end the stream
    /// with `policy-violation`. Default 128: parsers recurse, and a stack overflow ends the process.
    pub stanza_depth: usize,
    /// Stanzas' bytes that wait for the bot to call `next`; after that the stream stops reading, and
    /// the peer's sending slows down. While a bot that receives nothing waits to send, because of `unacked_stanzas` or
    /// `unacked_bytes`, it may be as much more as these two allow, twice: the acknowledgements come behind it. Default 1 MiB.
    pub inbox_bytes: usize,
    /// Bytes that wait to be written to the bytestream; after that `send` waits. Default 256 KiB.
    pub outbox_bytes: usize,
    /// Stanzas that were sent and that the peer has not acknowledged (XEP-0198); with so many, `send` waits. Default 4096.
    pub unacked_stanzas: usize,
    /// The same in bytes. Default 4 MiB.
    pub unacked_bytes: usize,
    /// Incoming iq requests that wait for the bot's answer; further ones are answered
    /// `resource-constraint`. Default 256.
    pub pending_requests: usize,
    /// Events that wait for the bot to call `Events::next`; after that nothing more is read from the
    /// server until it does. Default 4096.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 256,
            sessions_per_peer: 8,
            stanza_bytes: 1024 * 1024,
            stanza_depth: 128,
            inbox_bytes: 1024 * 1024,
            outbox_bytes: 256 * 1024,
            unacked_stanzas: 4096,
            unacked_bytes: 4 * 1024 * 1024,
            pending_requests: 256,
            events: 4096,
        }
    }
}

/// In-band bytestreams (XEP-0047, XEP-0261).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct IbbConfig {
    /// The largest block to offer or accept, in bytes before base64, 1 to 65535. Default 65535: how much of it is used,
    /// the path decides. A rate-limited server gets blocks of 2 or 4 KiB, a fast one such as fit its speed.
    ///
    /// A block of 65535 bytes is a stanza of 88 kB. RFC 6120 §13.12 lets a server refuse stanzas over 10,000 bytes, which ends the bot's session
    /// with it (`policy-violation`) and the stream on it, again and again where the stream is resumed in band. Prosody and
    /// ejabberd take 256 KiB as they come. Where the own server, or the peer's, is known to take less, this has to be less than
    /// three quarters of that: the limit is not announced, and nothing but the loss of the session would show it.
    pub block_size: u16,
    /// Bytes at most that wait for their acknowledgement, and at least one block. How many do is found out from the acknowledgements' delays, so this
    /// only matters where a path is both fast and long. Default 8 MiB, which is also what a larger number counts as: a
    /// receiver has to be ready for it.
    pub in_flight: usize,
    /// So many blocks in flight, all of `block_size`, whatever the path is like; for comparisons. At least 1, at most 1024
    /// and 8 MiB. Default none.
    pub fixed_window: Option<usize>,
    /// Received bytes that wait to be read before acknowledgements are held back. Default 256 KiB, four of the largest
    /// blocks. A peer that is held back may send 9 MiB beyond it, all of its window; one that sends more loses the stream.
    pub receive_buffer: usize,
    /// Received bytes of all in-band bytestreams together that wait to be read. Default 256 MiB, beside which each may keep
    /// `receive_buffer`. Above a quarter of that, no peer is acknowledged more than `receive_buffer` for a bot that does not read,
    /// so that those who wait too long give it up sooner ([`Timeouts::block_ack`]). With all of it taken, a bytestream that is behind
    /// by more than `receive_buffer`, and be it for a moment, loses the next block, and with that its stream, which can be resumed.
    pub receive_total: usize,
}

impl Default for IbbConfig {
    fn default() -> Self {
        Self {
            block_size: 65535,
            in_flight: 8 * 1024 * 1024,
            fixed_window: None,
            receive_buffer: 256 * 1024,
            receive_total: 256 * 1024 * 1024,
        }
    }
}

/// Which transports may carry a stream, as initiator and as responder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transports {
    /// SOCKS5 bytestreams where there is a way, in-band bytestreams where there is none.
    #[default]
    Auto,
    /// In-band bytestreams alone: no address of either side is shown to the other, and nothing is listened on.
    Ibb,
    /// SOCKS5 bytestreams alone: where there is no way, there is no stream, although XEP-0247 #impl-mti wants in-band
    /// bytestreams as a last resort.
    S5b,
}

/// What a stream begins on, where [`Transports::Auto`] allows both. It is the initiator's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// On the best transport that there is: connecting is waited for.
    #[default]
    Best,
    /// On in-band bytestreams at once, which XEP-0247 #impl-pref would have as the last. The live stream moves to SOCKS5 bytestreams as soon as those are connected; if they
    /// can't be, it stays where it is.
    Fast,
}

/// Which addresses are shown to a peer, and dialled for it (XEP-0260 #security-sharing).
///
/// [`S5bConfig::candidates`] is for all peers; [`Connecting::candidates`](crate::Connecting::candidates) and
/// [`Incoming::candidates`](crate::Incoming::candidates) are for one. Whoever is connected to sees where we come from, whatever was
/// offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Candidates {
    /// Own addresses, external ones and proxies. An initiator's are in its offer, so the peer sees them whether or not it
    /// accepts; a responder's are sent when its user has accepted, and without asking to the peer of a stream that is carried on.
    #[default]
    All,
    /// The same, but an initiator's are sent only when the peer has accepted.
    AfterAccept,
    /// Proxies alone are offered, and nothing but proxies is connected to.
    ProxyOnly,
    /// Nothing is offered. What the peer offers is connected to.
    None,
}

/// Where the proxies that we offer come from: the relays of SOCKS5 bytestreams (XEP-0065).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxies {
    /// The bot's server is asked for them by service discovery, when they are first needed and again after an hour.
    #[default]
    Discover,
    /// These, by their JIDs; none, if there are none. They are asked for their addresses.
    These(Vec<Jid>),
}

/// SOCKS5 bytestreams (XEP-0065, XEP-0260).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct S5bConfig {
    /// Which addresses are shown to peers, and dialled for them.
    pub candidates: Candidates,
    /// Addresses of this machine to listen on and to offer. Empty, the default, stands for all that are usable: no loopback and no
    /// link-local ones. Those are used where they are listed here, and only then are a peer's and a proxy's connected to.
    pub bind: Vec<IpAddr>,
    /// Ports to listen on; the first one that is free is taken. `0..=0`, the default, leaves it to the system.
    pub ports: RangeInclusive<u16>,
    /// Where the listener can be reached from outside, through a port-forward (`assisted` candidates). Ignored without
    /// fixed [`ports`](Self::ports). Offered while something listens.
    pub external: Vec<SocketAddr>,
    /// Proxies to offer.
    pub proxies: Proxies,
    /// For one connection to a peer's address, from TCP to the end of SOCKS5. Default 5 s.
    pub connect_timeout: Duration,
    /// The same for a proxy. Default 10 s.
    pub proxy_timeout: Duration,
}

impl S5bConfig {
    /// With deadlines that the clock can reach.
    fn bounded(mut self) -> Self {
        self.connect_timeout = FOR_EVER.min(self.connect_timeout);
        self.proxy_timeout = FOR_EVER.min(self.proxy_timeout);
        self
    }

    /// Without what others of its settings make senseless.
    fn consistent(mut self) -> Self {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        if self.ports.is_empty() {
            tracing::warn!("S5bConfig::ports is empty ({first}..={last}): there will be no listener");
        }
        // Port 0 is always free, so nothing behind it in the range is ever tried.
        if first == 0 && !self.external.is_empty() {
            tracing::warn!(
                external = ?self.external,
                "S5bConfig::external is ignored: no port-forward can lead to the port that the system chooses \
                 (S5bConfig::ports is {first}..={last})"
            );
            self.external.clear();
        }
        self
    }
}

impl Default for S5bConfig {
    fn default() -> Self {
        Self {
            candidates: Candidates::default(),
            bind: Vec::new(),
            ports: 0..=0,
            external: Vec::new(),
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(5),
            proxy_timeout: Duration::from_secs(10),
        }
    }
}

/// What disco#info says about the bot, and who answers it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiscoConfig {
    /// Whether the endpoint answers disco#info. If not, the bot gets the requests as events and must
    /// include [`Endpoint::features`](crate::Endpoint::features) in its answers. Default true.
    pub answer: bool,
    /// The bot's identities. Default: one, `client/bot`.
    pub identities: Vec<DiscoIdentity>,
    /// Features of the bot's own, added to those of the endpoint. Default none.
    pub features: Vec<String>,
    /// The `node` of entity capabilities (XEP-0115): a URI that names the software. Default: the
    /// crate's.
    pub node: String,
}

impl Default for DiscoConfig {
    fn default() -> Self {
        Self {
            answer: true,
            identities: vec![DiscoIdentity::new_anonymous::<_, _, String, String>("client", "bot")],
            features: Vec::new(),
            node: "https://crates.io/crates/jingle-xmlstream".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn configured(s5b: S5bConfig) -> S5bConfig {
        Config::new(Identity::generate().unwrap(), Trust::first_use()).s5b(s5b).s5b
    }

    #[test]
    fn no_time_for_connecting_is_longer_than_the_clock_can_count() {
        let ever = Duration::MAX;
        let s5b =
            configured(S5bConfig { connect_timeout: ever, proxy_timeout: ever, ..S5bConfig::default() });
        for timeout in [s5b.connect_timeout, s5b.proxy_timeout] {
            assert!(Instant::now().checked_add(timeout).is_some(), "{timeout:?}");
        }
    }

    #[test]
    fn an_external_address_needs_a_port_that_is_known_beforehand() {
        let external = vec![SocketAddr::from(([203, 0, 113, 7], 5000))];
        for (ports, kept) in [(0..=0, false), (0..=9, false), (5000..=5000, true), (5000..=5009, true)] {
            let s5b = configured(S5bConfig { external: external.clone(), ports, ..S5bConfig::default() });
            assert_eq!(s5b.external == external, kept, "{:?}", s5b.ports);
            assert!(kept || s5b.external.is_empty());
        }
    }
}
