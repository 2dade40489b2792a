//! Two who have lost a stream find each other again.

use super::*;
use crate::session::whereabouts::MAX_PLACES;

const STREET: &str = "romeo@montague.lit/street";
const CHAMBER: &str = "juliet@capulet.lit/chamber";

/// To whom presence went.
fn told(end: &mut End) -> Vec<String> {
    let sent = end.sent();
    assert!(sent.iter().all(|stanza| stanza.name() == "presence"), "{sent:?}");
    sent.iter().map(|stanza| stanza.attr("to").unwrap().to_owned()).collect()
}

fn romeo() -> (End, Instant) {
    let now = Instant::now();
    let mut romeo = End::new(Romeo, config(Romeo), now);
    assert_eq!(told(&mut romeo), [""; 0]);
    (romeo, now)
}

fn whereabouts(end: &End) -> Vec<String> {
    end.sessions.whereabouts(&jid(JULIET)).iter().map(ToString::to_string).collect()
}

#[test]
fn the_peer_of_a_lost_stream_is_told_where_we_are_and_what_we_can() {
    let (mut romeo, now) = romeo();
    romeo.sessions.look_out_for(now, &jid(JULIET));
    let sent = romeo.sent();
    let to: Vec<_> = sent.iter().map(|stanza| stanza.attr("to").unwrap()).collect();
    assert_eq!(to, ["juliet@capulet.lit", JULIET]);
    for presence in &sent {
        assert_eq!((presence.name(), presence.attr("type")), ("presence", None));
        assert!(presence.children().any(|child| child.is("c", ns::CAPS)));
    }
    // Again, whenever we are somewhere else.
    romeo.sessions.handle_bound(now, jid(STREET));
    assert_eq!(told(&mut romeo), ["juliet@capulet.lit", JULIET]);
    romeo.sessions.stop_looking_out_for(&jid(JULIET).to_bare());
    romeo.sessions.handle_bound(now, jid(ROMEO));
    assert_eq!(told(&mut romeo), [""; 0]);
    assert!(romeo.is_clean());
}

#[test]
fn several_streams_to_one_peer_are_one_lookout_until_the_last_of_them_goes_on() {
    let (mut romeo, now) = romeo();
    romeo.sessions.look_out_for(now, &jid(JULIET));
    assert_eq!(told(&mut romeo).len(), 2);
    romeo.sessions.look_out_for(now, &jid(JULIET));
    assert_eq!(told(&mut romeo), [""; 0], "she knows");
    romeo.sessions.look_out_for(now, &jid(CHAMBER));
    assert_eq!(told(&mut romeo), [CHAMBER]);
    for left in [2, 1, 0] {
        romeo.sessions.stop_looking_out_for(&jid(JULIET).to_bare());
        romeo.presence(now, "juliet@capulet.lit/garden", PresenceType::Unavailable);
        romeo.presence(now, "juliet@capulet.lit/garden", PresenceType::None);
        assert_eq!(told(&mut romeo).len(), usize::from(left > 0));
    }
    assert!(romeo.is_clean());
}

#[test]
fn without_a_session_with_the_server_nothing_is_said_until_there_is_one() {
    let (mut romeo, now) = romeo();
    romeo.sessions.handle_disconnected(now);
    romeo.sessions.look_out_for(now, &jid(JULIET));
    assert_eq!(told(&mut romeo), [""; 0]);
    romeo.sessions.handle_bound(now, jid(STREET));
    assert_eq!(told(&mut romeo), ["juliet@capulet.lit", JULIET]);
}

#[test]
fn where_the_peer_was_is_tried_first_then_where_it_was_seen_last() {
    let (mut romeo, now) = romeo();
    assert_eq!(whereabouts(&romeo), [JULIET], "nobody looks out for her");
    romeo.presence(now, CHAMBER, PresenceType::None);
    romeo.sessions.look_out_for(now, &jid(JULIET));
    assert_eq!(whereabouts(&romeo), [JULIET]);
    romeo.presence(now, CHAMBER, PresenceType::None);
    romeo.presence(now, "juliet@capulet.lit/garden", PresenceType::None);
    romeo.presence(now, "nurse@capulet.lit/garden", PresenceType::None);
    assert_eq!(whereabouts(&romeo), [JULIET, "juliet@capulet.lit/garden", CHAMBER]);
    romeo.presence(now, CHAMBER, PresenceType::None);
    assert_eq!(whereabouts(&romeo), [JULIET, CHAMBER, "juliet@capulet.lit/garden"]);
    // She leaves; that may be a mistake, so it is the last guess.
    romeo.presence(now, JULIET, PresenceType::Unavailable);
    romeo.presence(now, CHAMBER, PresenceType::Unavailable);
    assert_eq!(whereabouts(&romeo), ["juliet@capulet.lit/garden", JULIET]);
    romeo.presence(now, JULIET, PresenceType::None);
    assert_eq!(whereabouts(&romeo), [JULIET, "juliet@capulet.lit/garden"]);
}

#[test]
fn who_announces_what_a_stream_needs_is_tried_before_who_does_not() {
    let now = Instant::now();
    let mut pair = Pair::new();
    let mut bot = Presence::available();
    bot.payloads.push(pair.end(Juliet).sessions.disco().caps());
    let from = |presence: &Presence, place: &str| Stanza::from(presence.clone().with_from(jid(place)));
    let romeos = &mut pair.end(Romeo).sessions;
    romeos.look_out_for(now, &jid(JULIET));
    romeos.handle_stanza(now, from(&bot, JULIET), Word::NotAsked);
    // What the hash stands for is known from a session.
    let id = pair.connect(Romeo);
    pair.run();
    let romeo = pair.end(Romeo);
    romeo.sessions.handle_stanza(now, from(&bot, CHAMBER), Word::NotAsked);
    romeo.presence(now, "juliet@capulet.lit/telephone", PresenceType::None);
    romeo.presence(now, JULIET, PresenceType::Unavailable);
    assert_eq!(whereabouts(romeo), [CHAMBER, "juliet@capulet.lit/telephone", JULIET]);
    pair.release(Romeo, id);
}

#[test]
fn who_shows_up_somewhere_new_is_answered_once() {
    let (mut romeo, now) = romeo();
    romeo.sessions.look_out_for(now, &jid(JULIET));
    romeo.sent();
    for _ in 0..3 {
        romeo.presence(now, CHAMBER, PresenceType::None);
        romeo.presence(now, "nurse@capulet.lit/chamber", PresenceType::None);
    }
    assert_eq!(told(&mut romeo), [CHAMBER]);
    // Whoever was away has missed what was said meanwhile.
    romeo.presence(now, CHAMBER, PresenceType::Unavailable);
    romeo.presence(now, CHAMBER, PresenceType::None);
    assert_eq!(told(&mut romeo), [CHAMBER]);
}

#[test]
fn two_that_look_out_for_each_other_say_it_a_few_times_and_are_quiet() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.end(Romeo).sessions.look_out_for(now, &jid(JULIET));
    pair.end(Juliet).sessions.look_out_for(now, &jid(ROMEO));
    pair.run();
    pair.take_log();
    pair.rebind(Juliet, CHAMBER);
    pair.run();
    let said = pair.take_log();
    assert_eq!(
        said,
        [
            "juliet: presence to romeo@montague.lit".to_owned(),
            format!("juliet: presence to {ROMEO}"),
            format!("romeo: presence to {CHAMBER}"),
        ]
    );
    let found = pair.end(Romeo).sessions.whereabouts(&jid(JULIET));
    assert_eq!(found, [jid(JULIET), jid(CHAMBER)]);
}

#[test]
fn an_account_that_is_everywhere_fills_no_memory() {
    let (mut romeo, now) = romeo();
    romeo.sessions.look_out_for(now, &jid(JULIET));
    for n in 0..1000 {
        romeo.presence(now, &format!("juliet@capulet.lit/{n}"), PresenceType::None);
    }
    let found = whereabouts(&romeo);
    assert_eq!(found.len(), 1 + MAX_PLACES);
    assert_eq!(found[..2], [JULIET, "juliet@capulet.lit/999"]);
    for n in 0..1000 {
        romeo.sessions.look_out_for(now, &jid(&format!("juliet@capulet.lit/{n}")));
    }
    romeo.sent();
    romeo.sessions.handle_bound(now, jid(STREET));
    assert_eq!(told(&mut romeo).len(), 1 + MAX_PLACES);
}
