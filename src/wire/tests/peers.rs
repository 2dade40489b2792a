//! What other programs send, where it differs from the specifications.

use xmpp_parsers::jingle::{Creator, Senders};

use super::*;
use crate::{
    transport::s5b::candidate::CandidateType,
    wire::{errors::JingleCondition, ibb::IbbTransport, s5b::Notification},
};

#[test]
fn every_program_is_understood() {
    for file in files("peers") {
        let name = stem(&file);
        let found = parse(&fs::read(&file).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        for wire in &found {
            assert_eq!(&rewritten(wire), wire, "{name}");
        }
        assert!(expect(name, &found), "{name}: {found:?}");
    }
}

/// Whether a program's stanza was understood as it is meant.
fn expect(name: &str, found: &[Wire]) -> bool {
    match (name, found) {
        ("gajim-session-initiate", [Wire::Jingle(jingle, _), Wire::S5b(_), Wire::Security(security)]) => {
            let fingerprint = &security.fingerprints[0];
            jingle.contents[0].senders == Senders::Initiator
                && fingerprint.algo.is_none()
                && fingerprint.text.starts_with("00:11:22:33:44:55:66:77:88:99:AA:BB")
        }
        ("kaa-session-initiate", [Wire::Jingle(..), Wire::Transport(_), Wire::Security(security)]) => {
            security.fingerprints[0].algo.as_deref() == Some("sha1") && security.methods == ["x509", "srp"]
        }
        (
            "kaa-session-accept-name-is-creator",
            [Wire::Jingle(jingle, _), Wire::Transport(_), Wire::Security(security)],
        ) => {
            let content = &jingle.contents[0];
            (&content.creator, content.name.as_str()) == (&Creator::Initiator, "initiator")
                && security.fingerprints.is_empty()
        }
        ("conversations-transport-accept-without-sid", [Wire::Jingle(..), Wire::Transport(transport)]) => {
            *transport == IbbTransport { v0: false, block_size: Some(8192), sid: None, message_mode: false }
        }
        ("conversations-data-with-block-size" | "conversations-data-seq-65536", [Wire::Data(data)]) => {
            (data.seq, data.bytes.as_slice()) == (0, b"Romeo".as_slice())
        }
        ("swift-data-seq-65537", [Wire::Data(data)]) => data.seq == 1,
        ("dino-session-accept-without-responder", [Wire::Jingle(jingle, _), Wire::Transport(_)]) => {
            jingle.responder.is_none()
        }
        ("dino-open-without-stanza", [Wire::Open(open)]) => !open.message_mode,
        ("aioxmpp-open-message-mode", [Wire::Open(open)]) => open.message_mode,
        ("conversations-error-out-of-order", [Wire::Error(error)]) => {
            JingleCondition::of(error) == Some(JingleCondition::OutOfOrder)
        }
        ("swift-error-unknown-session-bare", [Wire::Error(error)]) => JingleCondition::of(error).is_none(),
        ("psi-session-initiate-without-jid-and-type", [Wire::Jingle(..), Wire::S5b(transport)]) => {
            let candidate = &transport.candidates[0];
            candidate.jid.is_none() && candidate.type_ == CandidateType::Direct
        }
        ("psi-proxy-error-with-cid", [Wire::Jingle(..), Wire::S5b(transport)]) => {
            transport.notification == Some(Notification::ProxyError)
        }
        ("gajim-session-accept-equal-priorities", [Wire::Jingle(..), Wire::S5b(transport)]) => {
            transport.candidates.iter().map(|it| it.priority).collect::<Vec<_>>() == [126 << 16; 2]
        }
        ("snikket-session-accept-without-dstaddr", [Wire::Jingle(..), Wire::S5b(transport)]) => {
            transport.dstaddr.is_none() && transport.candidates[0].type_ == CandidateType::Proxy
        }
        _ => false,
    }
}
