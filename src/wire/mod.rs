//! XML in, Rust types out, and back; nothing else happens here.
//!
//! The types are dumb: public fields, no rules beyond what makes an element readable at all. Every
//! `parse` takes whatever a peer or a server may send, and says what was wrong with it.

pub(crate) mod bytestreams;
pub(crate) mod code;
pub(crate) mod errors;
pub(crate) mod ibb;
pub(crate) mod jingle;
pub(crate) mod ns;
pub(crate) mod pubkeys;
pub(crate) mod s5b;
pub(crate) mod sm;
pub(crate) mod xtls;

#[cfg(test)]
mod tests;

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};

/// Base64 as RFC 4648 §4 has it, with the white space of XML anywhere: the examples of several XEPs are wrapped.
fn decode_base64(text: &str) -> Result<Vec<u8>, DecodeError> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let characters: Vec<u8> = text.bytes().filter(|byte| !is_space(byte)).collect();
    STANDARD.decode(characters)
}

/// The longest piece of a peer's text that an error message repeats, in bytes: enough to recognise
/// it, too little to fill a log.
const MAX_QUOTED: usize = 48;

/// A peer's text for an error message: escaped, in quotes, and cut where it is long.
fn quoted(text: &str) -> String {
    let start = cut(text, MAX_QUOTED);
    let dots = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{dots}")
}

/// The longest start of `text` that fits into `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}
