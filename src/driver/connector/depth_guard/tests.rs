use rxml::{Event, Parse as _};

use super::*;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// Feeds `document` in pieces of `size` bytes.
fn guarded_in_pieces(limit: usize, document: &str, size: usize) -> String {
    let mut guard = DepthGuard::new(limit);
    let mut out = Vec::new();
    for piece in document.as_bytes().chunks(size) {
        guard.feed(piece, &mut out);
    }
    String::from_utf8(out).unwrap()
}

/// What passes, which must not depend on how the document comes in.
fn guarded(limit: usize, document: &str) -> String {
    let whole = guarded_in_pieces(limit, document, document.len().max(1));
    for size in [1, 2, 3, 7] {
        assert_eq!(guarded_in_pieces(limit, document, size), whole, "in pieces of {size}: {document}");
    }
    whole
}

fn nested(levels: usize) -> String {
    format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels))
}

#[test]
fn what_is_at_the_limit_passes_and_what_is_below_does_not() {
    let at_limit = format!("{HEADER}{}", nested(128));
    assert_eq!(guarded(128, &at_limit), at_limit);

    let below = format!("{HEADER}{}", nested(129));
    assert_eq!(guarded(128, &below), at_limit);
}

#[test]
fn ten_thousand_levels_shrink_to_the_limit_and_the_next_stanza_is_whole() {
    let next = "<message><body>hello</body></message><r xmlns='urn:xmpp:sm:3'/>";
    let document = format!("{HEADER}{}{next}", nested(10_000));
    assert_eq!(guarded(128, &document), format!("{HEADER}{}{next}", nested(128)));
}

#[test]
fn siblings_are_not_levels() {
    let document = format!("{HEADER}<m>{}</m>", "<a><b/></a><c></c>".repeat(1_000));
    assert_eq!(guarded(3, &document), document);
}

#[test]
fn text_and_self_closing_elements_go_with_the_element_that_is_removed() {
    let document = format!("{HEADER}<m><a>1<b>2<c/>3</b>4<d/>5</a></m>");
    assert_eq!(guarded(2, &document), format!("{HEADER}<m><a>145</a></m>"));
}

#[test]
fn quoted_tags_are_no_tags() {
    for tag in ["<a x='>'/>", "<a x=\"/>\"></a>", "<a x='\"/>' y=\"'>\"/>", "<a x='/'></a>", "<a\n/>"] {
        let document = format!("{HEADER}<m>{tag}</m><m>{tag}<a>{tag}</a></m>");
        let expected = format!("{HEADER}<m>{tag}</m><m>{tag}<a></a></m>");
        assert_eq!(guarded(2, &document), expected);
    }
}

#[test]
fn tags_in_cdata_and_comments_are_no_tags() {
    for section in ["<![CDATA[<b></a>]] ]>]]]>", "<!-- <b></a> - -> -->", "<![CDATA[]]>"] {
        let document = format!("{HEADER}<m><a>{section}</a></m><m><a><b>{section}</b></a></m>");
        let expected = format!("{HEADER}<m><a>{section}</a></m><m><a></a></m>");
        assert_eq!(guarded(2, &document), expected);
    }
}

#[test]
fn text_around_a_removed_element_does_not_grow_together_to_an_error() {
    let document = format!("{HEADER}<m>]]<a/>><a/>]<a/>]><a/>a>b</m>");
    assert_eq!(guarded(1, &document), format!("{HEADER}<m>]]&gt;]]&gt;a>b</m>"));
}

#[test]
fn the_stream_may_start_again_after_sasl() {
    let success = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
    let document = format!("{HEADER}{success}\n{HEADER}{}", nested(128));
    assert_eq!(guarded(128, &document), document);
    // One more is too much: the depth was not counted on from the first header.
    assert_eq!(guarded(127, &document), format!("{HEADER}{success}\n{HEADER}{}", nested(127)));
}

#[test]
fn a_stream_header_in_a_stanza_is_an_element_as_any_other() {
    let document =
        format!("{HEADER}<m>{}{}</m>", "<stream:stream><a>".repeat(500), "</a></stream:stream>".repeat(500));
    let expected =
        format!("{HEADER}<m>{}{}</m>", "<stream:stream><a>".repeat(2), "</a></stream:stream>".repeat(2));
    assert_eq!(guarded(5, &document), expected);
}

#[test]
fn a_server_that_restarts_for_ever_is_counted_again() {
    let document = format!("{HEADER}{}", "<stream:stream>".repeat(1_000));
    assert_eq!(guarded(128, &document), format!("{HEADER}{}", "<stream:stream>".repeat(129)));
}

#[test]
fn names_that_resemble_the_stream_header_do_not_restart_it() {
    for name in ["streams", "strea", "astream", "stream:streams", "stream:features", "xstream:a"] {
        let document = format!("{HEADER}<{name}><a><b/></a></{name}>");
        assert_eq!(guarded(2, &document), format!("{HEADER}<{name}><a></a></{name}>"));
    }
}

#[test]
fn broken_markup_passes_for_the_parser_to_refuse() {
    for broken in
        ["</a></b></c>", "<>", "< a>", "<!DOCTYPE a>", "<a 'b>'<c>", "<?php ?>", "<![X]]>", "<!-->-->"]
    {
        let document = format!("{HEADER}{broken}");
        assert_eq!(guarded(128, &document), document);
    }
}

#[test]
fn nothing_grows_but_by_what_was_held_back() {
    let document = format!("{HEADER}<m>{}</m>", "<a/>>".repeat(1_000));
    let mut guard = DepthGuard::new(1);
    for piece in document.as_bytes().chunks(5) {
        let mut out = Vec::new();
        guard.feed(piece, &mut out);
        assert!(out.len() <= piece.len() + 4);
    }
}

#[test]
fn random_documents_lose_what_is_too_deep_and_nothing_else() {
    let mut shallow = 0;
    for seed in 1..=2_000 {
        let mut random = Random(seed);
        let limit = 1 + random.below(6);
        let document = random.document();
        let size = 1 + random.below(9);
        let passed = guarded_in_pieces(limit, &document, size);

        let deepest = events(&document, usize::MAX);
        let expected = events(&document, limit + 1);
        assert_eq!(events(&passed, usize::MAX), expected, "seed {seed}, limit {limit}: {document}");
        if deepest == expected {
            shallow += 1;
            assert_eq!(passed, document, "seed {seed}, limit {limit}");
        }
    }
    assert!((200..1_800).contains(&shallow), "documents of both kinds, not {shallow} of one");
}

/// The document as rxml reads it, without elements below `limit`.
fn events(document: &str, limit: usize) -> Vec<String> {
    let mut parser = rxml::Parser::default();
    let mut input = document.as_bytes();
    let mut depth = 0;
    let mut seen: Vec<String> = Vec::new();
    while let Some(event) =
        parser.parse(&mut input, true).unwrap_or_else(|error| panic!("{error:?}: {document}"))
    {
        match event {
            Event::XmlDeclaration(..) => {}
            Event::StartElement(_, name, attributes) => {
                depth += 1;
                if depth <= limit {
                    seen.push(format!("<{name:?} {attributes:?}>"));
                }
            }
            Event::EndElement(_) => {
                if depth <= limit {
                    seen.push("</>".to_owned());
                }
                depth -= 1;
            }
            Event::Text(_, text) if depth <= limit => match seen.last_mut() {
                Some(last) if !last.starts_with('<') => last.push_str(&text),
                _ => seen.push(format!("text: {text}")),
            },
            Event::Text(..) => {}
        }
    }
    seen
}

/// A xorshift generator, for documents that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        for shift in [13, 7, 17] {
            let shifted = if shift == 7 { self.0 >> shift } else { self.0 << shift };
            self.0 ^= shifted;
        }
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.below(choices.len())]
    }

    fn document(&mut self) -> String {
        let mut document = HEADER.to_owned();
        for _ in 0..1 + self.below(4) {
            let name = self.one_of(&["message", "iq", "x", "streams"]);
            self.element(name, 1, &mut document);
            document.push_str(self.one_of(&["", " ", "\n"]));
        }
        document.push_str("</stream:stream>");
        document
    }

    fn element(&mut self, name: &str, depth: usize, out: &mut String) {
        out.push_str(&format!("<{name}"));
        for attribute in [" a='>'", " b=\"/>\"", " c='\"'", " d=\"x/\"", " e = '&lt;a/&gt;'"] {
            if self.below(4) == 0 {
                out.push_str(attribute);
            }
        }
        out.push_str(self.one_of(&["", "", " ", "\n"]));
        if self.below(4) == 0 {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for _ in 0..self.below(4) {
            self.text(out);
            if depth < 9 && self.below(5) > 0 {
                let name = self.one_of(&["a", "bc", "stream:stream", "stream", "a-b.c"]);
                self.element(name, depth + 1, out);
            } else {
                out.push_str(self.one_of(&[
                    "<![CDATA[<b>]] ]>]]>",
                    "<![CDATA[]]]]]>",
                    "<![CDATA['\"</a>]]>",
                ]));
            }
        }
        self.text(out);
        out.push_str(&format!("</{name}{}>", self.one_of(&["", "", " "])));
    }

    fn text(&mut self, out: &mut String) {
        let mut text = String::new();
        for _ in 0..self.below(4) {
            text.push_str(self.one_of(&["a", "]", "]]", ">", "/>", "&lt;", "é", "\"", "'", "\n"]));
        }
        out.push_str(&text.replace("]]>", "]] >"));
    }
}
