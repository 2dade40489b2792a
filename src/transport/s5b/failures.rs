//! What was tried in vain, for the error at the end.

use std::fmt;

use super::candidate::Candidate;

/// How long the list gets, in bytes: a few candidates in full, however many there were.
const MAX_LIST: usize = 512;
/// Of a host name, and of a reason.
const MAX_PIECE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Failures(String);

impl Failures {
    pub(super) fn note(&mut self, candidate: &Candidate, why: &str) {
        let Candidate { host, port, kind, .. } = candidate;
        let entry = format!("{}:{port} ({kind}): {}", shortened(host), shortened(why));
        let gap = if self.0.is_empty() { "" } else { "; " };
        if self.0.len() + gap.len() + entry.len() <= MAX_LIST {
            self.0.push_str(gap);
            self.0.push_str(&entry);
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

/// Somebody else's text, cut where it is long, and without control characters.
pub(super) fn shortened(text: &str) -> String {
    let mut short = String::with_capacity(text.len().min(MAX_PIECE));
    for letter in text.chars() {
        if short.len() + letter.len_utf8() > MAX_PIECE {
            short.push('…');
            break;
        }
        short.push(if letter.is_control() { '?' } else { letter });
    }
    short
}
