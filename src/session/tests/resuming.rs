//! Sessions that carry on a stream whose bytestream was lost.

use super::*;
use crate::{Callers, Start};

const EXPIRED: [&str; 2] = ["result", "set session-terminate expired"];
const BUSY: [&str; 2] = ["result", "set session-terminate busy"];
const MARK: &str = "<resumption xmlns='https://crates.io/crates/jingle-xmlstream#resumption'/>";

/// A session-initiate that is to carry on a stream.
fn resume(sid: &str) -> String {
    let offer = initiate(sid).replace("vj3hs98y", &format!("bytestream-{sid}"));
    offer.replace("</content>", &format!("{MARK}</content>"))
}

fn account(text: &str) -> jid::BareJid {
    text.parse().unwrap()
}

impl Pair {
    fn resume(&mut self, side: Side) -> SessionId {
        let (now, peer) = (self.now, self.end(side.other()).jid.clone());
        let id = self.end(side).sessions.connect_to_resume(now, peer, None).unwrap();
        self.collect();
        id
    }

    /// Streams with the other one's account may be carried on.
    fn expect(&mut self, side: Side) {
        let other = self.end(side.other()).jid.to_bare();
        self.end(side).sessions.expect_resumption(&other);
    }

    fn forget(&mut self, side: Side) {
        let other = self.end(side.other()).jid.to_bare();
        self.end(side).sessions.forget_resumption(&other);
    }

    /// The driver's part.
    fn let_in(&mut self, side: Side) -> SessionId {
        let now = self.now;
        let id = self.end(side).resumptions.pop_front().expect("nobody wants to go on");
        self.end(side).sessions.accept(now, id).unwrap();
        id
    }
}

#[test]
fn a_session_carries_on_a_stream_without_anybody_being_asked() {
    let mut pair = Pair::new();
    pair.expect(Juliet);
    let romeos = pair.resume(Romeo);
    pair.run();
    assert!(pair.end(Juliet).incoming.is_empty(), "her user is not asked");
    let juliets = pair.let_in(Juliet);
    pair.run();
    let offer = String::from(pair.sent("session-initiate"));
    assert!(offer.contains("#resumption"), "{offer}");
    pair.send(Romeo, romeos, b"where we were");
    pair.run();
    assert_eq!(pair.drain(Juliet, juliets).0, b"where we were");
    pair.release(Romeo, romeos);
    pair.release(Juliet, juliets);
    pair.forget(Juliet);
    pair.run();
    assert!(pair.ends.iter().all(End::is_clean));
}

#[test]
fn an_ordinary_session_has_no_mark_and_is_the_users_to_accept() {
    let mut pair = Pair::new();
    pair.expect(Juliet);
    pair.connect(Romeo);
    pair.run();
    assert!(!String::from(pair.sent("session-initiate")).contains("resumption"));
    assert!(pair.end(Juliet).resumptions.is_empty() && pair.end(Juliet).incoming.len() == 1);
}

#[test]
fn who_has_no_stream_to_carry_on_says_so_and_that_is_final() {
    let mut pair = Pair::new();
    pair.expect(Juliet);
    pair.forget(Juliet);
    let romeos = pair.resume(Romeo);
    pair.run();
    let Some(Error::Terminated(terminated)) = pair.end(Romeo).error(romeos) else { panic!("it went on") };
    assert_eq!(terminated.reason, Reason::Expired);
    assert_eq!(terminated.text.as_deref(), Some("there is no stream to carry on"));
    assert!(pair.end(Juliet).incoming.is_empty() && pair.end(Juliet).is_clean());
}

#[test]
fn a_stream_is_carried_on_by_its_own_account_alone_from_wherever_it_is() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    juliet.sessions.expect_resumption(&account("romeo@montague.lit"));
    assert_eq!(juliet.hears(now, "benvolio@montague.lit/orchard", &resume("a")), EXPIRED);
    assert_eq!(juliet.hears(now, "romeo@montague.lit/street", &resume("a")), ["result"]);
    assert_eq!(juliet.resumptions.len(), 1);
}

#[test]
fn what_is_asked_of_other_offers_is_asked_of_these_too() {
    let now = Instant::now();
    let nobody = config(Juliet).callers(Callers::Only(Vec::new().into_iter().collect()));
    let mut juliet = End::new(Juliet, nobody, now);
    juliet.sessions.expect_resumption(&account("romeo@montague.lit"));
    assert_eq!(juliet.hears(now, ROMEO, &resume("a")), ["error cancel service-unavailable"]);

    let mut juliet = End::new(Juliet, config(Juliet), now);
    juliet.sessions.expect_resumption(&account("romeo@montague.lit"));
    let insecure = resume("a").replace(SECURITY, "");
    assert_eq!(juliet.hears(now, ROMEO, &insecure), ["result", "set session-terminate security-error"]);
    let one_way = resume("a").replace("name='xmlstream'", "name='xmlstream' senders='initiator'");
    assert_eq!(
        juliet.hears(now, ROMEO, &one_way),
        ["result", "set session-terminate incompatible-parameters"]
    );
    assert!(juliet.resumptions.is_empty());
}

#[test]
fn an_endpoint_that_is_being_closed_lets_its_streams_go_on_to_their_end() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    juliet.sessions.expect_resumption(&account("romeo@montague.lit"));
    juliet.sessions.close_doors();
    assert_eq!(juliet.hears(now, ROMEO, &resume("a")), ["result"]);
    assert_eq!(juliet.resumptions.len(), 1);
}

#[test]
fn an_offer_that_carries_on_a_stream_never_ties() {
    // With one for a new stream.
    let mut pair = Pair::new();
    pair.expect(Juliet);
    let (romeos, juliets) = (pair.resume(Romeo), pair.connect(Juliet));
    pair.run();
    let (romeos_new, juliets_resumed) = (pair.accept(Romeo), pair.let_in(Juliet));
    pair.run();
    for (side, id) in [(Romeo, romeos), (Romeo, romeos_new), (Juliet, juliets), (Juliet, juliets_resumed)] {
        assert!(pair.end(side).is_open(id));
    }
    assert!(!pair.log.iter().any(|line| line.contains("tie-break")), "{:?}", pair.log);

    // With one that carries on another stream the other way round.
    let mut pair = Pair::new();
    pair.expect(Juliet);
    pair.expect(Romeo);
    let (romeos, juliets) = (pair.resume(Romeo), pair.resume(Juliet));
    pair.run();
    let accepted = (pair.let_in(Romeo), pair.let_in(Juliet));
    pair.run();
    for (side, id) in [(Romeo, romeos), (Romeo, accepted.0), (Juliet, juliets), (Juliet, accepted.1)] {
        assert!(pair.end(side).is_open(id));
    }
}

#[test]
fn a_peer_with_all_the_streams_it_may_have_is_not_locked_out_when_it_loses_them() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    let share = juliet.sessions.config().limits.sessions_per_peer;
    for n in 0..share {
        let first = initiate(&n.to_string()).replace("vj3hs98y", &format!("first-{n}"));
        assert_eq!(juliet.hears(now, ROMEO, &first), ["result"]);
        juliet.sessions.expect_resumption(&account("romeo@montague.lit"));
    }
    // She has not noticed that they are gone.
    for n in 0..3 * share {
        assert_eq!(juliet.hears(now, ROMEO, &resume(&format!("r{n}"))), ["result"]);
    }
    assert_eq!(juliet.resumptions.len(), 3 * share);
    assert_eq!(juliet.hears(now, ROMEO, &resume("another")), BUSY, "no peer needs as many");
    let first = juliet.resumptions.pop_front().unwrap();
    juliet.sessions.release(now, first);
    juliet.sent();
    assert_eq!(juliet.hears(now, ROMEO, &resume("another")), ["result"]);
}

#[test]
fn streams_that_wait_to_be_carried_on_count_when_the_peer_wants_new_ones() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    let share = juliet.sessions.config().limits.sessions_per_peer;
    for _ in 0..2 * share - 1 {
        juliet.sessions.expect_resumption(&account("romeo@montague.lit"));
    }
    assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), ["result"], "it may have forgotten them");
    juliet.sessions.expect_resumption(&account("romeo@montague.lit"));
    let other = initiate("b").replace("vj3hs98y", "other");
    assert_eq!(juliet.hears(now, ROMEO, &other), BUSY);
    juliet.sessions.forget_resumption(&account("romeo@montague.lit"));
    assert_eq!(juliet.hears(now, ROMEO, &other), ["result"]);
}

#[test]
fn somebody_with_many_accounts_can_not_leave_any_number_of_streams_behind() {
    let now = Instant::now();
    let mut limited = config(Juliet);
    limited.limits.sessions = 4;
    let mut juliet = End::new(Juliet, limited, now);
    for n in 0..8 {
        juliet.sessions.expect_resumption(&account(&format!("account{n}@montague.lit")));
    }
    assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), BUSY);
    assert_eq!(juliet.hears(now, "account0@montague.lit/x", &resume("b")), ["result"], "those may go on");
    juliet.sessions.forget_resumption(&account("account1@montague.lit"));
    assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), ["result"]);
}

#[test]
fn all_together_may_not_have_more_than_the_limit() {
    let now = Instant::now();
    let mut limited = config(Juliet);
    limited.limits.sessions = 2;
    let mut juliet = End::new(Juliet, limited, now);
    juliet.sessions.expect_resumption(&account("romeo@montague.lit"));
    for sid in ["a", "b"] {
        assert_eq!(juliet.hears(now, ROMEO, &resume(sid)), ["result"]);
    }
    assert_eq!(juliet.hears(now, ROMEO, &resume("c")), BUSY);
}

#[test]
fn it_begins_on_the_best_transport_whatever_the_settings_say_and_stays_there() {
    for reachable in [true, false] {
        let mut pair = Pair::s5b(|_, config| config.start(Start::Fast));
        if !reachable {
            pair.net.sever();
        }
        pair.expect(Juliet);
        let romeos = pair.resume(Romeo);
        pair.live(Duration::from_secs(1));
        let juliets = pair.let_in(Juliet);
        pair.live(Duration::from_secs(40));
        let carries = |pair: &mut Pair| pair.end(Romeo).sessions.transport_info(romeos).unwrap().method();
        assert_eq!(carries(&mut pair), if reachable { "s5b" } else { "ibb" });
        assert!(pair.end(Juliet).is_open(juliets));
        pair.take_log();
        let now = pair.now;
        pair.end(Romeo).sessions.start_move(now, romeos);
        pair.live(Duration::from_secs(40));
        assert_eq!(pair.take_log(), [""; 0], "what could not be connected is not tried again at once");
        pair.forget(Juliet);
        pair.leave(romeos, juliets);
    }
}

#[test]
fn a_session_that_begins_anew_in_band_is_still_for_the_same_stream() {
    let mut pair = Pair::s5b(|_, config| config);
    pair.expect(Juliet);
    let romeos = pair.resume(Romeo);
    pair.until("romeo: set session-initiate");
    let first = pair.sent("session-initiate").clone();
    // COMPAT Dino's answer to candidates that it can't read.
    pair.inbox = Default::default();
    let now = pair.now;
    pair.end(Romeo).receives(now, &nack(&first, &error("modify", "bad-request", "")));
    pair.run();
    let second = String::from(pair.sent("session-initiate"));
    assert!(second.contains("#resumption") && second.contains("transports:ibb"), "{second}");
    let juliets = pair.let_in(Juliet);
    pair.run();
    pair.forget(Juliet);
    pair.leave(romeos, juliets);
}

#[test]
fn while_we_carry_on_a_stream_with_somebody_it_may_call_no_more_than_before() {
    let mut pair = Pair::with(|side, config| match side {
        Romeo => config.callers(Callers::Only(Vec::new().into_iter().collect())),
        Juliet => config,
    });
    pair.expect(Juliet);
    pair.resume(Romeo);
    pair.connect(Juliet);
    pair.run();
    assert!(pair.log.contains(&"romeo: error cancel service-unavailable".to_owned()), "{:?}", pair.log);
    assert!(pair.end(Romeo).incoming.is_empty());
}

#[test]
fn the_peers_word_that_the_connection_is_lost_ends_a_stream_on_a_socket_at_once() {
    let mut pair = Pair::s5b(|_, config| config);
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    let juliets = pair.accept(Juliet);
    pair.settle();
    assert!(pair.end(Juliet).sessions.transport_info(juliets).unwrap().method() == "s5b");
    pair.terminate(Romeo, romeos, Reason::ConnectivityError, None);
    pair.run();
    let error = pair.end(Juliet).error(juliets);
    assert!(
        matches!(&error, Some(Error::Terminated(why)) if why.reason == Reason::ConnectivityError),
        "{error:?}"
    );
    pair.leave(romeos, juliets);
}
