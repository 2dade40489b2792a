//! Opening, talking and closing, step by step (XEP-0247 #flow, RFC 6120 §4).

use std::time::Duration;

use xmpp_parsers::{iq::Iq, message::Message, ping::Ping, presence::Presence, stanza::Stanza};

use super::support::{FOOTER, JULIET, NONCE, ROMEO, Side, exchange, header_with, jid, message, setup};
use crate::{
    ApiMisuse, Direction, Error, PeerIncompatible, Step, Timeouts,
    stream::machine::{Closer, Role, cut_off},
};

#[test]
fn a_stream_is_opened_used_and_closed() {
    let (mut romeo, mut juliet) = (Side::romeo(), Side::juliet());

    // Romeo ──► header
    let header = romeo.written();
    assert_eq!(
        header,
        format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{ROMEO}' to='{JULIET}' version='1.0'>"
        )
    );
    // Juliet ──► header and features, in one go
    juliet.reads(header);
    assert!(juliet.machine.is_open());
    let answer = juliet.written();
    assert_eq!(
        answer,
        format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{JULIET}' to='{ROMEO}' id='{NONCE}' \
             version='1.0' xml:lang='en'><stream:features/>"
        )
    );
    romeo.reads(answer);
    assert!(romeo.machine.is_open());
    assert_eq!(romeo.machine.stream_id(), Some(NONCE));

    // Romeo ──► message
    romeo.says("Ah me!");
    juliet.reads(romeo.written());
    let Some(Stanza::Message(heard)) = juliet.machine.next_stanza() else { panic!("no message") };
    assert_eq!((heard.from, heard.to), (Some(jid(ROMEO)), Some(jid(JULIET))));

    // Juliet ──► footer; Romeo ──► footer
    juliet.machine.close(juliet.now);
    assert_eq!(juliet.machine.closed_by(), None);
    let footer = juliet.written();
    assert_eq!(footer, FOOTER);
    romeo.says("one last word");
    romeo.reads(footer);
    assert_eq!(romeo.machine.closed_by(), Some(Closer::Peer));
    let last = romeo.written();
    assert!(last.ends_with(FOOTER), "{last}");
    juliet.reads(last);
    assert_eq!(juliet.hears().as_deref(), Some("one last word"));
    assert_eq!(juliet.machine.closed_by(), Some(Closer::Us));
    assert_eq!(juliet.machine.poll_timeout(), None);
}

#[test]
fn both_close_at_once() {
    let (mut romeo, mut juliet) = (Side::romeo(), Side::juliet());
    exchange(&mut romeo, &mut juliet);
    romeo.machine.close(romeo.now);
    juliet.machine.close(juliet.now);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(romeo.machine.closed_by(), Some(Closer::Us));
    assert_eq!(juliet.machine.closed_by(), Some(Closer::Us));
}

#[test]
fn without_a_version_there_are_no_features() {
    let mut juliet = Side::juliet();
    juliet.reads(header_with(""));
    assert!(juliet.machine.is_open());
    assert!(!juliet.written().contains("features"));

    let mut romeo = Side::romeo();
    romeo.reads(header_with("id='1'"));
    assert!(romeo.machine.is_open(), "it does not wait for features");
}

#[test]
fn with_a_version_the_initiator_waits_for_features_or_a_stanza() {
    for next in ["<stream:features/>", "<message><body>hi</body></message>"] {
        let mut romeo = Side::romeo();
        romeo.reads(header_with("version='1.1'"));
        assert!(!romeo.machine.is_open());
        romeo.reads(next);
        assert!(romeo.machine.is_open(), "{next}");
        assert_eq!(romeo.machine.stream_id(), None, "an id is not required");
    }
}

#[test]
fn without_features_the_initiator_waits_a_moment_and_goes_on() {
    for (stream_header, grace) in [(30, 3), (1, 1)] {
        let mut setup = setup(Role::Initiator, Some(ROMEO), Some(JULIET));
        setup.timeouts.stream_header = Duration::from_secs(stream_header);
        let mut romeo = Side::new(setup);
        romeo.written();
        // As XEP-0247 prints it.
        romeo.reads(header_with("id='hs91gh1836d8s717' version='1.0'"));
        assert_eq!(romeo.machine.poll_timeout(), Some(romeo.now + Duration::from_secs(grace)));
        romeo.after(Duration::from_secs(grace) - Duration::from_millis(1));
        assert!(!romeo.machine.is_open());
        romeo.after(Duration::from_millis(1));
        assert!(romeo.machine.is_open());
        assert_eq!(romeo.machine.stream_id(), Some("hs91gh1836d8s717"));
        assert_eq!(romeo.written(), "");
    }
}

#[test]
fn an_offer_of_no_mechanism_at_all_is_no_offer() {
    let mut romeo = Side::romeo();
    romeo.reads(header_with("version='1.0'"));
    romeo.reads("<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></stream:features>");
    assert!(romeo.machine.is_open(), "{:?}", romeo.machine.error());
}

#[test]
fn an_initiator_does_not_go_on_without_a_feature_that_is_mandatory() {
    for (features, name) in [
        (
            "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls><a xmlns='urn:a'/>",
            "starttls",
        ),
        // RFC 6120 §5.3.1: alone, it needs not say so.
        ("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "starttls"),
        (
            "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>",
            "mechanisms",
        ),
        ("<a xmlns='urn:a'/><authentication xmlns='urn:xmpp:sasl:2'/>", "authentication"),
        ("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>", "bind"),
        ("<a xmlns='urn:a'/><b xmlns='urn:b'><required/></b>", "b"),
    ] {
        let features = format!("<stream:features>{features}</stream:features>");
        for before in ["", "<message/>"] {
            let mut romeo = Side::romeo();
            romeo.written();
            romeo.reads(header_with("version='1.0'") + before);
            romeo.reads(&features);
            match romeo.machine.error() {
                Some(Error::PeerIncompatible(PeerIncompatible::MandatoryFeature(found))) => {
                    assert_eq!(found, name)
                }
                other => panic!("{features}: {other:?}"),
            }
            let written = romeo.written();
            assert!(written.starts_with("<stream:error><unsupported-feature "), "{written}");
            assert!(written.ends_with("</stream:error></stream:stream>"), "{written}");
            assert!(romeo.machine.send(romeo.now, message("in the clear")).is_err());
        }
    }
}

#[test]
fn voluntary_features_are_not_used() {
    for features in [
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><a xmlns='urn:a'/>",
        "<a xmlns='urn:a'><required xmlns='urn:other'/></a>",
        "<sm xmlns='urn:xmpp:sm:3'><optional/></sm>",
        "<starttls xmlns='urn:other'/>",
        "starttls",
    ] {
        let mut romeo = Side::romeo();
        romeo.written();
        romeo.reads(header_with("version='1.0'") + "<stream:features>" + features + "</stream:features>");
        assert!(romeo.machine.is_open(), "{features}");
        assert_eq!(romeo.written(), "");
    }
}

#[test]
fn headers_with_full_bare_and_no_addresses_are_taken() {
    for attributes in [
        format!("from='{ROMEO}' to='{JULIET}'"),
        "from='romeo@montague.example' to='juliet@capulet.example'".to_owned(),
        "from='Romeo@MONTAGUE.example' to='JULIET@capulet.example/balcony'".to_owned(),
        "from='' to=''".to_owned(),
        String::new(),
    ] {
        let mut juliet = Side::juliet();
        juliet.reads(header_with(&attributes));
        assert!(juliet.machine.is_open(), "{attributes}");
        assert_eq!(juliet.machine.peer(), Some(&jid(ROMEO)));
    }
}

#[test]
fn headers_with_other_addresses_are_refused() {
    for (attributes, condition) in [
        ("to='nurse@capulet.example'", "host-unknown"),
        ("to='juliet@capulet.example/chamber'", "host-unknown"),
        ("to='capulet.example'", "host-unknown"),
        ("to='@'", "host-unknown"),
        ("from='tybalt@capulet.example'", "invalid-from"),
        ("from='romeo@montague.example/street'", "invalid-from"),
        ("from='@'", "invalid-from"),
    ] {
        let mut juliet = Side::juliet();
        juliet.reads(header_with(attributes));
        assert_eq!(juliet.condition().to_string(), condition, "{attributes}");
        let written = juliet.written();
        // RFC 6120 §4.9.1.2: first a header, which does not say who is here.
        assert!(written.starts_with("<?xml version='1.0'?><stream:stream "), "{written}");
        assert!(
            written.contains(&format!(" from='' id='{NONCE}' version='1.0' xml:lang='en'>")),
            "{written}"
        );
        assert!(written.ends_with("</stream:error></stream:stream>"), "{written}");
    }
}

#[test]
fn an_initiator_refuses_another_responder() {
    let mut romeo = Side::romeo();
    romeo.written();
    romeo.reads(header_with("from='tybalt@capulet.example/street' version='1.0'"));
    assert_eq!(romeo.condition().to_string(), "invalid-from");
    assert!(romeo.written().starts_with("<stream:error>"), "its header was sent before");
}

#[test]
fn an_unknown_peer_is_who_its_header_says() {
    let mut side = Side::new(setup(Role::Responder, None, None));
    side.reads(header_with(&format!("from='{ROMEO}' to='{JULIET}'")));
    assert_eq!(side.machine.peer(), Some(&jid(ROMEO)));
    side.reads("<message from='tybalt@capulet.example'><body>hi</body></message>");
    let Some(Stanza::Message(heard)) = side.machine.next_stanza() else { panic!("no message") };
    assert_eq!(heard.from, Some(jid(ROMEO)));
}

#[test]
fn where_nobody_told_us_who_is_who_claims_are_believed_if_they_are_addresses() {
    let mut side = Side::open_with(Side::new(setup(Role::Responder, None, None)));
    side.reads(format!("<message from='{ROMEO}' to='{JULIET}'/><message from='@'/>"));
    let Some(Stanza::Message(heard)) = side.machine.next_stanza() else { panic!("no message") };
    assert_eq!((heard.from, heard.to), (Some(jid(ROMEO)), Some(jid(JULIET))));
    let Some(Stanza::Message(heard)) = side.machine.next_stanza() else { panic!("no message") };
    assert_eq!((heard.from, side.machine.violations()), (None, 1));
}

#[test]
fn claimed_addresses_are_counted_and_never_believed() {
    let mut juliet = Side::open();
    for (attributes, violations) in [
        (String::new(), 0),
        (format!("from='{ROMEO}' to='{JULIET}'"), 0),
        ("from='romeo@montague.example' to='juliet@capulet.example'".to_owned(), 0),
        ("from='romeo@montague.example/elsewhere'".to_owned(), 1),
        ("from='tybalt@capulet.example/street'".to_owned(), 2),
        ("to='nurse@capulet.example'".to_owned(), 3),
        ("from='montague.example' to='capulet.example'".to_owned(), 4),
        ("from='Romeo@MONTAGUE.example/orchard'".to_owned(), 4),
        // No addresses at all.
        ("from='@'".to_owned(), 5),
        ("to='/'".to_owned(), 6),
        ("from='' to=''".to_owned(), 7),
    ] {
        juliet.reads(format!("<message {attributes}/>"));
        let Some(Stanza::Message(heard)) = juliet.machine.next_stanza() else { panic!("no message") };
        assert_eq!((heard.from, heard.to), (Some(jid(ROMEO)), Some(jid(JULIET))), "{attributes}");
        assert_eq!(juliet.machine.violations(), violations, "{attributes}");
    }
}

#[test]
fn what_was_received_can_be_sent_back_under_the_true_names() {
    let juliets = [(Some(JULIET), Some(ROMEO)), (None, Some(ROMEO)), (Some(JULIET), None)];
    for (local, peer) in juliets {
        let mut romeo = Side::romeo();
        let mut juliet = Side::new(setup(Role::Responder, local, peer));
        exchange(&mut romeo, &mut juliet);
        romeo.says("hist!");
        exchange(&mut romeo, &mut juliet);
        let heard = juliet.machine.next_stanza().unwrap();
        juliet.machine.send(juliet.now, heard).unwrap();
        let echo = juliet.written();
        assert!(!echo.contains(" from=") && !echo.contains(" to="), "{echo}");
        romeo.reads(echo);
        assert_eq!(romeo.hears().as_deref(), Some("hist!"));
        assert_eq!((romeo.machine.violations(), juliet.machine.violations()), (0, 0), "{local:?}, {peer:?}");
    }
}

/// One of each kind, with these addresses.
fn stanzas(from: &str, to: &str) -> [Stanza; 3] {
    let (from, to) = (Some(jid(from)), Some(jid(to)));
    let mut message = Message::chat(to.clone());
    message.from.clone_from(&from);
    let mut presence = Presence::available();
    (presence.from, presence.to) = (from.clone(), to.clone());
    let iq = Iq::Get { from, to, id: "p".to_owned(), payload: Ping.into() };
    [message.into(), presence.into(), iq.into()]
}

#[test]
fn only_the_names_of_both_sides_go_out() {
    let nurse = "nurse@capulet.example/hall";
    for (from, to, names) in [
        (JULIET, ROMEO, (true, true)),
        ("juliet@capulet.example", "romeo@montague.example", (true, true)),
        (JULIET, nurse, (true, false)),
        (nurse, ROMEO, (false, true)),
        ("juliet@capulet.example/street", "romeo@montague.example/street", (false, false)),
        (ROMEO, JULIET, (false, false)),
    ] {
        for stanza in stanzas(from, to) {
            let mut juliet = Side::open();
            juliet.machine.send(juliet.now, stanza).unwrap();
            let sent = juliet.written();
            assert_eq!((sent.contains(" from="), sent.contains(" to=")), names, "{from}, {to}: {sent}");
        }
    }
}

#[test]
fn where_nobody_told_us_who_is_who_any_names_go_out() {
    for stanza in stanzas("nurse@capulet.example/hall", ROMEO) {
        let mut side = Side::open_with(Side::new(setup(Role::Responder, None, None)));
        side.machine.send(side.now, stanza).unwrap();
        let sent = side.written();
        assert!(sent.contains("from='nurse@capulet.example/hall'") && sent.contains(ROMEO), "{sent}");
    }
}

#[test]
fn a_stream_error_ends_the_stream_and_is_told_with_its_text() {
    let mut juliet = Side::open();
    juliet.reads(
        "<message><body>before</body></message><stream:error>\
         <conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>Replaced</text></stream:error>",
    );
    let Some(Error::Stream(failure)) = juliet.machine.error() else { panic!("no stream error") };
    assert_eq!(failure.direction, Direction::Received);
    assert_eq!(failure.condition.to_string(), "conflict");
    assert_eq!(failure.text.as_deref(), Some("Replaced"));
    assert_eq!(juliet.written(), FOOTER);
    assert_eq!(juliet.hears().as_deref(), Some("before"));
    assert!(matches!(juliet.machine.send(juliet.now, message("after")), Err(Error::Stream(_))));
}

#[test]
fn a_bytestream_that_ends_early_is_an_error_but_not_after_both_footers() {
    let mut juliet = Side::open();
    juliet.machine.handle_end(cut_off());
    assert!(matches!(juliet.machine.error(), Some(Error::Transport(_))));

    let mut juliet = Side::open();
    juliet.machine.close(juliet.now);
    juliet.reads(FOOTER);
    juliet.machine.handle_end(cut_off());
    assert!(juliet.machine.error().is_none());
}

#[test]
fn nothing_is_sent_after_our_footer() {
    let mut juliet = Side::open();
    juliet.machine.close(juliet.now);
    juliet.machine.close(juliet.now);
    let error = juliet.machine.send(juliet.now, message("late")).unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::StreamClosed)));
    juliet.reads("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq><message>");
    juliet.reads("<!---->");
    assert_eq!(juliet.written(), FOOTER, "not even a stream error");
}

#[test]
fn a_peer_without_a_header_gets_a_timeout() {
    for mut side in [Side::romeo(), Side::juliet()] {
        let limit = Timeouts::default().stream_header;
        side.after(limit - Duration::from_millis(1));
        assert!(side.machine.error().is_none());
        side.after(Duration::from_millis(1));
        assert!(matches!(side.machine.error(), Some(Error::Timeout(Step::StreamHeader, _))));
        assert!(side.written().contains("<connection-timeout "), "and learns why");
    }
}

#[test]
fn a_peer_that_does_not_close_gets_a_timeout() {
    let mut juliet = Side::open();
    let limit = Timeouts::default().close;
    juliet.machine.close(juliet.now);
    juliet.after(limit / 2);
    // Our footer took until now to be written; then a stanza came.
    let footer = juliet.written().len();
    juliet.machine.handle_written(juliet.now, footer, 0);
    juliet.after(limit / 2);
    juliet.reads("<message/>");
    juliet.after(limit - Duration::from_millis(1));
    assert!(juliet.machine.error().is_none());
    assert_eq!(juliet.machine.poll_timeout(), Some(juliet.now + Duration::from_millis(1)));
    juliet.after(Duration::from_millis(1));
    assert!(matches!(juliet.machine.error(), Some(Error::Timeout(Step::Close, _))));
}

#[test]
fn silence_is_broken_by_a_space() {
    let mut juliet = Side::open();
    let quiet = Timeouts::default().keep_alive;
    assert_eq!(juliet.machine.poll_timeout(), Some(juliet.now + quiet));
    juliet.after(quiet - Duration::from_secs(1));
    juliet.says("I spoke");
    juliet.written();
    juliet.after(quiet - Duration::from_secs(1));
    assert_eq!(juliet.written(), "");
    juliet.after(Duration::from_secs(1));
    assert_eq!(juliet.written(), " ");
    juliet.reads("   \n");
    assert!(juliet.machine.is_open());
}

#[test]
fn silence_is_kept_where_that_is_set() {
    let mut setup = setup(Role::Responder, None, None);
    setup.timeouts.keep_alive = Duration::ZERO;
    setup.timeouts.probe = Duration::ZERO;
    let mut side = Side::open_with(Side::new(setup));
    assert_eq!(side.machine.poll_timeout(), None);
    side.after(Duration::from_secs(100_000));
    assert_eq!(side.written(), "");
}

#[test]
fn strange_children_are_skipped_and_bad_stanzas_do_not_end_the_stream() {
    let mut juliet = Side::open();
    juliet.reads(
        "<stream:features/><active xmlns='urn:xmpp:csi:0'/><message type='nonsense'><body>bad</body></message>\
         <presence type='nonsense'/><message><body>good</body></message>",
    );
    assert_eq!(juliet.hears().as_deref(), Some("good"));
    assert_eq!(juliet.written(), "");
}
