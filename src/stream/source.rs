//! The XML parser under the decoder, fed in windows and counted.

use rxml::{Event, Parse as _, Parser, error::EndOrError, parser::EventMetrics};

use super::{text, violation::Violation};

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
    place: Place,
}

/// Where in the document the next byte is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Where only the parser knows.
    Parser,
    /// Behind a tag, or in the text that follows: the parser has nothing of that text, and may be passed by.
    Text,
    /// In a character of such text. The parser has the front of it, and so many bytes are missing.
    Character { missing: usize },
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
        Self { parser, taken: 0, unfinished: 0, place: Place::Parser }
    }

    /// Bytes taken since [`count_anew`](Self::count_anew).
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    pub(super) fn count_anew(&mut self) {
        self.taken = 0;
    }

    /// Gives back what it does not need before the next byte.
    pub(super) fn release(&mut self) {
        self.parser.release_temporaries();
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
        if let Some(event) = self.text(bytes, limit) {
            return Ok(event);
        }
        loop {
            let size = self.window(bytes, limit);
            let (window, _) = bytes.split_at_checked(size).unwrap_or((bytes, &[]));
            let (result, used) = self.parse(window);
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

    /// Text that is read without the parser, if it is such that comes next.
    fn text(&mut self, bytes: &mut &[u8], limit: usize) -> Option<Event> {
        let is_tag = bytes.first() == Some(&b'<');
        if is_tag || !matches!(self.place, Place::Text) || !self.parser.text_buffering() {
            return None;
        }
        let most = limit.saturating_sub(self.taken).saturating_add(1);
        let (text, used) = text::read(bytes.get(..most).unwrap_or(bytes));
        if used == 0 {
            return None;
        }
        *bytes = bytes.get(used..).unwrap_or_default();
        self.taken += used;
        Some(Event::Text(EventMetrics::new(used), text))
    }

    /// How many bytes the parser may have.
    fn window(&self, bytes: &[u8], limit: usize) -> usize {
        let left = limit.saturating_sub(self.taken).min(TAG_BYTES.saturating_sub(self.unfinished));
        let most = match self.place {
            Place::Character { missing } => missing,
            Place::Parser | Place::Text => WINDOW,
        };
        bytes.len().min(most).min(left.saturating_add(1))
    }

    /// Gives the parser a window. Says how much of it was used, too.
    fn parse(&mut self, window: &[u8]) -> (Result<Option<Event>, EndOrError>, usize) {
        let mut rest = window;
        let is_character = matches!(self.place, Place::Character { .. });
        if is_character {
            // So that it gives the character as soon as it has all of it, and keeps nothing.
            self.parser.set_text_buffering(false);
        }
        let result = self.parser.parse(&mut rest, false);
        if is_character {
            self.parser.set_text_buffering(true);
        }
        let used = window.len() - rest.len();
        self.place = self.place_behind(&result, window.get(..used).unwrap_or_default());
        (result, used)
    }

    fn place_behind(&self, result: &Result<Option<Event>, EndOrError>, used: &[u8]) -> Place {
        match (result, self.place) {
            // The end of an empty element comes without a byte, and before it the parser must not be passed by.
            (Ok(Some(Event::StartElement(..))), _) => match used {
                [.., b'/', b'>'] | [_] | [] => Place::Parser,
                _ => Place::Text,
            },
            (Ok(Some(Event::EndElement(_))), _) => Place::Text,
            (Ok(Some(Event::Text(..))), Place::Character { missing }) if missing == used.len() => Place::Text,
            (Err(EndOrError::NeedMoreData), Place::Text) if used.is_empty() => Place::Text,
            (Err(EndOrError::NeedMoreData), Place::Text) => {
                text::missing(used).map_or(Place::Parser, |missing| Place::Character { missing })
            }
            (Err(EndOrError::NeedMoreData), Place::Character { missing }) if missing > used.len() => {
                Place::Character { missing: missing - used.len() }
            }
            _ => Place::Parser,
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

#[cfg(test)]
mod tests;
