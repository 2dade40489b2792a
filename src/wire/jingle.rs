//! `<jingle/>` and its `<content/>`s (XEP-0166).
//!
//! Not `xmpp_parsers::jingle`: its `Content` drops `<security/>` without a word, which would turn every
//! secure offer into a plain one, and one unknown reason or action fails its whole `Jingle`.

use rxml::xml_ncname;
use xmpp_parsers::{
    jingle::{Action, Creator, Senders},
    minidom::{Element, Node},
};

pub(crate) use self::reason::ReasonElement;
use super::{ns, quoted};

mod reason;

/// `<content/>`s of one Jingle element. One is all that this crate's sessions have; a few more make an
/// offer of something else readable, so that it can be declined properly.
pub(crate) const MAX_CONTENTS: usize = 8;
/// Length of a session id in bytes. XEP-0166 sets no limit; programs use 8 to 40.
pub(crate) const MAX_SID: usize = 256;
/// Length of a content's name in bytes.
pub(crate) const MAX_NAME: usize = 256;

/// The name of the mark of [`ns::RESUMPTION`].
const RESUMPTION: &str = "resumption";

/// Which generation of Jingle namespaces a session speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `urn:xmpp:jingle:1`, the one of XEP-0166.
    #[default]
    V1,
    /// `urn:xmpp:jingle:0`, as XEP-0247 and jingle-xtls print it.
    V0,
}

impl Dialect {
    pub(crate) fn ns(self) -> &'static str {
        match self {
            Self::V1 => ns::JINGLE,
            Self::V0 => ns::JINGLE_0,
        }
    }

    /// The dialect of an element in one of the two namespaces.
    fn of(element: &Element) -> Option<Self> {
        [Self::V1, Self::V0].into_iter().find(|dialect| element.has_ns(dialect.ns()))
    }
}

/// An element that is no usable Jingle, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// `<jingle/>` (XEP-0166 #def-jingle).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Jingle {
    /// What to do; kept as text because an unknown action gets another answer than a broken element.
    pub(crate) action: String,
    /// The full JID of who started the session, as claimed.
    pub(crate) initiator: Option<String>,
    /// The full JID of who accepted it, as claimed.
    pub(crate) responder: Option<String>,
    /// The session id, 1 to [`MAX_SID`] bytes.
    pub(crate) sid: String,
    /// At most [`MAX_CONTENTS`].
    pub(crate) contents: Vec<Content>,
    pub(crate) reason: Option<ReasonElement>,
    /// All other children: the payload of session-info.
    pub(crate) others: Vec<Element>,
}

impl Jingle {
    pub(crate) fn new(action: Action, sid: impl Into<String>) -> Self {
        Self {
            action: action.to_string(),
            initiator: None,
            responder: None,
            sid: sid.into(),
            contents: Vec::new(),
            reason: None,
            others: Vec::new(),
        }
    }

    pub(crate) fn with_initiator(mut self, jid: impl ToString) -> Self {
        self.initiator = Some(jid.to_string());
        self
    }

    pub(crate) fn with_responder(mut self, jid: impl ToString) -> Self {
        self.responder = Some(jid.to_string());
        self
    }

    pub(crate) fn with_content(mut self, content: Content) -> Self {
        self.contents.push(content);
        self
    }

    pub(crate) fn with_reason(mut self, reason: ReasonElement) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Whether this is a `<jingle/>` of either dialect, readable or not.
    pub(crate) fn matches(element: &Element) -> bool {
        element.name() == "jingle" && Dialect::of(element).is_some()
    }

    /// The action, if it is one of XEP-0166's.
    pub(crate) fn known_action(&self) -> Option<Action> {
        self.action.parse().ok()
    }

    /// Reads a `<jingle/>` of either dialect. Unknown attributes are ignored, unknown children kept.
    pub(crate) fn parse(mut element: Element) -> Result<(Self, Dialect), Malformed> {
        let dialect = Dialect::of(&element).filter(|_| element.name() == "jingle");
        let dialect = dialect.ok_or_else(|| Malformed::new("it is no <jingle/> element"))?;
        let attribute = |name: &str| element.attr(name).map(ToOwned::to_owned);

        let mut jingle = Self {
            action: attribute("action").ok_or_else(|| Malformed::new("<jingle/> has no action"))?,
            initiator: attribute("initiator"),
            responder: attribute("responder"),
            sid: attribute("sid").ok_or_else(|| Malformed::new("<jingle/> has no sid"))?,
            contents: Vec::new(),
            reason: None,
            others: Vec::new(),
        };
        if jingle.sid.is_empty() || jingle.sid.len() > MAX_SID {
            let length = jingle.sid.len();
            return Err(Malformed(format!(
                "the sid of <jingle/> has {length} bytes; it may have 1 to {MAX_SID}"
            )));
        }
        for child in element.take_nodes().into_iter().filter_map(Node::into_element) {
            jingle.take(child, dialect)?;
        }
        Ok((jingle, dialect))
    }

    fn take(&mut self, child: Element, dialect: Dialect) -> Result<(), Malformed> {
        match child.name() {
            "content" if child.has_ns(dialect.ns()) => {
                if self.contents.len() == MAX_CONTENTS {
                    return Err(Malformed(format!("<jingle/> has more than {MAX_CONTENTS} contents")));
                }
                self.contents.push(Content::parse(child)?);
            }
            // A second reason would only contradict the first.
            "reason" if child.has_ns(dialect.ns()) => {
                self.reason.get_or_insert_with(|| ReasonElement::parse(&child));
            }
            _ => self.others.push(child),
        }
        Ok(())
    }

    pub(crate) fn into_element(self, dialect: Dialect) -> Element {
        // XEP-0166 #def-content: `senders` has to be there if it is what the action is about.
        let both = match self.known_action() {
            Some(Action::ContentModify) => Both::Written,
            _ => Both::LeftOut,
        };
        Element::builder("jingle", dialect.ns())
            .attr(xml_ncname!("action").into(), self.action)
            .attr(xml_ncname!("initiator").into(), self.initiator)
            .attr(xml_ncname!("responder").into(), self.responder)
            .attr(xml_ncname!("sid").into(), self.sid)
            .append_all(self.contents.into_iter().map(|content| content.into_element(dialect, both)))
            .append_all(self.reason.map(|reason| reason.into_element(dialect)))
            .append_all(self.others)
            .build()
    }
}

/// `<content/>` (XEP-0166 #def-content).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Content {
    /// Who made up this content; with the name it identifies the content.
    pub(crate) creator: Creator,
    /// At most [`MAX_NAME`] bytes.
    pub(crate) name: String,
    /// How to take it; `session` is the default, and the only one with a meaning here.
    pub(crate) disposition: String,
    /// Who may send.
    pub(crate) senders: Senders,
    /// At most one each of `<description/>`, `<transport/>` and `<security/>`, and whatever else was there.
    pub(crate) children: Vec<Element>,
}

impl Content {
    pub(crate) fn new(creator: Creator, name: impl Into<String>) -> Self {
        Self {
            creator,
            name: name.into(),
            disposition: DEFAULT_DISPOSITION.to_owned(),
            senders: Senders::Both,
            children: Vec::new(),
        }
    }

    pub(crate) fn with_child(mut self, child: impl Into<Element>) -> Self {
        self.children.push(child.into());
        self
    }

    /// The application; `<description/>` in whatever namespace.
    pub(crate) fn description(&self) -> Option<&Element> {
        self.child("description")
    }

    /// The transport method; `<transport/>` in whatever namespace.
    pub(crate) fn transport(&self) -> Option<&Element> {
        self.child("transport")
    }

    /// The security precondition; `<security/>` in whatever namespace.
    pub(crate) fn security(&self) -> Option<&Element> {
        self.child("security")
    }

    /// Whether the XML stream is to carry on an earlier one (`<resumption/>`).
    pub(crate) fn is_resumption(&self) -> bool {
        self.children.iter().any(|child| child.is(RESUMPTION, ns::RESUMPTION))
    }

    /// Marks it as one that carries on an earlier stream.
    pub(crate) fn with_resumption(self) -> Self {
        self.with_child(Element::bare(RESUMPTION, ns::RESUMPTION))
    }

    fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name() == name)
    }

    fn parse(mut element: Element) -> Result<Self, Malformed> {
        let name = element.attr("name").ok_or_else(|| Malformed::new("<content/> has no name"))?.to_owned();
        if name.len() > MAX_NAME {
            return Err(Malformed(format!(
                "the name of <content/> has {} bytes; at most {MAX_NAME}",
                name.len()
            )));
        }
        let content = Self {
            // XEP-0166 #def-content: the default is "initiator".
            creator: attribute_or(&element, "creator", Creator::Initiator)?,
            disposition: element.attr("disposition").unwrap_or(DEFAULT_DISPOSITION).to_owned(),
            senders: attribute_or(&element, "senders", Senders::Both)?,
            children: element.take_nodes().into_iter().filter_map(Node::into_element).collect(),
            name,
        };
        for kind in ["description", "transport", "security"] {
            if content.children.iter().filter(|child| child.name() == kind).count() > 1 {
                return Err(Malformed(format!("<content/> has more than one <{kind}/>")));
            }
        }
        Ok(content)
    }

    fn into_element(self, dialect: Dialect, both: Both) -> Element {
        let senders = match self.senders {
            Senders::Both => Some("both").filter(|_| both == Both::Written),
            Senders::Initiator => Some("initiator"),
            Senders::Responder => Some("responder"),
            Senders::None => Some("none"),
        };
        let disposition = Some(self.disposition).filter(|name| name != DEFAULT_DISPOSITION);
        Element::builder("content", dialect.ns())
            .attr(xml_ncname!("creator").into(), self.creator.to_string())
            .attr(xml_ncname!("disposition").into(), disposition)
            .attr(xml_ncname!("name").into(), self.name)
            .attr(xml_ncname!("senders").into(), senders)
            .append_all(self.children)
            .build()
    }
}

/// What becomes of `senders='both'`, which is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Both {
    Written,
    LeftOut,
}

/// What `disposition` says where it says nothing (XEP-0166 #def-content).
const DEFAULT_DISPOSITION: &str = "session";

fn attribute_or<T: std::str::FromStr>(element: &Element, name: &str, default: T) -> Result<T, Malformed> {
    let Some(value) = element.attr(name) else { return Ok(default) };
    value.parse().map_err(|_| Malformed(format!("<content/> has the {name} {}", quoted(value))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn parse(xml: &str) -> Result<(Jingle, Dialect), Malformed> {
        Jingle::parse(xml.parse().unwrap())
    }

    #[test]
    fn an_offer_is_written_with_all_that_it_needs_and_no_more() {
        let content = Content::new(Creator::Initiator, "xmlstream")
            .with_child(Element::bare("description", ns::XMLSTREAM))
            .with_child(Element::bare("security", ns::XTLS));
        let offer = Jingle::new(Action::SessionInitiate, "851ba2")
            .with_initiator("romeo@montague.lit/orchard")
            .with_content(content);
        let expected: Element = "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' \
                initiator='romeo@montague.lit/orchard' sid='851ba2'>\
            <content creator='initiator' name='xmlstream'>\
                <description xmlns='urn:xmpp:jingle:apps:xmlstream:0'/>\
                <security xmlns='urn:xmpp:jingle:security:xtls:0'/>\
            </content></jingle>"
            .parse()
            .unwrap();

        assert_eq!(offer.clone().into_element(Dialect::V1), expected);
        assert_eq!(Jingle::parse(expected), Ok((offer, Dialect::V1)));
    }

    #[test]
    fn the_old_dialect_is_one_namespace_throughout() {
        let jingle = Jingle::new(Action::SessionTerminate, "851ba2")
            .with_responder("juliet@capulet.lit/balcony")
            .with_content(Content::new(Creator::Responder, "xmlstream"))
            .with_reason(ReasonElement::new(Reason::Success));
        let element = jingle.clone().into_element(Dialect::V0);
        assert!(element.children().chain([&element]).all(|it| it.has_ns(ns::JINGLE_0)));
        assert_eq!(Jingle::parse(element), Ok((jingle, Dialect::V0)));
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let (jingle, _) = parse(
            "<jingle xmlns='urn:xmpp:jingle:1' action='session-info' sid='a'><content name='c'/></jingle>",
        )
        .unwrap();
        assert_eq!(jingle.contents, [Content::new(Creator::Initiator, "c")]);
    }

    #[test]
    fn what_is_unknown_fails_nothing() {
        let (jingle, _) = parse(
            "<jingle xmlns='urn:xmpp:jingle:1' action='session-dance' sid='a' mood='good'>\
                <content xmlns='urn:example'/><steps xmlns='urn:example'/>\
                <content name='c' colour='red' disposition='render'><description xmlns='urn:example'/></content>\
                <reason><unheard-of/></reason></jingle>",
        )
        .unwrap();
        assert_eq!(jingle.known_action(), None);
        assert_eq!(jingle.others.len(), 2);
        assert_eq!(jingle.contents[0].disposition, "render");
        assert!(jingle.contents[0].description().is_some() && jingle.contents[0].security().is_none());
        assert_eq!(jingle.reason, Some(ReasonElement::new(Reason::Other("unheard-of".into()))));
    }

    #[test]
    fn other_elements_are_no_jingle() {
        for xml in
            ["<jingle xmlns='urn:xmpp:jingle:2' action='a' sid='a'/>", "<x xmlns='urn:xmpp:jingle:1'/>"]
        {
            assert!(!Jingle::matches(&xml.parse().unwrap()));
            assert_eq!(parse(xml), Err(Malformed::new("it is no <jingle/> element")));
        }
    }
}
