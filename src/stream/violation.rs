//! What the peer's XML does wrong, as the stream error that answers it (RFC 6120 §4.9.3).

use rxml::Error as XmlError;
use xmpp_parsers::stream_error::DefinedCondition;

/// A breach that ends the stream: the condition to send, and a text for people.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    pub(crate) condition: DefinedCondition,
    pub(crate) text: String,
}

impl Violation {
    pub(crate) fn new(condition: DefinedCondition, text: impl Into<String>) -> Self {
        Self { condition, text: text.into() }
    }

    pub(crate) fn policy(text: impl Into<String>) -> Self {
        Self::new(DefinedCondition::PolicyViolation, text)
    }

    /// A fault that the XML parser found.
    pub(crate) fn xml(error: XmlError) -> Self {
        Self::new(condition(&error), error.to_string())
    }

    /// The same before the stream header is complete, where a zero byte means UTF-16 or UTF-32.
    pub(crate) fn xml_in_header(error: XmlError) -> Self {
        match error {
            XmlError::UnexpectedByte(_, 0, _) | XmlError::InvalidChar(_, 0, _) => Self::not_utf8(),
            other => Self::xml(other),
        }
    }

    /// RFC 6120 §11.6: a stream is UTF-8 and nothing else.
    pub(crate) fn not_utf8() -> Self {
        Self::new(DefinedCondition::UnsupportedEncoding, "an XML stream is encoded in UTF-8")
    }
}

fn condition(error: &XmlError) -> DefinedCondition {
    match error {
        XmlError::InvalidUtf8Byte(_) => DefinedCondition::UnsupportedEncoding,
        XmlError::UndeclaredNamespacePrefix(_) => DefinedCondition::BadNamespacePrefix,
        // RFC 6120 §11.1: comments, processing instructions, DTDs and entities of one's own.
        XmlError::UndeclaredEntity => DefinedCondition::RestrictedXml,
        // `<!` that begins neither a comment nor a CDATA section begins a markup declaration, such as
        // `<!DOCTYPE`; rxml has no error of its own for it.
        XmlError::InvalidSyntax("malformed cdata or comment section start") => {
            DefinedCondition::RestrictedXml
        }
        XmlError::RestrictedXml("only utf-8 encoding is allowed") => DefinedCondition::UnsupportedEncoding,
        XmlError::RestrictedXml("long name or reference" | "event too long") => {
            DefinedCondition::PolicyViolation
        }
        XmlError::RestrictedXml(_) => DefinedCondition::RestrictedXml,
        _ => DefinedCondition::NotWellFormed,
    }
}
