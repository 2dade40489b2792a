//! What a session-initiate may and may not offer, and what an accept may and may not say.

use super::*;

/// Juliet hears a session-initiate with these contents.
fn offer(contents: &str) -> (End, Vec<String>, Instant) {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    let sent = juliet.hears(now, ROMEO, &jingle("session-initiate", "a73s", contents));
    (juliet, sent, now)
}

fn with(transport: &str) -> String {
    format!("{DESCRIPTION}{transport}{SECURITY}")
}

#[test]
fn an_offer_that_can_not_be_accepted_is_declined_with_the_reason() {
    let ibb = |attributes: &str| {
        with(&format!("<transport xmlns='urn:xmpp:jingle:transports:ibb:1' {attributes}/>"))
    };
    let name = "name='xmlstream'";
    for (offered, reason) in [
        (content(name, &format!("<description xmlns='urn:a'/>{TRANSPORT}")), "unsupported-applications"),
        (
            content(name, &with("<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='a'/>")),
            "unsupported-transports",
        ),
        (content(name, &ibb("block-size='4096' sid='a' stanza='message'")), "incompatible-parameters"),
        (content("name='xmlstream' senders='initiator'", &with(TRANSPORT)), "incompatible-parameters"),
        (content("name='xmlstream' senders='none'", &with(TRANSPORT)), "incompatible-parameters"),
    ] {
        let (juliet, sent, _) = offer(&offered);
        assert_eq!(sent, ["result".to_owned(), format!("set session-terminate {reason}")], "{offered}");
        assert!(juliet.incoming.is_empty() && juliet.is_clean());
    }
}

#[test]
fn a_malformed_offer_is_a_bad_request() {
    let complete = with(TRANSPORT);
    for offered in [
        String::new(),
        content("name='a'", ""),
        content("name='a'", DESCRIPTION),
        content("name='a'", TRANSPORT),
        content("", &complete),
        content("name='a' disposition='early-session'", &complete),
        content("name='a' senders='everybody'", &complete),
        content("name='a'", &with("<transport xmlns='urn:xmpp:jingle:transports:ibb:1' sid='a'/>")),
        content("name='a'", &with("<transport xmlns='urn:xmpp:jingle:transports:ibb:1' block-size='4096'/>")),
        content("name='a'", &complete.replace("4096", "0")),
        content("name='a'", &complete.replace("<method name='x509'/>", "<method/>")),
        content("name='a'", &complete).replace("creator='initiator'", "creator='responder'"),
        content("name='a'", &complete.repeat(2)),
        (0..9).map(|n| content(&format!("name='{n}'"), &complete)).collect(),
    ] {
        let (juliet, sent, _) = offer(&offered);
        assert_eq!(sent, ["error cancel bad-request"], "{offered}");
        assert!(juliet.is_clean());
    }
}

#[test]
fn of_several_contents_the_stream_is_accepted_and_the_others_are_removed() {
    let voice = content("name='voice'", "<description xmlns='urn:a'/><transport xmlns='urn:b'/>");
    let early = content("name='early' disposition='early-session'", &with(TRANSPORT));
    let (mut juliet, sent, now) = offer(&[voice, early, content("name='xml'", &with(TRANSPORT))].concat());
    assert_eq!(sent, ["result"]);
    let id = juliet.incoming.pop_front().unwrap();
    juliet.sessions.accept(now, id).unwrap();
    let sent = juliet.sent();
    assert_eq!(sent.iter().map(describe).collect::<Vec<_>>(), ["set content-remove", "set session-accept"]);
    let names = |iq: &Element| {
        let contents = find(iq, "jingle").children();
        contents.map(|content| content.attr("name").unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&sent[0]), ["voice", "early"]);
    assert_eq!(names(&sent[1]), ["xml"]);
}

#[test]
fn contents_of_the_same_name_are_alternatives() {
    let s5b = with("<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='b'/>");
    let offered = [content("name='xml'", &s5b), content("name='xml'", &with(TRANSPORT))].concat();
    let (mut juliet, sent, now) = offer(&offered);
    assert_eq!(sent, ["result"]);
    let id = juliet.incoming.pop_front().unwrap();
    juliet.sessions.accept(now, id).unwrap();
    let sent = juliet.sent();
    assert_eq!(
        sent.iter().map(describe).collect::<Vec<_>>(),
        ["set session-accept"],
        "nothing is left to remove"
    );
    assert!(find(&sent[0], "transport").has_ns("urn:xmpp:jingle:transports:ibb:1"));
}

#[test]
fn an_endpoint_that_is_being_closed_takes_no_offers() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    juliet.sessions.close_doors();
    let offered = jingle("session-initiate", "a73s", &content("name='a'", &with(TRANSPORT)));
    assert_eq!(juliet.hears(now, ROMEO, &offered), ["error cancel service-unavailable"]);
    assert!(juliet.incoming.is_empty() && juliet.is_clean());
}

#[test]
fn contents_that_the_initiator_takes_back_are_forgotten_while_it_rings() {
    let voice = content("name='voice'", "<description xmlns='urn:a'/><transport xmlns='urn:b'/>");
    let (mut juliet, _, now) = offer(&[voice, content("name='xml'", &with(TRANSPORT))].concat());
    let id = juliet.incoming.pop_front().unwrap();
    let remove = |name: &str| jingle("content-remove", "a73s", &content(&format!("name='{name}'"), ""));
    assert_eq!(juliet.hears(now, ROMEO, &remove("voice")), ["result"]);
    assert_eq!(juliet.hears(now, ROMEO, &remove("voice")), ["error cancel item-not-found"]);
    assert_eq!(juliet.state(id), "ringing");
    assert_eq!(juliet.hears(now, ROMEO, &remove("xml")), ["result", "set session-terminate success"]);
    assert_eq!(juliet.state(id), "ended");
}

#[test]
fn an_initiator_attribute_that_claims_somebody_else_changes_nothing() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    let spoofed = initiate("a").replace("sid='a'", "sid='a' initiator='tybalt@capulet.lit/street'");
    assert_eq!(juliet.hears(now, ROMEO, &spoofed), ["result"]);
    let id = juliet.incoming.pop_front().unwrap();
    assert_eq!(juliet.sessions.peer(id), Some(&jid(ROMEO)), "who sent it is who it is with");
}

#[test]
fn an_accept_must_fit_the_offer() {
    let other_sid = TRANSPORT.replace("vj3hs98y", "another");
    let s5b = "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='a'/>";
    let name = "name='xmlstream'";
    for children in [
        String::new(),
        content(name, &with(TRANSPORT)).repeat(2),
        content("name='initiator'", &with(TRANSPORT)),
        content(name, &with(TRANSPORT)).replace("creator='initiator'", "creator='responder'"),
        content(name, &format!("{TRANSPORT}{SECURITY}")),
        content(name, &format!("<description xmlns='urn:xmpp:jingle:apps:stub:0'/>{TRANSPORT}{SECURITY}")),
        content(name, &format!("{DESCRIPTION}{SECURITY}")),
        content(name, &with(&other_sid)),
        content(name, &with(s5b)),
        content(name, &with(&TRANSPORT.replace("/>", " stanza='message'/>"))),
    ] {
        let (mut pair, id, _) = Pair::ringing();
        let now = pair.now;
        let offer = pair.sent("session-initiate").clone();
        let bytestream = find(&offer, "transport").attr("sid").unwrap();
        let sid = pair.end(Romeo).sessions.sid(id).unwrap().to_owned();
        let accept = jingle("session-accept", &sid, &children.replace("vj3hs98y", bytestream));
        let sent = pair.end(Romeo).hears(now, JULIET, &accept);
        assert_eq!(sent, ["error cancel bad-request", "set session-terminate general-error"], "{children}");
        let error = pair.end(Romeo).error(id);
        assert!(matches!(error, Some(Error::PeerMisbehaved(PeerMisbehaved::BadAccept(_)))), "{error:?}");
    }
}

#[test]
fn an_accept_without_bytestream_sid_or_responder_is_good_enough() {
    let (mut pair, id, _) = Pair::ringing();
    let now = pair.now;
    let sid = pair.end(Romeo).sessions.sid(id).unwrap().to_owned();
    let without_sid = TRANSPORT.replace("sid='vj3hs98y'", "");
    let accept = jingle("session-accept", &sid, &content("name='xmlstream'", &with(&without_sid)));
    let sent = pair.end(Romeo).hears(now, JULIET, &accept);
    assert_eq!(sent, ["result", "set security-info", "set open"]);
}

#[test]
fn the_bytestream_of_another_session_can_not_be_taken() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    assert_eq!(juliet.hears(now, ROMEO, &initiate("first")), ["result"]);
    let sent = juliet.hears(now, ROMEO, &initiate("second"));
    assert_eq!(sent, ["result", "set session-terminate failed-transport"]);
    assert_eq!(juliet.incoming.len(), 1);
    assert_eq!(
        juliet.hears(now, "romeo@montague.lit/home", &initiate("third")),
        ["result"],
        "another peer's is its own"
    );
}

#[test]
fn every_reason_is_given_and_understood() {
    use Reason::*;
    for reason in [
        Busy,
        Cancel,
        ConnectivityError,
        Decline,
        Expired,
        FailedApplication,
        FailedTransport,
        GeneralError,
        Gone,
        IncompatibleParameters,
        MediaError,
        SecurityError,
        Success,
        Timeout,
        UnsupportedApplications,
        UnsupportedTransports,
        AlternativeSession(Some("b84tkkwlmb48kgfb".into())),
        Other("novel".into()),
    ] {
        let (mut pair, romeos, juliets) = Pair::open();
        pair.terminate(Juliet, juliets, reason.clone(), None);
        pair.run();
        let Some(Error::Terminated(why)) = pair.end(Romeo).error(romeos) else { panic!("{reason}") };
        assert_eq!(why.reason, reason);
    }
}

#[test]
fn foreign_sessions_are_the_bots_where_it_wants_them_and_arrive_as_they_were() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet).pass_foreign(true), now);
    let voice = "<content creator='initiator' name='voice' special='x'><description xmlns='urn:a'/><transport \
        xmlns='urn:b'/></content>";
    for payload in [
        jingle("session-initiate", "a73s", voice).replace("sid=", "extra='attribute' sid="),
        jingle("session-terminate", "unknown", ""),
        jingle("session-dance", "unknown", ""),
        "<jingle xmlns='urn:xmpp:jingle:1'/>".to_owned(),
        "<data xmlns='http://jabber.org/protocol/ibb' sid='a' seq='0'/>".to_owned(),
        "<open xmlns='http://jabber.org/protocol/ibb' sid='a' block-size='1'/>".to_owned(),
    ] {
        let iq = format!("<iq xmlns='jabber:client' type='set' id='x' from='{ROMEO}'>{payload}</iq>");
        let iq: Element = iq.parse().unwrap();
        let back = juliet.receives(now, &iq).unwrap_or_else(|| panic!("{payload} was not given back"));
        assert_eq!(Element::from(back), iq);
        assert!(juliet.sent().is_empty());
    }
    assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), ["result"], "our own application is ours");
}
