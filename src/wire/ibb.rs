//! In-band bytestreams: XEP-0047's elements, and their Jingle transport (XEP-0261).

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use rxml::xml_ncname;
use xmpp_parsers::minidom::Element;

use super::{
    decode_base64,
    jingle::{MAX_SID, Malformed},
    ns,
};

/// Numbers of blocks before the counter starts again at 0 (XEP-0047 #send: 16 bits).
pub(crate) const SEQUENCE_NUMBERS: u32 = 65536;

/// What is wrong with an element of an in-band bytestream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IbbMalformed {
    /// It is another element, or in another namespace.
    #[error("it is no <{0}/> of an in-band bytestream")]
    WrongElement(&'static str),
    /// A required attribute is missing.
    #[error("the attribute {0} is missing")]
    Missing(&'static str),
    /// An attribute has a value that makes no sense.
    #[error("the attribute {0} is invalid")]
    Invalid(&'static str),
    /// There is an element where only data may be.
    #[error("the data contains an element")]
    ElementInData,
    /// The data is not base64 as RFC 4648 §4 has it.
    #[error("the data is not valid base64: {0}")]
    Base64(DecodeError),
}

impl From<IbbMalformed> for Malformed {
    fn from(malformed: IbbMalformed) -> Self {
        Self(format!("in-band bytestream: {malformed}"))
    }
}

/// `<transport/>` of XEP-0261.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IbbTransport {
    /// Whether it is in the namespace that XEP-0247 prints, `…:ibb:0`, instead of `…:ibb:1`.
    pub(crate) v0: bool,
    /// The largest block in bytes before base64; at least 1. Required in an offer.
    pub(crate) block_size: Option<u32>,
    /// The id of the bytestream, 1 to [`MAX_SID`] bytes. Required in an offer.
    // COMPAT Conversations: its transport-accept lacks the sid.
    pub(crate) sid: Option<String>,
    /// Whether data goes in message stanzas instead of iqs.
    pub(crate) message_mode: bool,
}

impl IbbTransport {
    /// Whether this is an in-band transport of either namespace, readable or not.
    pub(crate) fn matches(element: &Element) -> bool {
        element.is("transport", ns::JINGLE_IBB) || element.is("transport", ns::JINGLE_IBB_0)
    }

    pub(crate) fn parse(element: &Element) -> Result<Self, IbbMalformed> {
        if !Self::matches(element) {
            return Err(IbbMalformed::WrongElement("transport"));
        }
        Ok(Self {
            v0: element.has_ns(ns::JINGLE_IBB_0),
            block_size: block_size(element)?,
            sid: sid(element)?,
            message_mode: message_mode(element)?,
        })
    }

    pub(crate) fn to_element(&self) -> Element {
        let ns = if self.v0 { ns::JINGLE_IBB_0 } else { ns::JINGLE_IBB };
        Element::builder("transport", ns)
            .attr(xml_ncname!("block-size").into(), self.block_size)
            .attr(xml_ncname!("sid").into(), self.sid.as_deref())
            .attr(xml_ncname!("stanza").into(), self.message_mode.then_some("message"))
            .build()
    }
}

/// `<open/>` (XEP-0047 #create).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// The largest block in bytes before base64; at least 1.
    pub(crate) block_size: u32,
    /// The id of the bytestream, 1 to [`MAX_SID`] bytes.
    pub(crate) sid: String,
    /// Whether data goes in message stanzas instead of iqs.
    pub(crate) message_mode: bool,
}

impl Open {
    pub(crate) fn parse(element: &Element) -> Result<Self, IbbMalformed> {
        expect(element, "open")?;
        Ok(Self {
            block_size: block_size(element)?.ok_or(IbbMalformed::Missing("block-size"))?,
            sid: required_sid(element)?,
            message_mode: message_mode(element)?,
        })
    }

    pub(crate) fn to_element(&self) -> Element {
        Element::builder("open", ns::IBB)
            .attr(xml_ncname!("block-size").into(), self.block_size)
            .attr(xml_ncname!("sid").into(), self.sid.as_str())
            .attr(xml_ncname!("stanza").into(), if self.message_mode { "message" } else { "iq" })
            .build()
    }
}

/// `<data/>` (XEP-0047 #send).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// The block's number, less than [`SEQUENCE_NUMBERS`].
    pub(crate) seq: u32,
    /// The id of the bytestream, 1 to [`MAX_SID`] bytes.
    pub(crate) sid: String,
    pub(crate) bytes: Vec<u8>,
}

impl Data {
    pub(crate) fn parse(element: &Element) -> Result<Self, IbbMalformed> {
        expect(element, "data")?;
        let seq = element.attr("seq").ok_or(IbbMalformed::Missing("seq"))?;
        let seq: u32 = seq.parse().map_err(|_| IbbMalformed::Invalid("seq"))?;
        Ok(Self {
            // COMPAT Conversations, Swift: they count on after 65535.
            seq: seq % SEQUENCE_NUMBERS,
            sid: required_sid(element)?,
            bytes: decode(element)?,
        })
    }
}

/// A `<data/>` with these bytes; `seq` is reduced to its 16 bits.
pub(crate) fn data_element(sid: &str, bytes: &[u8], seq: u32) -> Element {
    Element::builder("data", ns::IBB)
        .attr(xml_ncname!("seq").into(), seq % SEQUENCE_NUMBERS)
        .attr(xml_ncname!("sid").into(), sid)
        .append(STANDARD.encode(bytes))
        .build()
}

/// `<close/>` (XEP-0047 #close).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    /// The id of the bytestream, 1 to [`MAX_SID`] bytes.
    pub(crate) sid: String,
}

impl Close {
    pub(crate) fn parse(element: &Element) -> Result<Self, IbbMalformed> {
        expect(element, "close")?;
        Ok(Self { sid: required_sid(element)? })
    }

    pub(crate) fn to_element(&self) -> Element {
        Element::builder("close", ns::IBB).attr(xml_ncname!("sid").into(), self.sid.as_str()).build()
    }
}

fn expect(element: &Element, name: &'static str) -> Result<(), IbbMalformed> {
    if element.is(name, ns::IBB) { Ok(()) } else { Err(IbbMalformed::WrongElement(name)) }
}

fn block_size(element: &Element) -> Result<Option<u32>, IbbMalformed> {
    let Some(size) = element.attr("block-size") else { return Ok(None) };
    match size.parse() {
        Ok(0) | Err(_) => Err(IbbMalformed::Invalid("block-size")),
        Ok(size) => Ok(Some(size)),
    }
}

fn sid(element: &Element) -> Result<Option<String>, IbbMalformed> {
    match element.attr("sid") {
        Some(sid) if sid.is_empty() || sid.len() > MAX_SID => Err(IbbMalformed::Invalid("sid")),
        sid => Ok(sid.map(ToOwned::to_owned)),
    }
}

fn required_sid(element: &Element) -> Result<String, IbbMalformed> {
    sid(element)?.ok_or(IbbMalformed::Missing("sid"))
}

fn message_mode(element: &Element) -> Result<bool, IbbMalformed> {
    match element.attr("stanza") {
        None | Some("iq") => Ok(false),
        Some("message") => Ok(true),
        Some(_) => Err(IbbMalformed::Invalid("stanza")),
    }
}

/// Base64 in strict form (XEP-0047 #sec: other characters and misplaced padding must be refused).
/// White space of XML is the exception: the examples of XEP-0047 and XEP-0247 themselves are wrapped.
pub(crate) fn decode(element: &Element) -> Result<Vec<u8>, IbbMalformed> {
    if element.children().next().is_some() {
        return Err(IbbMalformed::ElementInData);
    }
    let mut texts = element.texts();
    // Nearly all blocks are one text without white space, and need no copy.
    if let (Some(text), None) = (texts.next(), texts.next())
        && let Ok(bytes) = STANDARD.decode(text)
    {
        return Ok(bytes);
    }
    decode_base64(&element.text()).map_err(IbbMalformed::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROMEO: &str = "<data xmlns='http://jabber.org/protocol/ibb' seq='7' sid='a'>Um9tZW8=</data>";

    fn bytes(text: &str) -> Result<Vec<u8>, IbbMalformed> {
        Data::parse(&ROMEO.replace("Um9tZW8=", text).parse().unwrap()).map(|data| data.bytes)
    }

    #[test]
    fn a_block_is_written_as_xep_0047_has_it() {
        assert_eq!(data_element("a", b"Romeo", 7), ROMEO.parse().unwrap());
    }

    #[test]
    fn all_bytes_survive_in_blocks_of_all_lengths() {
        let all: Vec<u8> = (0..=255).rev().collect();
        for length in 0..=all.len() {
            let data = Data { seq: 0, sid: "a".into(), bytes: all[..length].to_vec() };
            assert_eq!(Data::parse(&data_element(&data.sid, &data.bytes, data.seq)), Ok(data));
        }
    }

    #[test]
    fn the_counter_has_16_bits_in_both_directions() {
        let sent = data_element("a", b"", SEQUENCE_NUMBERS);
        assert_eq!(sent.attr("seq"), Some("0"));
        let received = ROMEO.replace("'7'", "'65543'").parse().unwrap();
        assert_eq!(Data::parse(&received).map(|data| data.seq), Ok(7));
    }

    #[test]
    fn the_white_space_of_xml_is_skipped_and_no_other() {
        assert_eq!(bytes("\n  Um9t\n\tZW8=  ").as_deref(), Ok(b"Romeo".as_slice()));
        assert_eq!(bytes("Um9t<![CDATA[ZW8=]]>").as_deref(), Ok(b"Romeo".as_slice()));
        assert_eq!(bytes(" ").as_deref(), Ok(b"".as_slice()));
        assert!(matches!(bytes("Um9t\u{2003}ZW8="), Err(IbbMalformed::Base64(_))));
    }

    #[test]
    fn an_element_is_not_read_as_another() {
        let close = Close { sid: "a".into() }.to_element();
        assert_eq!(Open::parse(&close), Err(IbbMalformed::WrongElement("open")));
        assert_eq!(Data::parse(&close), Err(IbbMalformed::WrongElement("data")));
        assert_eq!(IbbTransport::parse(&close), Err(IbbMalformed::WrongElement("transport")));
    }

    #[test]
    fn transports_keep_their_generation_and_mode() {
        for (v0, message_mode) in [(false, false), (false, true), (true, false), (true, true)] {
            let transport = IbbTransport { v0, block_size: Some(4096), sid: Some("a".into()), message_mode };
            assert_eq!(IbbTransport::parse(&transport.to_element()), Ok(transport));
        }
    }

    #[test]
    fn open_says_which_stanzas_carry_the_data() {
        for (message_mode, stanza) in [(false, "iq"), (true, "message")] {
            let element = Open { block_size: 4096, sid: "a".into(), message_mode }.to_element();
            assert_eq!(element.attr("stanza"), Some(stanza));
        }
    }
}
