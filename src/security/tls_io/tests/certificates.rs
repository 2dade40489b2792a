//! What certificates say about dates, names and issuers, and where that counts.

use super::*;
use crate::security::{Authorities, KnownPeers};

fn authority() -> Authorities {
    Authorities::from_pem(include_str!("../../../../fixtures/tls/ca.pem")).unwrap()
}

/// Romeo presents a certificate to Juliet, who trusts him as told.
async fn romeo_presents(name: &str, trust: impl Into<Trust>) -> Outcome<DuplexStream> {
    let mut parties = Parties::new(fixture(name), Identity::generate().unwrap());
    parties.of_romeo.options.trust = trust.into();
    parties.meet().await.1
}

/// A store that has it.
fn knowing(name: &str) -> KnownPeers {
    let known = KnownPeers::in_memory();
    let romeo = "romeo@montague.lit".parse().unwrap();
    known.remember(&romeo, fixture(name).certificate(), Verification::Compared).unwrap();
    known
}

#[tokio::test]
async fn at_first_use_a_certificate_must_be_plausible() {
    for (name, expected) in [
        ("expired", "it expired on 2009-01-31T00:00:00Z"),
        ("ca-expired", "it expired on 2009-01-31T00:00:00Z"),
        ("ca-early", "it is not valid before 2125-01-01T00:00:00Z"),
        ("ca-juliet", "it is for juliet@capulet.lit, not for romeo@montague.lit"),
    ] {
        match security(romeo_presents(name, Trust::first_use()).await) {
            SecurityError::Implausible { why, .. } => assert!(why.starts_with(expected), "{why}"),
            other => panic!("{name}: {other}"),
        }
    }
    // Who issued it, nobody asked.
    for name in ["p256", "ca-romeo", "other-ca-romeo", "chain-romeo"] {
        let juliet = romeo_presents(name, Trust::first_use()).await.unwrap();
        assert_eq!(standing(&juliet), Standing::FirstUse, "{name}");
    }
}

#[tokio::test]
async fn dates_and_names_do_not_count_where_it_is_pinned_or_known() {
    let romeo = || "romeo@montague.lit".parse().unwrap();
    for name in ["expired", "ca-expired", "ca-early", "ca-juliet"] {
        let (fingerprint, key) = (fixture(name).fingerprint().clone(), fixture(name).key().clone());
        for trust in [
            Trust::pinned([fingerprint.clone()]),
            Trust::first_use().pin_for(romeo(), fingerprint),
            Trust::first_use().pin_key_for(romeo(), key),
            Trust::strict(knowing(name)),
            Trust::from(knowing(name)),
            Trust::strict(knowing(name)).authorities(authority()),
        ] {
            let juliet = romeo_presents(name, trust).await.unwrap();
            assert!(matches!(standing(&juliet), Standing::Accepted(_)), "{name}");
        }
    }
}

#[tokio::test]
async fn an_authority_vouches_for_a_stranger() {
    for name in ["ca-romeo", "chain-romeo"] {
        let trust = Trust::strict(KnownPeers::in_memory()).authorities(authority());
        let juliet = romeo_presents(name, trust).await.unwrap();
        assert_eq!(standing(&juliet), Standing::Accepted(Verification::Authority), "{name}");
    }
}

#[tokio::test]
async fn a_stranger_whom_no_authority_vouches_for_is_refused_with_the_reason() {
    for (name, expected) in [
        ("ca-expired", "it expired on 2009-01-31T00:00:00Z"),
        ("ca-early", "it is not valid before 2125-01-01T00:00:00Z"),
        ("ca-juliet", "it is for juliet@capulet.lit, not for romeo@montague.lit"),
        ("other-ca-romeo", "its issuer is \"CN=other-ca\""),
        ("p256", "it is an authority's own (CA:TRUE)"),
    ] {
        let trust = Trust::strict(KnownPeers::in_memory()).authorities(authority());
        match security(romeo_presents(name, trust).await) {
            SecurityError::NotIssued { why, .. } => assert!(why.starts_with(expected), "{why}"),
            other => panic!("{name}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_known_peer_with_a_new_certificate_is_refused_whoever_issued_it() {
    let trust = Trust::strict(knowing("p256")).authorities(authority());
    let refused = security(romeo_presents("ca-romeo", trust).await);
    assert!(matches!(refused, SecurityError::KeyChanged { .. }), "{refused}");
}

#[tokio::test]
async fn a_pinned_key_holds_through_a_renewal_and_a_pinned_certificate_does_not() {
    let peer = "romeo@montague.lit".parse().unwrap();
    let old = Identity::generate_for(&peer).unwrap();
    let new = old.renew(&peer).unwrap();
    let mut parties = Parties::new(new, Identity::generate().unwrap());
    parties.of_romeo.options.trust = Trust::pinned([]).pin_key_for(peer.clone(), old.key().clone());
    let juliet = parties.meet().await.1.unwrap();
    assert_eq!(standing(&juliet), Standing::Accepted(Verification::Pinned));

    parties.of_romeo.options.trust = Trust::pinned([]).pin_for(peer, old.fingerprint().clone());
    assert!(matches!(security(parties.meet().await.1), SecurityError::NotPinned { .. }));
}

#[tokio::test]
async fn an_identity_made_for_its_account_is_believed_of_that_account_alone() {
    let romeo = Identity::generate_for(&"romeo@montague.lit".parse().unwrap()).unwrap();
    let mut parties = Parties::new(romeo, Identity::generate().unwrap());
    assert_eq!(standing(&parties.meet().await.1.unwrap()), Standing::FirstUse);
    parties.of_romeo.peer = "benvolio@montague.lit".parse().unwrap();
    assert!(matches!(security(parties.meet().await.1), SecurityError::Implausible { .. }));
}
