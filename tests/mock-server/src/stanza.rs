//! Small helpers on stanzas kept as XML trees.

use rxml::{Namespace, NcName, xml_ncname};
use xmpp_parsers::{jid::Jid, minidom::Element, ns, stanza_error::StanzaError};

/// The addressing attributes the server sets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attribute {
    From,
    To,
    Id,
    Type,
}

impl Attribute {
    fn name(self) -> NcName {
        match self {
            Self::From => xml_ncname!("from").to_owned(),
            Self::To => xml_ncname!("to").to_owned(),
            Self::Id => xml_ncname!("id").to_owned(),
            Self::Type => xml_ncname!("type").to_owned(),
        }
    }
}

/// Sets an attribute, replacing what was there.
pub(crate) fn set(stanza: &mut Element, attribute: Attribute, value: impl Into<String>) {
    stanza.attrs_mut().insert(Namespace::NONE, attribute.name(), value.into());
}

/// An error or a result: nothing may answer it (RFC 6120, 8.3.1).
pub(crate) fn is_answer(stanza: &Element) -> bool {
    match stanza.attr("type") {
        Some("error") => true,
        Some("result") => stanza.name() == "iq",
        _ => false,
    }
}

/// Makes `reply` the answer to `request`: its id, its addresses exchanged, and `type='result'` unless it has a type.
pub(crate) fn address_reply(request: &Element, from: &Jid, to: &Jid, mut reply: Element) -> Element {
    if let Some(id) = request.attr("id") {
        set(&mut reply, Attribute::Id, id);
    }
    if reply.name() == "iq" && reply.attr("type").is_none() {
        set(&mut reply, Attribute::Type, "result");
    }
    set(&mut reply, Attribute::From, from.as_str());
    set(&mut reply, Attribute::To, to.as_str());
    reply
}

/// An empty result of `request`.
pub(crate) fn result() -> Element {
    Element::bare("iq", ns::JABBER_CLIENT)
}

/// The error stanza that answers `request`, of the same kind.
pub(crate) fn error(request: &Element, from: &Jid, to: &Jid, error: StanzaError) -> Element {
    let mut bounce = Element::bare(request.name(), ns::JABBER_CLIENT);
    set(&mut bounce, Attribute::Type, "error");
    bounce.append_child(error.into());
    address_reply(request, from, to, bounce)
}

/// The stanza's bytes; `None` if it holds what XML cannot (only a test can make such a tree).
pub(crate) fn to_bytes(stanza: &Element) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    stanza.write_to(&mut bytes).ok()?;
    Some(bytes)
}
