//! How a client's stream ends.

use crate::xml::Fault;

/// Why the server stops talking to a client, and what it says last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The connection is gone; nothing can be said.
    Lost,
    /// Both sides are done.
    Footer,
    /// A stream error (RFC 6120, 4.9), then the footer.
    Error { condition: &'static str, text: String },
}

impl Ending {
    pub(crate) fn error(condition: &'static str, text: impl Into<String>) -> Self {
        Self::Error { condition, text: text.into() }
    }

    /// The last bytes of the stream, in one whose header declared the prefix `stream`.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Lost => Vec::new(),
            Self::Footer => b"</stream:stream>".to_vec(),
            Self::Error { condition, text } => format!(
                "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                 <text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>{}</text>\
                 </stream:error></stream:stream>",
                escape(text)
            )
            .into_bytes(),
        }
    }
}

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Self {
        Self::error(fault.condition(), fault.to_string())
    }
}

impl From<std::io::Error> for Ending {
    fn from(_: std::io::Error) -> Self {
        Self::Lost
    }
}

/// Escapes for text and for attributes in single quotes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;")
}
