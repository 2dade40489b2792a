//! The responder's stream features (RFC 6120 §4.3.2), as the initiator reads them.

use xmpp_parsers::{minidom::Element, ns};

use crate::{security::sasl::TLS_EXPORTER, wire::ns as namespaces};

/// What has to be negotiated though nothing in it says so.
const ALWAYS: [(&str, &str); 3] = [
    // RFC 6120 §6.3.1
    ("mechanisms", ns::SASL),
    // XEP-0388: what comes after SASL.
    ("authentication", ns::SASL2),
    // RFC 6120 §7.3.1
    ("bind", ns::BIND),
];

/// Of what a peer offers, so many words are shown in an error, of so many characters each. The longest name of a SASL
/// mechanism has 20.
const WORDS: usize = 12;
const WORD: usize = 40;

/// The name of a feature without which no stanza may be sent; `None` if all of them are voluntary.
pub(super) fn mandatory(features: &Element) -> Option<&str> {
    find_mandatory(features, |feature| !is_void(feature))
}

/// The same for who is about to do SASL, of either kind.
pub(super) fn mandatory_besides_sasl(features: &Element) -> Option<&str> {
    find_mandatory(features, |feature| !feature.has_ns(ns::SASL) && !feature.has_ns(ns::SASL2))
}

fn find_mandatory(features: &Element, counts: impl Fn(&Element) -> bool) -> Option<&str> {
    let is_only = features.children().count() == 1;
    let is_mandatory = |feature: &&Element| {
        ALWAYS.iter().any(|(name, namespace)| feature.is(name, *namespace))
            || feature.has_child("required", feature.ns().as_str())
            // RFC 6120 §5.3.1
            || (is_only && feature.is("starttls", ns::TLS))
    };
    features.children().filter(|feature| counts(feature)).find(is_mandatory).map(Element::name)
}

/// Whether stanzas may be acknowledged (XEP-0198 #feature).
pub(super) fn has_management(features: &Element) -> bool {
    features.has_child("sm", namespaces::SM)
}

pub(super) fn has_starttls(features: &Element) -> bool {
    features.has_child("starttls", ns::TLS)
}

/// The names of the SASL mechanisms (RFC 6120 §6.4.1); `None` if SASL is not offered at all.
pub(super) fn mechanisms(features: &Element) -> Option<Vec<String>> {
    let mechanisms = features.get_child("mechanisms", ns::SASL).filter(|feature| !is_void(feature))?;
    let names = mechanisms.children().filter(|child| child.is("mechanism", ns::SASL));
    Some(names.map(|name| name.text().trim().to_owned()).collect())
}

// COMPAT tokio-xmpp: an `XmlStream` that has no SASL to offer sends `<mechanisms/>` with nothing in it.
fn is_void(feature: &Element) -> bool {
    feature.is("mechanisms", ns::SASL) && feature.children().next().is_none()
}

/// Whether channel binding to the exporter of TLS may be tried: it is listed (XEP-0440), or nothing is.
pub(super) fn binds_to_exporter(features: &Element) -> bool {
    match features.get_child("sasl-channel-binding", ns::SASL_CB) {
        Some(bindings) => bindings.children().any(|binding| binding.attr("type") == Some(TLS_EXPORTER)),
        None => true,
    }
}

/// The features by name, for an error.
pub(super) fn list(features: &Element) -> String {
    words(features.children().map(Element::name))
}

/// Words of the peer's, for an error.
pub(super) fn words(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let shown: Vec<String> = words
        .into_iter()
        .take(WORDS)
        .map(|word| word.as_ref().chars().filter(|letter| !letter.is_control()).take(WORD).collect())
        .collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
}
