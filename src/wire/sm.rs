//! Stream management (XEP-0198): the elements between stanzas, read and written.

use xmpp_parsers::minidom::Element;

use super::{jingle::Malformed, ns};

/// An element of stream management. None of them is a stanza, and none is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nonza {
    Enable {
        /// Seconds.
        max: Option<u32>,
        resume: bool,
    },
    Enabled {
        id: Option<String>,
        max: Option<u32>,
        resume: bool,
    },
    Resume {
        h: u32,
        previd: String,
    },
    Resumed {
        h: u32,
        previd: String,
    },
    Failed {
        h: Option<u32>,
        /// The name of the stanza error's condition.
        condition: Option<String>,
    },
    /// So many stanzas were handled.
    A {
        h: u32,
    },
    R,
}

impl Nonza {
    pub(crate) fn parse(element: &Element) -> Result<Self, Malformed> {
        let _ = element;
        Err(Malformed::new("unwritten"))
    }

    pub(crate) fn to_element(&self) -> Element {
        Element::bare("r", ns::SM)
    }
}

/// What the responder's stream features say.
pub(crate) fn feature() -> Element {
    Element::bare("sm", ns::SM)
}
