//! What a malicious peer may send, and the stream error it gets for it.

use std::{fs, path::Path};

use super::support::{HEADER, Side, decode};
use crate::{Limits, stream::violation::Violation};

/// Feeds an endless peer until the decoder has enough; gives the bytes that took and the reason.
fn flood(limits: &Limits, start: &str, more: &str) -> (usize, Violation) {
    let mut decoder = crate::stream::decode::Decoder::new(limits);
    let chunk = more.repeat(4096 / more.len() + 1);
    let mut sent = 0;
    for mut piece in std::iter::once(start.as_bytes()).chain(std::iter::repeat(chunk.as_bytes())) {
        let size = piece.len();
        loop {
            match decoder.decode(&mut piece) {
                Ok(None) => break,
                Ok(Some(_)) => {}
                Err(violation) => return (sent + size - piece.len(), violation),
            }
        }
        sent += size;
        assert!(sent < 100_000_000, "it never has enough of {more:?}");
    }
    unreachable!("the flood is endless")
}

#[test]
fn endless_input_ends_with_policy_violation_at_its_bound() {
    let limits = Limits { stanza_bytes: 100_000, stanza_depth: 50, ..Limits::default() };
    let header = |more: &str| HEADER.replace("version='1.0'>", more);
    for (start, more, bound) in [
        // One stanza: text, children, siblings without end, white space, character references.
        (format!("{HEADER}<message><body>"), "x", 100_000),
        (format!("{HEADER}<message>"), "<a xmlns='u'/>", 100_000),
        (format!("{HEADER}<message>"), "  \n", 100_000),
        (format!("{HEADER}<message><body>"), "&#x1F339;", 100_000),
        // The same where the stanza is already bad, or is skipped.
        (format!("{HEADER}<iq><x>"), "<y/>", 100_000),
        (format!("{HEADER}<other xmlns='u'>"), "<y/>", 100_000),
        (format!("{HEADER}<stream:features>"), "<y/>", 100_000),
        (format!("{HEADER}<stream:error>"), "<y/>", 100_000),
        (format!("{HEADER}<resume xmlns='urn:xmpp:sm:3'>"), "<y/>", 8 * 1024),
        // One start tag.
        (format!("{HEADER}<message "), "a='' ", 65_536),
        (format!("{HEADER}<message>< "), "x", 65_536),
        (format!("{HEADER}<message><a"), " xmlns:a='u'", 65_536),
        (format!("{HEADER}<message><a"), "      ", 65_536),
        (format!("{HEADER}<message>"), "<![CDATA[]]>", 65_536),
        // A name and a value.
        (format!("{HEADER}<m"), "m", 8_192),
        (format!("{HEADER}<message id='"), "x", 8_192),
        // Nesting.
        (format!("{HEADER}<message>"), "<a>", 50 * 3),
        (format!("{HEADER}<other xmlns='u'>"), "<a>", 50 * 3),
        (format!("{HEADER}<iq>"), "<a>", 50 * 3),
        // The header and what comes before it.
        (header("version='1.0' "), "a='' ", 10_240),
        (header("id='"), "x", 10_240),
        (String::new(), " ", 10_240),
        ("<?xml version='1.0'?>".to_owned(), " ", 10_240),
        ("<".to_owned(), "x", 10_240),
    ] {
        let (sent, violation) = flood(&limits, &start, more);
        // `< ` and the like are not well-formed to begin with, which is as good an end.
        let bounded = sent <= start.len() + bound + 16;
        assert!(bounded, "{start}{more}… went on for {sent} bytes: {violation:?}");
        let condition = violation.condition.to_string();
        let expected = ["policy-violation", "not-well-formed"];
        assert!(expected.contains(&condition.as_str()), "{start}{more}…: {violation:?}");
    }
}

#[test]
fn a_hundred_thousand_nested_elements_are_refused_by_depth() {
    let deep = format!("{HEADER}<message>{}", "<a>".repeat(100_000));
    let violation = decode(&Limits::default(), [deep.as_bytes()]).unwrap_err();
    assert_eq!(violation, Violation::policy("a stanza is nested deeper than 128 elements"));
}

#[test]
fn a_million_attributes_are_refused() {
    let wide =
        format!("{HEADER}<message {}", (0..1_000_000).map(|n| format!("a{n}='' ")).collect::<String>());
    let violation = decode(&Limits::default(), [wide.as_bytes()]).unwrap_err();
    assert_eq!(violation, Violation::policy("a start tag is longer than 65536 bytes"));
}

#[test]
fn the_bounds_are_exact() {
    let stanza = "<message><body><a/></body></message>";
    let xml = format!("{HEADER} {stanza} {stanza}");
    let limits = |stanza_bytes, stanza_depth| Limits { stanza_bytes, stanza_depth, ..Limits::default() };
    for size in [1, 5, xml.len()] {
        let pieces = || xml.as_bytes().chunks(size);
        assert_eq!(decode(&limits(stanza.len(), 3), pieces()).unwrap().len(), 3);
        let too_large = decode(&limits(stanza.len() - 1, 3), pieces()).unwrap_err();
        assert_eq!(too_large, Violation::policy("a stanza is larger than 35 bytes"));
        let too_deep = decode(&limits(stanza.len(), 2), pieces()).unwrap_err();
        assert_eq!(too_deep, Violation::policy("a stanza is nested deeper than 2 elements"));
    }
}

#[test]
fn white_space_between_stanzas_may_go_on_for_ever() {
    let space = " \r\n\t".repeat(1_000_000);
    let limits = Limits { stanza_bytes: 1_000, ..Limits::default() };
    let xml = format!("{HEADER}{space}<message/>{space}<message/>");
    assert_eq!(decode(&limits, [xml.as_bytes()]).unwrap().len(), 3);
}

/// Each file's name ends with the condition that answers it.
#[test]
fn every_fixture_gets_its_stream_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hostile/stream");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let (_, condition) = stem.rsplit_once('.').unwrap();
        let bytes = fs::read(&path).unwrap();
        for size in [1, 3, bytes.len()] {
            let mut side = Side::juliet();
            bytes.chunks(size).for_each(|piece| drop(side.reads(piece)));
            assert_eq!(side.condition().to_string(), condition, "{stem} in pieces of {size}");

            let written = side.written();
            // RFC 6120 §4.9.1.2: a header, whatever went wrong, then the error and the footer.
            assert!(written.starts_with("<?xml version='1.0'?><stream:stream "), "{stem}: {written}");
            let error = format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'");
            assert_eq!(written.matches(&error).count(), 1, "{stem}: {written}");
            assert!(written.ends_with("</stream:error></stream:stream>"), "{stem}: {written}");
        }
        count += 1;
    }
    assert!(count >= 30, "only {count} fixtures");
}
