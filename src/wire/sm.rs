//! Stream management (XEP-0198): the elements between stanzas, read and written.

use rxml::xml_ncname;
use xmpp_parsers::{minidom::Element, ns::XMPP_STANZAS};

use super::{jingle::Malformed, ns, quoted};

/// What is kept of the name of a condition: the longest of RFC 6120 §8.3.3 has 23 characters.
const MAX_CONDITION: usize = 40;

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
    /// Reads an element; attributes and children that are not known are ignored.
    pub(crate) fn parse(element: &Element) -> Result<Self, Malformed> {
        if !element.has_ns(ns::SM) {
            return Err(Malformed::new("it does not belong to stream management"));
        }
        match element.name() {
            "enable" => Ok(Self::Enable { max: max(element)?, resume: resume(element)? }),
            "enabled" => Ok(Self::Enabled {
                id: element.attr("id").map(ToOwned::to_owned),
                max: max(element)?,
                resume: resume(element)?,
            }),
            "resume" => Ok(Self::Resume { h: required_h(element)?, previd: previd(element)? }),
            "resumed" => Ok(Self::Resumed { h: required_h(element)?, previd: previd(element)? }),
            "failed" => Ok(Self::Failed { h: h(element)?, condition: condition(element) }),
            "a" => Ok(Self::A { h: required_h(element)? }),
            "r" => Ok(Self::R),
            name => Err(Malformed(format!("stream management has no element {}", quoted(name)))),
        }
    }

    /// Refuses `<enable/>` or `<resume/>` (XEP-0198 #errors).
    pub(crate) fn failed(condition: &str) -> Self {
        Self::Failed { h: None, condition: Some(condition.to_owned()) }
    }

    pub(crate) fn to_element(&self) -> Element {
        let bare = |name: &'static str| Element::builder(name, ns::SM);
        let (id, h, resume) =
            (xml_ncname!("id").into(), xml_ncname!("h").into(), xml_ncname!("resume").into());
        let (max_name, previd_name) = (xml_ncname!("max").into(), xml_ncname!("previd").into());
        let number = |number: &Option<u32>| number.map(|number| number.to_string());
        let truth = |truth: &bool| truth.then_some("true");
        match self {
            Self::Enable { max, resume: wanted } => {
                bare("enable").attr(resume, truth(wanted)).attr(max_name, number(max)).build()
            }
            Self::Enabled { id: name, max, resume: granted } => bare("enabled")
                .attr(id, name.clone())
                .attr(resume, truth(granted))
                .attr(max_name, number(max))
                .build(),
            Self::Resume { h: count, previd } => {
                bare("resume").attr(h, count.to_string()).attr(previd_name, previd).build()
            }
            Self::Resumed { h: count, previd } => {
                bare("resumed").attr(h, count.to_string()).attr(previd_name, previd).build()
            }
            Self::Failed { h: count, condition } => bare("failed")
                .attr(h, number(count))
                .append_all(condition.as_ref().map(|name| Element::bare(name.clone(), XMPP_STANZAS)))
                .build(),
            Self::A { h: count } => bare("a").attr(h, count.to_string()).build(),
            Self::R => bare("r").build(),
        }
    }
}

/// What the responder's stream features say.
pub(crate) fn feature() -> Element {
    Element::bare("sm", ns::SM)
}

/// An xs:unsignedInt, which wraps (XEP-0198 #acking).
fn h(element: &Element) -> Result<Option<u32>, Malformed> {
    let Some(text) = element.attr("h") else { return Ok(None) };
    let number = text.trim().parse().map_err(|_| {
        Malformed(format!("the h of <{}/> is {} and no number below 2^32", element.name(), quoted(text)))
    })?;
    Ok(Some(number))
}

fn required_h(element: &Element) -> Result<u32, Malformed> {
    h(element)?.ok_or_else(|| Malformed(format!("<{}/> has no h", element.name())))
}

/// An xs:positiveInteger. More than we can count is as good as the most that we can.
fn max(element: &Element) -> Result<Option<u32>, Malformed> {
    let Some(text) = element.attr("max") else { return Ok(None) };
    let digits = text.trim().trim_start_matches('+');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed(format!(
            "the max of <{}/> is {} and no number of seconds",
            element.name(),
            quoted(text)
        )));
    }
    Ok(Some(digits.parse().unwrap_or(u32::MAX)))
}

/// An xs:boolean.
fn resume(element: &Element) -> Result<bool, Malformed> {
    match element.attr("resume").map(str::trim) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(Malformed(format!(
            "the resume of <{}/> is {} and neither true nor false",
            element.name(),
            quoted(other)
        ))),
    }
}

fn previd(element: &Element) -> Result<String, Malformed> {
    let previd = element.attr("previd");
    previd.map(ToOwned::to_owned).ok_or_else(|| Malformed(format!("<{}/> has no previd", element.name())))
}

fn condition(failed: &Element) -> Option<String> {
    let condition = failed.children().find(|child| child.has_ns(XMPP_STANZAS) && child.name() != "text")?;
    Some(condition.name().chars().take(MAX_CONDITION).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(xml: &str) -> Result<Nonza, Malformed> {
        let (name, rest) = xml.split_at(xml.find([' ', '/', '>']).unwrap());
        Nonza::parse(&format!("{name} xmlns='{}'{rest}", ns::SM).parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        for nonza in [
            Nonza::Enable { max: Some(300), resume: true },
            Nonza::Enable { max: None, resume: false },
            Nonza::Enabled { id: Some("a&b".to_owned()), max: Some(1), resume: true },
            Nonza::Enabled { id: None, max: None, resume: false },
            Nonza::Resume { h: 0, previd: "some".to_owned() },
            Nonza::Resumed { h: u32::MAX, previd: "some".to_owned() },
            Nonza::Failed { h: Some(7), condition: Some("item-not-found".to_owned()) },
            Nonza::Failed { h: None, condition: None },
            Nonza::A { h: 10 },
            Nonza::R,
        ] {
            assert_eq!(Nonza::parse(&nonza.to_element()), Ok(nonza));
        }
    }

    /// One of XEP-0198's examples; where it prints words for a number, with this in their place.
    fn example(name: &str, h: &str) -> Result<Nonza, Malformed> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/xep-0198");
        let text = std::fs::read_to_string(folder.join(format!("{name}.xml"))).unwrap();
        let text = text.replace("some-sequence-number", h).replace("another-sequence-number", h);
        Nonza::parse(&text.parse().unwrap())
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        let id = || Some("some-long-sm-id".to_owned());
        let previd = || "some-long-sm-id".to_owned();
        let failed = |h, condition: &str| Nonza::Failed { h, condition: Some(condition.to_owned()) };
        for (name, nonza) in [
            ("enable", Nonza::Enable { max: None, resume: false }),
            ("enable-resume", Nonza::Enable { max: None, resume: true }),
            ("enabled", Nonza::Enabled { id: None, max: None, resume: false }),
            ("enabled-resume", Nonza::Enabled { id: id(), max: None, resume: true }),
            ("enabled-without-resume", Nonza::Enabled { id: id(), max: None, resume: false }),
            ("enabled-location", Nonza::Enabled { id: id(), max: None, resume: true }),
            ("resume", Nonza::Resume { h: 7, previd: previd() }),
            ("resumed", Nonza::Resumed { h: 7, previd: previd() }),
            ("failed", failed(None, "unexpected-request")),
            ("failed-timed-out", failed(Some(7), "item-not-found")),
            ("a", Nonza::A { h: 1 }),
            ("r", Nonza::R),
        ] {
            assert_eq!(example(name, "7"), Ok(nonza), "{name}");
        }
        for name in ["resume", "resumed", "failed-timed-out"] {
            assert!(example(name, "some-sequence-number").is_err(), "{name} as printed has no number");
        }
    }

    #[test]
    fn what_other_programs_may_write_is_read() {
        for (xml, nonza) in [
            (
                "<enable resume='1' max='99999999999999999999'/>",
                Nonza::Enable { max: Some(u32::MAX), resume: true },
            ),
            ("<enable resume='0' other='x'><child/></enable>", Nonza::Enable { max: None, resume: false }),
            (
                "<enabled id='some-long-sm-id' location='[2001:41D0:1:A49b::1]:9222' resume='true'/>",
                Nonza::Enabled { id: Some("some-long-sm-id".to_owned()), max: None, resume: true },
            ),
            ("<failed><other xmlns='urn:a'/></failed>", Nonza::Failed { h: None, condition: None }),
            ("<a h=' 4294967295 '/>", Nonza::A { h: u32::MAX }),
        ] {
            assert_eq!(parse(xml), Ok(nonza), "{xml}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        for (xml, why) in [
            ("<a/>", "<a/> has no h"),
            ("<a h='-1'/>", "the h of <a/> is \"-1\" and no number below 2^32"),
            ("<a h='4294967296'/>", "the h of <a/> is \"4294967296\" and no number below 2^32"),
            ("<resume previd='x'/>", "<resume/> has no h"),
            ("<resumed h='1'/>", "<resumed/> has no previd"),
            ("<failed h='many'/>", "the h of <failed/> is \"many\" and no number below 2^32"),
            ("<enable resume='yes'/>", "the resume of <enable/> is \"yes\" and neither true nor false"),
            ("<enable max='-5'/>", "the max of <enable/> is \"-5\" and no number of seconds"),
            ("<q/>", "stream management has no element \"q\""),
        ] {
            assert_eq!(parse(xml), Err(Malformed::new(why)), "{xml}");
        }
    }
}
