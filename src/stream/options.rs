//! What a stream is set up with, and what is known about it afterwards.

use std::{
    fmt, io,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use jid::Jid;
use xmpp_parsers::stanza::Stanza;

use super::{
    Carrier, Flow, Path,
    addressing::Introduction,
    e2e_peer::Remote,
    e2e_resume::Revival,
    machine::{
        Channel, Role,
        management::{Enable, Plan},
    },
    negotiation::{Agenda, Credentials, Footing},
};
use crate::{
    ApiMisuse, Error, Limits, Reason, SmConfig, Timeouts, TransportInfo,
    disco::EarlyData,
    error::copy,
    security::{Level, Standing, TlsInfo, TlsOptions, tls_io::Connection},
};

/// Settings for [`initiate`](super::initiate) and [`accept`](super::accept).
///
/// ```
/// use jingle_xmlstream::stream::StreamOptions;
///
/// # fn main() -> Result<(), jid::Error> {
/// let options = StreamOptions::new()
///     .local("romeo@montague.lit/orchard".parse()?)
///     .peer("juliet@capulet.lit/balcony".parse()?);
/// # let _ = options;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StreamOptions {
    pub(crate) local: Option<Jid>,
    pub(crate) peer: Option<Jid>,
    pub(crate) introduction: Introduction,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) negotiated: Option<Negotiated>,
    pub(crate) carrier: Option<Arc<dyn Carrier>>,
    pub(crate) map_io: fn(&io::Error) -> Error,
    pub(crate) protection: Protection,
    pub(crate) sm: SmConfig,
    pub(crate) revival: Revival,
    pub(crate) first: Option<FirstStanzas>,
}

/// What the user wants said as soon as that can be.
#[derive(Clone, Debug)]
pub(crate) struct FirstStanzas {
    pub(crate) stanzas: Arc<[Stanza]>,
    /// Whether the responder takes them before it has answered.
    pub(crate) responder: EarlyData,
}

impl FirstStanzas {
    pub(super) fn copies(&self) -> Vec<Stanza> {
        self.stanzas.iter().map(copy).collect()
    }
}

/// What protects a stream.
#[derive(Clone, Debug)]
pub(crate) enum Protection {
    /// Nothing, or what nobody here knows of.
    None,
    /// The bytestream is encrypted.
    Tls(Box<Established>),
    /// STARTTLS, before anything is said.
    Starttls(Box<TlsOptions>),
    /// It was encrypted, and the peer is who it should be: for another stream on the same bytestream.
    Settled(Arc<Remote>),
}

impl Protection {
    fn established(&self) -> Option<&Established> {
        match self {
            Self::Tls(established) => Some(established),
            Self::Settled(remote) => Some(remote.established()),
            Self::None | Self::Starttls(_) => None,
        }
    }

    /// Who the peer is, where that is settled.
    pub(super) fn settled(&self) -> Option<Arc<Remote>> {
        match self {
            Self::Settled(remote) => Some(Arc::clone(remote)),
            Self::None | Self::Tls(_) | Self::Starttls(_) => None,
        }
    }

    /// How the bytestream is encrypted, if TLS is up.
    pub(super) fn tls(&self) -> Option<&TlsInfo> {
        self.established().map(|established| &established.connection.tls)
    }

    /// What the machine needs to know of TLS, if it is up.
    pub(super) fn channel(&self) -> Option<Channel> {
        let Established { options, connection } = self.established()?;
        Some(Channel {
            code_key: connection.code_key.clone(),
            own: options.identity.certificate().clone(),
            peer: connection.presented.certificate().clone(),
        })
    }
}

/// TLS that is up.
#[derive(Clone, Debug)]
pub(crate) struct Established {
    pub(crate) options: TlsOptions,
    pub(crate) connection: Connection,
}

impl Established {
    fn agenda(&self, local: Option<&Jid>) -> Agenda {
        let presented = &self.connection.presented;
        let peer = presented.peer().clone();
        let footing = match presented.standing() {
            Standing::Accepted(verification) if verification.level() == Level::Verified => Footing::Verified,
            Standing::Accepted(_) | Standing::FirstUse | Standing::Unproven | Standing::ToBeAsked => {
                Footing::Unverified
            }
        };
        Agenda::Sasl(Box::new(Credentials {
            local: local.map(Jid::to_bare),
            secret: self.options.secret_of(&peer).cloned(),
            peer,
            footing,
            binding: self.connection.binding.clone(),
        }))
    }
}

impl StreamOptions {
    /// No addresses, the default deadlines and bounds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            local: None,
            peer: None,
            introduction: Introduction::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            negotiated: None,
            carrier: None,
            map_io: Error::io,
            protection: Protection::None,
            sm: SmConfig::default(),
            revival: Revival::None,
            first: None,
        }
    }

    /// Our address. A header to somebody else is refused with `host-unknown`.
    #[must_use]
    pub fn local(mut self, local: Jid) -> Self {
        self.local = Some(local);
        self
    }

    /// The peer's address. A header from somebody else is refused with `invalid-from`. Without it
    /// the address in the peer's header is believed.
    #[must_use]
    pub fn peer(mut self, peer: Jid) -> Self {
        self.peer = Some(peer);
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

    /// Replaces the settings of stream management. Without Jingle stanzas are acknowledged, and nothing is resumed.
    #[must_use]
    pub fn sm(mut self, sm: SmConfig) -> Self {
        self.sm = sm.bounded();
        self
    }

    /// What carries the stream on when its bytestream is lost.
    pub(crate) fn revival(mut self, revival: Revival) -> Self {
        self.revival = revival;
        self
    }

    /// What is to be said before the user has the stream.
    pub(crate) fn first(mut self, first: FirstStanzas) -> Self {
        self.first = Some(first);
        self
    }

    /// Encrypts the stream by STARTTLS before anything is said (XEP-0246 #encryption): the responder offers it as
    /// required, the initiator insists on it. Both authenticate each other as these options say.
    ///
    /// The responder learns from the initiator's header who to expect, unless [`peer`](Self::peer) says so; the initiator
    /// has to be told.
    #[must_use]
    pub fn starttls(mut self, options: TlsOptions) -> Self {
        self.protection = Protection::Starttls(Box::new(options));
        self
    }

    /// The bytestream is encrypted, and this is how.
    pub(crate) fn encrypted(mut self, established: Established) -> Self {
        self.protection = Protection::Tls(Box::new(established));
        self
    }

    /// How the bytestream came about, to be shown in [`StreamInfo`].
    pub(crate) fn negotiated(mut self, negotiated: Negotiated) -> Self {
        self.negotiated = Some(negotiated);
        self
    }

    /// The session that carries the bytestream and ends with it.
    pub(crate) fn carrier(mut self, carrier: Arc<dyn Carrier>) -> Self {
        self.carrier = Some(carrier);
        self
    }

    /// What the first XML stream is for.
    pub(super) fn agenda(&self, role: Role) -> Result<Agenda, Error> {
        match &self.protection {
            // A second stream on the same bytestream has it behind it.
            Protection::None | Protection::Settled(_) => Ok(Agenda::Nothing),
            Protection::Starttls(_) if role == Role::Initiator && self.peer.is_none() => {
                let text = "STARTTLS has to know who the peer is: set StreamOptions::peer";
                Err(ApiMisuse::Config(text.to_owned()).into())
            }
            Protection::Starttls(_) => Ok(Agenda::Starttls),
            Protection::Tls(established) => Ok(established.agenda(self.local.as_ref())),
        }
    }

    /// What a stream is to do about stream management. It can be carried on where TLS shows who the peer is.
    pub(super) fn management(&self, id: String) -> Plan {
        if !self.sm.enabled {
            return Plan::Off;
        }
        let is_encrypted = matches!(self.protection, Protection::Tls(_) | Protection::Settled(_));
        let is_resumable =
            is_encrypted && !matches!(self.revival, Revival::None) && self.sm.resumption > Duration::ZERO;
        Plan::Enable(Enable { id: is_resumable.then_some(id), config: self.sm })
    }

    /// How errors of the bytestream are to be understood.
    pub(crate) fn map_io(mut self, map_io: fn(&io::Error) -> Error) -> Self {
        self.map_io = map_io;
        self
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StreamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOptions")
            .field("local", &self.local)
            .field("peer", &self.peer)
            .field("timeouts", &self.timeouts)
            .field("limits", &self.limits)
            .field("negotiated", &self.negotiated)
            .finish_non_exhaustive()
    }
}

/// What is known about a stream.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Our address, if known.
    pub local: Option<Jid>,
    /// The peer's address: the one that was given or, without one, what the peer's header says.
    pub peer: Option<Jid>,
    /// The stream's id, which the responder chose (RFC 6120 §4.7.3).
    pub id: Option<String>,
    /// How the bytestream came about; `None` if Jingle had no part in it.
    pub negotiated: Option<Negotiated>,
    /// How it is encrypted; `None` if it is not.
    pub tls: Option<TlsInfo>,
}

/// How a bytestream came about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Negotiated {
    /// What the stream began on; what carries it now is [`E2eStream::transport`](crate::E2eStream::transport).
    pub transport: TransportInfo,
    /// Why SOCKS5 bytestreams were tried and did not come about, where in-band bytestreams took their place.
    pub fallback: Option<Error>,
}

impl Negotiated {
    pub(crate) fn on(transport: TransportInfo, fallback: Option<Error>) -> Self {
        Self { transport, fallback }
    }
}

/// Sees to it that a carrier is told of the end once, whatever happens.
pub(super) struct Session {
    carrier: Option<Arc<dyn Carrier>>,
    told: Told,
}

enum Told {
    NotYet,
    Ended,
}

impl Session {
    pub(super) fn new(carrier: Option<Arc<dyn Carrier>>) -> Self {
        Self { carrier, told: Told::NotYet }
    }

    pub(super) fn terminate(&mut self, reason: Reason, text: Option<String>) {
        if let (Told::NotYet, Some(carrier)) = (&self.told, &self.carrier) {
            carrier.terminate(reason, text);
        }
        self.told = Told::Ended;
    }

    pub(super) fn carrier(&self) -> Option<Weak<dyn Carrier>> {
        self.carrier.as_ref().map(Arc::downgrade)
    }

    pub(super) fn error(&self) -> Option<Error> {
        self.carrier.as_ref()?.error()
    }

    pub(super) fn path(&self) -> Path {
        match &self.carrier {
            Some(carrier) if carrier.is_relayed() => Path::Relayed,
            _ => Path::Direct,
        }
    }

    /// As [`Carrier::poll_flow`].
    pub(super) fn poll_flow(&self, cx: &Context<'_>, known: Flow) -> Poll<Flow> {
        match &self.carrier {
            Some(carrier) => carrier.poll_flow(cx, known),
            None => Poll::Pending,
        }
    }

    pub(super) fn transport(&self) -> Option<TransportInfo> {
        self.carrier.as_ref()?.transport()
    }

    /// Whether the bytes go past the servers.
    pub(super) fn is_on_socket(&self) -> bool {
        matches!(self.transport(), Some(TransportInfo::S5b { .. }))
    }

    pub(super) fn ended(&self) -> Option<BoxFuture<'static, ()>> {
        self.carrier.as_ref().map(|carrier| carrier.ended())
    }
}

/// Dropped without an end: its future was, or the runtime is shutting down.
impl Drop for Session {
    fn drop(&mut self) {
        self.terminate(Reason::Cancel, None);
    }
}
