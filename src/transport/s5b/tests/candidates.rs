//! What is offered, and with which DST.ADDR.

use super::*;
use crate::transport::s5b::{
    candidate::{Gathered, Proxy, candidates_of, own_candidates, own_candidates_after},
    offer::MAX_OWN,
};

fn gathered(direct: &[&str], external: &[&str], proxies: &[&str]) -> Gathered {
    let proxy = |host: &&str| Proxy { jid: host.parse().unwrap(), host: (*host).to_owned(), port: 7625 };
    Gathered {
        direct: direct.iter().map(|address| address.parse().unwrap()).collect(),
        external: external.iter().map(|address| address.parse().unwrap()).collect(),
        proxies: proxies.iter().map(proxy).collect(),
    }
}

fn ours(gathered: &Gathered, policy: Candidates, offered: &[Candidate]) -> Vec<Candidate> {
    own_candidates(gathered, policy, &setup(Role::Responder).parties, offered)
}

fn hosts(candidates: &[Candidate]) -> Vec<&str> {
    candidates.iter().map(|candidate| candidate.host.as_str()).collect()
}

#[test]
fn what_works_from_afar_is_offered_first() {
    let gathered = gathered(
        &[
            "127.0.0.1:5086",
            "[fe80::1%2]:5086",
            "192.168.4.1:5086",
            "[fd00::1]:5086",
            "24.24.24.1:5086",
            "0.0.0.0:5086",
            "[2001:db8::1]:5086",
        ],
        &["24.24.24.9:16453"],
        &["streamer.shakespeare.lit"],
    );
    let ours = ours(&gathered, Candidates::All, &[]);
    let expected = [
        "24.24.24.1",
        "2001:db8::1",
        "192.168.4.1",
        "fd00::1",
        "fe80::1",
        "127.0.0.1",
        "24.24.24.9",
        "streamer.shakespeare.lit",
    ];
    assert_eq!(hosts(&ours), expected);
    assert!(ours.is_sorted_by(|a, b| a.priority > b.priority));
    let preferences: Vec<_> = ours.iter().map(|candidate| candidate.priority >> 16).collect();
    assert_eq!(preferences, [126, 126, 126, 126, 126, 126, 120, 10]);
    let jids: Vec<_> = ours.iter().map(|candidate| candidate.jid.as_ref().unwrap().to_string()).collect();
    assert_eq!(jids[0], JULIET);
    assert_eq!(jids[7], "streamer.shakespeare.lit");
}

#[test]
fn the_policy_says_what_is_shown() {
    let gathered = gathered(&["24.24.24.1:5086"], &["24.24.24.9:16453"], &["streamer.shakespeare.lit"]);
    assert_eq!(hosts(&ours(&gathered, Candidates::AfterAccept, &[])).len(), 3);
    assert_eq!(hosts(&ours(&gathered, Candidates::ProxyOnly, &[])), ["streamer.shakespeare.lit"]);
    assert!(ours(&gathered, Candidates::None, &[]).is_empty());
}

#[test]
fn what_the_peer_offered_is_not_offered_again() {
    let gathered = gathered(
        &["24.24.24.1:5086", "[2001:db8::1]:5086", "24.24.24.1:5086"],
        &[],
        &["proxy.marlowe.lit", "streamer.shakespeare.lit"],
    );
    let mut offered = candidates(&[("2001:0db8:0:0::1", 7), ("Proxy.Marlowe.LIT", 8)]);
    offered[1].port = 7625;
    let ours = ours(&gathered, Candidates::All, &offered);
    assert_eq!(hosts(&ours), ["24.24.24.1", "streamer.shakespeare.lit"]);
}

#[test]
fn what_is_shown_after_the_peers_candidates_repeats_none_of_them() {
    let gathered = gathered(&["24.24.24.1:5086", "24.24.24.2:5086"], &[], &["proxy.marlowe.lit"]);
    let parties = setup(Role::Initiator).parties;
    let ours = own_candidates(&gathered, Candidates::AfterAccept, &parties, &[]);
    let mut offered = candidates(&[("::ffff:24.24.24.1", ours[1].priority), ("PROXY.marlowe.lit.", 7)]);
    offered[1].port = 7625;
    let left = own_candidates_after(ours.clone(), &parties, &offered);
    assert_eq!(hosts(&left), ["24.24.24.2"]);
    assert_eq!(left[0].cid, ours[1].cid);
    assert_ne!(left[0].priority, ours[1].priority);
    // Nothing is in the way of the rest.
    assert_eq!(own_candidates_after(ours.clone(), &parties, &[]), ours);
}

#[test]
fn no_priority_is_one_of_the_peers() {
    let gathered = gathered(&["24.24.24.1:1", "24.24.24.2:1", "24.24.24.3:1"], &[], &[]);
    let plain = ours(&gathered, Candidates::All, &[]);
    // A peer that gives its candidates just the priorities that we would.
    let offered =
        candidates(&[("192.0.2.1", plain[0].priority), ("192.0.2.2", plain[2].priority), ("192.0.2.3", 1)]);
    let ours = ours(&gathered, Candidates::All, &offered);
    assert!(ours.iter().all(|own| offered.iter().all(|theirs| theirs.priority != own.priority)));
    assert!(ours.is_sorted_by(|a, b| a.priority > b.priority));
}

#[test]
fn two_of_us_never_have_equal_priorities() {
    let many: Vec<_> = (1..40).map(|n| format!("24.24.24.{n}:5086")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let gathered = gathered(&many, &[], &["proxy.marlowe.lit", "streamer.shakespeare.lit"]);
    let parity = |role| {
        let ours = own_candidates(&gathered, Candidates::All, &setup(role).parties, &[]);
        assert_eq!(ours.len(), MAX_OWN);
        // However many addresses there are, there is room for the proxies.
        assert_eq!(hosts(&ours)[14..], ["proxy.marlowe.lit", "streamer.shakespeare.lit"]);
        let parity = ours[0].priority % 2;
        assert!(ours.iter().all(|candidate| candidate.priority % 2 == parity));
        // What everybody else uses.
        assert!(ours.iter().all(|candidate| ![0, 100, 10_000].contains(&(candidate.priority & 0xFFFF))));
        parity
    };
    assert_eq!((parity(Role::Initiator), parity(Role::Responder)), (1, 0));
}

#[test]
fn cids_differ() {
    let gathered = gathered(&["24.24.24.1:1", "24.24.24.2:1"], &[], &[]);
    let ours = ours(&gathered, Candidates::All, &[]);
    assert_ne!(ours[0].cid, ours[1].cid);
}

// The values are those of XEP-0260's examples "Initiator sends session-initiate" and "Responder sends session-accept with
// candidates".
const ROMEO_FIRST: &str = "972b7bf47291ca609517f67f86b5081086052dad";
const JULIET_FIRST: &str = "1a12fb7bc625e55f3ed5b29a53dbe0e4aa7d80ba";

#[test]
fn the_dstaddr_of_an_offer_is_that_of_the_examples() {
    let proxies = candidates(&[("proxy.example.org", 7)]);
    assert_eq!(transport(&setup(Role::Initiator), &proxies).dstaddr.as_deref(), Some(ROMEO_FIRST));
    assert_eq!(transport(&setup(Role::Responder), &proxies).dstaddr.as_deref(), Some(JULIET_FIRST));
    let direct = candidates(&[("192.0.2.1", 7)]);
    let transport = transport(&setup(Role::Initiator), &direct);
    assert_eq!((transport.dstaddr.as_deref(), transport.sid.as_str()), (None, SID));
    assert_eq!(candidates_of(&transport), direct);
}

#[test]
fn the_listener_takes_both_readings() {
    let romeo = Side::new(Role::Initiator, &[], &[]);
    assert_eq!(romeo.s5b.dst_addrs(), [ROMEO_FIRST]);
    let juliet = Side::new(Role::Responder, &[], &[]);
    assert_eq!(juliet.s5b.dst_addrs(), [JULIET_FIRST, ROMEO_FIRST]);
}

#[test]
fn the_dst_addrs_of_the_peers_candidates_are_tried_in_turn() {
    let dst_addrs = |role, host, dstaddr: Option<&str>| {
        let theirs = S5bTransport { dstaddr: dstaddr.map(Into::into), ..offer(&[(host, 7)]) };
        let mut side = Side::with(setup(role), &[], &theirs);
        side.wants();
        side.dialled[&side.attempt(host)].dst_addrs.clone()
    };
    let said = "00112233445566778899aabbccddeeff00112233";
    assert_eq!(dst_addrs(Role::Initiator, "192.0.2.1", None), [JULIET_FIRST, ROMEO_FIRST]);
    assert_eq!(dst_addrs(Role::Initiator, "192.0.2.1", Some(said)), [said, JULIET_FIRST, ROMEO_FIRST]);
    assert_eq!(dst_addrs(Role::Responder, "192.0.2.1", None), [ROMEO_FIRST]);
    assert_eq!(dst_addrs(Role::Initiator, "proxy.example.org", None), [JULIET_FIRST]);
    assert_eq!(dst_addrs(Role::Initiator, "proxy.example.org", Some(said)), [said]);
    // Not a hash: not what we send to a host of the peer's choice.
    assert_eq!(dst_addrs(Role::Responder, "proxy.example.org", Some("GET / HTTP/1.0\n\n")), [ROMEO_FIRST]);
}

#[test]
fn special_addresses_are_not_for_peers_to_name() {
    let nowhere = ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "0.1.2.3", "::ffff:0.0.0.0"];
    let loopback = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"];
    let link_local = ["169.254.169.254", "fe80::1", "febf::1", "::ffff:169.254.1.1"];
    let anywhere = ["192.168.4.1", "10.0.0.1", "fd00::1", "192.0.2.1", "2001:db8::1", "::ffff:8.8.8.8"];
    let admitted = |reach: Reach, addresses: &[&str]| {
        addresses.iter().filter(|address| reach.admits(address.parse().unwrap())).count()
    };
    for (reach, expected) in [
        (Reach::default(), [0, 0, 0, 6]),
        (Reach { loopback: true, link_local: false }, [0, 4, 0, 6]),
        (Reach { loopback: false, link_local: true }, [0, 0, 4, 6]),
    ] {
        let counts = [&nowhere[..], &loopback, &link_local, &anywhere].map(|list| admitted(reach, list));
        assert_eq!(counts, expected, "{reach:?}");
    }
}

#[test]
fn unusable_candidates_of_the_peers_are_left_out() {
    let mut theirs = offer(&[("[2001:db8::1]", 9), ("192.0.2.1", 8), ("192.0.2.2", 7), ("192.0.2.3", 6)]);
    theirs.candidates[1].port = 0;
    theirs.candidates[2].cid = String::new();
    theirs.candidates[3].cid = "[2001:db8::1]".to_owned();
    theirs.candidates[0].jid = None;
    assert_eq!(hosts(&candidates_of(&theirs)), ["2001:db8::1"]);
}

#[test]
fn udp_and_another_sid_are_refused() {
    let refusal = |theirs: S5bTransport| {
        S5b::new(Instant::now(), setup(Role::Initiator), Vec::new(), &theirs).unwrap_err()
    };
    let udp = refusal(S5bTransport { udp: true, ..offer(&[]) });
    assert!(udp.contains("UDP"), "{udp}");
    let other = refusal(S5bTransport { sid: "other".to_owned(), ..offer(&[]) });
    assert!(other.contains("other") && other.contains(SID), "{other}");
}
