//! Every XML namespace and service discovery feature of the crate, in one place.

/// Client stanzas, and the default namespace of an e2e stream.
pub(crate) const CLIENT: &str = "jabber:client";
/// The namespace of `<stream:stream>` and its direct, non-stanza children.
pub(crate) const STREAMS: &str = "http://etherx.jabber.org/streams";

/// The roster (RFC 6121 §2).
pub(crate) const ROSTER: &str = "jabber:iq:roster";

/// Jingle (XEP-0166).
pub(crate) const JINGLE: &str = "urn:xmpp:jingle:1";
/// Jingle as XEP-0247's and jingle-xtls' printed examples spell it; accepted and answered in kind.
pub(crate) const JINGLE_0: &str = "urn:xmpp:jingle:0";
/// Jingle's application-specific error conditions (XEP-0166 #errors).
pub(crate) const JINGLE_ERRORS: &str = "urn:xmpp:jingle:errors:1";
/// The same as it goes with [`JINGLE_0`].
pub(crate) const JINGLE_ERRORS_0: &str = "urn:xmpp:jingle:errors:0";
/// The application format of this crate (XEP-0247).
pub(crate) const XMLSTREAM: &str = "urn:xmpp:jingle:apps:xmlstream:0";
/// In-band bytestreams as a Jingle transport (XEP-0261).
pub(crate) const JINGLE_IBB: &str = "urn:xmpp:jingle:transports:ibb:1";
/// The same as XEP-0247's printed examples spell it.
pub(crate) const JINGLE_IBB_0: &str = "urn:xmpp:jingle:transports:ibb:0";
/// SOCKS5 bytestreams as a Jingle transport (XEP-0260).
pub(crate) const JINGLE_S5B: &str = "urn:xmpp:jingle:transports:s5b:1";
/// XTLS, the security precondition (jingle-xtls).
pub(crate) const XTLS: &str = "urn:xmpp:jingle:security:xtls:0";

/// In-band bytestreams (XEP-0047).
pub(crate) const IBB: &str = "http://jabber.org/protocol/ibb";
/// SOCKS5 bytestreams (XEP-0065).
pub(crate) const BYTESTREAMS: &str = "http://jabber.org/protocol/bytestreams";
/// What there is at a server (XEP-0030).
pub(crate) const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// Service discovery (XEP-0030).
pub(crate) const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// Entity capabilities (XEP-0115).
pub(crate) const CAPS: &str = "http://jabber.org/protocol/caps";
/// Stream management (XEP-0198).
pub(crate) const SM: &str = "urn:xmpp:sm:3";
/// Marks a session whose XML stream carries on an earlier one; of this crate.
pub(crate) const RESUMPTION: &str = "https://crates.io/crates/jingle-xmlstream#resumption";
/// Says that its bearer takes data right behind `<open/>` and stanzas right behind a stream header; of this crate.
pub(crate) const EARLY_DATA: &str = "https://crates.io/crates/jingle-xmlstream#early-data";
/// XMPP ping (XEP-0199).
pub(crate) const PING: &str = "urn:xmpp:ping";

/// Certificates over the stream, as jingle-xtls #exchange prints it.
pub(crate) const PUBKEY_TMP: &str = "urn:xmpp:tmp:pubkey";
/// The same as XEP-0189 has it since its version 0.14.
pub(crate) const PUBKEY: &str = "urn:xmpp:pubkey:2";
/// What a verification code is made from; of this crate.
pub(crate) const VERIFICATION_CODE: &str = "https://crates.io/crates/jingle-xmlstream#verification-code";
