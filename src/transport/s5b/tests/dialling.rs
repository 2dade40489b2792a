//! Which candidate is dialled when (XEP-0260 #rules), and when it stops.

use super::*;
use crate::transport::s5b::dialling::MAX_DIALLED;

fn at(milliseconds: u128, what: &str) -> (u128, String) {
    (milliseconds, what.to_owned())
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn attempts_are_staggered_and_proxies_come_later() {
    let theirs = [("proxy1", 20), ("192.0.2.1", 70), ("proxy2", 30), ("192.0.2.2", 90), ("192.0.2.3", 80)];
    let mut juliet = Side::new(Role::Responder, &[], &theirs);
    assert_eq!(
        juliet.timeline(LONG),
        [
            at(0, "dial 192.0.2.2"),
            at(200, "dial 192.0.2.3"),
            at(400, "dial 192.0.2.1"),
            at(1000, "dial proxy2"),
            at(1200, "dial proxy1"),
        ]
    );
}

#[test]
fn proxies_get_more_time_than_addresses() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", 9), ("proxy1", 8)]);
    juliet.timeline(LONG);
    let timeout = |host| juliet.dialled[&juliet.attempt(host)].timeout;
    assert_eq!(timeout("192.0.2.1"), Duration::from_secs(5));
    assert_eq!(timeout("proxy1"), Duration::from_secs(10));
}

#[test]
fn after_the_last_one_in_flight_the_next_starts_at_once() {
    let theirs = [("192.0.2.1", 9), ("192.0.2.2", 8), ("192.0.2.3", 7), ("proxy1", 6), ("proxy2", 5)];
    let mut juliet = Side::new(Role::Responder, &[], &theirs);
    assert_eq!(juliet.wants(), ["dial 192.0.2.1"]);
    assert_eq!(juliet.refused("192.0.2.1"), ["dial 192.0.2.2"]);
    assert_eq!(juliet.wait(LONG), ["dial 192.0.2.3"]);
    // The other is still in flight.
    assert!(juliet.refused("192.0.2.3").is_empty());
    assert_eq!(juliet.refused("192.0.2.2"), ["dial proxy1"]);
    assert_eq!(juliet.elapsed(), 200);
    // No address is in flight any more, so the second proxy follows the first as usual.
    assert_eq!(juliet.wait(LONG), ["dial proxy2"]);
    assert_eq!(juliet.elapsed(), 400);
}

#[test]
fn a_proxy_that_is_preferred_to_addresses_goes_first() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", 8), ("proxy1", 9)]);
    assert_eq!(juliet.timeline(LONG), [at(0, "dial proxy1"), at(200, "dial 192.0.2.1")]);
}

#[test]
fn the_first_connection_ends_it() {
    let theirs = [("192.0.2.1", 9), ("192.0.2.2", 8), ("192.0.2.3", 7)];
    let mut juliet = Side::new(Role::Responder, &[], &theirs);
    juliet.timeline(Duration::from_millis(200));
    assert_eq!(juliet.connected("192.0.2.2", 1), ["abandon 192.0.2.1", "say candidate-used 192.0.2.2"]);
    assert!(juliet.timeline(LONG).is_empty());
    // It came through when it was being abandoned.
    assert_eq!(juliet.connected("192.0.2.1", 2), ["hang up 2"]);
}

#[test]
fn when_all_have_failed_it_says_so() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", 9), ("192.0.2.2", 8)]);
    juliet.wants();
    juliet.refused("192.0.2.1");
    assert_eq!(juliet.refused("192.0.2.2"), ["say candidate-error"]);
}

#[test]
fn a_better_choice_of_the_peers_stops_the_lower_ones() {
    let theirs = [("192.0.2.1", 90), ("192.0.2.2", 50), ("192.0.2.3", 40)];
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", 60)], &theirs);
    juliet.timeline(Duration::from_millis(200));
    juliet.incoming(5, "198.51.100.1:5086");
    assert_eq!(juliet.hears(used("198.51.100.1")), ["abandon 192.0.2.2"]);
    assert!(juliet.timeline(Duration::from_secs(3)).is_empty());
    assert_eq!(juliet.refused("192.0.2.1"), ["say candidate-error", "open"]);
    assert_eq!(juliet.socket(), Some((5, CandidateType::Direct)));
}

#[test]
fn equal_ones_go_on_only_where_the_own_choice_wins() {
    let equal = [("192.0.2.1", 60)];
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", 60)], &equal);
    juliet.wants();
    juliet.incoming(5, "198.51.100.1:5086");
    assert_eq!(juliet.hears(used("198.51.100.1")), ["abandon 192.0.2.1", "say candidate-error", "open"]);

    let mut romeo = Side::new(Role::Initiator, &[("198.51.100.1", 60)], &equal);
    romeo.wants();
    romeo.incoming(5, "198.51.100.1:5086");
    assert!(romeo.hears(used("198.51.100.1")).is_empty());
    assert_eq!(romeo.connected("192.0.2.1", 6), ["say candidate-used 192.0.2.1", "hang up 5", "open"]);
}

#[test]
fn an_empty_offer_may_be_followed_by_candidates() {
    let mut juliet = Side::new(Role::Responder, &[], &[]);
    assert!(juliet.timeline(Duration::from_secs(9)).is_empty());
    juliet.s5b.handle_info(juliet.now, &offer(&[("192.0.2.1", 9)])).unwrap();
    assert_eq!(juliet.wants(), ["dial 192.0.2.1"]);
    assert!(juliet.timeline(Duration::from_secs(5)).is_empty());
    assert_eq!(juliet.refused("192.0.2.1"), ["say candidate-error"]);
}

#[test]
fn an_empty_offer_is_not_waited_for_for_ever() {
    let mut juliet = Side::new(Role::Responder, &[], &[]);
    assert_eq!(juliet.timeline(LONG), [at(10_000, "say candidate-error")]);
}

/// Romeo sends his candidates one by one: first an address, which Juliet does not dial, then a proxy.
fn trickling() -> Side {
    let proxy_only = Setup { policy: Candidates::ProxyOnly, ..setup(Role::Responder) };
    let mut juliet = Side::with(proxy_only, &[], &offer(&[]));
    assert!(juliet.timeline(Duration::from_secs(1)).is_empty());
    juliet.s5b.handle_info(juliet.now, &offer(&[("192.0.2.1", 9)])).unwrap();
    assert!(juliet.wants().is_empty());
    juliet
}

#[test]
fn a_candidate_that_is_not_dialled_may_be_followed_by_one_that_is() {
    let mut juliet = trickling();
    assert!(juliet.timeline(Duration::from_millis(1_999)).is_empty());
    juliet.s5b.handle_info(juliet.now, &offer(&[("proxy1", 8)])).unwrap();
    assert_eq!(juliet.wants(), ["dial proxy1"]);
    // Refused at once, and another may come.
    assert!(juliet.refused("proxy1").is_empty());
    assert_eq!(juliet.timeline(LONG), [at(4_999, "say candidate-error")]);
}

#[test]
fn after_each_candidate_the_next_has_two_seconds() {
    assert_eq!(trickling().timeline(LONG), [at(3_000, "say candidate-error")]);
}

#[test]
fn a_trickle_of_candidates_ends_ten_seconds_after_the_beginning() {
    let mut juliet = trickling();
    let addresses = (2..12).map(|n| format!("192.0.2.{n}"));
    for address in addresses {
        assert!(juliet.timeline(Duration::from_millis(890)).is_empty());
        juliet.s5b.handle_info(juliet.now, &offer(&[(address.as_str(), 9)])).unwrap();
    }
    assert_eq!(juliet.elapsed(), 9_900);
    assert_eq!(juliet.timeline(LONG), [at(10_000, "say candidate-error")]);
}

#[test]
fn the_peers_notification_ends_the_trickle() {
    assert_eq!(trickling().hears(Notification::CandidateError)[0], "say candidate-error");
}

#[test]
fn an_attempt_may_take_longer_than_the_wait_for_the_next_candidate() {
    let mut juliet = Side::new(Role::Responder, &[], &[]);
    juliet.s5b.handle_info(juliet.now, &offer(&[("192.0.2.1", 9)])).unwrap();
    juliet.wants();
    assert!(juliet.timeline(Duration::from_secs(4)).is_empty());
    assert_eq!(
        juliet.s5b.poll_timeout(),
        Some(juliet.started + Duration::from_secs(60)),
        "no timer is overdue"
    );
    juliet.s5b.handle_info(juliet.now, &offer(&[("192.0.2.2", 8)])).unwrap();
    assert_eq!(juliet.wants(), ["dial 192.0.2.2"]);
    juliet.refused("192.0.2.1");
    assert!(juliet.refused("192.0.2.2").is_empty());
    assert_eq!(juliet.timeline(LONG), [at(6_000, "say candidate-error")]);
}

#[test]
fn a_trickle_that_began_before_the_accept_may_go_on() {
    let mut theirs = offer(&[]);
    theirs.add_candidates(offer(&[("127.0.0.1", 9)])).unwrap();
    let mut juliet = Side::with(setup(Role::Responder), &[], &theirs);
    assert!(juliet.timeline(Duration::from_secs(1)).is_empty());
    juliet.s5b.handle_info(juliet.now, &offer(&[("proxy1", 8)])).unwrap();
    assert_eq!(juliet.wants(), ["dial proxy1"]);
}

#[test]
fn the_peers_notification_ends_the_wait() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", 60)], &[]);
    juliet.incoming(5, "198.51.100.1:5086");
    assert_eq!(juliet.hears(used("198.51.100.1")), ["say candidate-error", "open"]);
    let mut juliet = Side::new(Role::Responder, &[], &[]);
    let wants = juliet.hears(Notification::CandidateError);
    assert_eq!(wants[0], "say candidate-error");
    assert!(wants[1].starts_with("failed: transport: no SOCKS5 connection"), "{wants:?}");
}

#[test]
fn an_initiator_waits_for_a_responder_that_has_something_to_dial() {
    let mut romeo = Side::new(Role::Initiator, &[("198.51.100.1", 60)], &[]);
    assert!(romeo.wants().is_empty());
    // Otherwise nobody could connect to anybody.
    let mut romeo = Side::new(Role::Initiator, &[], &[]);
    assert_eq!(romeo.wants(), ["say candidate-error"]);
}

#[test]
fn late_candidates_are_taken_until_the_own_notification_and_ignored_then() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", 90)]);
    juliet.wants();
    juliet.s5b.handle_info(juliet.now, &offer(&[("192.0.2.2", 80), ("192.0.2.1", 90)])).unwrap();
    assert_eq!(juliet.wait(LONG), ["dial 192.0.2.2"]);
    assert_eq!(juliet.connected("192.0.2.2", 1)[1], "say candidate-used 192.0.2.2");
    juliet.s5b.handle_info(juliet.now, &offer(&[("192.0.2.3", 99)])).unwrap();
    assert!(juliet.timeline(LONG).is_empty());
}

#[test]
fn late_candidates_that_can_not_win_are_not_dialled() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", 60)], &[("192.0.2.1", 90)]);
    juliet.wants();
    juliet.hears(used("198.51.100.1"));
    juliet.s5b.handle_info(juliet.now, &offer(&[("192.0.2.2", 59), ("192.0.2.3", 61)])).unwrap();
    assert_eq!(juliet.timeline(LONG), [at(200, "dial 192.0.2.3")]);
}

#[test]
fn a_peer_can_not_have_us_dial_without_end() {
    let hosts: Vec<_> = (0..40).map(|n| format!("192.0.2.{n}")).collect();
    let many: Vec<_> = hosts.iter().zip(100..).map(|(host, priority)| (host.as_str(), priority)).collect();
    let mut juliet = Side::new(Role::Responder, &[], &many[..20]);
    juliet.s5b.handle_info(juliet.now, &offer(&many[20..])).unwrap();
    let timeline = juliet.timeline(Duration::from_secs(20));
    assert_eq!(timeline.len(), MAX_DIALLED);
    assert_eq!(timeline[0].1, "dial 192.0.2.19", "the highest of those that were known first");
}

/// So many addresses, and proxies that are all lower.
fn many(addresses: usize, proxies: usize) -> S5bTransport {
    let addresses = (0..addresses).map(|n| (format!("192.0.2.{n}"), 9));
    let proxies = (0..proxies).map(|n| (format!("proxy{n}"), 8));
    let all: Vec<_> = addresses.chain(proxies).collect();
    offer(&all.iter().map(|(host, priority)| (host.as_str(), *priority)).collect::<Vec<_>>())
}

#[test]
fn however_many_addresses_there_are_some_proxies_are_dialled() {
    for (addresses, proxies, dialled) in [
        (20, 0, (16, 0)),
        (20, 1, (15, 1)),
        (20, 4, (12, 4)),
        (20, 9, (12, 4)),
        (12, 9, (12, 4)),
        (3, 9, (3, 9)),
        (0, 20, (0, 16)),
    ] {
        let mut juliet = Side::with(setup(Role::Responder), &[], &many(addresses, proxies));
        let timeline = juliet.timeline(Duration::from_secs(20));
        let at_proxies = timeline.iter().filter(|(_, line)| line.starts_with("dial proxy")).count();
        assert_eq!((timeline.len() - at_proxies, at_proxies), dialled, "{addresses} and {proxies}");
    }
}

#[test]
fn late_proxies_get_the_room_that_is_left() {
    let mut juliet = Side::with(setup(Role::Responder), &[], &many(14, 0));
    juliet.s5b.handle_info(juliet.now, &many(14, 9)).unwrap();
    let timeline = juliet.timeline(Duration::from_secs(20));
    let lines: Vec<_> = timeline.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(lines[14..], ["dial proxy0", "dial proxy1"]);
}

#[test]
fn one_host_and_port_is_dialled_once() {
    let mut theirs =
        offer(&[("192.0.2.1", 90), ("::ffff:192.0.2.1", 80), ("host.example.org", 70), ("192.0.2.2", 60)]);
    theirs.candidates[3].host = "HOST.example.org.".to_owned();
    let mut juliet = Side::with(setup(Role::Responder), &[], &theirs);
    assert_eq!(juliet.timeline(LONG), [at(0, "dial 192.0.2.1"), at(200, "dial host.example.org")]);
    // Nor when it comes later, under another name and with another port than the first.
    let mut later = offer(&[("192.0.2.1", 99)]);
    later.candidates[0].cid = "later".to_owned();
    juliet.s5b.handle_info(juliet.now, &later).unwrap();
    later.candidates[0].cid = "another port".to_owned();
    later.candidates[0].port += 1;
    juliet.s5b.handle_info(juliet.now, &later).unwrap();
    assert_eq!(juliet.wants(), ["dial 192.0.2.1"]);
    assert_eq!(juliet.dialled[&juliet.attempt("192.0.2.1")].port, 5087);
}

#[test]
fn special_addresses_are_skipped() {
    let theirs =
        [("127.0.0.1", 9), ("::ffff:127.0.0.1", 8), ("169.254.169.254", 7), ("192.0.2.1", 6), ("0.0.0.0", 5)];
    let mut juliet = Side::new(Role::Responder, &[], &theirs);
    assert_eq!(juliet.timeline(LONG), [at(0, "dial 192.0.2.1")]);
    let reach = Reach { loopback: true, link_local: false };
    let mut juliet = Side::with(Setup { reach, ..setup(Role::Responder) }, &[], &offer(&theirs[..1]));
    assert_eq!(juliet.wants(), ["dial 127.0.0.1"]);
    assert_eq!(juliet.dialled[&juliet.attempt("127.0.0.1")].reach, reach);
}

#[test]
fn proxy_only_dials_nothing_else() {
    let proxy_only = Setup { policy: Candidates::ProxyOnly, ..setup(Role::Responder) };
    let theirs = offer(&[("192.0.2.1", 9), ("host.example.org", 8), ("proxy1", 7)]);
    let mut juliet = Side::with(proxy_only.clone(), &[], &theirs);
    juliet.s5b.handle_info(juliet.now, &offer(&[("192.0.2.2", 9)])).unwrap();
    assert_eq!(juliet.timeline(LONG), [at(0, "dial proxy1")]);
    let mut juliet = Side::with(proxy_only, &[], &offer(&[("192.0.2.1", 9)]));
    assert_eq!(juliet.wants(), ["say candidate-error"]);
}

#[test]
fn the_whole_has_a_deadline() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", 9)]);
    juliet.wants();
    let end = juliet.timeline(Duration::from_secs(90));
    assert_eq!(
        end,
        [at(60_000, "abandon 192.0.2.1"), at(60_000, "say candidate-error"), at(60_000, TIMED_OUT)]
    );
    assert_eq!(juliet.s5b.poll_timeout(), None);
    // What crosses our notification.
    assert!(juliet.hears(Notification::CandidateError).is_empty());
    assert!(juliet.hears(Notification::CandidateError).is_empty());
}

const TIMED_OUT: &str = "failed: timed out after 60s: opening the bytestream";

#[test]
fn a_side_that_has_chosen_says_nothing_more_at_the_deadline() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", 9)]);
    juliet.wants();
    juliet.connected("192.0.2.1", 1);
    let end = juliet.timeline(Duration::from_secs(90));
    assert_eq!(end, [at(60_000, "hang up 1"), at(60_000, TIMED_OUT)]);
}

#[test]
fn a_nominated_proxy_that_is_not_active_at_the_deadline_is_an_error() {
    let mut juliet = Side::new(Role::Responder, &[], &[("proxy1", 9)]);
    juliet.wants();
    juliet.connected("proxy1", 1);
    juliet.hears(Notification::CandidateError);
    let end = juliet.timeline(Duration::from_secs(90));
    assert_eq!(end, [at(60_000, "say proxy-error"), at(60_000, "hang up 1"), at(60_000, TIMED_OUT)]);
    assert!(juliet.hears(activated("proxy1")).is_empty());

    let mut romeo = Side::new(Role::Initiator, &[("proxy1", 9)], &[]);
    romeo.hears(used("proxy1"));
    let end = romeo.timeline(Duration::from_secs(90));
    assert_eq!(end, [at(60_000, "say proxy-error"), at(60_000, "abandon proxy1"), at(60_000, TIMED_OUT)]);
    assert!(romeo.hears(Notification::ProxyError).is_empty());
}

#[test]
fn what_the_peer_chose_is_used_when_our_own_search_has_no_more_time() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", 60)], &[("192.0.2.1", 90)]);
    juliet.wants();
    juliet.incoming(5, "198.51.100.1:5086");
    juliet.hears(used("198.51.100.1"));
    let end = juliet.timeline(Duration::from_secs(90));
    let expected = ["abandon 192.0.2.1", "say candidate-error", "open"];
    assert_eq!(end, expected.map(|line| at(60_000, line)));
}
