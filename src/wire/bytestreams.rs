//! What SOCKS5 bytestreams say to proxies (XEP-0065), and how proxies are found (XEP-0030).

use jid::{FullJid, Jid};
use xmpp_parsers::minidom::Element;

use super::jingle::Malformed;

/// Items of one disco#items answer that are looked at.
pub(crate) const MAX_ITEMS: usize = 64;
/// Streamhosts of one proxy that are looked at.
pub(crate) const MAX_STREAMHOSTS: usize = 8;

/// Where a proxy can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Streamhost {
    pub(crate) jid: Jid,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// `<query/>` that asks a proxy for its address (XEP-0065 #disco-address).
pub(crate) fn address_query() -> Element {
    unimplemented!()
}

/// Reads the answer.
pub(crate) fn parse_streamhosts(_query: &Element) -> Result<Vec<Streamhost>, Malformed> {
    unimplemented!()
}

/// `<query/>` that activates a bytestream at a proxy (XEP-0065 #mediated-proto-activate).
pub(crate) fn activate(_sid: &str, _target: &FullJid) -> Element {
    unimplemented!()
}

/// `<query/>` of disco#items.
pub(crate) fn items_query() -> Element {
    unimplemented!()
}

/// The JIDs in a disco#items answer, those with a node left out.
pub(crate) fn parse_items(_query: &Element) -> Result<Vec<Jid>, Malformed> {
    unimplemented!()
}

/// Whether a disco#info answer is that of a bytestreams proxy (XEP-0065 #disco-info).
pub(crate) fn is_proxy(_info: &Element) -> bool {
    unimplemented!()
}
