//! Messages, which are nearly all that is sent, written without the derived serialiser.
//!
//! That one moves a state of several hundred bytes for each of a dozen items, and the encoder looks up namespaces for each
//! element: together most of what a short message takes to be written. The payloads still go that way.

use std::collections::BTreeMap;

use jid::Jid;
use xmpp_parsers::message::{Lang, Message};
use xso::AsXmlText as _;

use super::Encoder;

impl Encoder {
    pub(super) fn message(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), String> {
        // All fields have a name here, so that none is forgotten that a later version has.
        let Message { from, to, id, type_, bodies, subjects, thread, payloads } = message;
        let type_ = type_.as_optional_xml_text().map_err(|error| error.to_string())?;
        let attributes = [
            ("from", from.as_ref().map(Jid::as_str)),
            ("to", to.as_ref().map(Jid::as_str)),
            ("id", id.as_ref().map(|id| id.0.as_str())),
            ("type", type_.as_deref()),
        ];
        let languages = bodies.keys().chain(subjects.keys()).map(|lang| lang.0.as_str());
        if !attributes.iter().filter_map(|(_, value)| *value).chain(languages).all(is_plain) {
            return self.items(message, out);
        }
        out.extend_from_slice(b"<message");
        for (name, value) in attributes {
            if let Some(value) = value {
                attribute(name, value, out);
            }
        }
        out.push(b'>');
        self.texts("body", bodies, out)?;
        self.texts("subject", subjects, out)?;
        if let Some(thread) = thread {
            self.items(thread, out)?;
        }
        // The stream around it has the same default namespace as the message.
        for payload in payloads {
            self.items(payload, out)?;
        }
        out.extend_from_slice(b"</message>");
        Ok(())
    }

    fn texts(&mut self, name: &str, texts: &BTreeMap<Lang, String>, out: &mut Vec<u8>) -> Result<(), String> {
        for (lang, text) in texts {
            out.push(b'<');
            out.extend_from_slice(name.as_bytes());
            if !lang.0.is_empty() {
                attribute("xml:lang", &lang.0, out);
            }
            out.push(b'>');
            self.text(text, out).map_err(|error| error.to_string())?;
            out.extend_from_slice(b"</");
            out.extend_from_slice(name.as_bytes());
            out.push(b'>');
        }
        Ok(())
    }
}

fn attribute(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\'');
}

/// Whether the value of an attribute needs no escape. Where one does, the encoder has the rules.
fn is_plain(value: &str) -> bool {
    // U+FFFE and U+FFFF, which XML has no place for, begin with 0xef.
    value.bytes().all(|byte| byte >= 0x20 && !matches!(byte, b'<' | b'>' | b'&' | b'\'' | b'"' | 0xef))
}

#[cfg(test)]
mod tests {
    use xmpp_parsers::{
        message::{Id, MessageType, Thread},
        minidom::Element,
        stanza::Stanza,
    };

    use super::*;

    /// What the derived serialiser makes of it.
    fn derived(message: &Message) -> Result<String, String> {
        let mut out = Vec::new();
        Encoder::new().items(message, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    fn written(message: Message) -> Result<String, String> {
        let mut out = Vec::new();
        Encoder::new().stanza(&Stanza::Message(message), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    fn full() -> Message {
        let mut message = Message::new_with_type(MessageType::Headline, None);
        message.from = Some("romeo@montague.example/orchard".parse().unwrap());
        message.to = Some("juliet@capulet.example/bałkon".parse().unwrap());
        message.id = Some(Id("1".to_owned()));
        message.bodies = [("", "soft, <what> light &\r\n ]]>"), ("de", "doch still"), ("it", "")]
            .map(|(lang, body)| (Lang(lang.to_owned()), body.to_owned()))
            .into();
        message.subjects = [(Lang("de".to_owned()), "Der Balkon".to_owned())].into();
        message.thread = Some(Thread { parent: Some("a&b".to_owned()), id: "2".to_owned() });
        message.payloads = [
            "<active xmlns='http://jabber.org/protocol/chatstates'/>",
            "<x xmlns='jabber:client'><y xmlns='urn:y' z=\"'\">text &amp; more</y><w/></x>",
        ]
        .map(|xml| xml.parse::<Element>().unwrap())
        .into();
        message
    }

    #[test]
    fn it_writes_what_the_derived_serialiser_writes() {
        let edits: [fn(&mut Message); 12] = [
            |_| {},
            |message| *message = Message::new(None),
            |message| message.type_ = MessageType::Normal,
            |message| message.from = None,
            |message| message.from = Some("romeo@montague.example/<&'\">".parse().unwrap()),
            |message| message.id = Some(Id("a'b".to_owned())),
            |message| message.id = Some(Id(String::new())),
            |message| message.id = Some(Id("，".to_owned())),
            |message| message.bodies.clear(),
            |message| drop(message.bodies.insert(Lang("e'n".to_owned()), "hm".to_owned())),
            |message| message.thread = None,
            |message| message.payloads.clear(),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut message = full();
            edit(&mut message);
            assert_eq!(Ok(derived(&message).unwrap()), written(message), "edit {number}");
        }
    }

    #[test]
    fn what_xml_has_no_place_for_is_refused_as_there() {
        let edits: [fn(&mut Message); 4] = [
            |message| message.id = Some(Id("\u{1}".to_owned())),
            |message| message.id = Some(Id("\u{ffff}".to_owned())),
            |message| drop(message.bodies.insert(Lang::new(), "soft\u{0}".to_owned())),
            |message| drop(message.subjects.insert(Lang::new(), "\u{fffe}".to_owned())),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut message = full();
            edit(&mut message);
            assert_eq!(derived(&message).unwrap_err(), written(message).unwrap_err(), "edit {number}");
        }
    }
}
