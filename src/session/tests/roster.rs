//! Those who may see our presence may call, as the own server says, and nobody else.

use super::*;
use crate::{Callers, session::roster::MAX_CONTACTS};

const ACCOUNT: &str = "juliet@capulet.lit";
const NOBODY_HOME: [&str; 1] = ["error cancel service-unavailable"];

/// Juliet, whose callers are those of her roster, for which she has asked.
fn asking() -> (End, Element, Instant) {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet).callers(Callers::Roster), now);
    let asked = juliet.sent();
    let [request] = asked.as_slice() else { panic!("{asked:?}") };
    let request = request.clone();
    (juliet, request, now)
}

fn items(items: &[(&str, &str)]) -> String {
    let item =
        |(jid, subscription): &(&str, &str)| format!("<item jid='{jid}' subscription='{subscription}'/>");
    format!("<query xmlns='jabber:iq:roster'>{}</query>", items.iter().map(item).collect::<String>())
}

/// Her server's answer.
fn answer(request: &Element, payload: &str) -> Element {
    let id = request.attr("id").unwrap();
    format!("<iq xmlns='jabber:client' type='result' id='{id}' to='{JULIET}'>{payload}</iq>").parse().unwrap()
}

/// Juliet, who has her roster, with these contacts in it.
fn with(contacts: &[(&str, &str)]) -> (End, Instant) {
    let (mut juliet, request, now) = asking();
    assert!(juliet.receives(now, &answer(&request, &items(contacts))).is_none(), "we asked, not the bot");
    (juliet, now)
}

/// A push; an empty `from` is none.
fn push(end: &mut End, now: Instant, from: &str, payload: &str) {
    let from = if from.is_empty() { String::new() } else { format!("from='{from}'") };
    let push = format!("<iq xmlns='jabber:client' type='set' id='push' {from}>{payload}</iq>");
    let push = push.parse().unwrap();
    let back = end.receives(now, &push).expect("the bot gets pushes, as it always did");
    assert_eq!(Element::from(back), push);
    assert!(end.sent().is_empty(), "they are the bot's to answer");
}

fn may_call(end: &mut End, now: Instant, from: &str) -> bool {
    let sent = end.hears(now, from, &initiate("a"));
    if sent == NOBODY_HOME {
        return false;
    }
    assert_eq!(sent, ["result"]);
    let id = end.incoming.pop_front().unwrap();
    end.sessions.release(now, id);
    end.sent();
    true
}

#[test]
fn the_roster_is_asked_for_when_it_is_wanted_and_only_then() {
    let (_, request, _) = asking();
    assert_eq!((request.attr("type"), request.attr("to")), (Some("get"), None));
    assert!(request.has_child("query", "jabber:iq:roster"));

    let mut romeo = End::new(Romeo, config(Romeo), Instant::now());
    assert!(romeo.sent().is_empty());
}

#[test]
fn those_who_may_see_our_presence_may_call() {
    for (subscription, expected) in
        [("both", true), ("from", true), ("to", false), ("none", false), ("remove", false), ("novel", false)]
    {
        let (mut juliet, now) = with(&[("romeo@montague.lit", subscription)]);
        assert_eq!(may_call(&mut juliet, now, ROMEO), expected, "{subscription}");
        assert!(!may_call(&mut juliet, now, "tybalt@capulet.lit/street"));
    }
}

#[test]
fn the_own_accounts_other_resources_may_call_with_or_without_a_roster() {
    let (mut juliet, request, now) = asking();
    assert!(may_call(&mut juliet, now, "juliet@capulet.lit/tomb"));
    juliet.receives(now, &answer(&request, &items(&[])));
    assert!(may_call(&mut juliet, now, "juliet@capulet.lit/tomb"));
    assert!(!may_call(&mut juliet, now, "juliet@capulet.example/tomb"));
}

#[test]
fn an_item_that_makes_no_sense_costs_nobody_else_anything() {
    let (mut juliet, request, now) = asking();
    let odd = "<item/><item jid='@' subscription='both'/><item jid='a@b.example/c' subscription='both'/>\
        <group xmlns='urn:a'/><item jid='romeo@montague.lit' subscription='both' novel='x' ask='what'/>";
    juliet.receives(now, &answer(&request, &format!("<query xmlns='jabber:iq:roster'>{odd}</query>")));
    assert!(may_call(&mut juliet, now, ROMEO));
    assert!(!may_call(&mut juliet, now, "a@b.example/c"));
}

#[test]
fn before_the_roster_is_here_nobody_may_call() {
    let (mut juliet, request, now) = asking();
    assert!(!may_call(&mut juliet, now, ROMEO));
    push(&mut juliet, now, "", &items(&[("romeo@montague.lit", "both")]));
    assert!(!may_call(&mut juliet, now, ROMEO), "what comes before it is in it");
    juliet.receives(now, &answer(&request, &items(&[("romeo@montague.lit", "both")])));
    assert!(may_call(&mut juliet, now, ROMEO));
}

#[test]
fn pushes_change_who_may_call() {
    for from in ["", ACCOUNT] {
        let (mut juliet, now) = with(&[]);
        for (subscription, expected) in [
            ("to", false),
            ("both", true),
            ("from", true),
            ("none", false),
            ("both", true),
            ("remove", false),
        ] {
            push(&mut juliet, now, from, &items(&[("romeo@montague.lit", subscription)]));
            assert_eq!(may_call(&mut juliet, now, ROMEO), expected, "{subscription} from {from:?}");
        }
    }
}

#[test]
fn a_push_from_anybody_but_the_own_account_changes_nothing() {
    for forger in [ROMEO, "romeo@montague.lit", "capulet.lit", "juliet@capulet.lit/tomb", JULIET] {
        let (mut juliet, now) = with(&[("nurse@capulet.lit", "both")]);
        push(&mut juliet, now, forger, &items(&[("romeo@montague.lit", "both")]));
        push(&mut juliet, now, forger, &items(&[("nurse@capulet.lit", "remove")]));
        assert!(!may_call(&mut juliet, now, ROMEO), "{forger}");
        assert!(may_call(&mut juliet, now, "nurse@capulet.lit/chamber"), "{forger}");
    }
}

#[test]
fn a_push_that_is_none_changes_nothing() {
    let two = items(&[("romeo@montague.lit", "both"), ("tybalt@capulet.lit", "both")]);
    let other = items(&[("romeo@montague.lit", "both")]).replace("jabber:iq:roster", "jabber:iq:privacy");
    for odd in [two, other, items(&[])] {
        let (mut juliet, now) = with(&[]);
        push(&mut juliet, now, "", &odd);
        assert!(!may_call(&mut juliet, now, ROMEO), "{odd}");
    }
}

#[test]
fn an_answer_from_somebody_else_is_no_answer() {
    let (mut juliet, request, now) = asking();
    let forged = String::from(&answer(&request, &items(&[("romeo@montague.lit", "both")])));
    for forger in [ROMEO, "capulet.lit", "tybalt@capulet.lit"] {
        let forged = forged.replacen("<iq ", &format!("<iq from='{forger}' "), 1);
        assert!(juliet.receives(now, &forged.parse().unwrap()).is_none());
        assert!(!may_call(&mut juliet, now, ROMEO), "{forger}");
    }
    assert!(juliet.receives(now, &forged.parse().unwrap()).is_none());
    assert!(may_call(&mut juliet, now, ROMEO));
}

#[test]
fn the_bots_own_question_is_the_bots() {
    let (mut juliet, now) = with(&[]);
    let reply =
        format!("<iq xmlns='jabber:client' type='result' id='bots'>{}</iq>", items(&[(ACCOUNT, "both")]));
    let reply: Element = reply.parse().unwrap();
    assert_eq!(Element::from(juliet.receives(now, &reply).unwrap()), reply);
}

#[test]
fn without_a_roster_nobody_may_call() {
    let refused = |request: &Element| {
        let id = request.attr("id").unwrap();
        let error = error("cancel", "service-unavailable", "");
        format!("<iq xmlns='jabber:client' type='error' id='{id}'>{error}</iq>").parse().unwrap()
    };
    let answers: [&dyn Fn(&Element) -> Element; 3] = [&refused, &|request| answer(request, ""), &|request| {
        answer(request, "<query xmlns='jabber:iq:last'/>")
    }];
    for answer in answers {
        let (mut juliet, request, now) = asking();
        assert!(juliet.receives(now, &answer(&request)).is_none());
        assert!(!may_call(&mut juliet, now, ROMEO));
        push(&mut juliet, now, "", &items(&[("romeo@montague.lit", "both")]));
        assert!(!may_call(&mut juliet, now, ROMEO));
    }
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for_for_ever() {
    let (mut juliet, request, now) = asking();
    let late = now + Timeouts::default().iq;
    assert_eq!(juliet.sessions.poll_timeout(), Some(late));
    juliet.sessions.handle_timeout(late);
    assert!(juliet.is_clean());
    assert!(juliet.receives(late, &answer(&request, &items(&[("romeo@montague.lit", "both")]))).is_none());
    assert!(!may_call(&mut juliet, late, ROMEO));
}

#[test]
fn a_new_session_with_the_server_asks_again_and_believes_nothing_of_the_old_one() {
    for jid_then in [JULIET, "juliet@capulet.lit/tomb"] {
        let (mut juliet, now) = with(&[("romeo@montague.lit", "both")]);
        juliet.sessions.handle_bound(now, jid(jid_then));
        assert!(!juliet.hears(now, ROMEO, &initiate("a")).contains(&"result".to_owned()));
        juliet.sessions.handle_bound(now, jid(jid_then));
        let asked = juliet.sent();
        let [request] = asked.as_slice() else { panic!("{asked:?}") };
        juliet.receives(now, &answer(request, &items(&[("tybalt@capulet.lit", "from")])));
        assert!(!may_call(&mut juliet, now, ROMEO));
        assert!(may_call(&mut juliet, now, "tybalt@capulet.lit/street"));
    }
}

#[test]
fn a_session_that_is_open_outlasts_the_subscription() {
    let (mut juliet, now) = with(&[("romeo@montague.lit", "both")]);
    assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), ["result"]);
    let id = juliet.incoming.pop_front().unwrap();
    push(&mut juliet, now, "", &items(&[("romeo@montague.lit", "remove")]));
    juliet.sessions.accept(now, id).unwrap();
    juliet.sent();
    let open = "<open xmlns='http://jabber.org/protocol/ibb' block-size='4096' sid='vj3hs98y'/>";
    assert_eq!(juliet.hears(now, ROMEO, open), ["result"]);
    assert!(juliet.is_open(id));
    assert_eq!(juliet.hears(now, ROMEO, &initiate("b")), NOBODY_HOME, "but there is no other one");
}

#[test]
fn contacts_beyond_the_limit_may_not_call_until_others_are_gone() {
    let names: Vec<_> = (0..=MAX_CONTACTS).map(|n| format!("kinsman{n}@capulet.lit")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), "both")).collect();
    let (first, one_more) = ("kinsman0@capulet.lit/street", format!("{}/street", names[MAX_CONTACTS]));
    let (mut juliet, now) = with(&all);
    assert!(may_call(&mut juliet, now, first));
    assert!(!may_call(&mut juliet, now, &one_more), "by the roster");
    push(&mut juliet, now, "", &items(&all[MAX_CONTACTS..]));
    assert!(!may_call(&mut juliet, now, &one_more), "by a push");
    push(&mut juliet, now, "", &items(&[("kinsman0@capulet.lit", "remove")]));
    push(&mut juliet, now, "", &items(&all[MAX_CONTACTS..]));
    assert!(may_call(&mut juliet, now, &one_more));
    assert!(!may_call(&mut juliet, now, first));
}
