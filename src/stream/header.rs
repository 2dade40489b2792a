//! Reading a stream header (RFC 6120 §4.7, §4.8).
//!
//! It takes what other programs send: single or double quotes, an XML declaration or none, white space
//! or a byte order mark in front, attributes and prefixes that nobody knows, any version or none.

use rxml::{AttrMap, Event, Namespace, Parse as _, QName, RawEvent, RawParser};
use xmpp_parsers::stream_error::DefinedCondition;

use super::{
    source::{Source, Stop, is_space},
    violation::Violation,
};
use crate::wire::ns;

/// Everything up to the header's `>`. Names and addresses are a few hundred bytes; three JIDs of the
/// greatest length are 9 KiB.
const HEADER_BYTES: usize = 10 * 1024;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// A peer's stream header, unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) version: Option<String>,
}

impl Header {
    /// Whether the peer speaks XMPP 1.0 or later, and so sends or expects features (RFC 6120 §4.7.5).
    pub(crate) fn has_features(&self) -> bool {
        let major = self.version.as_deref().and_then(|version| version.split('.').next());
        major.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 1)
    }
}

/// Reads one header; afterwards [`into_source`](Self::into_source) gives the parser for what follows.
pub(super) struct HeaderReader {
    lead: Lead,
    source: Source,
    /// Sees the same bytes as `source`, because namespace declarations are not among its events.
    declarations: RawParser,
    default_namespace: Option<String>,
}

/// What may come in front of the first `<`.
enum Lead {
    /// This many bytes of a byte order mark have come.
    Mark(usize),
    /// White space, this many bytes with the mark.
    Space(usize),
    Over,
}

impl HeaderReader {
    pub(super) fn new() -> Self {
        Self {
            lead: Lead::Mark(0),
            source: Source::new(),
            declarations: RawParser::new(),
            default_namespace: None,
        }
    }

    /// Takes bytes up to the end of the header and not one more; `None` if there are too few.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Header>, Violation> {
        self.skip_lead(bytes)?;
        if !matches!(self.lead, Lead::Over) {
            return Ok(None);
        }
        loop {
            let before = *bytes;
            let event = self.source.next(bytes, HEADER_BYTES);
            let used = before.len() - bytes.len();
            self.note_declarations(before.get(..used).unwrap_or_default());
            match event {
                Ok(Event::StartElement(_, name, attributes)) => {
                    self.check_namespaces(&name)?;
                    return Ok(Some(header(attributes)));
                }
                Ok(_) => {}
                Err(Stop::Xml(error)) => return Err(Violation::xml_in_header(error)),
                Err(stop) => {
                    return stop.violation("the stream header", HEADER_BYTES).map_or(Ok(None), Err);
                }
            }
        }
    }

    pub(super) fn into_source(self) -> Source {
        let mut source = self.source;
        source.count_anew();
        source
    }

    fn skip_lead(&mut self, bytes: &mut &[u8]) -> Result<(), Violation> {
        while let Some((&first, rest)) = bytes.split_first() {
            self.lead = match self.lead {
                Lead::Over => return Ok(()),
                Lead::Mark(seen) if BYTE_ORDER_MARK.get(seen) == Some(&first) => Lead::Mark(seen + 1),
                Lead::Mark(seen) if seen == 0 || seen == BYTE_ORDER_MARK.len() => Lead::Space(seen),
                Lead::Mark(_) => return Err(Violation::not_utf8()),
                Lead::Space(count) if is_space(first) => Lead::Space(count + 1),
                Lead::Space(_) => match first {
                    0 | 0xfe | 0xff => return Err(Violation::not_utf8()),
                    _ => Lead::Over,
                },
            };
            match self.lead {
                Lead::Space(count) if count > HEADER_BYTES => {
                    return Err(Violation::policy("too much white space before the stream header"));
                }
                // The byte decided only where we are.
                Lead::Over => return Ok(()),
                Lead::Space(count) if count == 0 || !is_space(first) => {}
                Lead::Mark(_) | Lead::Space(_) => *bytes = rest,
            }
        }
        Ok(())
    }

    /// Finds the default namespace, which RFC 6120 §4.8.2 calls the content namespace.
    fn note_declarations(&mut self, mut bytes: &[u8]) {
        // An error here is one in `source` too, which reports it.
        while let Ok(Some(event)) = self.declarations.parse(&mut bytes, false) {
            if let RawEvent::Attribute(_, (None, name), value) = event
                && name == "xmlns"
            {
                self.default_namespace = Some(value);
            }
        }
    }

    fn check_namespaces(&self, (namespace, name): &QName) -> Result<(), Violation> {
        if *namespace != ns::STREAMS {
            let text = format!("the stream namespace must be {}", ns::STREAMS);
            return Err(Violation::new(DefinedCondition::InvalidNamespace, text));
        }
        if name != "stream" {
            return Err(Violation::new(DefinedCondition::InvalidXml, "a stream begins with <stream>"));
        }
        match self.default_namespace.as_deref() {
            // RFC 6120 §4.8.2 also allows to declare the content namespace on each stanza.
            None | Some("" | ns::CLIENT | ns::STREAMS) => Ok(()),
            Some(_) => {
                let text = format!("the content namespace must be {}", ns::CLIENT);
                Err(Violation::new(DefinedCondition::InvalidNamespace, text))
            }
        }
    }
}

fn header(mut attributes: AttrMap) -> Header {
    let mut take = |name: &str| attributes.remove(Namespace::none(), name).filter(|value| !value.is_empty());
    let (from, to, id, version) = (take("from"), take("to"), take("id"), take("version"));
    Header { from, to, id, version }
}
