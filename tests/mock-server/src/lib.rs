//! A loopback XMPP server for tests: it logs clients in, routes by full JID, misbehaves on demand, and records what it
//! routed.
//!
//! It is no server for real use: every account on every domain exists, all with the password [`PASSWORD`]; there is no
//! storage and no federation (all domains live on the one server).
//!
//! ```no_run
//! use mock_server::{MockServer, Verdict};
//! use std::time::Duration;
//!
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let server = MockServer::start().await;
//! let juliet: xmpp_parsers::jid::FullJid = "juliet@capulet.lit/balcony".parse()?;
//! // … point a client at server.addr(), as juliet@capulet.lit/balcony with the password "secret" …
//! server.wait_online(&juliet).await;
//!
//! // Lose every second message to Juliet.
//! let mut count = 0;
//! server.intercept(move |route, stanza| {
//!     if stanza.name() != "message" || route.to.node().is_none_or(|node| node.as_str() != "juliet") {
//!         return Verdict::Deliver;
//!     }
//!     count += 1;
//!     if count % 2 == 0 { Verdict::Drop } else { Verdict::Deliver }
//! });
//! server.delay(&juliet, Duration::from_millis(50), Duration::ZERO);
//!
//! // romeo@montague.lit/orchard -> juliet@capulet.lit/balcony  message chat [dropped]
//! for line in server.ladder(&"romeo@montague.lit".parse()?, &juliet) {
//!     println!("{line}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! * Login by SCRAM-SHA-256, SCRAM-SHA-1 or PLAIN, in plaintext or behind a required STARTTLS; resource binding, where a
//!   second login with the same full JID ends the first one's stream with `conflict`.
//! * On demand, stream management (XEP-0198): a client that was cut resumes its session, and gets what it missed
//!   ([`Builder::stream_management`]).
//! * Outages: a client's connection is cut ([`MockServer::cut`], [`Verdict::CutAfter`]) or passes nothing any more
//!   ([`MockServer::black_hole`]), and the server dies and comes back ([`MockServer::kill`], [`MockServer::restart`]).
//! * Stanzas in order, `from` stamped with the sender's full JID. For an absent full JID: `service-unavailable` to iq and
//!   message. A message to a bare JID goes to all of its resources.
//! * Presence without an addressee goes to everybody online, whoever subscribes to whom, and a newcomer gets theirs.
//! * It answers pings and service discovery for its domains and accounts. A roster has the contacts that the test puts there
//!   ([`MockServer::set_contact`]), which all of the account's resources are told by a push; it can't be changed by a client,
//!   and has no part in who gets whose presence.
//! * On demand, a SOCKS5 proxy for bytestreams (XEP-0065) for each domain, as Prosody's mod_proxy65 is one, stalls and
//!   all ([`MockServer::enable_proxy65`]).
//! * On demand, it lets somebody else answer and speak in a client's name, apart from the client itself
//!   ([`MockServer::impersonate`]).
//! * A stanza over 262,144 bytes ends its sender's stream with `policy-violation`.
//!
//! # How it is built
//!
//! One task for each connection ([`session`]): bytes are parsed ([`xml`]), held back by a slow link ([`link`]), routed
//! ([`route`]) past the test's intercepts ([`intercept`]) and impostors ([`impostor`]) into the queue of another connection ([`hub`]), and recorded
//! under a name ([`record`], [`name`]). A session may outlive its connection ([`management`]). The SOCKS5 proxy is apart: its address ([`bytestreams`]), its task ([`proxy65`]),
//! and the bytes of its connections ([`socks5`], [`mod@relay`]). Only the hub is shared, behind one lock that is held for the length of a map lookup.
#![allow(rustdoc::private_intra_doc_links, reason = "the map above is for those who change this crate")]

mod bytestreams;
mod connection;
mod ending;
mod hub;
mod impostor;
mod intercept;
mod link;
mod login;
mod management;
mod name;
mod proxy65;
mod record;
mod relay;
mod route;
mod sasl;
mod server;
mod service;
mod session;
mod socks5;
mod stanza;
mod tls;
mod xml;

pub use crate::{
    intercept::{InterceptId, Route, Verdict},
    link::Target,
    proxy65::Proxy65,
    record::{Outcome, Recorded},
    server::{Builder, MockServer},
};

/// The password of every account.
pub const PASSWORD: &str = "secret";
