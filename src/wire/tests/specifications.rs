//! The stanzas that the specifications print.

use super::*;
use crate::{
    Reason,
    transport::s5b::candidate::CandidateType,
    wire::{
        bytestreams::{activate, address_query, info_query, is_proxy, items_query},
        errors::JingleCondition,
        s5b::Notification,
    },
};

const FOLDERS: [&str; 8] =
    ["xep-0047", "xep-0065", "xep-0115", "xep-0166", "xep-0247", "xep-0260", "xep-0261", "xtls"];

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
        Wire::Items(_) => "items-result".into(),
        Wire::Streamhosts(_) => "address-result".into(),
        Wire::Transport(_) | Wire::S5b(_) | Wire::Security(_) => unreachable!("these are inside of Jingle"),
    }
}

/// What a file of this name must carry; nothing for acknowledgements and what other layers read.
fn expected_kind(name: &str) -> Option<String> {
    const KINDS: [&str; 14] = [
        "session-initiate",
        "session-accept",
        "session-terminate",
        "session-info",
        "security-info",
        "transport-info",
        "transport-replace",
        "transport-accept",
        "disco-result",
        "items-result",
        "address-result",
        "open",
        "data",
        "close",
    ];
    if name.ends_with("-ack") {
        return None;
    }
    if name.starts_with("error-") || name.contains("-error-") {
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

#[test]
fn the_candidates_of_xep_0260_are_read_as_printed() {
    let offer = s5b("session-initiate");
    assert_eq!((offer.sid.as_str(), offer.udp, &offer.notification), ("vj3hs98y", false, &None));
    assert_eq!(offer.dstaddr.as_deref(), Some("972b7bf47291ca609517f67f86b5081086052dad"));
    let read = offer.candidates.iter().map(|it| (it.cid.as_str(), it.port, it.priority, it.type_));
    let expected = [
        ("hft54dqy", 5086, 8257636, CandidateType::Direct),
        ("hutr46fe", 5087, 8258636, CandidateType::Direct),
        ("xmdh4b7i", 7625, 7878787, CandidateType::Proxy),
    ];
    assert_eq!(read.collect::<Vec<_>>(), expected);

    let answer = s5b("session-accept");
    let read = answer.candidates.iter().map(|it| (it.host.as_str(), it.jid.as_deref().unwrap(), it.type_));
    let expected = [
        ("192.169.1.10", "juliet@capulet.lit/balcony", CandidateType::Direct),
        ("2001:638:708:30c9:219:d1ff:fea4:a17d", "juliet@capulet.lit/balcony", CandidateType::Direct),
        ("134.102.201.180", "juliet@capulet.lit/balcony", CandidateType::Assisted),
        ("234.567.8.9", "proxy.marlowe.lit", CandidateType::Proxy),
    ];
    assert_eq!(read.collect::<Vec<_>>(), expected);
}

#[test]
fn the_notifications_of_xep_0260_are_understood_and_written_as_printed() {
    for (name, notification) in [
        ("candidate-used", Notification::CandidateUsed("hr65dqyd".into())),
        ("candidate-error", Notification::CandidateError),
        ("activated", Notification::Activated("xmdh4b7i".into())),
        ("proxy-error", Notification::ProxyError),
    ] {
        let info = s5b(&format!("transport-info-{name}"));
        let expected = S5bTransport {
            sid: "vj3hs98y".into(),
            notification: Some(notification),
            ..S5bTransport::default()
        };
        assert_eq!(info, expected);

        let printed = payload(&format!("xep-0260/transport-info-{name}"));
        let printed = printed.children().next().and_then(|content| content.children().next()).unwrap();
        let (mut written, mut printed) = (info.to_element(), printed.clone());
        drop_white_space(&mut written);
        drop_white_space(&mut printed);
        assert_eq!(written, printed);
    }
}

/// The transport in a stanza of XEP-0260.
fn s5b(name: &str) -> S5bTransport {
    let found = fixture(&format!("xep-0260/{name}")).unwrap();
    let [Wire::Jingle(..), Wire::S5b(transport)] = &found[..] else { panic!("{found:?}") };
    transport.clone()
}

#[test]
fn proxies_are_asked_as_xep_0065_prints_it_and_understood() {
    for (name, query) in [
        ("items-request", items_query()),
        ("disco-request-proxy", info_query()),
        ("address-request", address_query()),
        ("activate", activate("vxf9n471bn46", &"target@example.org/bar".parse().unwrap())),
    ] {
        let mut printed = payload(&format!("xep-0065/{name}"));
        drop_white_space(&mut printed);
        assert_eq!(query, printed, "{name}");
    }

    let jid = |jid: &str| -> Jid { jid.parse().unwrap() };
    let items = ["chatrooms.example.com", "news.example.com", "streamer.example.com"].map(jid);
    assert_eq!(fixture("xep-0065/items-result"), Ok(vec![Wire::Items(items.to_vec())]));
    assert!(is_proxy(&payload("xep-0065/disco-result-proxy")));
    assert!(!is_proxy(&payload("xep-0065/disco-result-target")));
    let host = Streamhost { jid: jid("streamer.example.com"), host: "24.24.24.1".into(), port: 7625 };
    assert_eq!(fixture("xep-0065/address-result"), Ok(vec![Wire::Streamhosts(vec![host])]));
}

/// The child of a stanza.
fn payload(path: &str) -> Element {
    stanza(text(path).as_bytes()).unwrap().children().next().unwrap().clone()
}

/// Without what the specification's indentation put between the elements.
fn drop_white_space(element: &mut Element) {
    for node in element.take_nodes() {
        if node.as_text().is_none_or(|text| !text.trim().is_empty()) {
            element.append_node(node);
        }
    }
}
