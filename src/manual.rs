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
//! A stream on a socket outlives the session with the server. What becomes of one whose socket breaks, whose proxy goes away, or
//! that has no server to go through is in [Losing nothing](#losing-nothing).
//!
//! ## Who sees which address
//!
//! A candidate shows an address to the peer and to both servers; a connection shows one to whoever it is made to.
//! [`Candidates`](crate::Candidates) says what is offered and dialled. A responder's candidates are sent when its user has accepted. A session that carries on
//! a stream is accepted without asking, and before it is known who is there: whoever speaks for the account of that stream's peer, as its server can, is shown and
//! dialled what that peer was. It begins on the best transport under [`Start::Fast`](crate::Start::Fast), too. With
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
//! # Round trips
//!
//! How long a stream takes to come about, counted in R, a round trip between the bots through their servers. In band, with the
//! peer's presence known:
//!
//! ```text
//!   initiator                                                     responder        by the letter   early data
//!     │ session-initiate ───────────────────────────────────────────► │
//!     │ ◄────────────────────────────────────────────── session-accept│                    1           1
//!     │ security-info, <open/> ─────────────────────────────────────► │
//!     │ ◄────────────────────────────────────── the result of <open/> │                    2           –
//!     │ ClientHello ════════════════════════════════════════════════► │
//!     │ ◄════════════════════════ ServerHello, certificate, Finished  │                    3           2
//!     │ certificate, Finished, <stream:stream>, the first stanzas ══► │ they are there     3½          2½
//!     │ ◄══════════════════════ <stream:stream><stream:features/>     │ connect resolves   4           3
//! ```
//!
//! - No acknowledgement of a Jingle request is waited for. What belongs to one flight goes into one block, as far as it fits.
//! - Capabilities (XEP-0115) that are known, or that are our own, are not asked about; others take one R, once by program and
//!   version. Bots see them in each other's presence, which both have to send ([`Endpoint::send_presence`](crate::Endpoint::send_presence)).
//! - [`Connecting::first`](crate::Connecting::first) has stanzas sent with the stream header. Without it they wait for the stream, and come
//!   one R later. The responder has not judged our certificate by then, and may refuse us; then the stanzas come back. Nothing is sent like
//!   that to a peer that has to show more than its certificate, nor where we have a secret for it, nor before STARTTLS.
//! - [`Start::Fast`](crate::Start::Fast) takes no longer than in-band bytestreams alone: whatever is looked for goes beside or behind.
//!
//! XEP-0047 #send has data wait for the result of `<open/>`, and RFC 6120 §4.3.5 stanzas for the features. A program that announces the feature
//! `https://crates.io/crates/jingle-xmlstream#early-data` by disco#info, as this crate does, takes both earlier:
//!
//! - Blocks right behind the `<open/>` of an in-band bytestream that it has accepted by Jingle. A server keeps the order
//!   of stanzas between two full JIDs. If the `<open/>` is refused all the same, so are the blocks, and the bytestream has failed.
//! - Stanzas and `<enable/>` (XEP-0198) right behind the initiator's stream header. If it wants the initiator to authenticate (SASL), and
//!   does not insist on it, it drops them, and the initiator sends them again on the stream that follows; if it insists, the stream
//!   fails, unless there was no more than `<enable/>`, which it drops all the same. It answers `<enable/>` with `<enabled/>` or `<failed/>`.
//!
//! To others, nothing goes behind `<open/>`. The first stanzas do go behind the header, without `<enable/>`, though XEP-0246
//! #exchange would wait for the other header: who reads in order finds them behind the first all the same. They have no number then, and the first
//! acknowledgement shows that they arrived, because the peer has read past them. If such a peer wants anything negotiated first, the stream fails with
//! [`PeerIncompatible::MandatoryFeature`](crate::PeerIncompatible::MandatoryFeature): sending them again could deliver them twice.
//!
//! # Losing nothing
//!
//! With a peer that has it too, a stream counts its stanzas and acknowledges them (XEP-0198), and it outlives its bytestream.
//! [`SmConfig`](crate::SmConfig) has the settings. With a peer that does not announce `<sm xmlns='urn:xmpp:sm:3'/>` in its stream
//! features nothing is counted, and a stream ends with its bytestream.
//!
//! ## What is acknowledged, and when
//!
//! The initiator of the stream sends `<enable/>` right behind the features, and its stanzas behind that, so it costs no round trip. To a
//! peer that takes early data it sends it with its header, unless a secret has to be proved first, and the answer is there with the features.
//! A stanza counts as handled when the bot took it with `next`, or when the stream dealt with it by itself, as with pings and
//! replies to `send_iq`; and always as a prefix of what came: what is behind a message that the bot has not taken waits with
//! it. So an acknowledgement says that the bot has the stanza, not that it has done with it, and a bot that must not lose a
//! message to its own crash has to say so on a level above.
//!
//! - `send` resolves when the stanza is written. [`E2eStream::send_acked`](crate::E2eStream::send_acked) resolves when it is acknowledged,
//!   and [`send_with_receipt`](crate::E2eStream::send_with_receipt) gives a [`Receipt`](crate::Receipt) to wait for later.
//! - `<r/>` goes out after [`SmConfig::request_after`](crate::SmConfig::request_after) stanzas, or
//!   [`request_within`](crate::SmConfig::request_within) after the first that was not asked for; at once for a receipt, and when half of a limit is
//!   reached. It is answered at once with `<a/>`, which also comes unasked: after as many handled stanzas, when all is
//!   handled that was here when it was asked for, and before the footer. So a peer whose bot has a backlog acknowledges late.
//! - What is not acknowledged is kept: [`Limits::unacked_stanzas`](crate::Limits::unacked_stanzas) and
//!   [`unacked_bytes`](crate::Limits::unacked_bytes) bound it, and `send` waits beyond. A peer whose bot does not take what it gets is felt here.
//! - Numbers count modulo 2³². A peer that acknowledges more than was sent, or less than before, gets the stream error
//!   `undefined-condition` with `<handled-count-too-high/>`.
//! - A bot that has dropped its [`StreamReceiver`](crate::StreamReceiver) wants nothing more: what comes is dropped, and counts as handled.
//!
//! ## When the way is lost
//!
//! A socket that breaks, a proxy or server that goes away, an in-band block that is refused or not acknowledged, a peer that is
//! silent for too long, bytes that were changed on the way: in all these cases the stream is suspended.
//! [`E2eStream::events`](crate::E2eStream::events) says so with [`StreamEvent::Suspended`](crate::StreamEvent::Suspended), `send` waits, and time goes on for
//! `send_iq`. An in-band bytestream is suspended as soon as the session with the own server is gone; where that
//! is resumed (XEP-0198 between bot and server), the bytestream goes on as if nothing had been. A `tokio_xmpp::Client` does not tell
//! that it lost its connection: with [`attach`](crate::Endpoint::attach), and a bot's own loop around one, such a stream waits for its block to be acknowledged, and
//! is suspended when that takes too long, or when the next session with the server is a new one.
//!
//! What somebody meant ends the stream as ever: a footer, a stream error, a refusal by TLS or by trust, a session-terminate for any
//! other reason than `connectivity-error`, `failed-transport` or `timeout`.
//!
//! The initiator of the first session connects again; the responder waits. Whoever lost the bytestream ends its session with
//! `connectivity-error`, if that gets anywhere. Attempts are made at once, then after 100 ms, doubled each time up to 10 s, and each of these times is multiplied with a
//! random number between ½ and 1, so that many streams of one server that comes back don't all knock at once. A bytestream that breaks as soon as
//! it is there is waited for like an attempt that failed. Each attempt takes the best
//! transport that there is then, with in-band bytestreams last, as a first connection does.
//!
//! ```text
//!   initiator                                                     responder
//!     │ session-initiate: xmlstream, <resumption/>, … ──────────────► │ finds a stream of this account
//!     │ ◄───────────────────────────────────────────── session-accept │ its user is not asked
//!     │ ◄══════ TLS 1.3: the same two certificates as before ═══════► │
//!     │ <stream:stream> ════════════════════════════════════════════► │
//!     │ ◄══════════════════════ <stream:stream><stream:features><sm/> │
//!     │ <resume previd h/> ═════════════════════════════════════════► │
//!     │ ◄═════════════════════════════════════════ <resumed previd h/>│
//!     │ ◄═══════ what the other one has not handled, in order ══════► │
//! ```
//!
//! The element `<resumption xmlns='https://crates.io/crates/jingle-xmlstream#resumption'/>` in `<content/>` marks the session. It
//! is of this crate: XEP-0198 says how an XML stream is resumed, but XEP-0247 does not say how a session for that is told from one that a user has to answer. It
//! holds no secret; which stream is meant is said on the encrypted stream alone. A responder that has no stream of this bare JID to carry on
//! ends the session with `expired`. Whoever may not call ([`Callers`](crate::Callers)) gets what all others get that may not, and tries again until its time is up.
//!
//! Each side knows what the other one has handled, and sends the rest. Stanzas that had arrived and that the bot has not taken
//! come again; they are recognised by their number, and dropped. So every stanza arrives once, in order, however often this happens. The stream
//! is the same object, and says [`StreamEvent::Resumed`](crate::StreamEvent::Resumed).
//!
//! The responder may not have noticed a loss when the initiator resumes: the new connection takes over, and the old one is closed with
//! the stream error `conflict`. A bytestream is taken over once, and a stream is never on two of them. A request to resume that was long on its way and knows less than
//! the stream does by now is refused; if it knows as much, the initiator, which has given that bytestream up, gets the `conflict`, and connects again.
//!
//! ## When it can't be resumed
//!
//! Both sides say how long they wait ([`SmConfig::resumption`](crate::SmConfig::resumption)); the shorter time counts. After that, or when the peer says
//! `<failed/>` or `expired` because it has forgotten the stream, the stream ends with [`Error::NotResumed`](crate::Error::NotResumed), which has both
//! what was lost first and why the last attempt failed. What was sent and not acknowledged comes back, whatever ended the stream, in
//! [`Error::Undelivered`](crate::Error::Undelivered): the stanzas in the order in which they were sent, with the error in
//! [`cause`](crate::Undelivered::cause). The last of them may have arrived all the same, because their acknowledgement can be what was lost. An
//! open `send_iq`, and whoever waits for a receipt, fails with the same error.
//!
//! With [`SmConfig::renew`](crate::SmConfig::renew), an initiator whose peer has forgotten the stream, as after a restart of its bot, goes on with a new one under
//! the same object. [`StreamEvent::Renewed`](crate::StreamEvent::Renewed) hands back what was not delivered, and nothing is sent again by itself. Where
//! nobody looks at the events, there is no new stream. A `send` that waits goes out on the new stream once the event was taken.
//!
//! A responder waits for as long as it said. That its peer has come back with another stream does not end the one that waits.
//!
//! ## Without the server
//!
//! A direct stream neither notices nor cares that the bot's session with the server ends. When that session is there again, under whatever
//! resource, peers have to find each other before anything can be resumed. A bot sends directed presence (RFC 6121 §4.6)
//! to the peer of a stream that is suspended, then and whenever it has a new full JID, and answers the peer's; it looks for the peer first where it was last, then wherever
//! presence has shown it since. This presence says that the bot is available, and no more; nothing takes it back, so the peer's account also sees when that session ends. A peer
//! that gets the same resource again needs none of that. Bots that are in each other's roster and send presence after each
//! [`Online`](tokio_xmpp::Event::Online) that is not `resumed` learn it that way, too.
//!
//! ## Silence
//!
//! A TCP connection whose other end is gone without a word looks like one to a silent peer. After
//! [`Timeouts::probe`](crate::Timeouts::probe) without a sign of life the peer is asked for one: by `<r/>`, or with a ping (XEP-0199) where it has no
//! stream management. After [`Timeouts::silence`](crate::Timeouts::silence) more the bytestream counts as lost. Any byte is a sign of life, and so is
//! a write that was stuck and goes on. While the stream does not read, because its own bot takes nothing, the clock stands still.
//! A peer that is slow is not killed by it: it sends a space after [`Timeouts::keep_alive`](crate::Timeouts::keep_alive) of silence of its own, whatever its bot
//! does. Keep that time of the one side below `probe` plus `silence` of the other.
//!
//! ## The end
//!
//! `close` asks for what is missing, acknowledges what was handled, and sends the footer, all at once; then acknowledgements are taken until
//! the peer's footer, for [`Timeouts::close`](crate::Timeouts::close), which each acknowledgement that makes progress renews. What is still not acknowledged comes back in
//! [`Error::Undelivered`](crate::Error::Undelivered) without a cause: the stream was closed in good order, and this did not arrive as far as we
//! know. A stream that is suspended is looked after until the same deadline; and one that loses its bytestream again and again while it closes, five times
//! without another acknowledgement.
//!
//! - Whoever is closed upon takes responsibility for what is in its inbox: it counts as handled, so that the other one does not wait for a slow bot.
//!   `next` still gives it.
//! - Whoever lets go of a stream with an unread inbox has not handled that, and the peer gets it back. Whoever closes the sink and goes on receiving takes
//!   responsibility for what is there; what comes behind the own footer can't be acknowledged any more, and comes back to the peer though it was received.
//! - [`Endpoint::close`](crate::Endpoint::close) closes all streams like that, but gives all of them together no more than one such time, however well
//!   they get on. Dropping the last handle of a stream does the same in the background, where
//!   nobody is left to be told.
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
//! A stream that outlives its bytestream is open to nobody else. Over a new one, TLS comes first, and both sides compare the
//! certificate with the one that the stream began with: no other is taken, not even one that a secret, a pin or an authority would let in
//! for a new stream. The name of the stream has 128 random bits or more, is said on the encrypted stream alone, and
//! is good only for this certificate and this account. Servers can do to a suspended stream what they can do to any: keep it from going on until its time is up,
//! and then its stanzas come back to their senders. They learn from `<resumption/>` that a session carries on a stream, and from directed presence
//! that two bots look for each other, neither of which is news to them. Who invents such sessions, or presence of a peer, makes us try a TLS handshake that fails;
//! how many there may be at once is bounded like all sessions. A server that drops or changes bytes can suspend a stream as often as it
//! likes, and can't make it lose, repeat or reorder a stanza.
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
//! | an offer that crosses ours | XEP-0166's tie-break; both users get the one session that is left. Sessions that carry on a stream are never tied |
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
//! | an error in reply to a block | the bytestream fails: with several blocks in flight, sending one again would break their order. Of what XEP-0047 #send suggests, the second is done: the stream goes on over another session |
//! | a peer that seems to have gone (XEP-0166 #session-terminate) | unavailable presence and ten silent seconds end what goes through the server: with `connectivity-error` and not `gone`, because a peer that is there after all may carry on its stream |
//! | JIDs of sessions | full on both sides; services without a resource are left out |
//! | XEP-0198's client and server | the initiator of the first session, which also initiates all that carry the stream on; and the responder |
//! | stanzas before the responder's features | only those of [`Connecting::first`](crate::Connecting::first), see [Round trips](#round-trips); a responder takes them from everybody |
//! | `<enable/>` before `<enabled/>` came | stanzas follow at once. What the responder sent before `<enabled/>` has no number; the peer's first acknowledgement shows that it arrived |
//! | what is handled (XEP-0198 #acking) | what was taken by the bot, where others count what they have received: what lies in an inbox can be lost with its process |
//! | the SM-ID after a resumption | stays the same, as XEP-0198 #resumption has it |
//! | resumption on streams without encryption, or made with `stream::initiate` and `accept` | none: there is nobody to be recognised by, or no way to connect again; acknowledgements work there, too |
//! | `<resume/>` on a session without the mark | `<failed/>` with `item-not-found`, and the session goes on as a new stream |
//! | `<resume/>` of a stream that is not known | `<failed/>` and the end of that stream, where XEP-0198 #resumption would go on with a new one: nobody was asked about it |
//! | the `h` of `<failed/>` | neither sent nor used: who has forgotten a stream has forgotten its count |
//! | the `location` of `<enabled/>` | neither sent nor used: Jingle finds the way |
//! | resumption of TLS with that of the stream (XEP-0198 #resumption recommends it) | none: it would skip the certificates |
//! | delay elements on what is sent again (XEP-0198 #acking) | none when a stream is carried on: the peer gets what was sent. What came back to the bot is the bot's to mark |
//! | stream management that can't be read | a stream error, as for misuse, where XEP-0198 #errors has `<failed/>` for `<enable/>` and `<resume/>` |
//! | a stream that could be carried on, and is given up | its session ends with `gone`, where the reason would be one after which the peer waits: a close that took too long, say |
//! | a second `<enable/>` | `<failed/>`, as XEP-0198 #enable prints, and the stream error that it asks for |
//! | dates in certificates | count at first use and with an authority, not with pins and known peers |
//! | `xml:lang` of the stream header | sent by the responder, as RFC 6120 §4.7.4 demands, and without effect on what stanzas say |
//! | stream features | STARTTLS and SASL where they are set up; a peer that demands anything else is refused with `unsupported-feature` |
//!
//! # Addresses on the stream
//!
//! The two full JIDs are fixed by Jingle and proved by TLS. They are those that the stream began with, also when it is carried on
//! with a peer, or from a bot, that has another resource by then. A stanza that claims to be from or for somebody else is delivered
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
//! it.
//!
//! How many blocks are in flight, and how large they are, is found out from how long their acknowledgements take. Nothing else
//! tells: a server that limits a rate reads more slowly, and what it has not read waits in its socket. Over a fast server the
//! stream begins with two blocks of 2 KiB, and has within some ten round trips as much in flight as the path holds, at most
//! [`IbbConfig::in_flight`](crate::IbbConfig::in_flight), in blocks of at most
//! [`IbbConfig::block_size`](crate::IbbConfig::block_size). Behind a slow one it stays at two blocks of 2 KiB, and tries one
//! of 4096 bytes alone, which is what other programs have in flight. Where that carries as much, as it does behind a rate limit, it
//! stays with it, and compares the two again: through a default Prosody after 22 s at first, and every minute and a half later. So
//! another stanza of the bot waits as long as with other programs, but for the beginning: in the first 40 s of a stream through a
//! default Prosody 0.29 s on average, in place of 0.27. Two streams through the same server share it, neither with less than half of
//! what the other one has; one that comes late may wait some minutes for that where a path is long and the server is not fast.
//!
//! A receiver whose bot does not read holds its acknowledgements back. It may be sent [`IbbConfig::receive_buffer`](crate::IbbConfig::receive_buffer)
//! and some 9 MiB: 8 MiB that a peer of this kind may have in flight, and 1 MiB that is acknowledged bit by bit, every half
//! minute, so that the peer does not take the bot for dead. It is kept until it is read. All in-band bytestreams of an endpoint together
//! keep [`IbbConfig::receive_total`](crate::IbbConfig::receive_total), 256 MiB: above a quarter of that, what is beyond the receive
//! buffers is not acknowledged any more, and with all of it taken, a bytestream whose reader is behind by more than its receive
//! buffer ends with the next block. What the bot does read is acknowledged all the same. The ids of the blocks' stanzas come on top.
//!
//! Goodput and what others wait for, in the simulation that the window is tested in (`cargo run --release -p bench -- simulate`), with the
//! window of this crate and with fixed ones, in blocks × bytes:
//!
#![doc = include_str!("manual/ibb-window.svg")]
//!
//! And what was measured with a Prosody as Debian installs it, with one and with 16 fixed blocks (`cargo run --release -p bench -- run
//! --only limited-prosody --plots src/manual`):
//!
#![doc = include_str!("manual/latency-under-load.svg")]
//!
//! # Many streams
//!
//! Beside its own, an endpoint has one task for each stream that is open, which sleeps while nothing happens, and none for
//! timers. Memory of both ends of so many streams over SOCKS5 in one process (`cargo run --release -p bench -- run --only scale --plots src/manual`):
//!
#![doc = include_str!("manual/memory-by-streams.svg")]
