//! How transport-infos are answered.

use super::*;
use crate::wire::errors;

#[test]
fn another_bytestream_is_not_found() {
    let mut juliet = Side::new(Role::Responder, &[], &[("192.0.2.1", 9)]);
    let other = S5bTransport { sid: "other".to_owned(), ..offer(&[("192.0.2.2", 9)]) };
    let error = juliet.s5b.handle_info(juliet.now, &other).unwrap_err();
    assert!(error.texts["en"].contains("other"));
    assert_eq!(juliet.timeline(Duration::from_secs(9)).len(), 1, "nothing of it was taken");
}

#[test]
fn what_is_not_understood_is_said_and_an_empty_info_is_fine() {
    let mut juliet = Side::new(Role::Responder, &[], &[]);
    let mut answer = |inner: &str| {
        let xml =
            format!("<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='{SID}'>{inner}</transport>");
        let info = S5bTransport::parse(&xml.parse().unwrap()).unwrap();
        juliet.s5b.handle_info(juliet.now, &info)
    };
    assert_eq!(answer("<hint/>"), Err(Box::new(errors::unsupported_info())));
    assert_eq!(answer("<candidate type='carrier-pigeon'/>"), Err(Box::new(errors::unsupported_info())));
    assert_eq!(answer(""), Ok(()));
    assert!(juliet.wants().is_empty());
}

#[test]
fn unknown_cids_are_named() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", 9)], &[("192.0.2.1", 9)]);
    juliet.wants();
    assert_eq!(juliet.objects(used("nonsense")), "ItemNotFound: we offered no candidate nonsense");
    assert_eq!(juliet.objects(used("192.0.2.1")), "ItemNotFound: we offered no candidate 192.0.2.1");
    assert_eq!(
        juliet.objects(activated("198.51.100.1")),
        "ItemNotFound: you offered no candidate 198.51.100.1"
    );
}

#[test]
fn a_notification_repeated_is_acknowledged_and_one_changed_is_out_of_order() {
    let ours = [("198.51.100.1", 9), ("198.51.100.2", 8)];
    let mut juliet = Side::new(Role::Responder, &ours, &[("192.0.2.1", 99)]);
    juliet.wants();
    juliet.incoming(4, "198.51.100.1:5086");
    assert!(juliet.hears(used("198.51.100.1")).is_empty());
    assert!(juliet.hears(used("198.51.100.1")).is_empty());
    assert!(juliet.objects(used("198.51.100.2")).starts_with("UnexpectedRequest"));
    assert!(juliet.objects(Notification::CandidateError).starts_with("UnexpectedRequest"));
    assert_eq!(juliet.connected("192.0.2.1", 1)[0], "say candidate-used 192.0.2.1");
    // Open by now; the same goes.
    assert!(juliet.hears(used("198.51.100.1")).is_empty());
    assert!(juliet.objects(Notification::CandidateError).starts_with("UnexpectedRequest"));
}

#[test]
fn an_activation_is_acknowledged_where_it_makes_sense() {
    let theirs = [("192.0.2.1", 9), ("proxy1", 8)];
    let mut juliet = Side::new(Role::Responder, &[], &theirs);
    juliet.wants();
    assert!(juliet.objects(activated("192.0.2.1")).starts_with("UnexpectedRequest"), "no proxy");
    juliet.connected("192.0.2.1", 1);
    juliet.hears(Notification::CandidateError);
    assert!(juliet.objects(activated("proxy1")).starts_with("UnexpectedRequest"), "another is nominated");

    let mut juliet = Side::new(Role::Responder, &[], &theirs[1..]);
    juliet.wants();
    juliet.connected("proxy1", 1);
    juliet.hears(Notification::CandidateError);
    assert_eq!(juliet.hears(activated("proxy1")), ["open"]);
    assert!(juliet.hears(activated("proxy1")).is_empty());
    // It says activated before it knows; then the connection ends, which is its user's affair.
    assert!(juliet.hears(Notification::ProxyError).is_empty());
}

#[test]
fn a_proxy_error_without_proxies_is_out_of_order() {
    let mut juliet = Side::new(Role::Responder, &[("198.51.100.1", 9)], &[("192.0.2.1", 9)]);
    juliet.wants();
    assert!(juliet.objects(Notification::ProxyError).starts_with("UnexpectedRequest"));
    juliet.connected("192.0.2.1", 1);
    juliet.hears(Notification::CandidateError);
    assert!(juliet.objects(Notification::ProxyError).starts_with("UnexpectedRequest"));
}

#[test]
fn a_failed_negotiation_acknowledges_what_crossed_its_end() {
    let mut romeo = Side::new(Role::Initiator, &[("proxy1", 7)], &[]);
    romeo.hears(used("proxy1"));
    romeo.refused("proxy1");
    assert!(romeo.hears(Notification::ProxyError).is_empty());
    assert!(romeo.hears(used("proxy1")).is_empty());
}
