//! What two parties say to each other for a verification code; of this crate, see
//! [`manual`](crate::manual#verification-code).

use base64::{Engine, engine::general_purpose::STANDARD};
use xmpp_parsers::minidom::Element;

use super::{decode_base64, jingle::Malformed, ns};

/// Length of a nonce and of a commitment in bytes.
pub(crate) const LENGTH: usize = 32;

/// Characters of text around those bytes: base64 has 44, and may be wrapped.
const MAX_TEXT: usize = 128;

/// One element of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CodeElement {
    /// The responder asks the initiator to begin.
    Request,
    /// The initiator's: a hash over its nonce.
    Commitment([u8; LENGTH]),
    /// The responder's.
    Nonce([u8; LENGTH]),
    /// The initiator's nonce.
    Reveal([u8; LENGTH]),
}

impl CodeElement {
    /// Whether this belongs to the exchange, readable or not.
    pub(crate) fn matches(element: &Element) -> bool {
        element.has_ns(ns::VERIFICATION_CODE)
    }

    pub(crate) fn parse(element: &Element) -> Result<Self, Malformed> {
        if !Self::matches(element) {
            return Err(Malformed::new("it does not belong to verification codes"));
        }
        match element.name() {
            "request" => Ok(Self::Request),
            "commitment" => bytes(element).map(Self::Commitment),
            "nonce" => bytes(element).map(Self::Nonce),
            "reveal" => bytes(element).map(Self::Reveal),
            _ => Err(Malformed::new("an unknown element of verification codes")),
        }
    }

    pub(crate) fn to_element(&self) -> Element {
        let (name, bytes) = match self {
            Self::Request => ("request", None),
            Self::Commitment(bytes) => ("commitment", Some(bytes)),
            Self::Nonce(bytes) => ("nonce", Some(bytes)),
            Self::Reveal(bytes) => ("reveal", Some(bytes)),
        };
        let element = Element::builder(name, ns::VERIFICATION_CODE);
        element.append_all(bytes.map(|bytes| STANDARD.encode(bytes))).build()
    }
}

fn bytes(element: &Element) -> Result<[u8; LENGTH], Malformed> {
    let (name, text) = (element.name(), element.text());
    if text.len() > MAX_TEXT {
        return Err(Malformed(format!("<{name}/> has {} characters; at most {MAX_TEXT}", text.len())));
    }
    let bytes = decode_base64(&text)
        .map_err(|error| Malformed(format!("the text of <{name}/> is not valid base64: {error}")))?;
    bytes.try_into().map_err(|bytes: Vec<u8>| {
        Malformed(format!("<{name}/> has {} bytes instead of {LENGTH}", bytes.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(xml: &str) -> Result<CodeElement, Malformed> {
        let (name, rest) = xml.split_at(xml.find(['>', '/']).unwrap());
        CodeElement::parse(&format!("{name} xmlns='{}'{rest}", ns::VERIFICATION_CODE).parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = std::array::from_fn(|index| index as u8);
        for element in [
            CodeElement::Request,
            CodeElement::Commitment(bytes),
            CodeElement::Nonce(bytes),
            CodeElement::Reveal(bytes),
        ] {
            assert_eq!(CodeElement::parse(&element.to_element()), Ok(element));
        }
    }

    #[test]
    fn white_space_in_base64_does_not_count() {
        let text = STANDARD.encode([7; LENGTH]);
        let (start, end) = text.split_at(20);
        assert_eq!(
            parse(&format!("<nonce>\n {start}\n\t{end} </nonce>")),
            Ok(CodeElement::Nonce([7; LENGTH]))
        );
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let short = STANDARD.encode([7; LENGTH - 1]);
        let long = " ".repeat(MAX_TEXT + 1);
        for (xml, why) in [
            (format!("<reveal>{short}</reveal>"), "<reveal/> has 31 bytes instead of 32"),
            (format!("<nonce>{long}</nonce>"), "<nonce/> has 129 characters; at most 128"),
            ("<nonce/>".to_owned(), "<nonce/> has 0 bytes instead of 32"),
            ("<cipher/>".to_owned(), "an unknown element of verification codes"),
        ] {
            assert_eq!(parse(&xml), Err(Malformed::new(why)));
        }
        assert!(parse("<commitment>Romeo!</commitment>").unwrap_err().0.contains("not valid base64"));
    }
}
