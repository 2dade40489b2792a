//! The elements of both protocols, and what is in them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rxml::xml_ncname;
use xmpp_parsers::{minidom::Element, ns};

use crate::{
    security::sasl::{Mechanism, TLS_EXPORTER},
    wire::ibb,
};

/// The stream feature (RFC 6120 §5.4.1).
pub(super) fn starttls_required() -> Element {
    Element::builder("starttls", ns::TLS).append(Element::bare("required", ns::TLS)).build()
}

pub(super) fn starttls() -> Element {
    Element::bare("starttls", ns::TLS)
}

pub(super) fn proceed() -> Element {
    Element::bare("proceed", ns::TLS)
}

/// RFC 6120 §5.4.2.2
pub(in crate::stream) fn starttls_failure() -> Element {
    Element::bare("failure", ns::TLS)
}

/// The stream features of RFC 6120 §6.4.1 and, where a mechanism needs it, XEP-0440.
pub(super) fn mechanisms(mechanisms: &[Mechanism]) -> Vec<Element> {
    if mechanisms.is_empty() {
        return Vec::new();
    }
    let named =
        mechanisms.iter().map(|mechanism| Element::builder("mechanism", ns::SASL).append(mechanism.name()));
    let mut features = vec![Element::builder("mechanisms", ns::SASL).append_all(named).build()];
    if mechanisms.iter().any(|mechanism| mechanism.is_scram()) {
        let binding = Element::builder("channel-binding", ns::SASL_CB)
            .attr(xml_ncname!("type").into(), TLS_EXPORTER)
            .build();
        features.push(Element::builder("sasl-channel-binding", ns::SASL_CB).append(binding).build());
    }
    features
}

pub(super) fn auth(mechanism: Mechanism, initial_response: &[u8]) -> Element {
    Element::builder("auth", ns::SASL)
        .attr(xml_ncname!("mechanism").into(), mechanism.name())
        .append_all(optional(Some(initial_response)))
        .build()
}

pub(super) fn challenge(data: &[u8]) -> Element {
    Element::builder("challenge", ns::SASL).append_all(base64(data)).build()
}

pub(super) fn response(data: &[u8]) -> Element {
    Element::builder("response", ns::SASL).append_all(base64(data)).build()
}

pub(super) fn success(additional: Option<&[u8]>) -> Element {
    Element::builder("success", ns::SASL).append_all(optional(additional)).build()
}

pub(super) fn abort() -> Element {
    Element::bare("abort", ns::SASL)
}

pub(super) fn failure(condition: &str, text: Option<&str>) -> Element {
    let text = text.map(|text| Element::builder("text", ns::SASL).append(text));
    Element::builder("failure", ns::SASL)
        .append(Element::bare(condition.to_owned(), ns::SASL))
        .append_all(text)
        .build()
}

/// The condition of a `<failure/>` of SASL, and its text.
pub(super) fn read_failure(failure: &Element) -> (&str, Option<String>) {
    let condition = failure.children().map(Element::name).find(|name| *name != "text");
    let text = failure.get_child("text", ns::SASL).map(Element::text);
    (condition.unwrap_or("no condition"), text)
}

/// RFC 6120 §6.4.2: nothing is not the same as an empty response, which is `=`.
fn optional(data: Option<&[u8]>) -> Option<String> {
    data.map(|data| base64(data).unwrap_or_else(|| "=".to_owned()))
}

/// `None` for no bytes.
fn base64(data: &[u8]) -> Option<String> {
    (!data.is_empty()).then(|| STANDARD.encode(data))
}

/// What is in `<auth/>`, `<challenge/>`, `<response/>` or `<success/>`; `None` if nothing is.
pub(super) fn data(element: &Element) -> Result<Option<Vec<u8>>, String> {
    match element.text().trim() {
        "" if element.children().next().is_none() => Ok(None),
        "=" => Ok(Some(Vec::new())),
        _ => ibb::decode(element).map(Some).map_err(|error| error.to_string()),
    }
}
