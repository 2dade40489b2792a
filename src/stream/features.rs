//! The responder's stream features (RFC 6120 §4.3.2). We negotiate none, so all that matters is whether it
//! insists on one.

use xmpp_parsers::{minidom::Element, ns};

/// What has to be negotiated though nothing in it says so.
const ALWAYS: [(&str, &str); 3] = [
    // RFC 6120 §6.3.1
    ("mechanisms", ns::SASL),
    // XEP-0388: what comes after SASL.
    ("authentication", ns::SASL2),
    // RFC 6120 §7.3.1
    ("bind", ns::BIND),
];

/// The name of a feature without which no stanza may be sent; `None` if all of them are voluntary.
pub(super) fn mandatory(features: &Element) -> Option<&str> {
    let is_only = features.children().count() == 1;
    let is_mandatory = |feature: &&Element| {
        ALWAYS.iter().any(|(name, namespace)| feature.is(name, *namespace))
            || feature.has_child("required", feature.ns().as_str())
            // RFC 6120 §5.3.1
            || (is_only && feature.is("starttls", ns::TLS))
    };
    features.children().find(is_mandatory).map(Element::name)
}
