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
//!     │ session-initiate: xmlstream, s5b: candidates, <security/> ──► │ Incoming
//!     │ ◄───────────────────── session-accept: candidates, <security/>│ accept
//!     │ security-info: x509 ────────────────────────────────────────► │
//!     │ ◄════════ TCP and SOCKS5, to each other's candidates ═══════► │
//!     │ transport-info: candidate-used ─────────────────────────────► │
//!     │ ◄───────────────────────────── transport-info: candidate-used │
//!     │ ◄══════════════════ TLS 1.3, both certificates ═════════════► │
//!     │ <stream:stream> ════════════════════════════════════════════► │
//!     │ ◄══════════════════════ <stream:stream><stream:features/>     │
//!     │ ◄══════════════════════════ stanzas ════════════════════════► │
//!     │ </stream:stream> ═══════════════════════════════════════════► │
//!     │ ◄════════════════════════════════════════ </stream:stream>    │
//!     │ session-terminate: success                                    │
//! ```
//!
//! # Transports
//!
//! SOCKS5 bytestreams (XEP-0260) are a TCP connection: from either side to the other, or from both to a proxy, which is a
//! relay (XEP-0065).
//! In-band bytestreams (XEP-0261) are stanzas through the servers, subject to their rate limits. What carries a stream is in
//! [`E2eStream::transport`](crate::E2eStream::transport).
//!
//! With the defaults, [`Transports::Auto`](crate::Transports::Auto) and [`Start::Best`](crate::Start::Best), the initiator
//! offers SOCKS5 to a peer that announces it. Each side connects to the other's candidates, by priority, 200 ms apart,
//! proxies later than addresses. It takes the first that works; of the two choices the one with the higher priority is
//! nominated. Where nothing works the initiator puts an in-band bytestream in its
//! place (transport-replace); where the peer can't do that, it ends the session and begins a new one, once, that offers nothing else.
//!
//! ```text
//!   initiator                                                     responder
//!     │ ◄─────────────────── candidate-error ───────────────────────► │
//!     │ transport-replace: ibb ─────────────────────────────────────► │
//!     │ ◄──────────────────────────── transport-accept: block-size    │
//!     │ <open/> ────────────────────────────────────────────────────► │
//! ```
//!
//! [`Start::Fast`](crate::Start::Fast) does not wait for connections: the stream begins in band and moves as soon as it can
//! ([`E2eStream::moves`](crate::E2eStream::moves)). The initiator asks for the move (transport-replace) when TLS has shown who the peer
//! is, and takes none from the peer before. Both sides connect as above while the stream goes on. Then each side closes the in-band bytestream with
//! `<close/>` behind the last byte that it put there, and goes on writing to the socket. A `<close/>`, or the answer to one,
//! comes when all that its sender had to send in band was acknowledged, so it also says where the other direction ends: from there on the reader reads the
//! socket. If the peer refuses, or nothing can be connected, nothing has happened to the in-band bytestream. One case is left:
//! somebody else who answers at an address that the peer named, or who knows the DST.ADDR and connects to our listener, can
//! make one side go over to a connection that the other one does not have. TLS takes nobody for the peer, so the stream ends.
//!
//! A side that has sent candidate-used or candidate-error for a move waits five minutes for the other one, which may have gone
//! over by then; or until that one shows that it has not: by another transport-replace, an error, or a connection that it closed.
//! A side that has sent neither can give up at any time, because there is no nomination without it.
//!
//! A stream on a socket outlives the session with the server, but not the proxy that it goes through. One whose socket breaks ends with an error: what was on
//! its way is lost.
//!
//! ## Who sees which address
//!
//! A candidate shows an address to the peer and to both servers; a connection shows one to whoever it is made to.
//! [`Candidates`](crate::Candidates) says what is offered and dialled. A responder's candidates are sent when its user has accepted. With
//! [`Candidates::ProxyOnly`](crate::Candidates::ProxyOnly) no own address is sent, and nothing but proxies is connected to; but what
//! is a proxy the peer says, so a peer that calls its own address a proxy sees where we come from. Only
//! [`Transports::Ibb`](crate::Transports::Ibb) shows nothing to anybody.
//!
//! A peer can make us open TCP connections to hosts and ports of its choice, 16 for each negotiation, of which a session has at most
//! two. A host name stands for one IPv4 and one IPv6 address; what speaks SOCKS5 there is asked up to three times. Anything else gets the three
//! bytes of a SOCKS5 greeting.
//! Loopback and link-local addresses are out of its reach unless [`S5bConfig::bind`](crate::S5bConfig::bind) lists such an
//! address, and so is a proxy there that the own server names. Addresses of the local network are not, because peers are there
//! too, nor is this machine under its own address, which a firewall may treat as local. A bot that must not be used for any of that
//! says [`Transports::Ibb`](crate::Transports::Ibb).
//!
//! The listener is there while a session needs it, and a minute longer. It lets in who asks for the DST.ADDR of such a session.
//! That is known to whoever has seen the negotiation, and to the hosts that are connected to for it: no secret, and no proof. Who
//! is there is shown by TLS; what others can achieve is that there is no SOCKS5 bytestream. Strangers cost at most 128 connections,
//! 10 s each.
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
//! - A pin ([`Trust::pin_for`](crate::Trust::pin_for)), or a fingerprint that the user put into
//!   [`KnownPeers`](crate::KnownPeers): it came by another way. This proves the peer.
//! - A shared secret ([`Config::secret_for`](crate::Config::secret_for)): each side proves to the other that it knows it, by SCRAM
//!   on the XML stream, with what the exporter of this TLS connection gives mixed in (RFC 9266). Whoever is in the middle has two TLS
//!   connections with two such values, so the proof of one is worth nothing on the other. Mechanisms without channel binding
//!   are neither offered nor accepted, and a peer that ought to offer one and does not is refused. A man in the
//!   middle gets one thing: a proof by which guesses can be checked at leisure, and so a
//!   [`Secret`](crate::Secret) has 60 bits at least.
//! - A code ([`E2eStream::verification_code`](crate::E2eStream::verification_code)) that people compare; see below.
//! - An authority ([`Trust::authorities`](crate::Trust::authorities)) that issued the certificate for this address. That one did
//!   is remembered: the peer is no stranger without it, to be believed at first use.
//! - The certificate that was there before. A server in the middle succeeds if it is there the first time and always; it can't come
//!   later.
//!
//! What is known of a peer goes before what an authority says of it, and a pin before that. A certificate that is
//! not the known one is refused under every policy, with a secret too: whoever gets hold of the secret later can't take the peer's place.
//!
//! When a certificate is written down: after the handshake has shown that the peer holds the key, the responder has
//! answered on the XML stream (in TLS 1.3 the initiator is through with the handshake before its own certificate was
//! looked at), and the secret, if there is one, was proved. What [`Config::require`](crate::Config::require) demands is checked then;
//! the bot gets no stream before.
//!
//! Names and dates in a certificate say what its holder wished to say. They are checked where they can only do harm by
//! being wrong: with an authority, and at first use, where a certificate that has expired or names another address is refused. A
//! pinned or known certificate is good whatever its dates say; to refuse it would only teach people to accept new ones.
//!
//! STARTTLS on the XML stream ([`Encryption`](crate::Encryption)) has no announced fingerprint. As the announcement proves nothing,
//! whom we trust is the same. Nothing that was said before TLS counts, and what was sent behind `<starttls/>` or `<proceed/>` in
//! the clear ends the stream.
//!
//! Where plaintext is allowed ([`Dangerous::allow_plaintext`](crate::Dangerous::allow_plaintext)), it is still never used with a peer
//! whose certificate is pinned or known from before, or that has a secret or a level to prove: a server that strips the encryption
//! from the negotiation gets nothing.
//!
//! What the peer is told when a session ends is what it did, never whom we trust.
//!
//! How a certificate was verified is in [`E2eStream::peer`](crate::E2eStream::peer).
//!
//! TLS is 1.3 only (1.2 is behind [`dangerous`](crate::Dangerous::allow_tls12)), with X25519MLKEM768 preferred, so that what is recorded today is safe from a quantum computer tomorrow. Session
//! resumption is off: it would skip the certificates. The responder demands a certificate of the initiator.
//!
//! Metadata is not protected: servers see who talks to whom, when, and how much.
//!
//! # Verification code
//!
//! Two people who can talk to each other by other means find out with twelve digits whether anybody is between their bots.
//! [`E2eStream::verification_code`](crate::E2eStream::verification_code) gives the code on both sides,
//! [`confirm_code`](crate::E2eStream::confirm_code) takes note that it is the same.
//!
//! Both ends of a TLS connection have a key K that nobody else has: 32 bytes of its exporter (RFC 8446 §7.5) with the label
//! `EXPERIMENTAL jingle-xmlstream verification code` and an empty context. Of that alone a code must not be made, as will be
//! seen. Each side adds a nonce of 32 random bytes, in iqs on the stream, in the namespace
//! `https://crates.io/crates/jingle-xmlstream#verification-code`; all bytes are in base64:
//!
//! ```text
//!   initiator                                                     responder
//!     │ ◄───────────────────────────────────────── get: <request/>    │ only if its user asks first
//!     │ set: <commitment>SHA-256(label ‖ Ni)</commitment> ──────────► │ stored
//!     │ ◄─────────────────────────────── result: <nonce>Nr</nonce>    │
//!     │ set: <reveal>Ni</reveal> ───────────────────────────────────► │ the hash is compared
//!     │ ◄────────────────────────────────────────────────── result    │
//! ```
//!
//! The label of the commitment is `jingle-xmlstream verification code commitment`. The code is 16 bytes of HKDF-SHA256 (RFC 5869) with
//! the input K, the salt Ni ‖ Nr, and as info the label `jingle-xmlstream verification code`, then the SHA-256
//! fingerprints of the initiator's certificate and of the responder's, 32 bytes each. These 16 bytes are a number, the most
//! significant one first; its last twelve decimal digits are shown as `1234 5678 9012`. That some codes
//! are thereby more likely than others by 1 in 2⁸⁸ is of no use to anybody. Vectors are in `fixtures/verification-code/`.
//!
//! Initiator and responder are those of the XML stream. The initiator commits itself, whoever asks, so that there is one exchange per stream and
//! both users see the same code. A second commitment, a reveal without one, and whatever else is out of turn is answered with
//! `not-allowed`; what can't be read with `bad-request`. After a reveal that does not fit, after a refusal, and after
//! [`Timeouts::iq`](crate::Timeouts::iq) without an answer, this stream has no code for good.
//!
//! Why the codes differ if somebody is in between:
//!
//! - He has one TLS connection with each side, and so two keys. If he passes on all that is said, everything but K is the
//!   same, or the fingerprints differ too; the codes are the same with a probability of 10⁻¹².
//! - He could make as many connections as he likes until two keys give the same code, were it made of K alone: a million on each
//!   side would do, and nobody would see the failures. With nonces he has to choose his own before he knows the other's. Towards the responder the
//!   commitment binds him; towards the initiator he has to name his before the initiator reveals. So he has one try for each pair of streams, and
//!   learns only afterwards whether it was one in a million millions. What he can do then is to let the stream end. Each
//!   further try is one more stream that at least one of the bots sees begin and end, and after a million of them he has a
//!   chance of one in a million.
//! - He can't send back to one side what it said itself: the roles are fixed, and the fingerprints are in the order of the
//!   roles.
//!
//! What people must do: compare all twelve digits, with the person they mean, over something where they know each
//! other and that whoever might be in between does not control: a telephone call with a voice that they know, or one table. A message that goes through
//! the same servers proves nothing. What the code does not show: that the bot at the other end is not run by somebody
//! else with the person's consent, or that its key will stay its own. A code holds for the stream on which it was shown; what
//! is remembered is the certificate, and on later streams that is enough.
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
//! | who opens the in-band bytestream | the sender of session-initiate or transport-replace, after the accept (XEP-0261); both directions start at seq 0 |
//! | the lowest preference | in-band bytestreams (XEP-0247 #impl-pref), unless the user says `Start::Fast`; `Transports::S5b` has none, against #impl-mti |
//! | white space in base64 | ignored, as the XEPs' own examples are wrapped; every other foreign character is refused (XEP-0047 #sec) |
//! | order of sequence numbers | modulo 65536; at 65535 a 0 is taken too, because one program counts modulo 65535 |
//! | roles in TLS | initiator is the client, responder the server |
//! | fingerprint | `<fingerprint algo='sha-256'>AB:CD:…</fingerprint>` over the certificate's DER; other spellings are understood |
//! | security-info | sent by the initiator, not waited for, not required |
//! | method `srp` | not offered: TLS 1.3 has no SRP. What it is for, a first contact with a shared secret, is done by SASL with channel binding, which the same draft names |
//! | SASL roles | the initiator of the stream is the client, the responder the server; the user name is the bare JID |
//! | SASL EXTERNAL | where SCRAM is offered and the certificates prove both sides already |
//! | channel binding | `tls-exporter` alone (RFC 9266). `tls-server-end-point`, which XEP-0440 #business-rules wants of every server, is neither offered nor taken: it binds to a certificate, and not to the connection. Where no bindings are listed, `tls-exporter` is tried |
//! | extensions of SCRAM messages | refused, and optional ones too, which RFC 5802 §5.1 has ignored: the library leaves them out of what both sides sign |
//! | a second try at SASL | none, where RFC 6120 §6.4.5 would have two to five: nobody types the secret |
//! | STARTTLS and SASL of the same stream | in this order, each on an XML stream of its own; the responder has to be told by the header who is calling, and no second header can say otherwise |
//! | a password asked of the user (`jingle-xtls` #proto) | secrets are set beforehand; a [`Question`](crate::security::Question) shows the fingerprint and the code instead |
//! | user certificates and PubSub nodes (`jingle-xtls` #exchange, #bootstrap-bot) | none: a bot has one certificate, and what is on a node the server can have written |
//! | revocation lists, OCSP | not asked (RFC 6120 §13.7.2 would); the user revokes in [`KnownPeers`](crate::KnownPeers) |
//! | a certificate that expires or is revoked under a stream that is up | the stream goes on, where RFC 6120 §13.7.2.3 would end it with `reset`; the next one is refused |
//! | issuers' `keyUsage`, and certificates with `CA:TRUE` | the first is not looked at, the second is refused with an authority only: peers' self-signed ones often have it (`jingle-xtls` #exchange prints one) |
//! | a certificate in `<pubkeys/>` | given on an encrypted e2e stream, in `urn:xmpp:tmp:pubkey` and `urn:xmpp:pubkey:2`; refused on the server's stream and on one in the clear |
//! | who may call | others get `service-unavailable`, as from a program without Jingle (XEP-0166 #protocol-response-errors, #security-dos) |
//! | accept without `<security/>` | the session ends with `security-error` |
//! | end | `</stream:stream>` both ways, `<close/>`, session-terminate `success`; `item-not-found` in reply is fine |
//! | an offer that crosses ours | XEP-0166's tie-break; both users get the one session that is left |
//! | transport-replace | from a transport that is not connected to in-band, and from in-band to SOCKS5; anything else is refused with transport-reject, and the fifth in one session |
//! | DST.ADDR of direct candidates | SHA-1 of sid, owner, other side; as listener both orders are taken, as the one who connects both are tried |
//! | priorities of candidates | odd local preferences for the initiator, even ones for the responder, so that ours are seldom equal to a peer's; if they are, what the initiator chose counts (XEP-0260 #complete) |
//! | an offer or accept without candidates | they may come by transport-info, which is what `Candidates::AfterAccept` does: the other side's notification is waited for, or 10 s. A peer that does not wait says candidate-error, and the stream goes in band |
//! | features | `…:transports:s5b:1` is announced without XEP-0065's own, because bytestreams that Jingle did not negotiate are refused; XEP-0047's is, as XEP-0261's example does |
//! | candidates of unknown types | ignored; one that can't be read makes the request a `bad-request` |
//! | what XEP-0260's activation example prints | the bytestream's sid in `<query/>`, where it prints the session's; sent by whoever offered the proxy |
//! | proxies that hold bytes back | Prosody 0.12's stops within a burst of more than 4096 bytes: white space behind it frees the rest |
//! | content-modify to one direction | answered with a content-modify back to `both` |
//! | several contents in an offer | the first XML stream that can be accepted is; the others are removed with content-remove, but for its namesakes, which were alternatives |
//! | more sessions than the limits allow | acknowledged, then session-terminate `busy`, which says more than `resource-constraint` |
//! | an error in reply to a block | the bytestream fails: with several blocks in flight, sending one again would break their order (XEP-0047 #send suggests to) |
//! | JIDs of sessions | full on both sides; services without a resource are left out |
//! | dates in certificates | count at first use and with an authority, not with pins and known peers |
//! | `xml:lang` of the stream header | sent by the responder, as RFC 6120 §4.7.4 demands, and without effect on what stanzas say |
//! | stream features | STARTTLS and SASL where they are set up; a peer that demands anything else is refused with `unsupported-feature` |
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
