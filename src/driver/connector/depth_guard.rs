//! Removes from a server's XML what is nested too deep for the parser behind it.
//!
//! tokio-xmpp parses a stanza by recursion, one level per element, and some 3,400 nested elements (24 KB that any
//! peer can have routed to us) overflow the stack, which ends the process. The connection can't just be closed
//! instead: with XEP-0198 the server sends the same stanza again after every resumption.
//!
//! [`DepthGuard`] follows the structure of the document byte by byte, without keeping any of it, and leaves out the
//! elements below [`MAX_STANZA_DEPTH`]. What is above stays as it was, byte for byte, so the document stays
//! well-formed and stanza counts stay right. The parser behind it refuses what is not well-formed, comments and
//! processing instructions among it, so the guard doesn't judge them; it only has to see every element that the
//! parser would see.

#[cfg(test)]
mod tests;

use memchr::{memchr, memchr3};

/// How many elements may be nested in a stanza, the stanza itself being the first. Real stanzas stay below 20; in a
/// debug build tokio-xmpp's parser has stack for several hundred.
pub(super) const MAX_STANZA_DEPTH: usize = 128;

/// How often the stream may start again on one connection: once, after SASL (RFC 6120 §6.4.6). TLS starts on a new
/// guard. More would let a server nest without being counted.
const MAX_RESTARTS: u8 = 1;

/// The local name of the stream header (RFC 6120 §4.2).
const STREAM: &[u8] = b"stream";

/// The filter; see the [module](self).
#[derive(Debug)]
pub(super) struct DepthGuard {
    /// The deepest level that passes; the stream header is level 1.
    limit: usize,
    /// How many elements are open.
    depth: usize,
    place: Place,
    restarts: u8,
    /// How many elements were removed from this stanza, not counting those inside of them.
    removed: usize,
    stanza_bytes: usize,
}

/// Where in the document the next byte is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Text,
    /// In text, with only a removed element and `]`s before it.
    TextAfterRemoved,
    /// Behind a `<`, which is held back until the next byte tells whose it is.
    Less,
    /// Behind `<!`.
    Bang,
    /// In a CDATA section (`mark` is `]`) or a comment (`-`), behind `seen` (at most 2) marks in a row.
    Section {
        mark: u8,
        seen: u8,
    },
    /// In the name of a stanza-level start tag, of which `matched` bytes are those of [`STREAM`].
    Name {
        matched: Option<usize>,
    },
    /// In a tag, behind `last`, outside of quotes.
    Tag {
        kind: Tag,
        last: u8,
    },
    /// In an attribute's value.
    Quoted {
        kind: Tag,
        quote: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum Tag {
    /// `<a>` or `<a/>`.
    Start,
    /// `</a>`.
    End,
    /// `<?xml?>`.
    Declaration,
}

impl DepthGuard {
    /// A guard for a stream whose header has not come yet.
    pub(super) fn new(max_stanza_depth: usize) -> Self {
        Self {
            limit: max_stanza_depth.saturating_add(1),
            depth: 0,
            place: Place::Text,
            restarts: 0,
            removed: 0,
            stanza_bytes: 0,
        }
    }

    /// Takes the next bytes of the document and appends what may pass to `out`: at most four
    /// bytes more than came in (a held-back `<`, and `&gt;` for `>`).
    pub(super) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut rest = input;
        while let Some((&byte, behind)) = rest.split_first() {
            let before = rest.len();
            rest = match self.place {
                Place::Text => self.text(rest, out),
                Place::TextAfterRemoved => self.text_after_removed(byte, rest, out),
                Place::Less => self.less(byte, rest, out),
                Place::Bang => self.bang(byte, behind, out),
                Place::Section { mark, seen } => self.section(mark, seen, rest, out),
                Place::Name { matched } => self.name(matched, byte, rest, out),
                Place::Tag { kind, last } => self.tag(kind, last, rest, out),
                Place::Quoted { kind, quote } => self.quoted(kind, quote, rest, out),
            };
            let in_stanza = self.depth > 1;
            self.stanza_bytes =
                if in_stanza { self.stanza_bytes.saturating_add(before - rest.len()) } else { 0 };
        }
    }

    /// How much of the present stanza has come, what was removed included; 0 between stanzas.
    pub(super) fn stanza_bytes(&self) -> usize {
        self.stanza_bytes
    }

    fn pass(&self, bytes: &[u8], out: &mut Vec<u8>) {
        // While a tag is read, `depth` counts its element, so an element's own tags go the way of its content.
        if self.depth <= self.limit {
            out.extend_from_slice(bytes);
        }
    }

    fn text<'i>(&mut self, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        let (text, rest) = split_before(memchr(b'<', input), input);
        self.pass(text, out);
        if let Some((_, behind)) = rest.split_first() {
            self.place = Place::Less;
            return behind;
        }
        rest
    }

    /// `]]<removed/>>` must not become `]]>`, which is an error in text (XML 1.0 §2.4).
    fn text_after_removed<'i>(&mut self, byte: u8, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        let (first, behind) = split_after(0, input);
        match byte {
            b']' => self.pass(first, out),
            b'>' => {
                self.pass(b"&gt;", out);
                self.place = Place::Text;
            }
            _ => {
                self.place = Place::Text;
                return input;
            }
        }
        behind
    }

    fn less<'i>(&mut self, byte: u8, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        self.place = match byte {
            b'/' => Place::Tag { kind: Tag::End, last: b'<' },
            b'?' => Place::Tag { kind: Tag::Declaration, last: b'<' },
            b'!' => Place::Bang,
            _ => self.open(),
        };
        self.pass(b"<", out);
        if matches!(self.place, Place::Bang) {
            let (bang, behind) = split_after(0, input);
            self.pass(bang, out);
            return behind;
        }
        input
    }

    fn open(&mut self) -> Place {
        self.depth = self.depth.saturating_add(1);
        if self.depth == self.limit.saturating_add(1) {
            self.removed = self.removed.saturating_add(1);
        }
        match self.depth {
            2 => Place::Name { matched: Some(0) },
            _ => Place::Tag { kind: Tag::Start, last: b'<' },
        }
    }

    fn bang<'i>(&mut self, byte: u8, behind: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        // What is left of `<![CDATA[` has no `]`. The second hyphen of `<!--` counts, so that `<!--->` ends a comment
        // here and not in XML; but the parser refuses every comment.
        let mark = if byte == b'[' { b']' } else { b'-' };
        self.pass(&[byte], out);
        self.place = Place::Section { mark, seen: 0 };
        behind
    }

    fn section<'i>(&mut self, mark: u8, seen: u8, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        let next = if seen == 0 { memchr(mark, input) } else { Some(0) };
        let Some(next) = next else {
            self.pass(input, out);
            return &[];
        };
        let (passed, rest) = split_after(next, input);
        self.pass(passed, out);
        self.place = match passed.last() {
            Some(b'>') if seen == 2 => Place::Text,
            Some(byte) if *byte == mark => Place::Section { mark, seen: seen.saturating_add(1).min(2) },
            _ => Place::Section { mark, seen: 0 },
        };
        rest
    }

    fn name<'i>(&mut self, matched: Option<usize>, byte: u8, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        let matched = match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>' => {
                if matched == Some(STREAM.len()) {
                    self.restart();
                }
                self.place = Place::Tag { kind: Tag::Start, last: b'<' };
                return input;
            }
            b':' => Some(0),
            _ => matched.filter(|&at| STREAM.get(at) == Some(&byte)).map(|at| at + 1),
        };
        self.place = Place::Name { matched };
        let (passed, rest) = split_after(0, input);
        self.pass(passed, out);
        rest
    }

    /// After SASL a new document starts on the same bytes, and nobody closed the old one (RFC 6120 §6.4.6). Only the
    /// server says what is at stanza level: a peer's `<stream:stream>` is inside a stanza, and counted.
    fn restart(&mut self) {
        if self.restarts < MAX_RESTARTS {
            self.restarts += 1;
            self.depth = 1;
        }
    }

    fn tag<'i>(&mut self, kind: Tag, last: u8, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        let Some(at) = memchr3(b'>', b'"', b'\'', input) else {
            self.pass(input, out);
            self.place = Place::Tag { kind, last: input.last().copied().unwrap_or(last) };
            return &[];
        };
        let (passed, rest) = split_after(at, input);
        self.pass(passed, out);
        match passed {
            [.., b'>'] => {
                let before = at.checked_sub(1).and_then(|before| passed.get(before)).copied().unwrap_or(last);
                self.end_tag(kind, before == b'/');
            }
            [.., quote] => self.place = Place::Quoted { kind, quote: *quote },
            [] => {}
        }
        rest
    }

    fn end_tag(&mut self, kind: Tag, self_closing: bool) {
        self.place = Place::Text;
        let closes = match kind {
            Tag::Start => self_closing,
            Tag::End => true,
            Tag::Declaration => false,
        };
        if closes {
            self.depth = self.depth.saturating_sub(1);
            if self.depth == self.limit {
                self.place = Place::TextAfterRemoved;
            }
        }
        if self.depth <= 1 {
            self.report();
        }
    }

    fn quoted<'i>(&mut self, kind: Tag, quote: u8, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        let Some(at) = memchr(quote, input) else {
            self.pass(input, out);
            return &[];
        };
        let (passed, rest) = split_after(at, input);
        self.pass(passed, out);
        self.place = Place::Tag { kind, last: quote };
        rest
    }

    fn report(&mut self) {
        if self.removed > 0 {
            tracing::warn!(
                elements = self.removed,
                "the server sent a stanza nested deeper than {} elements; what lies deeper was removed",
                self.limit.saturating_sub(1)
            );
            self.removed = 0;
        }
    }
}

fn split_before(at: Option<usize>, input: &[u8]) -> (&[u8], &[u8]) {
    input.split_at_checked(at.unwrap_or(input.len())).unwrap_or((input, &[]))
}

fn split_after(at: usize, input: &[u8]) -> (&[u8], &[u8]) {
    input.split_at_checked(at.saturating_add(1)).unwrap_or((input, &[]))
}
