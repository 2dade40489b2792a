//! Stanza errors (RFC 6120 §8.3) as Jingle and in-band bytestreams use them.

use std::collections::BTreeMap;

use xmpp_parsers::{
    minidom::Element,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use super::ns;

/// Jingle's conditions inside a stanza error (XEP-0166 #errors).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JingleCondition {
    /// The request can't occur in the present state.
    OutOfOrder,
    /// The request crossed a similar one of ours, and ours stands.
    TieBreak,
    /// What was sent must be sent through the encrypted channel (XEP-0166 #preconditions).
    SecurityRequired,
    /// There is no such session, or no longer.
    UnknownSession,
    /// The payload of session-info is not understood.
    UnsupportedInfo,
}

impl JingleCondition {
    const ALL: [Self; 5] = [
        Self::OutOfOrder,
        Self::TieBreak,
        Self::SecurityRequired,
        Self::UnknownSession,
        Self::UnsupportedInfo,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OutOfOrder => "out-of-order",
            Self::TieBreak => "tie-break",
            Self::SecurityRequired => "security-required",
            Self::UnknownSession => "unknown-session",
            Self::UnsupportedInfo => "unsupported-info",
        }
    }

    /// The Jingle condition that a received error carries, if any.
    pub(crate) fn of(error: &StanzaError) -> Option<Self> {
        let element = error
            .other
            .as_ref()
            .filter(|element| element.has_ns(ns::JINGLE_ERRORS) || element.has_ns(ns::JINGLE_ERRORS_0))?;
        Self::ALL.into_iter().find(|condition| condition.name() == element.name())
    }

    fn on(self, mut error: StanzaError) -> StanzaError {
        error.other = Some(Element::bare(self.name(), ns::JINGLE_ERRORS));
        error
    }
}

/// XEP-0166 #errors: the sid is none of ours.
pub(crate) fn unknown_session() -> StanzaError {
    JingleCondition::UnknownSession.on(error(ErrorType::Cancel, DefinedCondition::ItemNotFound, None))
}

/// XEP-0166 #errors: not now.
pub(crate) fn out_of_order() -> StanzaError {
    JingleCondition::OutOfOrder.on(error(ErrorType::Wait, DefinedCondition::UnexpectedRequest, None))
}

/// XEP-0166 #errors: our own request goes first.
pub(crate) fn tie_break() -> StanzaError {
    JingleCondition::TieBreak.on(error(ErrorType::Cancel, DefinedCondition::Conflict, None))
}

/// XEP-0166 #errors: a session-info with a payload that means nothing to us.
pub(crate) fn unsupported_info() -> StanzaError {
    JingleCondition::UnsupportedInfo.on(error(
        ErrorType::Modify,
        DefinedCondition::FeatureNotImplemented,
        None,
    ))
}

/// The request itself is broken. Type `cancel`: it is what XEP-0166 #protocol-response-errors shows and
/// XEP-0047 #send demands.
pub(crate) fn bad_request(text: impl Into<String>) -> StanzaError {
    error(ErrorType::Cancel, DefinedCondition::BadRequest, Some(text.into()))
}

/// There is no such thing here.
pub(crate) fn item_not_found(text: impl Into<String>) -> StanzaError {
    error(ErrorType::Cancel, DefinedCondition::ItemNotFound, Some(text.into()))
}

/// Understood, but not offered.
pub(crate) fn feature_not_implemented(text: impl Into<String>) -> StanzaError {
    error(ErrorType::Cancel, DefinedCondition::FeatureNotImplemented, Some(text.into()))
}

/// Nobody may do that here, or at this moment (RFC 6120 §8.3.3.10).
pub(crate) fn not_allowed(text: impl Into<String>) -> StanzaError {
    error(ErrorType::Cancel, DefinedCondition::NotAllowed, Some(text.into()))
}

/// Nobody here for that; says nothing about why, so that strangers learn nothing.
pub(crate) fn service_unavailable() -> StanzaError {
    error(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, None)
}

/// Nobody answered.
pub(crate) fn remote_server_timeout() -> StanzaError {
    error(ErrorType::Wait, DefinedCondition::RemoteServerTimeout, None)
}

/// Too much at once (`wait`: later; `modify`: less, as a block size in XEP-0047 #create).
pub(crate) fn resource_constraint(type_: ErrorType) -> StanzaError {
    error(type_, DefinedCondition::ResourceConstraint, None)
}

/// Understood and refused (XEP-0047 #create).
pub(crate) fn not_acceptable(text: impl Into<String>) -> StanzaError {
    error(ErrorType::Cancel, DefinedCondition::NotAcceptable, Some(text.into()))
}

/// A block that does not follow on the last one (XEP-0047 #send).
pub(crate) fn unexpected_request(text: impl Into<String>) -> StanzaError {
    error(ErrorType::Cancel, DefinedCondition::UnexpectedRequest, Some(text.into()))
}

fn error(type_: ErrorType, defined_condition: DefinedCondition, text: Option<String>) -> StanzaError {
    let texts: BTreeMap<_, _> = text.map(|text| ("en".to_owned(), text)).into_iter().collect();
    StanzaError { type_, by: None, defined_condition, texts, other: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: StanzaError) -> Vec<String> {
        let element = Element::from(error);
        let type_ = element.attr("type").into_iter();
        type_.chain(element.children().map(Element::name)).map(ToOwned::to_owned).collect()
    }

    #[test]
    fn the_conditions_of_jingle_are_paired_as_in_the_table_of_xep_0166() {
        assert_eq!(written(out_of_order()), ["wait", "unexpected-request", "out-of-order"]);
        assert_eq!(written(tie_break()), ["cancel", "conflict", "tie-break"]);
        assert_eq!(written(unknown_session()), ["cancel", "item-not-found", "unknown-session"]);
        assert_eq!(written(unsupported_info()), ["modify", "feature-not-implemented", "unsupported-info"]);
    }

    #[test]
    fn what_we_send_is_read_back() {
        for (error, condition) in [
            (out_of_order(), JingleCondition::OutOfOrder),
            (tie_break(), JingleCondition::TieBreak),
            (unknown_session(), JingleCondition::UnknownSession),
            (unsupported_info(), JingleCondition::UnsupportedInfo),
        ] {
            let received = StanzaError::try_from(Element::from(error)).unwrap();
            assert_eq!(JingleCondition::of(&received), Some(condition));
        }
        assert_eq!(JingleCondition::of(&service_unavailable()), None);
    }

    #[test]
    fn a_condition_of_another_namespace_is_not_jingles() {
        let mut error = item_not_found("gone");
        error.other = Some(Element::bare("unknown-session", "urn:example"));
        assert_eq!(JingleCondition::of(&error), None);
    }

    #[test]
    fn other_errors_have_the_types_that_their_specifications_demand() {
        // XEP-0047 #send.
        assert_eq!(written(item_not_found("a"))[..2], ["cancel", "item-not-found"]);
        assert_eq!(written(unexpected_request("a"))[..2], ["cancel", "unexpected-request"]);
        assert_eq!(written(bad_request("a"))[..2], ["cancel", "bad-request"]);
        // XEP-0047 #create.
        assert_eq!(written(not_acceptable("a"))[..2], ["cancel", "not-acceptable"]);
        assert_eq!(written(resource_constraint(ErrorType::Modify)), ["modify", "resource-constraint"]);
        // XEP-0166 #protocol-response-errors.
        assert_eq!(written(service_unavailable()), ["cancel", "service-unavailable"]);
        assert_eq!(written(feature_not_implemented("a"))[..2], ["cancel", "feature-not-implemented"]);
    }

    #[test]
    fn a_text_is_in_english_and_comes_along() {
        let error = bad_request("no sid");
        assert_eq!(error.texts.get("en").map(String::as_str), Some("no sid"));
    }
}
