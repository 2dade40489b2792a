//! The reading half of the codec: bytes in, stanzas out.
//!
//! Size and depth are counted here, before an event reaches a builder: builders recurse, and a stack
//! overflow would end the process.

mod message;
mod stanza;

use std::mem;

use rxml::{AttrMap, Event, Namespace, QName, parser::EventMetrics, xml_lang::XmlLangStack};
use xmpp_parsers::{
    iq::Iq,
    minidom::Element,
    ns::{SASL, TLS},
    stanza::Stanza,
    stream_error::{DefinedCondition, StreamError},
};
use xso::{Context, FromEventsBuilder, FromXml, error::FromEventsError};

use self::stanza::{Kind, StanzaBuilder};
use super::{
    addressing::Claims,
    header::{Header, HeaderReader},
    source::{self, Source},
    violation::Violation,
};
use crate::{
    Limits,
    wire::{jingle::Malformed, ns, sm::Nonza},
};

/// The largest element of STARTTLS or of SASL. SCRAM's have a few hundred bytes; a token or a ticket of another mechanism,
/// which would be refused by name, a few thousand.
const NEGOTIATION_BYTES: usize = 16 * 1024;

/// The largest element of stream management: the id of a stream should not be longer than 4000 bytes (XEP-0198
/// #resumption).
const MANAGEMENT_BYTES: usize = 8 * 1024;

/// What was read.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are stanzas")]
pub(crate) enum Decoded {
    Header(Header),
    Features(Element),
    /// A stanza without addresses, those it came with, and its size on the wire in bytes.
    Stanza {
        stanza: Stanza,
        claims: Claims,
        bytes: usize,
    },
    /// A stanza that does not follow its schema.
    BadStanza(BadStanza),
    StreamError(StreamError),
    /// An element of STARTTLS or of SASL. The stream may end with it: what comes behind it is left untouched, and this is
    /// how many bytes of that are here already.
    Negotiation {
        element: Element,
        behind: usize,
    },
    /// An element of stream management; the error says what is wrong with it.
    Management(Result<Nonza, Malformed>),
    /// A child of the stream that is no stanza and that we don't know; it was skipped.
    Unknown {
        namespace: String,
        name: String,
    },
    /// `</stream:stream>`. What comes behind it is left untouched, for a next stream.
    Footer,
}

/// A stanza that does not follow its schema.
#[derive(Debug)]
pub(crate) struct BadStanza {
    pub(crate) name: &'static str,
    pub(crate) waiting: Waiting,
    pub(crate) error: String,
}

/// Who waits for a stanza, or for what becomes of it.
#[derive(Debug)]
pub(crate) enum Waiting {
    Nobody,
    /// It is an iq request of this id, which the peer must have an answer to.
    Peer(String),
    /// It is an iq reply of this id, to a request of ours.
    Us(String),
}

/// Reads one stream. After [`Decoded::Footer`] or a violation it takes no more bytes.
pub(crate) struct Decoder {
    state: State,
    max_bytes: usize,
    max_depth: usize,
}

enum State {
    Header(Box<HeaderReader>),
    Stream(Box<Content>),
    /// The footer has come.
    Ended,
    Broken(Violation),
}

impl Decoder {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            state: State::Header(Box::new(HeaderReader::new())),
            max_bytes: limits.stanza_bytes,
            max_depth: limits.stanza_depth,
        }
    }

    /// Takes bytes from the front until something is complete; `None` when there are too few.
    ///
    /// How the bytes are cut into pieces makes no difference to what comes out.
    pub(crate) fn decode(&mut self, bytes: &mut &[u8]) -> Result<Option<Decoded>, Violation> {
        let mut result = match &mut self.state {
            State::Header(reader) => reader.read(bytes).map(|header| header.map(Decoded::Header)),
            State::Stream(content) => content.read(bytes, self.max_bytes, self.max_depth),
            State::Ended => Ok(None),
            State::Broken(violation) => Err(violation.clone()),
        };
        match &mut result {
            Ok(Some(Decoded::Header(_))) => self.enter_stream(),
            Ok(Some(Decoded::Footer)) => self.state = State::Ended,
            Ok(Some(Decoded::Negotiation { behind, .. })) => *behind = bytes.len(),
            Err(violation) => self.state = State::Broken(violation.clone()),
            Ok(_) => {}
        }
        result
    }

    /// Gives memory back that is not needed while nothing comes.
    pub(crate) fn release(&mut self) {
        if let State::Stream(content) = &mut self.state {
            content.source.release();
        }
    }

    fn enter_stream(&mut self) {
        if let State::Header(reader) = mem::replace(&mut self.state, State::Ended) {
            self.state = State::Stream(Box::new(Content::new(reader.into_source())));
        }
    }
}

/// What lies between header and footer.
struct Content {
    source: Source,
    /// The language that an element gets from those around it. It begins with the stanza: what the header says
    /// (RFC 6120 §4.7.4) does not count. A program that sends it means its own texts, of errors say, and puts
    /// it there whatever its user writes; and a body without a language would no longer be found under "",
    /// where everybody looks for it.
    lang: XmlLangStack,
    /// Open elements, the stream's own not counted.
    depth: usize,
    child: Child,
    /// Text of which more may come: it is one text, however it came.
    text: Option<(EventMetrics, String)>,
}

type StreamErrorResult = Result<StreamError, xso::error::Error>;

/// The child of the stream that is being read.
enum Child {
    None,
    Stanza {
        builder: StanzaBuilder,
        name: &'static str,
        waiting: Waiting,
        claims: Claims,
        /// How many there were so far.
        children: usize,
    },
    Features(Box<<Element as FromXml>::Builder>),
    Negotiation(Box<<Element as FromXml>::Builder>),
    Management(Box<<Element as FromXml>::Builder>),
    StreamError(Box<<StreamErrorResult as FromXml>::Builder>),
    Skipped {
        namespace: String,
        name: String,
    },
}

impl Content {
    fn new(source: Source) -> Self {
        Self { source, lang: XmlLangStack::new(), depth: 0, child: Child::None, text: None }
    }

    fn read(
        &mut self,
        bytes: &mut &[u8],
        max_bytes: usize,
        max_depth: usize,
    ) -> Result<Option<Decoded>, Violation> {
        loop {
            if self.depth == 0 {
                // RFC 6120 §4.6.1: white space between stanzas keeps the connection alive and means nothing.
                self.source.skip_space(bytes);
            }
            let (what, max_bytes) = self.child.bound(max_bytes);
            let event = match self.source.next(bytes, max_bytes) {
                Ok(event) => event,
                Err(stop) => return stop.violation(what, max_bytes).map_or(Ok(None), Err),
            };
            if self.depth == 0 {
                match event {
                    Event::StartElement(_, name, attributes) => self.begin(name, attributes)?,
                    Event::EndElement(_) => return Ok(Some(Decoded::Footer)),
                    Event::Text(..) => {
                        return Err(Violation::new(DefinedCondition::BadFormat, "text between stanzas"));
                    }
                    Event::XmlDeclaration(..) => {}
                }
                continue;
            }
            if self.source.taken() > max_bytes {
                return Err(source::too_large(what, max_bytes));
            }
            match event {
                Event::Text(metrics, text) => self.hold(metrics, text),
                Event::StartElement(..) => self.enter(event, max_depth)?,
                Event::EndElement(_) if self.depth > 1 => self.leave(event)?,
                Event::EndElement(_) => return self.end(event).map(Some),
                Event::XmlDeclaration(..) => {}
            }
        }
    }

    fn hold(&mut self, metrics: EventMetrics, more: String) {
        match &mut self.text {
            Some((_, text)) => text.push_str(&more),
            None => self.text = Some((metrics, more)),
        }
    }

    /// The text is complete: a tag follows.
    fn feed_text(&mut self) -> Result<(), Violation> {
        match self.text.take() {
            Some((metrics, text)) => {
                self.child.feed(Event::Text(metrics, text), self.depth, self.lang.current())
            }
            None => Ok(()),
        }
    }

    /// A child of the stream begins.
    fn begin(&mut self, name: QName, attributes: AttrMap) -> Result<(), Violation> {
        self.lang.push_from_attrs(&attributes);
        self.depth = 1;
        self.source.collect_text(true);
        let context = Context::empty().with_language(self.lang.current());
        self.child = Child::begin(name, attributes, &context)?;
        Ok(())
    }

    /// An element in it begins.
    fn enter(&mut self, event: Event, max_depth: usize) -> Result<(), Violation> {
        self.feed_text()?;
        if self.depth >= max_depth {
            let text = format!("a stanza is nested deeper than {max_depth} elements");
            return Err(Violation::policy(text));
        }
        self.depth += 1;
        if let Event::StartElement(_, _, attributes) = &event {
            self.lang.push_from_attrs(attributes);
        }
        self.child.feed(event, self.depth, self.lang.current())
    }

    /// An element in it ends.
    fn leave(&mut self, event: Event) -> Result<(), Violation> {
        self.feed_text()?;
        self.depth -= 1;
        self.lang.pop();
        self.child.feed(event, self.depth, self.lang.current())
    }

    /// It ends itself.
    fn end(&mut self, event: Event) -> Result<Decoded, Violation> {
        self.feed_text()?;
        self.depth = 0;
        self.lang.pop();
        let bytes = self.source.taken();
        self.source.collect_text(false);
        self.source.count_anew();
        mem::replace(&mut self.child, Child::None).end(event, self.lang.current(), bytes)
    }
}

impl Child {
    /// What it is, and how many bytes it may take.
    fn bound(&self, max_bytes: usize) -> (&'static str, usize) {
        match self {
            Self::Negotiation(_) => ("an element of STARTTLS or SASL", max_bytes.min(NEGOTIATION_BYTES)),
            Self::Management(_) => ("an element of stream management", max_bytes.min(MANAGEMENT_BYTES)),
            _ => ("a stanza", max_bytes),
        }
    }

    fn begin(name: QName, attributes: AttrMap, context: &Context<'_>) -> Result<Self, Violation> {
        let kind = Kind::of(name.1.as_str());
        match (name.0.as_str(), name.1.as_str(), kind) {
            (ns::CLIENT, _, Some(kind)) => Self::begin_stanza(kind, name, attributes, context),
            (ns::CLIENT, local, None) => {
                let text = format!("<{local}/> is no stanza");
                Err(Violation::new(DefinedCondition::UnsupportedStanzaType, text))
            }
            ("" | "jabber:server", _, Some(_)) => {
                let text = format!("the content namespace must be {}", ns::CLIENT);
                Err(Violation::new(DefinedCondition::InvalidNamespace, text))
            }
            (ns::STREAMS, "features", _) => {
                start(Element::from_events(name, attributes, context), |builder| {
                    Self::Features(Box::new(builder))
                })
            }
            (ns::STREAMS, "error", _) => {
                start(StreamErrorResult::from_events(name, attributes, context), |builder| {
                    Self::StreamError(Box::new(builder))
                })
            }
            (TLS | SASL, _, _) => start(Element::from_events(name, attributes, context), |builder| {
                Self::Negotiation(Box::new(builder))
            }),
            (ns::SM, _, _) => start(Element::from_events(name, attributes, context), |builder| {
                Self::Management(Box::new(builder))
            }),
            _ => Ok(Self::skipped(&name)),
        }
    }

    fn begin_stanza(
        kind: Kind,
        name: QName,
        attributes: AttrMap,
        context: &Context<'_>,
    ) -> Result<Self, Violation> {
        let waiting = match kind {
            Kind::Iq => Waiting::for_iq(&attributes),
            Kind::Message | Kind::Presence => Waiting::Nobody,
        };
        start(StanzaBuilder::begin(kind, name, attributes, context), |(builder, claims)| Self::Stanza {
            builder,
            name: kind.name(),
            waiting,
            claims,
            children: 0,
        })
    }

    fn skipped((namespace, name): &QName) -> Self {
        Self::Skipped { namespace: namespace.to_string(), name: name.to_string() }
    }

    /// Takes an event after which elements are open to this depth, its own among them.
    fn feed(&mut self, event: Event, depth: usize, lang: Option<&str>) -> Result<(), Violation> {
        let context = Context::empty().with_language(lang);
        match self {
            Self::Stanza { builder, children, .. } => {
                if depth == 2 && matches!(event, Event::StartElement(..)) {
                    *children += 1;
                }
                builder.feed(event, &context)
            }
            Self::Features(builder) | Self::Negotiation(builder) | Self::Management(builder) => {
                builder.feed(event, &context).map(drop)
            }
            Self::StreamError(builder) => builder.feed(event, &context).map(drop),
            Self::Skipped { .. } | Self::None => Ok(()),
        }
        .map_err(invalid)
    }

    /// Takes its end.
    fn end(self, event: Event, lang: Option<&str>, bytes: usize) -> Result<Decoded, Violation> {
        let context = Context::empty().with_language(lang);
        match self {
            Self::Stanza { builder, name, waiting, claims, children } => {
                let error = match complete(builder.end(event, &context))? {
                    Ok(stanza) if children > 1 && takes_one_child(&stanza) => {
                        "it has more than one child".to_owned()
                    }
                    Ok(stanza) => return Ok(Decoded::Stanza { stanza, claims, bytes }),
                    Err(error) => error.to_string(),
                };
                Ok(Decoded::BadStanza(BadStanza { name, waiting, error }))
            }
            Self::Features(mut builder) => complete(builder.feed(event, &context)).map(Decoded::Features),
            Self::Negotiation(mut builder) => complete(builder.feed(event, &context))
                .map(|element| Decoded::Negotiation { element, behind: 0 }),
            Self::Management(mut builder) => complete(builder.feed(event, &context))
                .map(|element| Decoded::Management(Nonza::parse(&element))),
            Self::StreamError(mut builder) => complete(builder.feed(event, &context))
                .map(|result| Decoded::StreamError(result.unwrap_or_else(|_| undefined()))),
            Self::Skipped { namespace, name } => Ok(Decoded::Unknown { namespace, name }),
            Self::None => complete(Ok(None)),
        }
    }
}

fn invalid(error: xso::error::Error) -> Violation {
    Violation::new(DefinedCondition::InvalidXml, error.to_string())
}

/// What a builder has made, which has got the end of its element.
fn complete<T>(built: Result<Option<T>, xso::error::Error>) -> Result<T, Violation> {
    built
        .map_err(invalid)?
        .ok_or_else(|| Violation::new(DefinedCondition::InvalidXml, "an element is incomplete"))
}

impl Waiting {
    fn for_iq(attributes: &AttrMap) -> Self {
        let get = |name: &str| attributes.get(Namespace::none(), name);
        match (get("id"), get("type").map(String::as_str)) {
            (None, _) => Self::Nobody,
            (Some(id), Some("result" | "error")) => Self::Us(id.clone()),
            (Some(id), _) => Self::Peer(id.clone()),
        }
    }
}

/// Starts a builder; what its type can't begin with is invalid.
fn start<B>(builder: Result<B, FromEventsError>, wrap: impl FnOnce(B) -> Child) -> Result<Child, Violation> {
    builder.map(wrap).map_err(|error| {
        let text = match error {
            FromEventsError::Mismatch { name, .. } => format!("unexpected element <{}/>", name.1),
            FromEventsError::Invalid(error) => error.to_string(),
        };
        Violation::new(DefinedCondition::InvalidXml, text)
    })
}

/// RFC 6120 §8.2.3: but for errors, which may repeat the request. The builder would keep the last child.
fn takes_one_child(stanza: &Stanza) -> bool {
    matches!(stanza, Stanza::Iq(Iq::Get { .. } | Iq::Set { .. } | Iq::Result { .. }))
}

/// A stream error whose condition we can't read is a stream error all the same.
fn undefined() -> StreamError {
    StreamError {
        condition: DefinedCondition::UndefinedCondition,
        texts: Default::default(),
        application_specific: Vec::new(),
    }
}
