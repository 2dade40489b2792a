//! Whole negotiations (XEP-0260 #complete).

use super::*;
use crate::transport::s5b::Output;

const HIGH: u32 = 8_257_536;
const LOW: u32 = 655_360;

#[test]
fn the_peers_candidate_wins_when_it_has_none_of_ours() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", HIGH)], &[("192.0.2.1", HIGH)]);
    assert_eq!(juliet.wants(), ["dial 192.0.2.1"]);
    assert_eq!(juliet.connected("192.0.2.1", 1), ["say candidate-used 192.0.2.1"]);
    assert_eq!(juliet.hears(Notification::CandidateError), ["open"]);
    assert_eq!(juliet.socket(), Some((1, CandidateType::Direct)));
    assert_eq!(juliet.s5b.poll_timeout(), None);
}

#[test]
fn our_candidate_wins_when_we_have_none_of_the_peers() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", HIGH)], &[("192.0.2.1", HIGH)]);
    juliet.wants();
    assert!(juliet.incoming(7, "198.51.100.1:5086"));
    assert_eq!(juliet.refused("192.0.2.1"), ["say candidate-error"]);
    assert_eq!(juliet.hears(used("198.51.100.1")), ["open"]);
    assert_eq!(juliet.socket(), Some((7, CandidateType::Direct)));
}

#[test]
fn of_two_the_higher_wins() {
    let mut juliet =
        Side::new(Role::Responder, &[("198.51.100.1", HIGH), ("proxy1", LOW)], &[("192.0.2.1", HIGH - 1)]);
    juliet.wants();
    juliet.incoming(7, "198.51.100.1:5086");
    juliet.connected("192.0.2.1", 1);
    assert_eq!(juliet.hears(used("198.51.100.1")), ["hang up 1", "open"]);
    assert_eq!(juliet.socket(), Some((7, CandidateType::Direct)));

    let mut juliet = Side::new(
        Role::Responder,
        &[("198.51.100.1", HIGH - 2), ("proxy1", LOW)],
        &[("192.0.2.1", HIGH - 1)],
    );
    juliet.wants();
    juliet.incoming(7, "198.51.100.1:5086");
    juliet.connected("192.0.2.1", 1);
    assert_eq!(juliet.hears(used("198.51.100.1")), ["hang up 7", "open"]);
    assert_eq!(juliet.socket(), Some((1, CandidateType::Direct)));
}

#[test]
fn of_two_equal_ones_the_initiators_choice_wins() {
    // As Gajim and Swift have it: every direct candidate has the same.
    for (role, winner) in [(Role::Initiator, 1), (Role::Responder, 7)] {
        let mut side = Side::new(role, &[("198.51.100.1", HIGH)], &[("192.0.2.1", HIGH)]);
        side.wants();
        side.incoming(7, "198.51.100.1:5086");
        side.connected("192.0.2.1", 1);
        let loser = 8 - winner;
        assert_eq!(side.hears(used("198.51.100.1")), [format!("hang up {loser}"), "open".to_owned()]);
        assert_eq!(side.socket(), Some((winner, CandidateType::Direct)));
    }
}

#[test]
fn when_both_have_none_it_has_failed() {
    let mut juliet =
        Side::new(Role::Responder, &[("198.51.100.1", HIGH)], &[("192.0.2.1", HIGH), ("127.0.0.1", 1)]);
    juliet.wants();
    juliet.incoming(7, "198.51.100.1:5086");
    juliet.refused("192.0.2.1");
    assert_eq!(
        juliet.hears(Notification::CandidateError),
        [
            "hang up 7",
            "failed: transport: no SOCKS5 connection: neither side could connect to the other \
             (127.0.0.1:5086 (direct): not dialled: a special address; 192.0.2.1:5086 (direct): connection refused)",
        ]
    );
    assert_eq!(juliet.s5b.poll_timeout(), None);
}

// ---- proxies ---------------------------------------------------------------------------------

#[test]
fn through_the_peers_proxy() {
    let mut juliet = Side::new(Role::Responder, &[], &[("proxy1", LOW)]);
    juliet.wants();
    assert_eq!(juliet.connected("proxy1", 1), ["say candidate-used proxy1"]);
    assert!(juliet.hears(Notification::CandidateError).is_empty());
    assert_eq!(juliet.socket(), None);
    assert_eq!(juliet.hears(activated("proxy1")), ["open"]);
    assert_eq!(juliet.socket(), Some((1, CandidateType::Proxy)));
}

#[test]
fn through_our_proxy() {
    let mut romeo = Side::new(Role::Initiator, &[("proxy1", LOW)], &[]);
    assert_eq!(romeo.hears(used("proxy1")), ["say candidate-error", "dial proxy1"]);
    let dial = &romeo.dialled[&romeo.attempt("proxy1")];
    assert_eq!(dial.dst_addrs, ["972b7bf47291ca609517f67f86b5081086052dad"]);
    assert_eq!((dial.timeout, dial.reach), (Duration::from_secs(10), setup(Role::Initiator).reach));
    assert_eq!(romeo.connected("proxy1", 1), ["activate proxy1"]);
    romeo.s5b.handle_activated(romeo.now, Ok(()));
    assert_eq!(romeo.wants(), ["say activated proxy1", "open"]);
    assert_eq!(romeo.socket(), Some((1, CandidateType::Proxy)));
}

#[test]
fn what_is_said_is_xml_in_the_end() {
    let mut romeo = Side::new(Role::Initiator, &[("proxy1", LOW)], &[]);
    romeo.s5b.handle_info(romeo.now, &info(used("proxy1"))).unwrap();
    let Some(Output::Info(element)) = romeo.s5b.poll_output() else { panic!("the notification comes first") };
    assert_eq!(S5bTransport::parse(&element).unwrap(), info(Notification::CandidateError));
    let Some(Output::Dial(dial)) = romeo.s5b.poll_output() else { panic!("the proxy is dialled") };
    romeo.s5b.handle_dialed(romeo.now, dial.attempt, Ok(connection(1, "198.51.100.7:40000")));
    let Some(Output::Activate(proxy, query)) = romeo.s5b.poll_output() else { panic!("and asked") };
    assert_eq!(proxy.to_string(), "proxy1");
    // XEP-0260 #complete shows the session's sid here; proxies know the bytestream's (XEP-0065).
    assert_eq!(query.attr("sid"), Some(SID));
    assert_eq!(query.children().next().unwrap().text(), JULIET);
}

#[test]
fn activated_may_come_before_the_nomination() {
    let mut juliet = Side::new(Role::Responder, &[], &[("proxy1", LOW)]);
    juliet.wants();
    assert!(juliet.hears(activated("proxy1")).is_empty());
    juliet.connected("proxy1", 1);
    assert_eq!(juliet.hears(Notification::CandidateError), ["open"]);
}

#[test]
fn an_activation_of_another_proxy_opens_nothing() {
    let mut juliet = Side::new(Role::Responder, &[], &[("proxy1", LOW), ("proxy2", LOW - 1)]);
    juliet.wants();
    juliet.hears(activated("proxy2"));
    juliet.connected("proxy1", 1);
    assert!(juliet.hears(Notification::CandidateError).is_empty());
    assert!(juliet.objects(activated("proxy2")).starts_with("UnexpectedRequest"));
    assert_eq!(juliet.hears(activated("proxy1")), ["open"]);
}

const PEER_CAN_NOT: &str =
    "failed: transport: no SOCKS5 connection: the peer can't use the proxy that was chosen";

#[test]
fn the_owner_of_the_proxy_can_not_reach_it() {
    let mut juliet = Side::new(Role::Responder, &[], &[("proxy1", LOW)]);
    juliet.wants();
    juliet.connected("proxy1", 1);
    juliet.hears(Notification::CandidateError);
    assert_eq!(juliet.hears(Notification::ProxyError), ["hang up 1", PEER_CAN_NOT]);
}

#[test]
fn we_can_not_reach_our_own_proxy() {
    let mut romeo = Side::new(Role::Initiator, &[("proxy1", LOW)], &[]);
    romeo.hears(used("proxy1"));
    let wants = romeo.refused("proxy1");
    assert_eq!(wants[0], "say proxy-error");
    let failed = "failed: transport: no SOCKS5 connection: our proxy is of no use (proxy1:5086 (proxy): \
                  connection refused)";
    assert_eq!(wants[1..], [failed]);
}

#[test]
fn our_proxy_does_not_activate() {
    let mut romeo = Side::new(Role::Initiator, &[("proxy1", LOW)], &[]);
    romeo.hears(used("proxy1"));
    romeo.connected("proxy1", 1);
    let refusal = crate::wire::errors::item_not_found("no such stream");
    romeo.s5b.handle_activated(romeo.now, Err(refusal));
    let wants = romeo.wants();
    assert_eq!(wants[..2], ["hang up 1", "say proxy-error"]);
    assert!(wants[2].contains("item-not-found (no such stream"), "{wants:?}");
}

#[test]
fn the_peer_can_not_use_our_proxy_after_all() {
    let mut romeo = Side::new(Role::Initiator, &[("proxy1", LOW)], &[]);
    romeo.hears(used("proxy1"));
    assert_eq!(romeo.hears(Notification::ProxyError), ["abandon proxy1", PEER_CAN_NOT]);

    let mut romeo = Side::new(Role::Initiator, &[("proxy1", LOW)], &[]);
    romeo.hears(used("proxy1"));
    romeo.connected("proxy1", 1);
    assert_eq!(romeo.hears(Notification::ProxyError), ["hang up 1", PEER_CAN_NOT]);
    // The proxy's answer crossed it.
    romeo.s5b.handle_activated(romeo.now, Ok(()));
    assert!(romeo.wants().is_empty());
}

#[test]
fn an_early_proxy_error_counts_when_a_proxy_is_nominated() {
    let mut juliet = Side::new(Role::Responder, &[], &[("proxy1", LOW)]);
    juliet.wants();
    juliet.hears(Notification::ProxyError);
    juliet.connected("proxy1", 1);
    assert_eq!(juliet.hears(Notification::CandidateError), ["hang up 1", PEER_CAN_NOT]);

    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", HIGH), ("proxy1", LOW)]);
    juliet.wants();
    juliet.hears(Notification::ProxyError);
    juliet.connected("192.0.2.1", 1);
    assert_eq!(juliet.hears(Notification::CandidateError), ["open"]);
}

const CLOSED: &str = "failed: transport: no SOCKS5 connection: the connection that was chosen is not there any \
                      more (proxy1:5086 (proxy): closed by the other end)";

#[test]
fn a_nominated_proxy_that_closes_before_its_activation_is_an_error() {
    let mut juliet = Side::new(Role::Responder, &[], &[("proxy1", LOW)]);
    juliet.wants();
    juliet.connected("proxy1", 1);
    juliet.hears(Notification::CandidateError);
    juliet.s5b.handle_closed(SocketId(2));
    assert!(juliet.wants().is_empty(), "another connection");
    juliet.s5b.handle_closed(SocketId(1));
    assert_eq!(juliet.wants(), ["say proxy-error", CLOSED]);
    // They cross ours.
    assert!(juliet.hears(activated("proxy1")).is_empty());
    assert!(juliet.hears(Notification::ProxyError).is_empty());
}

#[test]
fn a_proxy_that_closes_before_its_nomination_is_an_error_when_it_is_nominated() {
    for ahead in [None, Some(activated("proxy1"))] {
        let mut juliet = Side::new(Role::Responder, &[], &[("proxy1", LOW)]);
        juliet.wants();
        juliet.connected("proxy1", 1);
        juliet.s5b.handle_closed(SocketId(1));
        assert!(juliet.wants().is_empty(), "another one may be nominated");
        if let Some(notification) = ahead {
            juliet.hears(notification);
        }
        assert_eq!(juliet.hears(Notification::CandidateError), ["say proxy-error", CLOSED]);
    }
}

#[test]
fn our_own_proxy_that_closes_is_an_error() {
    let mut romeo = Side::new(Role::Initiator, &[("proxy1", LOW)], &[]);
    romeo.hears(used("proxy1"));
    romeo.connected("proxy1", 1);
    romeo.s5b.handle_closed(SocketId(1));
    assert_eq!(romeo.wants(), ["say proxy-error", CLOSED]);
    romeo.s5b.handle_activated(romeo.now, Ok(()));
    assert!(romeo.wants().is_empty());
}

#[test]
fn a_chosen_connection_that_closes_before_its_nomination_is_none() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", HIGH)]);
    juliet.wants();
    juliet.connected("192.0.2.1", 1);
    juliet.s5b.handle_closed(SocketId(1));
    let wants = juliet.hears(Notification::CandidateError);
    assert!(wants[0].contains("192.0.2.1:5086 (direct): closed by the other end"), "{wants:?}");
}

// ---- our listener ----------------------------------------------------------------------------

#[test]
fn of_several_connections_it_is_the_one_at_the_chosen_address() {
    let ours = [("198.51.100.1", HIGH), ("2001:db8::1", HIGH - 1)];
    let mut juliet = Side::new(Role::Responder, &ours, &[("192.0.2.1", 1)]);
    juliet.wants();
    juliet.incoming(4, "[::ffff:198.51.100.1]:5086");
    juliet.incoming(5, "[2001:db8::1]:5086");
    juliet.incoming(6, "[2001:db8::1]:9999");
    let wants = juliet.hears(used("2001:db8::1"));
    assert_eq!(wants, ["abandon 192.0.2.1", "say candidate-error", "hang up 4", "hang up 6", "open"]);
    assert_eq!(juliet.socket(), Some((5, CandidateType::Direct)));
}

#[test]
fn behind_a_port_forward_it_is_the_latest_that_is_still_there() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", HIGH)], &[]);
    for socket in 4..7 {
        juliet.incoming(socket, "10.0.0.2:5086");
    }
    juliet.s5b.handle_closed(SocketId(6));
    let wants = juliet.hears(used("198.51.100.1"));
    assert_eq!(wants, ["say candidate-error", "hang up 4", "open"]);
    assert_eq!(juliet.socket(), Some((5, CandidateType::Direct)));
}

#[test]
fn a_connection_that_is_not_there_is_none() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", HIGH)], &[]);
    let wants = juliet.hears(used("198.51.100.1"));
    assert!(
        wants[1].contains("198.51.100.1:5086 (direct): the peer chose it, but is not connected"),
        "{wants:?}"
    );
}

#[test]
fn connections_that_can_not_be_chosen_are_refused() {
    let mut juliet = Side::new(Role::Responder, &[("proxy1", LOW)], &[("192.0.2.1", 1)]);
    assert!(!juliet.incoming(4, "198.51.100.1:5086"), "nothing but a proxy was offered");

    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", HIGH)], &[("192.0.2.1", HIGH)]);
    juliet.wants();
    juliet.hears(Notification::CandidateError);
    assert!(!juliet.incoming(4, "198.51.100.1:5086"), "the peer has said that it uses none");
    juliet.connected("192.0.2.1", 1);
    assert!(!juliet.incoming(5, "198.51.100.1:5086"), "it is decided");
}

#[test]
fn a_peer_whose_first_connections_are_dead_gets_through() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", HIGH)], &[]);
    for socket in 0..16 {
        assert!(juliet.incoming(socket, "198.51.100.1:5086"));
    }
    assert!(juliet.wants().is_empty());
    assert!(juliet.incoming(16, "198.51.100.1:5086"));
    assert_eq!(juliet.wants(), ["hang up 0"]);
    juliet.hears(used("198.51.100.1"));
    assert_eq!(juliet.socket(), Some((16, CandidateType::Direct)));
}

// ---- the rest --------------------------------------------------------------------------------

#[test]
fn candidates_after_the_accept_go_before_our_notification() {
    let mut romeo = Side::new(Role::Initiator, &[("198.51.100.1", HIGH)], &[("127.0.0.1", HIGH)]);
    romeo.s5b.offer_late();
    assert_eq!(romeo.wants(), ["say candidates 198.51.100.1", "say candidate-error"]);
    let mut romeo = Side::new(Role::Initiator, &[], &[("192.0.2.1", HIGH)]);
    romeo.s5b.offer_late();
    assert_eq!(romeo.wants(), ["dial 192.0.2.1"]);
}

#[test]
fn what_is_not_wanted_any_more_is_given_up() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", HIGH)], &[("192.0.2.1", 1)]);
    juliet.wants();
    juliet.incoming(4, "198.51.100.1:5086");
    juliet.s5b.end();
    assert_eq!(juliet.wants(), ["abandon 192.0.2.1", "hang up 4"]);
    assert_eq!(juliet.connected("192.0.2.1", 1), ["hang up 1"]);
    assert!(!juliet.incoming(5, "198.51.100.1:5086"));
    assert!(juliet.timeline(Duration::from_secs(90)).is_empty());
}

#[test]
fn an_open_connection_is_not_ours_to_close() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", 1)]);
    juliet.wants();
    juliet.connected("192.0.2.1", 1);
    juliet.hears(Notification::CandidateError);
    juliet.s5b.end();
    assert!(juliet.wants().is_empty());
    assert_eq!(juliet.socket(), Some((1, CandidateType::Direct)));
    juliet.s5b.handle_timeout(juliet.now + Duration::from_secs(90));
    assert!(juliet.wants().is_empty());
}

#[test]
fn however_much_fails_the_error_is_of_bounded_length() {
    let hosts: Vec<_> = (10..26).map(|n| format!("{}{n}.example.org", "very-long-".repeat(9))).collect();
    let theirs: Vec<_> = hosts.iter().map(|host| (host.as_str(), 1)).collect();
    let mut juliet = Side::new(Role::Responder, &[], &theirs);
    for host in &hosts {
        juliet.wants();
        juliet.s5b.handle_dialed(juliet.now, juliet.attempt(host), Err("näh\u{7}".repeat(60)));
    }
    let wants = juliet.hears(Notification::CandidateError);
    let failed = wants.last().unwrap();
    assert!(failed.contains("very-long-") && failed.len() < 700 && !failed.contains('\u{7}'), "{failed}");
}
