//! The flows as XEP-0166, XEP-0247, XEP-0261 and jingle-xtls draw them.

use super::*;

#[test]
fn the_flow_of_xep_0247_over_xtls_and_in_band_bytestreams() {
    let mut pair = Pair::new();
    let romeos = pair.connect(Romeo);
    pair.run();
    assert_eq!(
        pair.take_log(),
        ["romeo: get query", "juliet: result query", "romeo: set session-initiate", "juliet: result"]
    );
    let juliets = pair.accept(Juliet);
    pair.run();
    assert_eq!(
        pair.take_log(),
        [
            "juliet: set session-accept",
            "romeo: result",
            "romeo: set security-info",
            "romeo: set open",
            "juliet: result",
            "juliet: result",
        ]
    );
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets));

    pair.send(Romeo, romeos, b"<stream:stream>");
    pair.run();
    pair.send(Juliet, juliets, b"<stream:stream id='1'>");
    pair.run();
    assert_eq!(
        pair.take_log(),
        ["romeo: set data 0", "juliet: result", "juliet: set data 0", "romeo: result"]
    );
    assert_eq!(pair.drain(Juliet, juliets).0, b"<stream:stream>");
    assert_eq!(pair.drain(Romeo, romeos).0, b"<stream:stream id='1'>");

    assert!(!pair.shutdown(Romeo, romeos).unwrap());
    pair.run();
    assert!(matches!(pair.drain(Juliet, juliets).1, Ok(Read::End)));
    assert!(pair.shutdown(Juliet, juliets).unwrap());
    pair.run();
    pair.terminate(Juliet, juliets, Reason::Success, None);
    assert!(!pair.end(Juliet).sessions.is_over(juliets), "the acknowledgement is outstanding");
    pair.run();
    assert_eq!(
        pair.take_log(),
        ["romeo: set close", "juliet: result", "juliet: set session-terminate success", "romeo: result"]
    );
    assert!(pair.end(Juliet).sessions.is_over(juliets) && pair.end(Romeo).sessions.is_over(romeos));
    assert!(
        matches!(pair.end(Romeo).error(romeos), Some(Error::Terminated(why)) if why.reason == Reason::Success)
    );
    assert!(pair.end(Juliet).error(juliets).is_none());

    pair.release(Romeo, romeos);
    pair.release(Juliet, juliets);
    assert_eq!(pair.take_log(), [""; 0]);
    assert!(pair.end(Romeo).is_clean() && pair.end(Juliet).is_clean());
}

#[test]
fn each_stanza_says_what_it_must() {
    let mut pair = Pair::with(|side, mut config| {
        config.ibb.block_size = if side == Romeo { 4096 } else { 2048 };
        config
    });
    let romeos = pair.connect(Romeo);
    pair.run();
    let juliets = pair.accept(Juliet);
    pair.run();
    pair.terminate(Romeo, romeos, Reason::Success, Some("bye"));

    let initiate = find(pair.sent("session-initiate"), "jingle").clone();
    assert!(initiate.has_ns("urn:xmpp:jingle:1"));
    assert_eq!(initiate.attr("initiator"), Some(ROMEO));
    assert_eq!(initiate.attr("responder"), None);
    assert!(initiate.attr("sid").unwrap().len() >= 22, "a sid that can't be guessed");
    let accept = find(pair.sent("session-accept"), "jingle").clone();
    assert_eq!(accept.attr("responder"), Some(JULIET));
    assert_eq!(accept.attr("sid"), initiate.attr("sid"));

    for (jingle, side, block_size) in [(&initiate, Romeo, "4096"), (&accept, Juliet, "2048")] {
        let content = find(jingle, "content");
        assert_eq!(content.attr("creator"), Some("initiator"));
        assert_eq!(content.attr("name"), Some("xmlstream"));
        assert!(find(content, "description").is("description", "urn:xmpp:jingle:apps:xmlstream:0"));
        let transport = find(content, "transport");
        assert!(transport.has_ns("urn:xmpp:jingle:transports:ibb:1"));
        assert_eq!(transport.attr("block-size"), Some(block_size));
        assert_eq!(transport.attr("sid"), find(&initiate, "transport").attr("sid"));
        assert!(find(content, "security").has_ns("urn:xmpp:jingle:security:xtls:0"));
        let fingerprint = find(content, "fingerprint");
        assert_eq!(fingerprint.attr("algo"), Some("sha-256"));
        assert_eq!(fingerprint.text(), config(side).tls.identity.fingerprint().to_string());
        assert_eq!(find(content, "method").attr("name"), Some("x509"));
    }

    let info = find(pair.sent("security-info"), "jingle");
    assert_eq!(find(info, "content").attr("name"), Some("xmlstream"));
    assert_eq!(find(info, "method").attr("name"), Some("x509"));
    let open = find(pair.sent("open"), "open");
    assert_eq!(open.attr("block-size"), Some("2048"), "as negotiated (XEP-0261 #protocol-start)");
    assert_eq!(open.attr("sid"), find(&initiate, "transport").attr("sid"));
    assert_eq!(open.attr("stanza"), Some("iq"));
    let terminate = find(pair.sent("session-terminate"), "jingle");
    assert_eq!(find(terminate, "text").text(), "bye");

    let announced = |pair: &mut Pair, side, id| pair.end(side).sessions.announced(id).unwrap();
    assert_eq!(announced(&mut pair, Romeo, romeos), [config(Juliet).tls.identity.fingerprint().clone()]);
    assert_eq!(announced(&mut pair, Juliet, juliets), [config(Romeo).tls.identity.fingerprint().clone()]);
}

#[test]
fn a_peer_that_speaks_the_namespaces_that_xep_0247_prints_is_offered_those() {
    let now = Instant::now();
    let mut romeo = End::new(Romeo, config(Romeo), now);
    romeo.sessions.connect(now, jid(JULIET), None).unwrap();
    let asked = romeo.sent();
    let features = [ns::JINGLE_0, ns::XMLSTREAM, ns::JINGLE_IBB_0, ns::XTLS];
    romeo.receives(now, &disco_result(asked[0].attr("id").unwrap(), &features));
    let offer = romeo.sent().remove(0);
    let jingle = find(&offer, "jingle");
    assert!(jingle.has_ns("urn:xmpp:jingle:0"));
    assert!(find(jingle, "content").has_ns("urn:xmpp:jingle:0"));
    assert!(find(jingle, "transport").has_ns("urn:xmpp:jingle:transports:ibb:0"));
}

#[test]
fn the_stanzas_that_xep_0247_prints_are_answered_in_kind() {
    let now = Instant::now();
    let mut plain = config(Juliet);
    plain.dangerous().allow_plaintext();
    let mut juliet = End::new(Juliet, plain, now);
    juliet.receives(now, &fixture("xep-0247/session-initiate").parse().unwrap());
    let sent = juliet.sent();
    assert_eq!(describe(&sent[0]), "result");
    assert_eq!((sent[0].attr("id"), sent[0].attr("to")), (Some("ty1bf726"), Some(ROMEO)));
    let id = juliet.incoming.pop_front().unwrap();
    juliet.sessions.accept(now, id).unwrap();
    let accept = juliet.sent().remove(0);
    let jingle = find(&accept, "jingle");
    assert!(jingle.has_ns("urn:xmpp:jingle:0") && jingle.attr("sid") == Some("851ba2"));
    assert!(find(jingle, "transport").has_ns("urn:xmpp:jingle:transports:ibb:0"));
    assert!(juliet.sessions.announced(id).is_none(), "in plaintext, as the user allowed");

    let open = "<open xmlns='http://jabber.org/protocol/ibb' block-size='4096' sid='vj3hs98y'/>";
    assert_eq!(juliet.hears(now, ROMEO, open), ["result"]);
    for block in ["xep-0247/data-header-initial", "xep-0247/data-message"] {
        let printed = fixture(block).replace("montague.net", "montague.lit").parse().unwrap();
        juliet.receives(now, &printed);
        assert_eq!(juliet.sent().iter().map(describe).collect::<Vec<_>>(), ["result"]);
    }
    let mut buffer = [0; 4096];
    let Ok(Read::Data(count)) = juliet.sessions.read(now, id, &mut buffer) else { panic!("nothing to read") };
    let text = std::str::from_utf8(&buffer[..count]).unwrap();
    assert!(text.starts_with("<stream:stream xmlns='jabber:client'"), "{text}");
    assert!(text.ends_with("acquaintance.</body></message>"), "{text}");

    juliet.receives(now, &fixture("xep-0247/session-terminate").replace(JULIET, ROMEO).parse().unwrap());
    assert_eq!(juliet.sent().iter().map(describe).collect::<Vec<_>>(), ["result"]);
    assert!(
        matches!(juliet.error(id), Some(Error::Terminated(why)) if why.reason == Reason::Other(String::new()))
    );
}

#[test]
fn the_session_accept_that_xep_0247_prints_is_for_no_session() {
    let (mut pair, romeos, _) = Pair::ringing();
    let now = pair.now;
    pair.end(Romeo).receives(now, &fixture("xep-0247/session-accept").parse().unwrap());
    let sent = pair.end(Romeo).sent();
    assert_eq!(describe(&sent[0]), "error cancel item-not-found unknown-session");
    assert_eq!(pair.end(Romeo).state(romeos), "offered");
}

#[test]
fn the_stanzas_of_jingle_xtls_with_real_fingerprints_make_a_session() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    let mended = |name: &str| {
        let fingerprint = config(Romeo).tls.identity.fingerprint().to_string();
        let text = fixture(&format!("xtls/{name}-mended")).replace("RomeoX509CertificateHash", &fingerprint);
        text.parse::<Element>().unwrap()
    };
    let describe_all = |end: &mut End| end.sent().iter().map(describe).collect::<Vec<_>>();
    juliet.receives(now, &mended("session-initiate"));
    assert_eq!(describe_all(&mut juliet), ["result"]);
    let id = juliet.incoming.pop_front().unwrap();
    assert_eq!(juliet.sessions.announced(id).unwrap(), [config(Romeo).tls.identity.fingerprint().clone()]);
    juliet.sessions.accept(now, id).unwrap();
    assert_eq!(describe_all(&mut juliet), ["set session-accept"]);
    juliet.receives(now, &mended("security-info"));
    assert_eq!(describe_all(&mut juliet), ["result"]);
    juliet.receives(now, &fixture("xtls/session-terminate").parse().unwrap());
    assert_eq!(describe_all(&mut juliet), ["result"]);
    assert!(matches!(juliet.error(id), Some(Error::Terminated(why)) if why.reason == Reason::SecurityError));
}

#[test]
fn the_responder_declines() {
    let (mut pair, romeos, juliets) = Pair::ringing();
    pair.take_log();
    pair.terminate(Juliet, juliets, Reason::Decline, Some("not tonight"));
    pair.run();
    assert_eq!(pair.take_log(), ["juliet: set session-terminate decline", "romeo: result"]);
    let Some(Error::Terminated(why)) = pair.end(Romeo).error(romeos) else { panic!() };
    assert_eq!((why.reason, why.text.as_deref()), (Reason::Decline, Some("not tonight")));
}

#[test]
fn letting_go_of_a_session_ends_it_with_the_reason_of_its_state() {
    let mut pair = Pair::new();
    let id = pair.connect(Romeo);
    pair.release(Romeo, id);
    pair.run();
    assert_eq!(pair.take_log(), ["romeo: get query", "juliet: result query"], "nothing was offered");

    let (mut pair, romeos, juliets) = Pair::ringing();
    pair.take_log();
    pair.release(Romeo, romeos);
    pair.run();
    assert_eq!(pair.take_log(), ["romeo: set session-terminate cancel", "juliet: result"]);
    assert!(
        matches!(pair.end(Juliet).error(juliets), Some(Error::Terminated(why)) if why.reason == Reason::Cancel)
    );
    let now = pair.now;
    let too_late = pair.end(Juliet).sessions.accept(now, juliets);
    assert!(matches!(too_late, Err(Error::Terminated(why)) if why.reason == Reason::Cancel));

    let (mut pair, _, juliets) = Pair::ringing();
    pair.take_log();
    pair.release(Juliet, juliets);
    pair.run();
    assert_eq!(pair.take_log(), ["juliet: set session-terminate decline", "romeo: result"]);

    for side in [Romeo, Juliet] {
        let (mut pair, romeos, juliets) = Pair::open();
        pair.release(side, if side == Romeo { romeos } else { juliets });
        pair.run();
        let [told, ..] = &pair.take_log()[..] else { panic!() };
        assert_eq!(*told, format!("{}: set session-terminate cancel", side.name()));
    }

    let (mut pair, _, juliets) = Pair::open();
    pair.terminate(Juliet, juliets, Reason::Gone, None);
    pair.take_log();
    pair.release(Juliet, juliets);
    assert_eq!(pair.take_log(), [""; 0], "it has ended");
}

#[test]
fn an_accept_crosses_a_cancel() {
    let (mut pair, romeos, _) = Pair::ringing();
    pair.end(Juliet).incoming.clear();
    pair.take_log();
    let juliets = pair.end(Juliet).sessions.live()[0];
    let now = pair.now;
    pair.end(Juliet).sessions.accept(now, juliets).unwrap();
    pair.release(Romeo, romeos);
    pair.run();
    assert_eq!(
        pair.take_log(),
        [
            "romeo: set session-terminate cancel",
            "juliet: set session-accept",
            "romeo: error cancel item-not-found unknown-session",
            "juliet: result",
        ]
    );
    assert!(pair.end(Juliet).error(juliets).is_some());
}

#[test]
fn an_unknown_session_is_a_good_answer_to_a_terminate() {
    let (mut pair, romeos, juliets) = Pair::open();
    pair.terminate(Romeo, romeos, Reason::Success, None);
    pair.terminate(Juliet, juliets, Reason::Success, None);
    pair.run();
    let unknown = "error cancel item-not-found unknown-session";
    assert_eq!(pair.take_log()[2..], [format!("romeo: {unknown}"), format!("juliet: {unknown}")]);
    assert!(pair.end(Romeo).sessions.is_over(romeos) && pair.end(Juliet).sessions.is_over(juliets));
    assert!(pair.end(Romeo).error(romeos).is_none() && pair.end(Juliet).error(juliets).is_none());
}

#[test]
fn a_refused_session_initiate_says_why() {
    use Error::Signalling as S;
    type Check = fn(&Error) -> bool;
    let cases: [(String, Check); 5] = [
        (error("cancel", "service-unavailable", ""), |e| matches!(e, S(SignallingError::PeerUnreachable(_)))),
        (error("wait", "recipient-unavailable", ""), |e| matches!(e, S(SignallingError::PeerUnreachable(_)))),
        (error("cancel", "feature-not-implemented", "unsupported-info"), |e| {
            matches!(e, Error::PeerIncompatible(PeerIncompatible::Unsupported(_)))
        }),
        (error("cancel", "not-acceptable", "security-required"), |e| {
            matches!(e, Error::Security(SecurityError::PeerRefused(_)))
        }),
        (error("wait", "resource-constraint", ""), |e| matches!(e, S(SignallingError::Refused(_)))),
    ];
    for (refusal, is_expected) in cases {
        let mut pair = Pair::new();
        let id = pair.connect(Romeo);
        pair.deliver(Juliet);
        pair.deliver(Romeo);
        let (now, offer) = (pair.now, pair.sent("session-initiate").clone());
        pair.take_log();
        pair.end(Romeo).receives(now, &nack(&offer, &refusal));
        let error = pair.end(Romeo).error(id).unwrap();
        assert!(is_expected(&error), "{refusal}: {error}");
        pair.collect();
        assert_eq!(pair.take_log(), [""; 0], "there is no session that could be terminated");
        assert!(pair.end(Romeo).sessions.is_over(id));
    }
}

#[test]
fn a_refused_session_accept_ends_the_session() {
    let (mut pair, _, juliets) = Pair::ringing();
    let now = pair.now;
    pair.take_log();
    pair.end(Juliet).sessions.accept(now, juliets).unwrap();
    let accept = pair.end(Juliet).sent().remove(0);
    let refusal = nack(&accept, &error("cancel", "item-not-found", "unknown-session"));
    let refusal = String::from(&refusal).replace(JULIET, ROMEO).parse().unwrap();
    pair.end(Juliet).receives(now, &refusal);
    let error = pair.end(Juliet).error(juliets);
    assert!(matches!(error, Some(Error::Signalling(SignallingError::Refused(_)))), "{error:?}");
}
