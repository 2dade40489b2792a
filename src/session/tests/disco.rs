//! XEP-0247 #protocol: first, the initiator determines the responder's capabilities.

use super::*;
use crate::DiscoConfig;

/// Romeo wants to connect, and has asked what Juliet supports.
fn asking() -> (End, SessionId, String, Instant) {
    let now = Instant::now();
    let mut romeo = End::new(Romeo, config(Romeo), now);
    let id = romeo.sessions.connect(now, jid(JULIET), None).unwrap();
    let asked = romeo.sent();
    assert_eq!(asked.iter().map(describe).collect::<Vec<_>>(), ["get query"]);
    let iq_id = asked[0].attr("id").unwrap().to_owned();
    (romeo, id, iq_id, now)
}

fn sent(end: &mut End) -> Vec<String> {
    end.sent().iter().map(describe).collect()
}

/// Romeo gets Juliet's presence.
fn presence_comes(pair: &mut Pair) {
    let now = pair.now;
    let mut presence = Presence::available().with_from(jid(JULIET));
    presence.payloads.push(pair.end(Juliet).sessions.disco().caps());
    pair.end(Romeo).sessions.handle_stanza(now, presence.into(), Word::NotAsked);
}

/// Whether Romeo asks what Juliet supports before he offers her a session.
fn asks(pair: &mut Pair) -> bool {
    let id = pair.connect(Romeo);
    pair.run();
    let asked = pair.log[0] == "romeo: get query";
    assert_eq!(pair.end(Romeo).state(id), "offered");
    pair.release(Romeo, id);
    pair.run();
    pair.take_log();
    asked
}

#[test]
fn a_peer_whose_capabilities_are_known_is_not_asked() {
    let ping = || DiscoConfig { features: vec![ns::PING.to_owned()], ..DiscoConfig::default() };
    let mut pair = Pair::with(|side, config| if side == Juliet { config.disco(ping()) } else { config });
    presence_comes(&mut pair);
    assert!(asks(&mut pair));
    assert!(!asks(&mut pair));
}

#[test]
fn a_peer_with_the_capabilities_of_our_own_is_never_asked() {
    let mut pair = Pair::new();
    assert!(asks(&mut pair));
    presence_comes(&mut pair);
    assert!(!asks(&mut pair));
}

#[test]
fn the_feature_that_is_missing_is_named() {
    for missing in FEATURES {
        let (mut romeo, id, iq_id, now) = asking();
        let others: Vec<_> = FEATURES.into_iter().filter(|feature| *feature != missing).collect();
        romeo.receives(now, &disco_result(&iq_id, &others));
        let Some(Error::PeerIncompatible(PeerIncompatible::MissingFeature(named))) = romeo.error(id) else {
            panic!("{missing}")
        };
        assert_eq!(named, missing);
        assert!(sent(&mut romeo).is_empty());
    }
}

#[test]
fn capabilities_that_are_out_of_date_are_asked_for_once_more() {
    let mut pair = Pair::new();
    let now = pair.now;
    let mut presence = Presence::available().with_from(jid(JULIET));
    let stale = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:old' \
                 ver='q07IKJEyjvHSyhy//CH0CxmKi8w='/>";
    presence.payloads.push(stale.parse().unwrap());
    pair.end(Romeo).sessions.handle_stanza(now, presence.into(), Word::NotAsked);
    let id = pair.connect(Romeo);
    pair.run();
    assert_eq!(
        pair.take_log()[..4],
        [
            "romeo: get query",
            "juliet: error cancel item-not-found",
            "romeo: get query",
            "juliet: result query"
        ]
    );
    assert_eq!(pair.end(Romeo).state(id), "offered");
}

#[test]
fn an_error_says_whether_the_peer_is_there() {
    for (condition, is_away) in [
        ("service-unavailable", true),
        ("recipient-unavailable", true),
        ("remote-server-not-found", true),
        ("remote-server-timeout", true),
        ("forbidden", false),
    ] {
        let (mut romeo, id, iq_id, now) = asking();
        let request = format!("<iq xmlns='jabber:client' id='{iq_id}'/>").parse().unwrap();
        romeo.receives(now, &nack(&request, &error("cancel", condition, "")));
        match romeo.error(id) {
            Some(Error::Signalling(SignallingError::PeerUnreachable(_))) => assert!(is_away, "{condition}"),
            Some(Error::Signalling(SignallingError::Refused(_))) => assert!(!is_away, "{condition}"),
            other => panic!("{condition}: {other:?}"),
        }
    }
}

#[test]
fn an_answer_that_makes_no_sense_is_an_error() {
    for payload in ["", "<query xmlns='jabber:iq:last'/>"] {
        let (mut romeo, id, iq_id, now) = asking();
        let answer =
            format!("<iq xmlns='jabber:client' type='result' id='{iq_id}' from='{JULIET}'>{payload}</iq>");
        romeo.receives(now, &answer.parse().unwrap());
        assert!(matches!(romeo.error(id), Some(Error::PeerMisbehaved(PeerMisbehaved::MalformedDisco(_)))));
    }
}

#[test]
fn the_answer_of_somebody_else_is_swallowed_and_changes_nothing() {
    let (mut romeo, id, iq_id, now) = asking();
    let spoofed = String::from(&disco_result(&iq_id, &[]));
    for stranger in ["juliet@capulet.lit/chamber", "juliet@capulet.lit", "tybalt@capulet.lit/street"] {
        assert!(romeo.receives(now, &spoofed.replace(JULIET, stranger).parse().unwrap()).is_none());
        assert_eq!(romeo.state(id), "preparing");
    }
    let without_from =
        spoofed.replace(&format!(" from=\"{JULIET}\""), "").replace(&format!(" from='{JULIET}'"), "");
    assert!(!without_from.contains(JULIET));
    assert!(romeo.receives(now, &without_from.parse().unwrap()).is_none());
    assert_eq!(romeo.state(id), "preparing");
    romeo.receives(now, &disco_result(&iq_id, &FEATURES));
    assert_eq!(romeo.state(id), "offered");
}

#[test]
fn spoofed_replies_to_an_offer_change_nothing() {
    let (mut romeo, id, iq_id, now) = asking();
    romeo.receives(now, &disco_result(&iq_id, &FEATURES));
    let offer = romeo.sent().remove(0);
    let refusal = String::from(&nack(&offer, &error("cancel", "conflict", "tie-break")));
    romeo.receives(now, &refusal.replace(JULIET, "tybalt@capulet.lit/street").parse().unwrap());
    assert_eq!(romeo.state(id), "offered");
    romeo.receives(now, &refusal.parse().unwrap());
    assert_eq!(romeo.state(id), "ended");
}

#[test]
fn a_session_that_was_given_up_is_not_offered_when_the_answer_comes() {
    let (mut romeo, id, iq_id, now) = asking();
    romeo.sessions.release(now, id);
    romeo.receives(now, &disco_result(&iq_id, &FEATURES));
    assert!(sent(&mut romeo).is_empty() && romeo.is_clean());
}

#[test]
fn a_question_about_us_is_answered_unless_the_bot_wants_to() {
    let (mut romeo, .., now) = asking();
    let question = format!(
        "<iq xmlns='jabber:client' type='get' id='a' from='{JULIET}' to='{ROMEO}'>\
         <query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
    );
    assert!(romeo.receives(now, &question.parse().unwrap()).is_none());
    let answer = String::from(&romeo.sent()[0]);
    for feature in FEATURES {
        assert!(answer.contains(feature), "{feature}");
    }
    let of_the_account = question.replace(&format!("to='{ROMEO}'"), "to='romeo@montague.lit'");
    assert!(romeo.receives(now, &of_the_account.parse().unwrap()).is_some());

    let mut own = config(Romeo);
    own.disco.answer = false;
    let mut romeo = End::new(Romeo, own, now);
    assert!(romeo.receives(now, &question.parse().unwrap()).is_some());
}
