//! `<reason/>` (XEP-0166 #def-reason).

use rxml::NcName;
use xmpp_parsers::minidom::Element;

use super::Dialect;
use crate::{
    reason::Reason,
    wire::{cut, jingle::MAX_SID},
};

/// Bytes that are kept of a reason's text for people; the rest is cut off.
pub(crate) const MAX_TEXT: usize = 1024;
/// Bytes that are kept of the name of an unknown condition.
const MAX_CONDITION: usize = 64;

/// Why a party did something, mostly: why it ends the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReasonElement {
    pub(crate) reason: Reason,
    /// For a person; at most [`MAX_TEXT`] bytes.
    pub(crate) text: Option<String>,
}

impl ReasonElement {
    pub(crate) fn new(reason: Reason) -> Self {
        Self { reason, text: None }
    }

    pub(crate) fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Never fails: a session that ends for a reason that can't be understood has ended all the same.
    pub(crate) fn parse(element: &Element) -> Self {
        // Conditions of applications are in namespaces of their own.
        let ours = || element.children().filter(|child| Dialect::of(child).is_some());
        let condition = ours().find(|child| child.name() != "text");
        let text = ours().find(|child| child.name() == "text").map(Element::text);
        Self {
            reason: condition.map_or_else(|| Reason::Other(String::new()), parse_condition),
            text: text
                .map(|text| cut(text.trim(), MAX_TEXT).trim_end().to_owned())
                .filter(|text| !text.is_empty()),
        }
    }

    pub(crate) fn into_element(self, dialect: Dialect) -> Element {
        let text = self.text.map(|text| {
            let text = cut(&text, MAX_TEXT);
            Element::builder("text", dialect.ns()).append(text).build()
        });
        Element::builder("reason", dialect.ns())
            .append_all(condition_element(&self.reason, dialect))
            .append_all(text)
            .build()
    }
}

fn parse_condition(condition: &Element) -> Reason {
    match Reason::from_name(cut(condition.name(), MAX_CONDITION)) {
        Reason::AlternativeSession(_) => {
            let sid = condition.children().find(|child| child.name() == "sid").map(Element::text);
            Reason::AlternativeSession(sid.filter(|sid| !sid.is_empty() && sid.len() <= MAX_SID))
        }
        reason => reason,
    }
}

fn condition_element(reason: &Reason, dialect: Dialect) -> Option<Element> {
    match reason {
        Reason::Other(name) if name.is_empty() => None,
        // The user may have made one up that is no name in XML.
        Reason::Other(name) if NcName::try_from(name.as_str()).is_err() => {
            condition_element(&Reason::GeneralError, dialect)
        }
        Reason::AlternativeSession(Some(sid)) => {
            let sid = Element::builder("sid", dialect.ns()).append(sid.as_str());
            Some(Element::builder(reason.name(), dialect.ns()).append(sid).build())
        }
        reason => Some(Element::bare(reason.name(), dialect.ns())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(inner: &str) -> ReasonElement {
        ReasonElement::parse(&format!("<reason xmlns='urn:xmpp:jingle:1'>{inner}</reason>").parse().unwrap())
    }

    #[test]
    fn an_unknown_condition_is_kept_by_name() {
        assert_eq!(parse("<unheard-of/>"), ReasonElement::new(Reason::Other("unheard-of".into())));
    }

    #[test]
    fn no_condition_is_a_reason_too() {
        assert_eq!(parse(""), ReasonElement::new(Reason::Other(String::new())));
        let only_text = ReasonElement::new(Reason::Other(String::new())).with_text("Sorry");
        assert_eq!(parse("<text>Sorry</text>"), only_text);
    }

    #[test]
    fn an_applications_condition_does_not_hide_the_one_of_jingle() {
        let both = "<overload xmlns='urn:example'/><text>Too much</text><busy/>";
        assert_eq!(parse(both), ReasonElement::new(Reason::Busy).with_text("Too much"));
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "ä".repeat(MAX_TEXT);
        assert_eq!(parse(&format!("<text>{long}</text>")).text.map(|text| text.len()), Some(MAX_TEXT));
    }

    #[test]
    fn a_made_up_condition_that_is_no_name_is_sent_as_general_error() {
        for name in ["not a name", "a:b", "<x/>", "1"] {
            let element = ReasonElement::new(Reason::Other(name.into())).into_element(Dialect::V1);
            assert_eq!(ReasonElement::parse(&element).reason, Reason::GeneralError, "{name}");
        }
    }
}
