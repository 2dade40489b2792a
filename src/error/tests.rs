//! Tests of what errors say, and to whom.

use super::*;
use crate::security::Fingerprint;

#[test]
fn conditions_are_named_as_on_the_wire() {
    assert_eq!(condition_name(&DefinedCondition::NotWellFormed), "not-well-formed");
    let see_other = DefinedCondition::SeeOtherHost("example.org".into());
    assert_eq!(condition_name(&see_other), "see-other-host");
}

#[test]
fn the_peer_does_not_learn_whom_we_trust() {
    let presented = Fingerprint::of(b"presented");
    let pinned = vec![Fingerprint::of(b"pinned").to_string()];
    let refused = Error::Security(SecurityError::NotPinned { presented, pinned });
    assert_eq!(refused.peer_text(), None);
    let mismatch = SecurityError::FingerprintMismatch {
        announced: Fingerprint::of(b"announced"),
        presented: Fingerprint::of(b"presented"),
    };
    assert!(!Error::Security(mismatch).peer_text().unwrap().contains(':'));
}

#[test]
fn a_refusal_says_what_was_expected_and_what_can_be_done() {
    let (announced, presented) = (Fingerprint::of(b"announced"), Fingerprint::of(b"presented"));
    for (refusal, came, advice) in [
        (
            SecurityError::FingerprintMismatch { announced, presented: presented.clone() },
            presented.to_string(),
            "compare the fingerprint",
        ),
        (SecurityError::TooManyPeers { limit: 7 }, "7 are remembered".to_owned(), "forget some"),
        (SecurityError::NotOffered, "no <security/>".to_owned(), "set up for XTLS"),
        (SecurityError::NoFingerprint, "none came".to_owned(), "update it"),
        (SecurityError::NoCommonMethod("srp".to_owned()), "offers srp".to_owned(), "set it up"),
        (SecurityError::BadCertificate("none came".to_owned()), "none came".to_owned(), "set up"),
        (SecurityError::PeerRefused(Some("bad".to_owned())), "(bad)".to_owned(), "its log"),
    ] {
        let text = refusal.to_string();
        assert!(text.contains(&came) && text.contains(advice), "{text}");
    }
}

#[test]
fn an_error_survives_the_trip_through_io() {
    let error = Error::Security(SecurityError::NotOffered);
    let back = Error::io(&error.clone().into_io());
    assert_eq!(back.to_string(), error.to_string());
    assert_eq!(back.reason(), Reason::SecurityError);
}

#[test]
fn a_refusal_is_one_whatever_was_said_before_it() {
    let text = Some("you could not be authenticated".to_owned());
    let stream_error = Error::Stream(StreamFailure {
        direction: Direction::Received,
        condition: DefinedCondition::NotAuthorized,
        text: text.clone(),
    });
    let terminated = Error::Terminated(Terminated::new(Reason::SecurityError, text));
    for refusal in [stream_error, terminated] {
        let behind = Error::Undelivered(Undelivered::new(Some(refusal.clone()), Vec::new()));
        let Error::Undelivered(behind) = behind.or_refusal() else { panic!("it has stanzas") };
        for refusal in [refusal.or_refusal(), behind.cause().unwrap().clone()] {
            assert!(matches!(refusal, Error::Security(SecurityError::PeerRefused(Some(_)))), "{refusal:?}");
        }
    }
}
