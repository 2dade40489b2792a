//! The manual: concepts, threat model, decisions, bounds.
//!
//! # Concepts
//!
//! An [`Endpoint`](crate::Endpoint) is one session with one server, plus any number of e2e streams. It comes into being in
//! one of three ways: [`login`](crate::Endpoint::login) makes a session of its own, [`attach`](crate::Endpoint::attach)
//! takes over a `tokio_xmpp::Client`, [`by_hand`](crate::Endpoint::by_hand) leaves the loop to the bot.
//!
//! A stream goes through phases, each a type of its own:
//!
//! ```text
//!   connect ─► Connecting ───────────────┐
//!                                        ├─► E2eStream ─ close ─► (over)
//!   accept ──► Incoming ─ accept ────────┘       │  ▲
//!                 └─ decline             finish  ▼  │ reopen
//!                                            Bytestream
//! ```
//!
//! What happens on the wire between them:
//!
//! ```text
//!   initiator                                                     responder
//!     │ disco#info, unless entity capabilities told already           │
//!     │ session-initiate: xmlstream, ibb, <security/> ──────────────► │ Incoming
//!     │ ◄────────────── session-accept: block-size, <security/>       │ accept
//!     │ security-info: x509 ────────────────────────────────────────► │
//!     │ <open/> ────────────────────────────────────────────────────► │
//!     │ ◄══════════════════ TLS 1.3, both certificates ═════════════► │
//!     │ <stream:stream> ════════════════════════════════════════════► │
//!     │ ◄══════════════════════ <stream:stream><stream:features/>     │
//!     │ ◄══════════════════════════ stanzas ════════════════════════► │
//!     │ </stream:stream> ═══════════════════════════════════════════► │
//!     │ ◄════════════════════════════════════════ </stream:stream>    │
//!     │ <close/>, session-terminate: success                          │
//! ```
//!
//! # Threat model
//!
//! The servers, and everybody between a bot and its server, may read, change, drop, repeat and invent every stanza. What they can
//! achieve is that there is no stream, or that it ends. They can't read what is said on it, nor change it unnoticed.
//!
//! The fingerprint in `<security/>` travels through the servers. It tells which certificate to expect, and a certificate
//! that differs is refused; but a server that replaces the fingerprint *and* answers the TLS handshake itself can only be
//! found out by something that it does not control. That is what [`Trust`](crate::Trust) is about:
//!
//! - [`Trust::pinned`](crate::Trust::pinned): the fingerprint came by another way. This proves the peer.
//! - [`Trust::first_use`](crate::Trust::first_use): the first certificate of a bare JID is believed, every other one is refused
//!   from then on. A server in the middle succeeds if it is there the first time and always; it can't come later. What was
//!   seen is remembered as long as the value lives.
//!
//! Where plaintext is allowed ([`Dangerous::allow_plaintext`](crate::Dangerous::allow_plaintext)), it is still never used with a peer
//! whose certificate is pinned or known from before: a server that strips the encryption from the negotiation gets nothing.
//!
//! What the peer is told when a session ends is what it did, never whom we trust.
//!
//! How a certificate was verified is in [`Negotiated::verification`](crate::Negotiated::verification).
//!
//! TLS is 1.3 only, with X25519MLKEM768 preferred, so that what is recorded today is safe from a quantum computer tomorrow. Session
//! resumption is off: it would skip the certificates. The responder demands a certificate of the initiator.
//!
//! Metadata is not protected: servers see who talks to whom, when, and how much.
//!
//! # Decisions
//!
//! Where specifications contradict each other or leave something open:
//!
//! | question | decision |
//! |---|---|
//! | namespaces | `urn:xmpp:jingle:1` and `…:transports:ibb:1`. `…:0` of both, as XEP-0247 prints them, are accepted and answered in kind |
//! | JIDs in the stream header | full (XEP-0247); bare ones (XEP-0246) and none are accepted |
//! | session-accept | repeats the initiator's `creator` and `name` |
//! | who opens the bytestream | the initiator, after the accept (XEP-0261); both directions start at seq 0 |
//! | white space in base64 | ignored, as the XEPs' own examples are wrapped; every other foreign character is refused (XEP-0047 #sec) |
//! | order of sequence numbers | modulo 65536; at 65535 a 0 is taken too, because one program counts modulo 65535 |
//! | roles in TLS | initiator is the client, responder the server |
//! | fingerprint | `<fingerprint algo='sha-256'>AB:CD:…</fingerprint>` over the certificate's DER; other spellings are understood |
//! | security-info | sent by the initiator, not waited for, not required |
//! | method `srp` | not offered: TLS 1.3 has no SRP |
//! | accept without `<security/>` | the session ends with `security-error` |
//! | end | `</stream:stream>` both ways, `<close/>`, session-terminate `success`; `item-not-found` in reply is fine |
//! | an offer that crosses ours | XEP-0166's tie-break; both users get the one session that is left |
//! | transport-replace | refused with transport-reject: there is one transport |
//! | content-modify to one direction | answered with a content-modify back to `both` |
//! | several contents in an offer | the first XML stream that can be accepted is; the others are removed with content-remove, but for its namesakes, which were alternatives |
//! | more sessions than the limits allow | acknowledged, then session-terminate `busy`, which says more than `resource-constraint` |
//! | an error in reply to a block | the bytestream fails: with several blocks in flight, sending one again would break their order (XEP-0047 #send suggests to) |
//! | JIDs of sessions | full on both sides; services without a resource are left out |
//! | dates in certificates | not checked: the pins and what was seen before decide, and self-signed certificates have nobody to renew them |
//! | `xml:lang` of the stream header | sent by the responder, as RFC 6120 §4.7.4 demands, and without effect on what stanzas say |
//! | stream features | none are needed; a peer that demands one (STARTTLS, SASL) is refused with `unsupported-feature` |
//!
//! # Addresses on the stream
//!
//! The two full JIDs are fixed by Jingle and proved by TLS. A stanza that claims to be from or for somebody else is delivered
//! under the true addresses, counted in [`E2eStream::violations`](crate::E2eStream::violations), and logged.
//!
//! # Iq requests
//!
//! Every request has to be answered (RFC 6120 §8.2.3). The stream answers XEP-0199 pings itself. What the bot has
//! not answered after [`Timeouts::iq_unanswered`](crate::Timeouts::iq_unanswered), or when the stream ends, is answered
//! `service-unavailable`.
//!
//! # Bounds
//!
//! What a peer can make us hold: [`Limits`](crate::Limits) and [`IbbConfig`](crate::IbbConfig) list it with defaults. How long it can
//! make us wait: [`Timeouts`](crate::Timeouts).
//!
//! Back-pressure goes all the way: a bot that does not call `next` fills the stream's inbox, then the stream stops reading, then
//! the bytestream holds back its acknowledgements, then the peer's window is used up, then the peer's `send` waits.
//!
//! # In-band bytestreams and servers
//!
//! A server's rate limit holds for the bytes of in-band bytestreams. With a default Prosody some 7 kB/s are left of its 10 kB/s for
//! payload, with a default ejabberd some 2 kB/s of 3 kB/s; and while a block is on its way, the bot's other stanzas wait behind
//! it. The window of 4 blocks of 4096 bytes is a compromise; [`IbbConfig`](crate::IbbConfig) has both.
