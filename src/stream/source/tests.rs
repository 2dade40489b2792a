//! What passes by the parser comes out as the parser would have given it.

use rxml::{Parse as _, Parser};

use super::*;
use crate::security::dice::Dice;

/// Pieces of documents, good and bad.
const PIECES: &[&str] = &[
    "<a>",
    "<b x='1'>",
    "<c/>",
    "<c y='/'/>",
    "<d z='/'>",
    "</a>",
    "</b>",
    "</d>",
    "But, soft! what light through yonder window breaks? It is the east. ",
    "x",
    " ",
    "\n\t",
    "[1] ]] ",
    "]",
    "]>",
    "]]>",
    "é",
    "，。",
    "\u{fffd}",
    "\u{ffff}",
    "🌹",
    "&amp;",
    "&lt;&gt;&quot;&apos;",
    "&#x41;&#66;",
    "&#13;",
    "&nothing;",
    "&",
    "\r",
    "\r\n",
    "\u{1}",
    "<![CDATA[<c>&amp;]]>",
    "<!-- no -->",
];

/// Tags and text; neighbouring texts are one. What is wrong, if something is, without the text right before it: that may or
/// may not have come out.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    parts: Vec<String>,
    text: String,
    error: Option<String>,
}

impl Heard {
    fn event(&mut self, event: &Event) {
        let part = match event {
            Event::Text(_, text) => return self.text.push_str(text),
            Event::StartElement(_, name, attributes) => {
                format!("<{} {:?}>", name.1, attributes.iter().collect::<Vec<_>>())
            }
            Event::EndElement(_) => "</>".to_owned(),
            Event::XmlDeclaration(..) => "<?>".to_owned(),
        };
        let text = std::mem::take(&mut self.text);
        self.parts.extend([text, part]);
    }

    fn error(&mut self, error: &rxml::Error) {
        self.text.clear();
        self.error = Some(error.to_string());
    }
}

fn parsed(document: &[u8]) -> Heard {
    let (mut heard, mut parser, mut rest) = (Heard::default(), Parser::new(), document);
    parser.set_text_buffering(false);
    loop {
        match parser.parse(&mut rest, false) {
            Ok(Some(event)) => heard.event(&event),
            Err(EndOrError::Error(error)) => heard.error(&error),
            Ok(None) | Err(EndOrError::NeedMoreData) if !rest.is_empty() => continue,
            Ok(None) | Err(EndOrError::NeedMoreData) => {}
        }
        if heard.error.is_some() || rest.is_empty() {
            // What comes without another byte.
            if let (None, Ok(Some(event))) = (&heard.error, parser.parse(&mut rest, false)) {
                heard.event(&event);
            }
            return heard;
        }
    }
}

fn taken(pieces: &[&[u8]]) -> Heard {
    let (mut heard, mut source) = (Heard::default(), Source::new());
    let limit = usize::MAX - 1;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match source.next(&mut rest, limit) {
                Ok(event) => {
                    source.collect_text(true);
                    heard.event(&event);
                }
                Err(Stop::NeedMore) => break,
                Err(Stop::Xml(error)) => {
                    heard.error(&error);
                    return heard;
                }
                Err(Stop::TooLarge | Stop::TagTooLong) => panic!("there is no such limit"),
            }
        }
        assert!(rest.is_empty(), "nothing is left");
    }
    let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
    assert_eq!(source.taken(), length, "every byte is counted once");
    heard
}

/// Cuts at up to so many places.
fn cut<'a>(document: &'a [u8], dice: &mut Dice, most: usize) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = (0..dice.below(most + 1)).map(|_| dice.below(document.len() + 1)).collect();
    places.extend([0, document.len()]);
    places.sort_unstable();
    places.windows(2).map(|ends| &document[ends[0]..ends[1]]).collect()
}

#[test]
fn text_is_what_the_parser_would_have_made_of_it() {
    let mut complete = 0;
    for seed in 1..=6_000 {
        let mut dice = Dice::new(seed);
        let mut document = "<root>".to_owned();
        for _ in 0..dice.below(14) {
            // Mostly of what is not an error.
            let count = if dice.below(8) == 0 { PIECES.len() } else { 15 };
            document.push_str(PIECES[dice.below(count)]);
        }
        // A tag behind it, so that no text waits for its end.
        document.push_str("<c/>");
        let pieces = cut(document.as_bytes(), &mut dice, 6);
        let (taken, parsed) = (taken(&pieces), parsed(document.as_bytes()));
        assert_eq!(taken, parsed, "seed {seed}: {pieces:?}");
        complete += usize::from(parsed.error.is_none());
    }
    assert!(complete > 500, "only {complete} of the documents are good ones");
}

#[test]
fn a_character_may_be_cut_anywhere() {
    let document = "<a>，é🌹</a>".as_bytes();
    for place in 0..=document.len() {
        let (front, back) = document.split_at(place);
        let heard = taken(&[front, back]);
        assert_eq!(heard, parsed(document), "{place}");
        let bytes: Vec<&[u8]> = document.chunks(1).collect();
        assert_eq!(taken(&bytes), parsed(document));
    }
}

#[test]
fn never_more_than_one_byte_beyond_the_limit_is_taken() {
    for text in ["romeo ".repeat(100), "ż".repeat(300), "&amp;".repeat(100)] {
        let document = format!("<a>{text}</a>");
        for limit in 3..80 {
            let mut source = Source::new();
            let mut rest = document.as_bytes();
            let stop = loop {
                match source.next(&mut rest, limit) {
                    Ok(_) if source.taken() > limit => break Stop::TooLarge,
                    Ok(_) => source.collect_text(true),
                    Err(stop) => break stop,
                }
            };
            assert!(matches!(stop, Stop::TooLarge), "{limit}");
            assert_eq!(source.taken(), limit + 1);
            assert_eq!(document.len() - rest.len(), limit + 1);
        }
    }
}
