//! The stanzas that the specifications print.

use super::*;
use crate::{Reason, wire::errors::JingleCondition};

const FOLDERS: [&str; 6] = ["xep-0047", "xep-0115", "xep-0166", "xep-0247", "xep-0261", "xtls"];

/// Pieces of a stream, which no stanza parser reads.
const NO_STANZAS: [&str; 3] = ["stream-close", "stream-header-initial", "stream-header-response"];

#[test]
fn every_printed_stanza_is_understood_and_written_back() {
    for file in FOLDERS.into_iter().flat_map(files) {
        let name = stem(&file);
        if NO_STANZAS.contains(&name) || name.ends_with("-as-printed") {
            continue;
        }
        let found = parse(&fs::read(&file).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.first().map(kind), expected_kind(name), "{name}");
        for wire in found {
            assert_eq!(rewritten(&wire), wire, "{name}");
        }
    }
}

fn kind(wire: &Wire) -> String {
    match wire {
        Wire::Jingle(jingle, _) => jingle.known_action().expect("an action of XEP-0166").to_string(),
        Wire::Open(_) => "open".into(),
        Wire::Data(_) => "data".into(),
        Wire::Close(_) => "close".into(),
        Wire::Error(_) => "error".into(),
        Wire::Info(_) => "disco-result".into(),
        Wire::Transport(_) | Wire::Security(_) => unreachable!("these are inside of Jingle"),
    }
}

/// What a file of this name must carry; nothing for acknowledgements and what other layers read.
fn expected_kind(name: &str) -> Option<String> {
    const KINDS: [&str; 10] = [
        "session-initiate",
        "session-accept",
        "session-terminate",
        "session-info",
        "security-info",
        "transport-info",
        "disco-result",
        "open",
        "data",
        "close",
    ];
    if name.ends_with("-ack") {
        return None;
    }
    if name.contains("error") {
        return Some("error".into());
    }
    KINDS.into_iter().find(|kind| name.starts_with(kind)).map(ToOwned::to_owned)
}

#[test]
fn xtls_as_printed_is_refused_for_what_is_wrong_with_it() {
    let no_action = Refused::Jingle(Malformed::new("<jingle/> has no action"));
    for name in ["session-initiate", "security-info"] {
        assert_eq!(fixture(&format!("xtls/{name}-as-printed")), Err(no_action.clone()), "{name}");
    }
    assert_eq!(fixture("xtls/session-accept-as-printed"), Err(Refused::Xml));
}

#[test]
fn the_security_of_the_mended_xtls_offer_is_kept() {
    for (name, hash) in [("initiate", "RomeoX509CertificateHash"), ("accept", "JulietX509CertificateHash")] {
        let found = fixture(&format!("xtls/session-{name}-mended")).unwrap();
        let [Wire::Jingle(_, Dialect::V0), Wire::Transport(transport), Wire::Security(security)] = &found[..]
        else {
            panic!("{found:?}")
        };
        assert!(transport.v0);
        assert_eq!(security.methods, ["x509", "srp"]);
        assert_eq!(security.fingerprints.len(), 1);
        assert_eq!((&security.fingerprints[0].algo, security.fingerprints[0].text.as_str()), (&None, hash));
    }
}

#[test]
fn the_blocks_of_xep_0247_hold_what_is_printed_beside_them() {
    for (data, plain) in [
        ("data-header-initial", "stream-header-initial"),
        ("data-header-response", "stream-header-response"),
        ("data-message", "message"),
        ("data-reply", "reply"),
        ("data-close", "stream-close"),
    ] {
        let found = fixture(&format!("xep-0247/{data}")).unwrap();
        let [Wire::Data(block)] = &found[..] else { panic!("{found:?}") };
        let plain = text(&format!("xep-0247/{plain}"));
        let words: Vec<_> = plain.split_whitespace().collect();
        let plain = words.join(" ").replace("> <", "><");
        assert_eq!(String::from_utf8_lossy(&block.bytes), plain, "{data}");
    }
}

#[test]
fn xep_0247_speaks_the_old_dialect_and_is_answered_in_it() {
    let found = fixture("xep-0247/session-initiate").unwrap();
    let [Wire::Jingle(jingle, Dialect::V0), Wire::Transport(transport)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(jingle.clone().into_element(Dialect::V0).ns(), ns::JINGLE_0);
    assert_eq!(transport.to_element().ns(), ns::JINGLE_IBB_0);
    assert_eq!(jingle.contents[0].description().map(Element::ns).as_deref(), Some(ns::XMLSTREAM));
}

#[test]
fn the_reasons_of_xep_0166_are_understood() {
    for (name, reason) in [
        ("success", Reason::Success),
        ("busy", Reason::Busy),
        ("decline", Reason::Decline),
        ("alternative-session", Reason::AlternativeSession(Some("b84tkkwlmb48kgfb".into()))),
        ("unsupported-transports", Reason::UnsupportedTransports),
        ("failed-transport", Reason::FailedTransport),
        ("unsupported-applications", Reason::UnsupportedApplications),
        ("failed-application", Reason::FailedApplication),
        ("incompatible-parameters", Reason::IncompatibleParameters),
    ] {
        let found = fixture(&format!("xep-0166/session-terminate-{name}")).unwrap();
        let [Wire::Jingle(jingle, _)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(jingle.reason.as_ref().map(|it| &it.reason), Some(&reason));
    }
}

#[test]
fn the_conditions_of_xep_0166_are_understood() {
    for (name, condition) in [
        ("tie-break", Some(JingleCondition::TieBreak)),
        ("unknown-session", Some(JingleCondition::UnknownSession)),
        ("unsupported-info", Some(JingleCondition::UnsupportedInfo)),
        ("security-required", Some(JingleCondition::SecurityRequired)),
        ("bad-request", None),
    ] {
        let found = fixture(&format!("xep-0166/error-{name}")).unwrap();
        let [Wire::Error(error)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(JingleCondition::of(error), condition, "{name}");
    }
}

#[test]
fn the_payload_of_session_info_is_kept() {
    let found = fixture("xep-0166/session-info-ringing").unwrap();
    let [Wire::Jingle(ringing, _)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(ringing.others.iter().map(Element::name).collect::<Vec<_>>(), ["ringing"]);

    let found = fixture("xep-0166/session-info-ping").unwrap();
    let [Wire::Jingle(ping, _)] = &found[..] else { panic!("{found:?}") };
    assert!(ping.others.is_empty() && ping.contents.is_empty());
}
