//! The writing half of the codec: stanzas in, bytes out.

mod message;

use std::borrow::Cow;

use rxml::{
    Encoder as XmlEncoder, Item, Namespace,
    writer::{SimpleNamespaces, TrackNamespace as _},
    xml_ncname,
};
use xmpp_parsers::{minidom::Element, stanza::Stanza, stream_error::StreamError};
use xso::AsXml;

use super::text;
use crate::wire::ns;

/// Writes one stream, appending to a buffer.
pub(crate) struct Encoder {
    xml: XmlEncoder<SimpleNamespaces>,
}

/// Our stream header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnHeader<'a> {
    pub(crate) from: Option<&'a str>,
    pub(crate) to: Option<&'a str>,
    /// Only the responder gives one.
    pub(crate) id: Option<&'a str>,
    /// The language of the texts that we write (RFC 6120 §4.7.4). Only the responder gives it.
    pub(crate) lang: Option<&'a str>,
}

impl<'a> OwnHeader<'a> {
    pub(crate) fn initiator(from: Option<&'a str>, to: Option<&'a str>) -> Self {
        Self { from, to, id: None, lang: None }
    }

    pub(crate) fn responder(from: Option<&'a str>, to: Option<&'a str>, id: &'a str) -> Self {
        Self { from, to, id: Some(id), lang: Some("en") }
    }
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { xml: inside_stream() }
    }

    /// RFC 6120 §4.7; always with `version='1.0'`.
    pub(crate) fn header(&self, header: OwnHeader<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<?xml version='1.0'?><stream:stream xmlns='");
        out.extend_from_slice(ns::CLIENT.as_bytes());
        out.extend_from_slice(b"' xmlns:stream='");
        out.extend_from_slice(ns::STREAMS.as_bytes());
        out.push(b'\'');
        for (name, value) in [
            ("from", header.from),
            ("to", header.to),
            ("id", header.id),
            ("version", Some("1.0")),
            ("xml:lang", header.lang),
        ] {
            if let Some(value) = value {
                out.push(b' ');
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"='");
                out.extend_from_slice(escape(value).as_bytes());
                out.push(b'\'');
            }
        }
        out.push(b'>');
    }

    /// RFC 6120 §4.3.2: what is to be negotiated; nothing, too, is said.
    pub(crate) fn features(&self, features: &[Element], out: &mut Vec<u8>) -> Result<(), String> {
        if features.is_empty() {
            out.extend_from_slice(b"<stream:features/>");
            return Ok(());
        }
        out.extend_from_slice(b"<stream:features>");
        for feature in features {
            self.negotiation(feature, out)?;
        }
        out.extend_from_slice(b"</stream:features>");
        Ok(())
    }

    /// An element of STARTTLS or of SASL. Without content it is one tag, as RFC 6120 prints it: before TLS there may be
    /// programs that compare bytes.
    pub(crate) fn negotiation(&self, element: &Element, out: &mut Vec<u8>) -> Result<(), String> {
        let mut xml = Vec::new();
        element.write_to(&mut xml).map_err(|error| error.to_string())?;
        out.append(&mut xml);
        Ok(())
    }

    /// Appends all of the stanza, or nothing and an error that says why it can't be XML.
    pub(crate) fn stanza(&mut self, stanza: &Stanza, out: &mut Vec<u8>) -> Result<(), String> {
        self.append(out, |encoder, out| match stanza {
            Stanza::Message(message) => encoder.message(message, out),
            Stanza::Presence(presence) => encoder.items(presence, out),
            Stanza::Iq(iq) => encoder.items(iq, out),
        })
    }

    /// RFC 6120 §4.9.
    pub(crate) fn stream_error(&mut self, error: &StreamError, out: &mut Vec<u8>) -> Result<(), String> {
        self.append(out, |encoder, out| encoder.items(error, out))
    }

    /// RFC 6120 §4.4.
    pub(crate) fn footer(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"</stream:stream>");
    }

    /// RFC 6120 §4.6.1.
    pub(crate) fn space(&self, out: &mut Vec<u8>) {
        out.push(b' ');
    }

    fn append(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        let start = out.len();
        let result = write(self, out);
        if result.is_err() {
            // The encoder stopped in the middle of an element; start one that has not.
            out.truncate(start);
            self.xml = inside_stream();
        }
        result
    }

    fn items<T: AsXml>(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        let items = value.as_xml_iter().map_err(|error| error.to_string())?;
        for item in items {
            let item = item.map_err(|error| error.to_string())?;
            match item.as_rxml_item() {
                Item::Text(text) => self.text(text, out),
                item => self.xml.encode(item, out),
            }
            .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn text(&mut self, mut text: &str, out: &mut Vec<u8>) -> Result<(), rxml::Error> {
        // Whether there may be text at all.
        self.xml.encode(Item::Text(""), out)?;
        loop {
            let unescaped = text::unescaped(text);
            out.extend_from_slice(unescaped.as_bytes());
            let rest = text.get(unescaped.len()..).unwrap_or_default();
            let mut characters = rest.chars();
            let Some(special) = characters.next() else { return Ok(()) };
            text = characters.as_str();
            match special {
                '<' => out.extend_from_slice(b"&lt;"),
                '>' => out.extend_from_slice(b"&gt;"),
                '&' => out.extend_from_slice(b"&amp;"),
                other => self.xml.encode(Item::Text(other.encode_utf8(&mut [0; 4])), out)?,
            }
        }
    }
}

/// An encoder that stands behind our header, and so knows its two namespaces.
fn inside_stream() -> XmlEncoder<SimpleNamespaces> {
    let mut xml = XmlEncoder::new();
    let namespaces = xml.ns_tracker_mut();
    namespaces.declare_fixed(Some(xml_ncname!("stream")), Namespace::from(ns::STREAMS));
    namespaces.declare_fixed(None, Namespace::from(ns::CLIENT));
    let mut unused = Vec::new();
    for item in
        [Item::ElementHeadStart(Namespace::from(ns::STREAMS), xml_ncname!("stream")), Item::ElementHeadEnd]
    {
        let written = xml.encode(item, &mut unused);
        debug_assert!(written.is_ok(), "a root element can always be written");
    }
    xml
}

fn escape(value: &str) -> Cow<'_, str> {
    if !value.contains(['&', '<', '>', '\'']) {
        return Cow::Borrowed(value);
    }
    let escaped =
        value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;");
    Cow::Owned(escaped)
}
