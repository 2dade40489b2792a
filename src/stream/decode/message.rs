//! Messages, which are nearly all that is received, built without the derived builder.
//!
//! That one tries each of its fields for every child, and moves a state of several hundred bytes with each event: as much as
//! the XML parser takes for a short message. What is in a thread or a payload still goes to the derived builders.

use rxml::{AttrMap, Event, QName};
use xmpp_parsers::{
    message::{Id, Lang, Message, MessageType, Thread},
    minidom::Element,
};
use xso::{
    Context, FromEventsBuilder, FromXml, FromXmlText as _,
    error::{Error, FromEventsError},
    is_xml_whitespace,
};

use crate::{stream::addressing::Claims, wire::ns};

/// Builds a message, or an error that says how it breaks its schema.
pub(super) struct MessageBuilder {
    message: Message,
    /// What is wrong with it. The rest only has to be skipped.
    error: Option<Error>,
    child: Child,
    /// Open elements, the message's own not counted.
    depth: usize,
}

/// The child of the message that is being read.
enum Child {
    None,
    Text(Field, Lang, String),
    Thread(Box<<Thread as FromXml>::Builder>),
    Payload(Box<<Element as FromXml>::Builder>),
}

/// Where a text belongs.
#[derive(Clone, Copy, Debug)]
enum Field {
    Body,
    Subject,
}

impl MessageBuilder {
    /// What else the start tag says does not matter.
    pub(super) fn begin(attributes: AttrMap) -> (Box<Self>, Claims) {
        let mut builder =
            Box::new(Self { message: Message::normal(None), error: None, child: Child::None, depth: 0 });
        let (Self { message, error, .. }, mut claims) = (&mut *builder, Claims::default());
        // There are few, and to look one up takes as long as to look at all.
        for ((_, name), value) in attributes.into_iter().filter(|((namespace, _), _)| namespace.is_none()) {
            match name.as_str() {
                "from" => claims.from = Some(value),
                "to" => claims.to = Some(value),
                "id" => message.id = Some(Id(value)),
                "type" => match MessageType::from_xml_text(value) {
                    Ok(type_) => message.type_ = type_,
                    Err(wrong) => *error = Some(wrong),
                },
                _ => {}
            }
        }
        (builder, claims)
    }

    /// Takes an event in the message.
    pub(super) fn feed(&mut self, event: Event, context: &Context<'_>) {
        match &event {
            Event::StartElement(..) => self.depth += 1,
            Event::EndElement(_) => self.depth = self.depth.saturating_sub(1),
            Event::Text(..) | Event::XmlDeclaration(..) => {}
        }
        if self.error.is_none()
            && let Err(error) = self.take(event, context)
        {
            self.error = Some(error);
        }
    }

    /// Gives the message, which ends here.
    pub(super) fn end(self: Box<Self>) -> Result<Message, Error> {
        let Self { message, error, .. } = *self;
        error.map_or(Ok(message), Err)
    }

    /// Takes an event after which elements are open to this depth.
    fn take(&mut self, event: Event, context: &Context<'_>) -> Result<(), Error> {
        match &mut self.child {
            Child::None => match event {
                Event::StartElement(_, name, attributes) => {
                    self.child = self.begin_child(name, attributes, context)?;
                }
                Event::Text(_, text) if !is_xml_whitespace(&text) => {
                    return Err(Error::Other("Unexpected text content"));
                }
                _ => {}
            },
            Child::Text(_, _, text) => match event {
                // What is marked up in a text is left out.
                Event::Text(_, more) if self.depth == 1 => match text.is_empty() {
                    true => *text = more,
                    false => text.push_str(&more),
                },
                Event::EndElement(_) if self.depth == 0 => self.end_text(),
                _ => {}
            },
            Child::Thread(builder) => {
                if let Some(thread) = builder.feed(event, context)? {
                    self.message.thread = Some(thread);
                    self.child = Child::None;
                }
            }
            Child::Payload(builder) => {
                if let Some(payload) = builder.feed(event, context)? {
                    self.message.payloads.push(payload);
                    self.child = Child::None;
                }
            }
        }
        Ok(())
    }

    fn begin_child(&self, name: QName, attributes: AttrMap, context: &Context<'_>) -> Result<Child, Error> {
        let text = |field| {
            let lang = context.language().unwrap_or_default();
            Ok(Child::Text(field, Lang(lang.to_owned()), String::new()))
        };
        match (name.0.as_str(), name.1.as_str()) {
            (ns::CLIENT, "body") => text(Field::Body),
            (ns::CLIENT, "subject") => text(Field::Subject),
            (ns::CLIENT, "thread") if self.message.thread.is_some() => {
                Err(Error::Other("a message must not have more than one thread"))
            }
            (ns::CLIENT, "thread") => begin::<Thread>(name, attributes, context).map(Child::Thread),
            _ => begin::<Element>(name, attributes, context).map(Child::Payload),
        }
    }

    fn end_text(&mut self) {
        if let Child::Text(field, lang, text) = std::mem::replace(&mut self.child, Child::None) {
            let texts = match field {
                Field::Body => &mut self.message.bodies,
                Field::Subject => &mut self.message.subjects,
            };
            texts.insert(lang, text);
        }
    }
}

fn begin<T: FromXml>(
    name: QName,
    attributes: AttrMap,
    context: &Context<'_>,
) -> Result<Box<T::Builder>, Error> {
    match T::from_events(name, attributes, context) {
        Ok(builder) => Ok(Box::new(builder)),
        Err(FromEventsError::Invalid(error)) => Err(error),
        Err(FromEventsError::Mismatch { .. }) => Err(Error::TypeMismatch),
    }
}

#[cfg(test)]
mod tests {
    use rxml::{Parse as _, Parser, xml_lang::XmlLangStack};

    use super::*;

    /// The events of a document, each with the language that is in force.
    fn events(xml: &str) -> Vec<(Event, Option<String>)> {
        let (mut parser, mut bytes) = (Parser::new(), xml.as_bytes());
        let (mut lang, mut events) = (XmlLangStack::new(), Vec::new());
        while let Some(event) = parser.parse(&mut bytes, true).expect("it is XML") {
            match &event {
                Event::StartElement(_, _, attributes) => lang.push_from_attrs(attributes),
                Event::EndElement(_) => lang.pop(),
                _ => {}
            }
            events.push((event, lang.current().map(str::to_owned)));
        }
        events
    }

    /// What ours makes of it.
    fn ours(xml: &str) -> Result<Message, String> {
        let mut events = events(xml).into_iter();
        let Some((Event::StartElement(_, _, attributes), _)) = events.next() else { panic!("no element") };
        let (mut builder, _) = MessageBuilder::begin(attributes);
        let Some((Event::EndElement(_), _)) = events.next_back() else { panic!("the message does not end") };
        for (event, lang) in events {
            builder.feed(event, &Context::empty().with_language(lang.as_deref()));
        }
        builder.end().map_err(|error| error.to_string())
    }

    /// What the derived builder makes of it.
    fn derived(xml: &str) -> Result<Message, String> {
        let mut events = events(xml).into_iter();
        let Some((Event::StartElement(_, name, attributes), _)) = events.next() else { panic!("no element") };
        let mut builder = Result::<Message, Error>::from_events(name, attributes, &Context::empty()).unwrap();
        for (event, lang) in events {
            let context = Context::empty().with_language(lang.as_deref());
            if let Some(result) = builder.feed(event, &context).unwrap() {
                return result.map_err(|error| error.to_string());
            }
        }
        panic!("the message does not end");
    }

    fn both(xml: &str) -> [Result<Message, String>; 2] {
        [ours(xml), derived(xml)]
    }

    #[test]
    fn it_builds_what_the_derived_builder_builds() {
        for inside in [
            "",
            " \n\t ",
            "<body/>",
            "<body>soft, <![CDATA[<what>]]> light &amp;</body>",
            "<body>through <em xmlns='urn:x'>yonder <b>win</b></em>dow<br/></body>",
            "<body>one</body><body>two</body>",
            "<body>soft</body>\n<body xml:lang='de'>sanft</body><body xml:lang=''>x</body>",
            "<subject>a</subject><subject xml:lang='it'>b</subject><body kind='x'>c</body>",
            "<thread>1</thread><subject/>",
            "<thread parent='0' more='x'>1<x xmlns='urn:x'>y</x></thread>",
            "<x xmlns='urn:x'><body xmlns='jabber:client'>no body</body>text<y z='1'/></x><body>b</body>",
            "<body xmlns='urn:x'>no body either</body><thread xmlns='urn:x'/><subject xmlns=''/>",
            "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error><q/>",
            "<delay xmlns='urn:xmpp:delay' xml:lang='fr'>late</delay>",
        ] {
            for tag in ["", "id=''", "type='headline' id='a&lt;b'", "type='normal' xml:lang='en' more='x'"] {
                let xml = format!("<message xmlns='jabber:client' {tag}>{inside}</message>");
                let [ours, derived] = both(&xml);
                assert!(ours.is_ok(), "{xml}: {ours:?}");
                assert_eq!(ours, derived, "{xml}");
            }
        }
    }

    #[test]
    fn it_refuses_what_the_derived_builder_refuses_and_reads_on_to_the_end() {
        for (tag, inside) in [
            ("type='shout'", "<body>soft</body>"),
            ("type=''", ""),
            ("", "soft"),
            ("", "<body>soft</body>, what light"),
            ("", "what <body>light</body><x xmlns='urn:x'><y/></x>"),
            ("", "<thread>1</thread><thread>2</thread><body>b</body>"),
        ] {
            let xml = format!("<message xmlns='jabber:client' {tag}>{inside}</message>");
            let [ours, derived] = both(&xml);
            assert!(ours.is_err() && derived.is_err(), "{xml}: {ours:?}, {derived:?}");
        }
    }
}
