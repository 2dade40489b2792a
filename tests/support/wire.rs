//! Namespaces, and stanzas as a server in the middle sees and changes them.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mock_server::{MockServer, Route, Verdict};
use xmpp_parsers::minidom::Element;

#[allow(unused_imports, reason = "each test uses a part of it")]
pub use xmpp_parsers::ns::{DISCO_INFO, IBB, JINGLE, JINGLE_IBB};

pub const XMLSTREAM: &str = "urn:xmpp:jingle:apps:xmlstream:0";
pub const XTLS: &str = "urn:xmpp:jingle:security:xtls:0";
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// The Jingle action of a request.
pub fn action(stanza: &Element) -> Option<&str> {
    stanza.get_child("jingle", JINGLE)?.attr("action")
}

/// The child of the one `<content/>` of a Jingle request.
pub fn content_child<'a>(stanza: &'a Element, name: &str, namespace: &str) -> Option<&'a Element> {
    stanza.get_child("jingle", JINGLE)?.get_child("content", JINGLE)?.get_child(name, namespace)
}

/// Whether it is an in-band bytestream request of this name.
pub fn is_ibb(stanza: &Element, name: &str) -> bool {
    stanza.has_child(name, IBB)
}

/// An intercept that changes the `<content/>` of a Jingle action.
pub fn alter_content(
    altered: &'static str,
    change: impl Fn(&mut Element) + Send + 'static,
) -> impl FnMut(&Route, &Element) -> Verdict + Send + 'static {
    move |_, stanza| {
        if action(stanza) != Some(altered) {
            return Verdict::Deliver;
        }
        let mut stanza = stanza.clone();
        let jingle = stanza.get_child_mut("jingle", JINGLE).unwrap();
        change(jingle.get_child_mut("content", JINGLE).unwrap());
        Verdict::Replace(stanza)
    }
}

/// An intercept that drops what the closure says, once and again.
pub fn drop_if(
    unwanted: impl Fn(&Element) -> bool + Send + 'static,
) -> impl FnMut(&Route, &Element) -> Verdict + Send + 'static {
    move |_, stanza| if unwanted(stanza) { Verdict::Drop } else { Verdict::Deliver }
}

/// An intercept that holds each first request of this Jingle action back until a second one is on its way too: whatever else
/// the machine is doing, they cross.
pub fn cross(crossed: &'static str) -> impl FnMut(&Route, &Element) -> Verdict + Send + 'static {
    let mut held = None;
    move |_, stanza| {
        if action(stanza) != Some(crossed) {
            return Verdict::Deliver;
        }
        match held.take() {
            Some(first) => Verdict::Also(vec![first]),
            None => {
                held = Some(stanza.clone());
                Verdict::Drop
            }
        }
    }
}

/// An intercept that takes a feature out of every answer to disco#info.
pub fn strip_feature(feature: &'static str) -> impl FnMut(&Route, &Element) -> Verdict + Send + 'static {
    move |_, stanza| {
        if stanza.attr("type") != Some("result") || !stanza.has_child("query", DISCO_INFO) {
            return Verdict::Deliver;
        }
        let mut stanza = stanza.clone();
        let query = stanza.get_child_mut("query", DISCO_INFO).unwrap();
        let mut kept = Element::bare("query", DISCO_INFO);
        for child in query.children().filter(|child| child.attr("var") != Some(feature)) {
            kept.append_child(child.clone());
        }
        *query = kept;
        Verdict::Replace(stanza)
    }
}

/// Collects all bytes of in-band bytestreams that pass from now on.
pub fn eavesdrop(server: &MockServer) -> Arc<Mutex<Vec<u8>>> {
    let overheard = Arc::new(Mutex::new(Vec::new()));
    let collected = overheard.clone();
    server.intercept(move |_, stanza| {
        if let Some(data) = stanza.get_child("data", IBB) {
            collected.lock().unwrap().extend(STANDARD.decode(data.text()).unwrap());
        }
        Verdict::Deliver
    });
    overheard
}
