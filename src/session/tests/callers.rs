//! Who may open a session with us, and what the others see of us: nobody at home.

use super::*;
use crate::Callers;

const NURSE: &str = "nurse@capulet.lit/chamber";
const NOBODY_HOME: [&str; 1] = ["error cancel service-unavailable"];

const OPEN: &str = "<open xmlns='http://jabber.org/protocol/ibb' block-size='4096' sid='vj3hs98y'/>";
const DATA: &str = "<data xmlns='http://jabber.org/protocol/ibb' seq='0' sid='vj3hs98y'/>";

fn juliet(callers: Callers) -> (End, Instant) {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet).callers(callers), now);
    // If she asks for her roster, nobody answers.
    juliet.sent();
    (juliet, now)
}

fn only(jids: &[&str]) -> Callers {
    Callers::Only(jids.iter().map(|text| text.parse().unwrap()).collect())
}

/// Passes in a request from somebody, of whom the bot is asked as the driver does it.
fn hears_filtered(end: &mut End, now: Instant, from: &str, payload: &str) -> Vec<String> {
    let payload: Element = payload.parse().unwrap();
    let iq = Iq::Set { from: Some(from.parse().unwrap()), to: None, id: "x1".to_owned(), payload };
    let stanza = Stanza::from(iq);
    let Callers::Filter(may_call) = end.sessions.config().callers.clone() else { panic!("no filter") };
    let word = match end.sessions.asks_about(&stanza).map(|caller| may_call(&caller)) {
        Some(true) => Word::Yes,
        Some(false) => Word::No,
        None => Word::NotAsked,
    };
    assert!(end.sessions.handle_stanza(now, stanza, word).is_none());
    end.sent().iter().map(describe).collect()
}

#[test]
fn those_on_the_list_may_call_from_wherever_they_are() {
    let (mut juliet, now) = juliet(only(&["romeo@montague.lit"]));
    assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), ["result"]);
    assert_eq!(juliet.hears(now, "romeo@montague.lit/street", &initiate("a")), ["result"]);
    assert_eq!(juliet.incoming.len(), 2);
}

#[test]
fn to_all_others_there_is_nobody_at_home_whatever_they_try() {
    for callers in [only(&["romeo@montague.lit"]), Callers::Roster, Callers::filter(|_| false)] {
        let (mut juliet, now) = juliet(callers);
        for attempt in [
            initiate("a"),
            initiate("a").replace(SECURITY, ""),
            initiate("a").replace(TRANSPORT, ""),
            jingle("session-terminate", "a", ""),
            jingle("session-dance", "a", ""),
            "<jingle xmlns='urn:xmpp:jingle:1'/>".to_owned(),
            OPEN.to_owned(),
            DATA.to_owned(),
            "<open xmlns='http://jabber.org/protocol/ibb'/>".to_owned(),
        ] {
            assert_eq!(juliet.hears(now, NURSE, &attempt), NOBODY_HOME, "{attempt}");
            let bare = juliet.hears(now, "nurse@capulet.lit.example", &attempt);
            assert_eq!(bare, NOBODY_HOME, "{attempt}");
        }
        assert!(juliet.incoming.is_empty(), "the bot never hears of it");
        assert!(juliet.effects.is_empty() && juliet.sessions.table.is_empty());
    }
}

#[test]
fn the_answer_is_the_one_of_somebody_who_knows_nothing_of_jingle() {
    let (mut juliet, now) = juliet(only(&[]));
    let iq = format!("<iq xmlns='jabber:client' type='set' id='x' from='{NURSE}'>{}</iq>", initiate("a"));
    assert!(juliet.receives(now, &iq.parse().unwrap()).is_none());
    let answer = String::from(&juliet.sent()[0]);
    let expected = format!(
        "<iq xmlns='jabber:client' type='error' id='x' to='{NURSE}' from='{JULIET}'>{}</iq>",
        error("cancel", "service-unavailable", "")
    );
    assert_eq!(answer.parse::<Element>().unwrap(), expected.parse::<Element>().unwrap());
}

#[test]
fn a_filter_is_asked_once_about_each_stranger_and_never_about_what_belongs_to_a_session() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = std::sync::Arc::clone(&asked);
    let (mut juliet, now) = juliet(Callers::filter(move |caller| {
        note.lock().unwrap().push(caller.to_string());
        caller.node().is_some_and(|node| node.as_str() == "romeo")
    }));
    let take = || std::mem::take(&mut *asked.lock().unwrap());

    assert_eq!(hears_filtered(&mut juliet, now, NURSE, &initiate("a")), NOBODY_HOME);
    assert_eq!(take(), [NURSE]);
    assert_eq!(hears_filtered(&mut juliet, now, ROMEO, &initiate("a")), ["result"]);
    assert_eq!(take(), [ROMEO]);

    let id = juliet.incoming.pop_front().unwrap();
    juliet.sessions.accept(now, id).unwrap();
    juliet.sent();
    assert_eq!(hears_filtered(&mut juliet, now, ROMEO, OPEN), ["result"]);
    assert_eq!(hears_filtered(&mut juliet, now, ROMEO, DATA), ["result"]);
    assert_eq!(hears_filtered(&mut juliet, now, ROMEO, &jingle("session-info", "a", "")), ["result"]);
    assert_eq!(take(), [""; 0]);

    assert_eq!(hears_filtered(&mut juliet, now, NURSE, DATA), NOBODY_HOME, "of somebody else's stream");
    assert_eq!(take(), [NURSE]);
}

#[test]
fn where_the_filter_was_not_asked_the_answer_is_no() {
    let (mut juliet, now) = juliet(Callers::filter(|_| true));
    assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), NOBODY_HOME);
}

#[test]
fn whom_we_call_may_answer() {
    for callers in [only(&[]), Callers::Roster, Callers::filter(|_| false)] {
        let mut pair = Pair::with(|side, config| match side {
            Romeo => config.callers(callers.clone()),
            Juliet => config,
        });
        // If he asks for his roster, nobody answers.
        pair.end(Romeo).sent();
        let romeos = pair.connect(Romeo);
        pair.run();
        let juliets = pair.accept(Juliet);
        pair.run();
        assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets), "{callers:?}");
        pair.send(Juliet, juliets, b"sweet sorrow");
        pair.run();
        assert_eq!(pair.drain(Romeo, romeos).0, b"sweet sorrow");
        pair.terminate(Juliet, juliets, Reason::Success, None);
        pair.run();
        let now = pair.now;
        assert_eq!(pair.end(Romeo).hears(now, JULIET, &initiate("b")), NOBODY_HOME, "from now on");
    }
}

#[test]
fn two_who_call_each_other_meet_though_neither_may_call() {
    let mut pair = Pair::with(|_, config| config.callers(only(&[])));
    let (romeos, juliets) = (pair.connect(Romeo), pair.connect(Juliet));
    for _ in 0..2 {
        pair.deliver(Romeo);
        pair.deliver(Juliet);
    }
    assert_eq!(pair.log.iter().filter(|line| line.ends_with("session-initiate")).count(), 2);
    pair.run();
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets), "{:#?}", pair.log);
}

#[test]
fn calling_one_resource_lets_no_other_in() {
    let (mut juliet, now) = juliet(only(&[]));
    juliet.sessions.connect(now, jid(ROMEO), None).unwrap();
    juliet.sent();
    assert_eq!(juliet.hears(now, "romeo@montague.lit/street", &initiate("a")), NOBODY_HOME);
    assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), ["result"], "whom we are calling");
}

#[test]
fn other_applications_are_the_bots_whoever_calls() {
    let now = Instant::now();
    let config = config(Juliet).pass_foreign(true).callers(only(&[]));
    let mut juliet = End::new(Juliet, config, now);
    let voice = "<content creator='initiator' name='voice'><description xmlns='urn:a'/><transport \
        xmlns='urn:b'/></content>";
    for payload in [
        jingle("session-initiate", "a73s", voice),
        jingle("session-terminate", "unknown", ""),
        DATA.to_owned(),
    ] {
        let iq = format!("<iq xmlns='jabber:client' type='set' id='x' from='{NURSE}'>{payload}</iq>");
        assert!(juliet.receives(now, &iq.parse().unwrap()).is_some(), "{payload}");
        assert!(juliet.sent().is_empty());
    }
    assert_eq!(juliet.hears(now, NURSE, &initiate("a")), NOBODY_HOME, "our own application is ours");
}
