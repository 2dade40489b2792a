//! The XML parser under the decoder, fed in windows and counted.

use rxml::{Event, Parse as _, Parser, error::EndOrError};

use super::violation::Violation;

/// The parser gets at most this much at a time: for every piece of text it scans all of what it was
/// given, so that larger windows are slower.
const WINDOW: usize = 8 * 1024;

/// Bytes without a complete event, so in effect of one start tag. Far above any honest tag; it keeps
/// the parser from collecting a megabyte of attributes at many times their size.
const TAG_BYTES: usize = 64 * 1024;

/// An XML parser that knows how many bytes it has taken since it was last asked to count anew.
pub(super) struct Source {
    parser: Parser,
    taken: usize,
    unfinished: usize,
}

/// Why [`Source::next`] gave no event.
pub(super) enum Stop {
    /// All bytes are used up.
    NeedMore,
    /// More bytes were taken than the limit.
    TooLarge,
    /// One start tag is too long.
    TagTooLong,
    Xml(rxml::Error),
}

impl Source {
    pub(super) fn new() -> Self {
        let mut parser = Parser::new();
        // There is no text outside of stanzas; if there is, it is to be reported at once.
        parser.set_text_buffering(false);
        Self { parser, taken: 0, unfinished: 0 }
    }

    /// Bytes taken since [`count_anew`](Self::count_anew).
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    pub(super) fn count_anew(&mut self) {
        self.taken = 0;
    }

    /// Whether text is collected into larger pieces.
    pub(super) fn collect_text(&mut self, collect: bool) {
        self.parser.set_text_buffering(collect);
    }

    /// Skips white space between elements, where the parser would collect it.
    pub(super) fn skip_space(&self, bytes: &mut &[u8]) {
        // In the middle of a tag it is the parser's.
        while self.unfinished == 0
            && let Some((&first, rest)) = bytes.split_first()
            && is_space(first)
        {
            *bytes = rest;
        }
    }

    /// The next event; takes bytes up to its end and not one more. Never takes more than one byte
    /// beyond `limit`, however the bytes were cut into pieces.
    pub(super) fn next(&mut self, bytes: &mut &[u8], limit: usize) -> Result<Event, Stop> {
        loop {
            let left = limit.saturating_sub(self.taken).min(TAG_BYTES.saturating_sub(self.unfinished));
            let size = bytes.len().min(WINDOW).min(left.saturating_add(1));
            let (mut window, _) = bytes.split_at_checked(size).unwrap_or((bytes, &[]));
            let result = self.parser.parse(&mut window, false);
            let used = size - window.len();
            *bytes = bytes.get(used..).unwrap_or_default();
            self.taken += used;
            self.unfinished += used;
            match result {
                Ok(Some(event)) => {
                    self.unfinished = 0;
                    return Ok(event);
                }
                Err(EndOrError::Error(error)) => return Err(Stop::Xml(error)),
                Ok(None) | Err(EndOrError::NeedMoreData) => {
                    if self.taken > limit {
                        return Err(Stop::TooLarge);
                    }
                    if self.unfinished > TAG_BYTES {
                        return Err(Stop::TagTooLong);
                    }
                    if bytes.is_empty() || used == 0 {
                        return Err(Stop::NeedMore);
                    }
                }
            }
        }
    }
}

impl Stop {
    /// As the stream error that it calls for; `None` when there is only more to come.
    pub(super) fn violation(self, what: &str, limit: usize) -> Option<Violation> {
        match self {
            Self::NeedMore => None,
            Self::TooLarge => Some(too_large(what, limit)),
            Self::TagTooLong => {
                Some(Violation::policy(format!("a start tag is longer than {TAG_BYTES} bytes")))
            }
            Self::Xml(error) => Some(Violation::xml(error)),
        }
    }
}

/// XML's white space.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

pub(super) fn too_large(what: &str, limit: usize) -> Violation {
    Violation::policy(format!("{what} is larger than {limit} bytes"))
}
