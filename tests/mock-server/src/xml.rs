//! Bytes of one client's XML stream in, stanzas out. Sans-IO.

use rxml::{Event, Parse, Parser, error::EndOrError};
use xmpp_parsers::{minidom::Element, ns};

/// The longest slice given to the parser at once: it looks for delimiters in the whole slice, so longer ones are slower.
const WINDOW: usize = 8 * 1024;

/// The deepest nesting of a stanza. A tree is written and dropped recursively, so its depth costs stack.
const MAX_DEPTH: usize = 200;

/// What a client sent.
#[derive(Debug)]
pub(crate) enum Frame {
    /// The stream header. `to` is the domain the client wants.
    Open { to: Option<String> },
    /// A whole child of the stream element.
    Element(Element),
    /// The end of the stream element.
    Close,
}

/// Why a stream cannot be read any further.
#[derive(Debug)]
pub(crate) enum Fault {
    NotWellFormed(rxml::Error),
    NotAStream,
    TooLarge { limit: usize },
    TooDeep,
}

impl Fault {
    /// The condition of the stream error that reports this (RFC 6120, 4.9.3).
    pub(crate) fn condition(&self) -> &'static str {
        match self {
            Self::NotWellFormed(rxml::Error::RestrictedXml(_)) => "restricted-xml",
            Self::NotWellFormed(_) => "not-well-formed",
            Self::NotAStream => "invalid-namespace",
            Self::TooLarge { .. } | Self::TooDeep => "policy-violation",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotWellFormed(e) => write!(f, "{e}"),
            Self::NotAStream => write!(f, "the root element is not a client's stream header"),
            Self::TooLarge { limit } => write!(f, "a stanza is larger than {limit} bytes"),
            Self::TooDeep => write!(f, "a stanza is nested deeper than {MAX_DEPTH} elements"),
        }
    }
}

/// Reads one stream, from its header to its footer; a stream reset needs a new one.
#[derive(Debug)]
pub(crate) struct StreamParser {
    parser: Parser,
    state: State,
    max_stanza: usize,
    /// Bytes since the last boundary between two children of the stream element.
    used: usize,
}

#[derive(Debug)]
enum State {
    Prologue,
    Between,
    /// `open` is being filled; `ancestors` are the elements around it, outermost first.
    Inside {
        open: Element,
        ancestors: Vec<Element>,
    },
}

impl StreamParser {
    pub(crate) fn new(max_stanza: usize) -> Self {
        Self { parser: Parser::new(), state: State::Prologue, max_stanza, used: 0 }
    }

    /// Consumes bytes of `input` up to the end of the next frame; `None` when all were consumed and none is complete.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Fault> {
        loop {
            let mut window = input.get(..WINDOW).unwrap_or(input);
            let before = window.len();
            let event = self.parser.parse(&mut window, false);
            let consumed = before - window.len();
            *input = input.get(consumed..).unwrap_or_default();
            self.used += consumed;
            if self.used > self.max_stanza {
                return Err(Fault::TooLarge { limit: self.max_stanza });
            }
            match event {
                Ok(Some(event)) => {
                    if let Some(frame) = self.event(event)? {
                        self.used = 0;
                        return Ok(Some(frame));
                    }
                }
                Ok(None) => return Ok(Some(Frame::Close)),
                // Not before: the end of `<iq/>` is an event of no bytes.
                Err(EndOrError::NeedMoreData) if input.is_empty() => return Ok(None),
                Err(EndOrError::NeedMoreData) => {}
                Err(EndOrError::Error(e)) => return Err(Fault::NotWellFormed(e)),
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<Option<Frame>, Fault> {
        match (&mut self.state, event) {
            (_, Event::XmlDeclaration(..)) => Ok(None),
            (State::Prologue, Event::StartElement(_, (namespace, name), attributes)) => {
                if namespace.as_str() != ns::STREAM || name.as_str() != "stream" {
                    return Err(Fault::NotAStream);
                }
                self.state = State::Between;
                Ok(Some(Frame::Open { to: attributes.get(rxml::Namespace::none(), "to").cloned() }))
            }
            (State::Between, Event::StartElement(_, (namespace, name), attributes)) => {
                let mut open = Element::bare(name.as_str(), namespace.as_str());
                *open.attrs_mut() = attributes;
                self.state = State::Inside { open, ancestors: Vec::new() };
                Ok(None)
            }
            (State::Inside { open, ancestors }, Event::StartElement(_, (namespace, name), attributes)) => {
                if ancestors.len() >= MAX_DEPTH {
                    return Err(Fault::TooDeep);
                }
                let mut child = Element::bare(name.as_str(), namespace.as_str());
                *child.attrs_mut() = attributes;
                ancestors.push(std::mem::replace(open, child));
                Ok(None)
            }
            (State::Inside { open, .. }, Event::Text(_, text)) => {
                open.append_text(text);
                Ok(None)
            }
            (State::Inside { .. }, Event::EndElement(_)) => Ok(self.close_element()),
            // White space between stanzas keeps a connection alive and means nothing else.
            (State::Prologue | State::Between, Event::Text(..)) => {
                self.used = 0;
                Ok(None)
            }
            (State::Prologue | State::Between, Event::EndElement(_)) => Ok(Some(Frame::Close)),
        }
    }

    fn close_element(&mut self) -> Option<Frame> {
        let State::Inside { open, mut ancestors } = std::mem::replace(&mut self.state, State::Between) else {
            return None;
        };
        let Some(mut parent) = ancestors.pop() else {
            self.parser.release_temporaries();
            return Some(Frame::Element(open));
        };
        parent.append_child(open);
        self.state = State::Inside { open: parent, ancestors };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                          xmlns:stream='http://etherx.jabber.org/streams' to='montague.lit' version='1.0'>";

    fn frames(parser: &mut StreamParser, mut input: &[u8]) -> Result<Vec<Frame>, Fault> {
        let mut frames = Vec::new();
        while let Some(frame) = parser.next(&mut input)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn a_stream_is_read_in_any_segmentation() {
        let text = format!("{HEADER} <message><body>a&amp;b</body></message>\n<iq id='1'/></stream:stream>");
        for step in [1, 7, 1000] {
            let mut parser = StreamParser::new(1000);
            let mut all = Vec::new();
            for segment in text.as_bytes().chunks(step) {
                all.extend(frames(&mut parser, segment).unwrap());
            }
            let [Frame::Open { to }, Frame::Element(message), Frame::Element(iq), Frame::Close] = &all[..]
            else {
                panic!("{all:?}");
            };
            assert_eq!(to.as_deref(), Some("montague.lit"));
            assert_eq!(message.get_child("body", ns::JABBER_CLIENT).unwrap().text(), "a&b");
            assert_eq!(iq.attr("id"), Some("1"));
        }
    }

    #[test]
    fn an_empty_element_is_complete_without_another_byte() {
        let mut parser = StreamParser::new(1000);
        frames(&mut parser, HEADER.as_bytes()).unwrap();
        assert!(matches!(&frames(&mut parser, b"<presence/>").unwrap()[..], [Frame::Element(_)]));
    }

    #[test]
    fn a_stanza_beyond_the_limit_is_refused_while_many_small_ones_pass() {
        let mut parser = StreamParser::new(300);
        frames(&mut parser, HEADER.as_bytes()).unwrap();
        for _ in 0..100 {
            frames(&mut parser, b"<message><body>small</body></message>").unwrap();
        }
        let large = format!("<message><body>{}", "x".repeat(300));
        assert!(matches!(frames(&mut parser, large.as_bytes()), Err(Fault::TooLarge { limit: 300 })));
    }

    #[test]
    fn a_stanza_too_deep_is_refused_before_it_costs_stack() {
        let mut parser = StreamParser::new(262_144);
        frames(&mut parser, HEADER.as_bytes()).unwrap();
        assert!(matches!(frames(&mut parser, "<a>".repeat(10_000).as_bytes()), Err(Fault::TooDeep)));
    }

    #[test]
    fn what_is_not_a_stream_is_refused() {
        let mut parser = StreamParser::new(1000);
        assert!(matches!(frames(&mut parser, b"<html>"), Err(Fault::NotAStream)));
        let mut parser = StreamParser::new(1000);
        assert!(matches!(frames(&mut parser, b"\x16\x03\x01 TLS?"), Err(Fault::NotWellFormed(_))));
    }
}
