//! What the decoder reads and the encoder writes.

use xmpp_parsers::{
    iq::Iq,
    message::{Lang, Message},
    minidom::Element,
    stanza::Stanza,
    stream_error::DefinedCondition,
};

use super::support::{FOOTER, HEADER, NONCE, ROMEO, decode, header_with, jid, message};
use crate::{
    Limits,
    stream::{
        decode::{Decoded, Decoder},
        encode::{Encoder, OwnHeader},
        header::Header,
    },
};

fn header(xml: &str) -> Header {
    let decoded = decode(&Limits::default(), [xml.as_bytes()]).unwrap();
    match decoded.into_iter().next() {
        Some(Decoded::Header(header)) => header,
        other => panic!("{xml}: no header but {other:?}"),
    }
}

#[test]
fn headers_of_all_kinds_are_read() {
    const NS: &str = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'";
    for (xml, version) in [
        (format!("<?xml version='1.0'?><stream:stream {NS} version='1.0'>"), Some("1.0")),
        (
            format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<stream:stream {NS} version=\"1.1\">"),
            Some("1.1"),
        ),
        (format!("<?xml version='1.0' encoding='utf-8' standalone='yes'?><stream:stream {NS}>"), None),
        (format!("<stream:stream {NS}>"), None),
        (format!(" \r\n\t<stream:stream {NS}>"), None),
        (format!("\u{feff}<?xml version='1.0'?><stream:stream {NS}>"), None),
        (format!("<stream:stream {NS} xmlns:db='jabber:server:dialback' db:x='1' colour='red'>"), None),
        ("<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client'>".to_owned(), None),
        ("<stream xmlns='http://etherx.jabber.org/streams'>".to_owned(), None),
        (format!("<stream:stream\n  {NS}\n  from=''\n>"), None),
    ] {
        let header = header(&xml);
        assert_eq!(header.version.as_deref(), version, "{xml}");
        assert_eq!(header.from, None, "{xml}");
        assert_eq!(header.has_features(), version.is_some(), "{xml}");
    }
}

#[test]
fn a_header_tells_all_its_attributes() {
    let xml = header_with("version='0.9' from='a@b/c' to='d@e' id='&lt;1&gt;'");
    let header = header(&xml);
    assert_eq!(header.from.as_deref(), Some("a@b/c"));
    assert_eq!(header.to.as_deref(), Some("d@e"));
    assert_eq!(header.id.as_deref(), Some("<1>"));
    assert!(!header.has_features(), "version 0.9 is from before there were features");
}

/// One of everything, with text that is longer than a window and has characters of all lengths.
fn conversation() -> String {
    let long = "añ→\u{1f339} &amp; &#x1F339; <![CDATA[<&>]]>\r\n".repeat(1_000);
    format!(
        "{HEADER} <stream:features><x xmlns='y'/></stream:features>\n\
         <message id='1'><body>{long}</body></message>\
         <presence/>\r\n \
         <iq type='get' id='2'><query xmlns='jabber:iq:version'/></iq>\
         <iq type='get'><query xmlns='jabber:iq:version'/></iq>\
         <iq type='get' id='3'/>\
         <r xmlns='urn:example:unknown'><deep><er/></deep></r>\
         <r xmlns='urn:xmpp:sm:3'><deep><er/></deep></r><a xmlns='urn:xmpp:sm:3'/>\
         <message><body/></message>   \
         <message><body/><x xmlns='urn:example:x'>soft, &lt;what&gt; light\r\nthrough yönder]] w<![CDATA[ind]]>ow</x></message>\
         <stream:error><bad-format xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>\
         <stream:error/>\
         {FOOTER}{HEADER}"
    )
}

fn names(decoded: &[Decoded]) -> Vec<String> {
    let name = |decoded: &Decoded| match decoded {
        Decoded::Header(_) => "header".to_owned(),
        Decoded::Features(features) => format!("features of {}", features.children().count()),
        Decoded::Stanza { stanza: Stanza::Message(message), bytes, .. } => {
            let texts: Vec<_> = message.payloads.iter().flat_map(|payload| payload.texts()).collect();
            format!("message of {} in {bytes}, payloads {texts:?}", message.bodies[""].len())
        }
        Decoded::Stanza { stanza: Stanza::Presence(_), bytes, .. } => format!("presence in {bytes}"),
        Decoded::Stanza { stanza: Stanza::Iq(iq), bytes, .. } => format!("iq {} in {bytes}", iq.id()),
        Decoded::BadStanza(bad) => format!("bad {} {:?}", bad.name, bad.waiting),
        Decoded::StreamError(error) => format!("error {}", error.condition),
        Decoded::Negotiation { element, .. } => format!("negotiation {}", element.name()),
        Decoded::Management(Ok(nonza)) => format!("management {nonza:?}"),
        Decoded::Management(Err(why)) => format!("bad management: {}", why.0),
        Decoded::Unknown { namespace, name } => format!("unknown {namespace} {name}"),
        Decoded::Footer => "footer".to_owned(),
    };
    decoded.iter().map(name).collect()
}

#[test]
fn everything_is_read_in_order_and_sized() {
    let decoded = decode(&Limits::default(), [conversation().as_bytes()]).unwrap();
    assert_eq!(
        names(&decoded),
        [
            "header",
            "features of 1",
            "message of 22000 in 44039, payloads []",
            "presence in 11",
            "iq 2 in 61",
            "bad iq Nobody",
            "bad iq Peer(\"3\")",
            "unknown urn:example:unknown r",
            "management R",
            "bad management: <a/> has no h",
            "message of 0 in 26, payloads []",
            "message of 0 in 117, payloads [\"soft, <what> light\\nthrough yönder]] window\"]",
            "error bad-format",
            "error undefined-condition",
            "footer",
        ]
    );
}

#[test]
fn how_bytes_are_cut_makes_no_difference() {
    let xml = conversation();
    let whole = format!("{:?}", decode(&Limits::default(), [xml.as_bytes()]).unwrap());
    for size in [1, 2, 3, 7, 100, 8191, 8192, 8193] {
        let cut = decode(&Limits::default(), xml.as_bytes().chunks(size)).unwrap();
        assert!(format!("{cut:?}") == whole, "in pieces of {size}");
    }
    // Lengths from a linear congruential generator: random enough, and the same each time.
    for seed in 0..50_u64 {
        let (mut random, mut rest, mut pieces) = (seed, xml.as_bytes(), Vec::new());
        while !rest.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (piece, next) = rest.split_at(rest.len().min(1 + (random >> 33) as usize % 5_000));
            pieces.push(piece);
            rest = next;
        }
        assert!(format!("{:?}", decode(&Limits::default(), pieces).unwrap()) == whole, "with seed {seed}");
    }
}

#[test]
fn what_comes_behind_the_footer_is_left_for_the_next_stream() {
    let xml = format!("{HEADER}<message/>{FOOTER}{HEADER}<presence/>");
    let mut bytes = xml.as_bytes();
    for _ in 0..2 {
        let mut decoder = Decoder::new(&Limits::default());
        assert!(matches!(decoder.decode(&mut bytes), Ok(Some(Decoded::Header(_)))));
        assert!(matches!(decoder.decode(&mut bytes), Ok(Some(Decoded::Stanza { .. }))));
        if !bytes.is_empty() {
            assert!(matches!(decoder.decode(&mut bytes), Ok(Some(Decoded::Footer))));
            assert!(bytes.starts_with(HEADER.as_bytes()));
            assert!(matches!(decoder.decode(&mut bytes), Ok(None)), "it is deaf now");
            assert!(bytes.starts_with(HEADER.as_bytes()), "and takes nothing");
        }
    }
    assert!(bytes.is_empty());
}

#[test]
fn a_body_has_the_language_of_its_stanza_and_not_of_the_header() {
    for (stanza, lang) in [
        ("<message><body>ciao</body></message>", ""),
        ("<message xml:lang='de'><body>ciao</body></message>", "de"),
        ("<message xml:lang='de'><body xml:lang='it'>ciao</body></message>", "it"),
    ] {
        let xml = header_with("xml:lang='en'") + stanza;
        let decoded = decode(&Limits::default(), [xml.as_bytes()]).unwrap();
        let Some(Decoded::Stanza { stanza: Stanza::Message(message), .. }) = decoded.last() else {
            panic!("no message")
        };
        assert_eq!(message.bodies.keys().map(|lang| lang.as_str()).collect::<Vec<_>>(), [lang]);
    }
}

#[test]
fn our_header_is_as_the_specification_prints_it() {
    let mut out = Vec::new();
    let header = OwnHeader::responder(Some(ROMEO), Some("capulet.example/o'neill&co"), NONCE);
    Encoder::new().header(header, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{ROMEO}' \
             to='capulet.example/o&apos;neill&amp;co' id='{NONCE}' version='1.0' \
             xml:lang='en'>"
        )
    );
}

#[test]
fn what_is_written_is_read_back() {
    let payload: Element =
        "<a xmlns='urn:a' b='&lt;\"&apos;&#9;'><c xmlns='urn:c'>&amp;\u{1f339}</c>]]&gt;</a>"
            .parse()
            .unwrap();
    let mut rich = Message::chat(jid(ROMEO)).with_body(Lang::from("de"), "Hörst du?\r\n".to_owned());
    rich.payloads.push(payload.clone());
    let stanzas = [
        Stanza::Message(rich),
        Stanza::Iq(Iq::Set { from: None, to: Some(jid(ROMEO)), id: "'1'".to_owned(), payload }),
        message("plain"),
    ];
    let (mut encoder, mut out) = (Encoder::new(), HEADER.as_bytes().to_vec());
    encoder.features(&[], &mut out).unwrap();
    for stanza in &stanzas {
        encoder.stanza(stanza, &mut out).unwrap();
        encoder.space(&mut out);
    }
    encoder.footer(&mut out);
    let decoded = decode(&Limits::default(), [out.as_slice()]).unwrap();
    let (mut again, mut rewritten) = (Encoder::new(), HEADER.as_bytes().to_vec());
    again.features(&[], &mut rewritten).unwrap();
    for one in &decoded {
        if let Decoded::Stanza { stanza, .. } = one {
            again.stanza(stanza, &mut rewritten).unwrap();
            again.space(&mut rewritten);
        }
    }
    again.footer(&mut rewritten);
    let addressless = String::from_utf8(out.clone()).unwrap().replace(&format!(" to='{ROMEO}'"), "");
    assert_eq!(String::from_utf8(rewritten).unwrap(), addressless);
    let Some(Decoded::Stanza { stanza: Stanza::Message(rich), claims, .. }) = decoded.get(2) else {
        panic!("no message")
    };
    assert_eq!(claims.to.as_deref(), Some(ROMEO));
    assert_eq!(rich.bodies["de"], "Hörst du?\r\n");
    assert_eq!(rich.payloads[0].attr("b"), Some("<\"'\t"));
    assert_eq!(rich.payloads[0].text(), "]]>");
    assert!(matches!(decoded.last(), Some(Decoded::Footer)));
}

#[test]
fn what_is_no_xml_is_refused_without_a_trace() {
    let (mut encoder, mut out) = (Encoder::new(), b"before".to_vec());
    let why = encoder.stanza(&message("bell \u{7}"), &mut out).unwrap_err();
    assert!(why.contains("U+7"), "{why}");
    assert_eq!(out, b"before");
    encoder.stanza(&message("fine"), &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "before<message type='chat'><body>fine</body></message>");
}

#[test]
fn a_violation_stays() {
    let mut decoder = Decoder::new(&Limits::default());
    let first = decoder.decode(&mut &b"<a/>"[..]).unwrap_err();
    assert_eq!(first.condition, DefinedCondition::InvalidNamespace);
    assert_eq!(decoder.decode(&mut HEADER.as_bytes()).unwrap_err(), first);
}
