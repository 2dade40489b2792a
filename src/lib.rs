//! Direct, end-to-end encrypted XML streams between two XMPP entities, for tokio-xmpp bots.
//!
//! Two bots that are logged in to their servers open a stream of their own to each other
//! ([XEP-0247](https://xmpp.org/extensions/xep-0247.html), Jingle XML Streams) and exchange messages, presence and iqs on
//! it. Servers carry the negotiation, and where there is no direct way and no relay the encrypted bytes; what is said they
//! can't read.
//!
//! ```text
//!  stanza in ─► driver ─► wire ─► session ─► transport ─► security ─► stream ─► Endpoint (user API)
//!               tokio     XML     Jingle      S5B / IBB    XTLS        XMPP      connect / accept
//!               glue      types   states      bytes        TLS 1.3     stanzas   send / next
//! ```
//!
//! # An example
//!
//! ```no_run
//! # async fn example(jid: jid::Jid, password: String) -> Result<(), Box<dyn std::error::Error>> {
//! use futures::{SinkExt, StreamExt};
//! use jingle_xmlstream::{Config, Connector, Endpoint, Identity, KnownPeers};
//! use xmpp_parsers::stanza::Stanza;
//!
//! let identity = Identity::load_or_generate_for("bot.identity.pem", &jid.to_bare())?;
//! let config = Config::new(identity, KnownPeers::open("known-peers.toml")?);
//! let (endpoint, mut events) = Endpoint::login(jid, password, Connector::default(), config);
//!
//! // The rest of the bot is as before, with `events.next()` where it had `client.next()`.
//! tokio::spawn(async move {
//!     while let Some(event) = events.next().await {
//!         println!("{event:?}");
//!     }
//! });
//!
//! // Echo the messages that come on any stream.
//! while let Some(incoming) = endpoint.accept().await {
//!     println!("{} offers a stream", incoming.peer());
//!     let mut stream = incoming.accept().await?;
//!     while let Some(stanza) = stream.next().await {
//!         if let Stanza::Message(message) = stanza? {
//!             stream.send(message.into()).await?;
//!         }
//!     }
//!     stream.close().await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The other side calls [`Endpoint::connect`] and gets the same [`E2eStream`].
//!
//! # What it is not
//!
//! - No XMPP client: it runs on tokio-xmpp's session with the server, and hands on all that is not its own.
//! - No file transfer and no calls: the application is the XML stream. Other Jingle sessions can be left to the bot
//!   ([`Config::pass_foreign`]).
//! - No OMEMO: it protects a live connection between two devices that are online, not messages in a store.
//!
//! # Invariants
//!
//! 1. No [`E2eStream`] without a TLS 1.3 connection whose peer presented a certificate that [`Trust`] accepts and, with XTLS,
//!    that Jingle announced; unless the user said [`Dangerous::allow_plaintext`], or [`Dangerous::allow_tls12`].
//! 2. A session belongs to one full JID and one sid. Nobody else can change it, not even know that it exists.
//! 3. Stanzas are delivered under the addresses that Jingle fixed, whatever they claim.
//! 4. Whatever a peer or a server sends is bounded before it is kept; every bound is in [`Limits`], [`IbbConfig`],
//!    [`S5bConfig`] or a named constant.
//! 5. A slow consumer of one stream, or of the [`Events`], holds up nobody else.
//! 6. What is not delivered is reported: every operation that can't be completed ends in an [`Error`] that names whose fault
//!    it is.
//! 7. A peer is told no address of ours that [`Candidates`] keeps from it, and a responder's none before its user accepted.
//!    Whoever is connected to sees where the connection comes from.
//! 8. Nobody gets the place of a peer that is known or pinned by coming with another certificate, whatever else it can show;
//!    unless it has the key of the known one, or an authority, which answered for the known one too, answers for it.
//! 9. A stream that moves from one transport to another loses no byte and repeats none.
//! 10. Where both sides have stream management, the stanzas of a stream arrive in order and none arrives twice, however often
//!     the bytestream is lost; what is not known to have arrived comes back in [`Undelivered`] when the stream ends. Only the peer with
//!     the certificate that the stream began with can carry it on.
//!
//! The [`manual`] has the concepts, the threat model, and what was decided where the specifications contradict each other.
#![forbid(unsafe_code)]

mod config;
mod disco;
mod driver;
mod endpoint;
mod error;
#[cfg(any(test, feature = "internals"))]
#[doc(hidden)]
pub mod internals;
pub mod manual;
mod pauses;
mod reason;
pub mod security;
mod session;
pub mod stream;
mod transport;
mod wakers;
mod wire;

#[doc(inline)]
pub use crate::{
    config::{
        Callers, Candidates, Config, Dangerous, DiscoConfig, Encryption, IbbConfig, Limits, Proxies,
        S5bConfig, SmConfig, Start, Timeouts, Transports,
    },
    driver::{ByHand, Events},
    endpoint::{Connecting, Endpoint, Incoming},
    error::{
        ApiMisuse, Direction, Error, NotResumed, PeerIncompatible, PeerMisbehaved, SecurityError,
        SignallingError, Step, StreamFailure, Terminated, TransportError, Undelivered,
    },
    reason::Reason,
    security::{
        Authorities, Certificate, Fingerprint, Identity, KeyExchange, KeyPin, KnownPeers, Level, Peer,
        PeerEvent, PeerEvents, Question, Questions, Secret, TlsOptions, Trust, Verification,
        VerificationCode, WeakSecret,
    },
    stream::{
        Bytestream, E2eStream, Moves, Negotiated, Receipt, StreamEvent, StreamEvents, StreamInfo,
        StreamOptions, StreamReceiver, StreamSender,
    },
    transport::{CandidateType, TransportInfo},
};

#[cfg(feature = "connector")]
pub use crate::driver::{Connector, DangerousConnector, DepthGuarded, ServerSocket};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
