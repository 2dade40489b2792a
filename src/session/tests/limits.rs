//! How many sessions there may be, and that nothing is kept of those that were.

use super::*;

fn initiate_with(sid: &str) -> String {
    initiate(sid).replace("vj3hs98y", &format!("bytestream-{sid}"))
}

const BUSY: [&str; 2] = ["result", "set session-terminate busy"];

#[test]
fn one_account_may_not_have_more_than_its_share() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    let share = juliet.sessions.config().limits.sessions_per_peer;
    for n in 0..share {
        let from = format!("romeo@montague.lit/{n}");
        assert_eq!(juliet.hears(now, &from, &initiate_with("a")), ["result"]);
    }
    assert_eq!(juliet.hears(now, ROMEO, &initiate_with("b")), BUSY);
    assert_eq!(juliet.hears(now, "benvolio@montague.lit/street", &initiate_with("b")), ["result"]);

    let first = juliet.incoming.pop_front().unwrap();
    let terminate = jingle("session-terminate", "a", "");
    assert_eq!(juliet.hears(now, "romeo@montague.lit/0", &terminate), ["result"]);
    assert_eq!(juliet.hears(now, ROMEO, &initiate_with("c")), BUSY, "its user still holds it");
    juliet.sessions.release(now, first);
    assert_eq!(juliet.hears(now, ROMEO, &initiate_with("d")), ["result"]);
}

#[test]
fn all_together_may_not_have_more_than_the_limit() {
    let now = Instant::now();
    let mut limited = config(Juliet);
    limited.limits.sessions = 3;
    let mut juliet = End::new(Juliet, limited, now);
    for n in 0..2 {
        assert_eq!(juliet.hears(now, &format!("kinsman{n}@montague.lit/a"), &initiate_with("a")), ["result"]);
    }
    let own = juliet.sessions.connect(now, jid(ROMEO), None).unwrap();
    assert_eq!(juliet.hears(now, "kinsman9@montague.lit/a", &initiate_with("a")).last().unwrap(), BUSY[1]);
    assert!(matches!(juliet.sessions.connect(now, jid(ROMEO), None), Err(Error::TooManySessions(3))));
    juliet.sessions.release(now, own);
    assert!(juliet.sessions.connect(now, jid(ROMEO), None).is_ok());
}

#[test]
fn sessions_that_ended_count_against_peers_until_their_user_lets_go_of_them() {
    let now = Instant::now();
    let mut limited = config(Juliet);
    limited.limits.sessions = 3;
    let mut juliet = End::new(Juliet, limited, now);
    for n in 0..3 {
        let from = format!("kinsman{n}@montague.lit/a");
        assert_eq!(juliet.hears(now, &from, &initiate_with("a")), ["result"]);
        assert_eq!(juliet.hears(now, &from, &jingle("session-terminate", "a", "")), ["result"]);
    }
    assert_eq!(juliet.hears(now, ROMEO, &initiate_with("a")), BUSY);
    assert!(juliet.sessions.connect(now, jid(ROMEO), None).is_ok(), "the user itself is not held up");
}

#[test]
fn what_is_turned_down_is_not_remembered() {
    let now = Instant::now();
    let mut limited = config(Juliet);
    limited.limits.sessions_per_peer = 0;
    let mut juliet = End::new(Juliet, limited, now);
    for n in 0..500 {
        assert_eq!(juliet.hears(now, ROMEO, &initiate_with(&n.to_string())), BUSY);
    }
    assert!(juliet.is_clean());
    assert_eq!(juliet.sessions.poll_timeout(), None);
}

#[test]
fn nothing_is_left_of_many_sessions() {
    let mut pair = Pair::new();
    for round in 0..200 {
        let romeos = pair.connect(Romeo);
        pair.run();
        let juliets = pair.accept(Juliet);
        pair.run();
        pair.send(Romeo, romeos, b"hello");
        if round % 2 == 0 {
            pair.run();
        }
        pair.terminate(Juliet, juliets, Reason::Success, None);
        if round % 3 == 0 {
            pair.run();
        }
        pair.release(Romeo, romeos);
        pair.release(Juliet, juliets);
        pair.run();
    }
    assert!(pair.ends.iter().all(End::is_clean));
}

#[test]
fn a_peer_that_answers_nothing_is_forgotten_all_the_same() {
    let (mut pair, romeos, _) = Pair::open();
    pair.send(Romeo, romeos, b"hello?");
    pair.release(Romeo, romeos);
    let next = pair.connect(Romeo);
    pair.release(Romeo, next);
    pair.advance(Duration::from_secs(30));
    assert!(pair.end(Romeo).is_clean());
}

#[test]
fn a_session_can_not_be_opened_with_oneself() {
    let now = Instant::now();
    let mut romeo = End::new(Romeo, config(Romeo), now);
    let id = romeo.sessions.connect(now, jid(ROMEO), None).unwrap();
    assert!(matches!(romeo.error(id), Some(Error::ApiMisuse(_))));
    assert!(romeo.sent().is_empty());
}

#[test]
fn requests_of_others_are_given_back() {
    let now = Instant::now();
    let mut romeo = End::new(Romeo, config(Romeo), now);
    for foreign in [
        format!(
            "<iq xmlns='jabber:client' type='get' id='a' from='{JULIET}'><ping xmlns='urn:xmpp:ping'/></iq>"
        ),
        format!(
            "<iq xmlns='jabber:client' type='set' id='a' from='{JULIET}'><query xmlns='jabber:iq:last'/></iq>"
        ),
        format!("<iq xmlns='jabber:client' type='result' id='a' from='{JULIET}'/>"),
        format!("<message xmlns='jabber:client' from='{JULIET}'><body>O</body></message>"),
        format!("<presence xmlns='jabber:client' from='{JULIET}'/>"),
    ] {
        assert!(romeo.receives(now, &foreign.parse().unwrap()).is_some(), "{foreign}");
        assert!(romeo.sent().is_empty());
    }
}
