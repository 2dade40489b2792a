use rcgen::KeyPair;

use super::{
    super::{
        HashAlgo, Identity, Secret, TlsOptions,
        verify::{Announced, Expectation},
    },
    *,
};

fn juliet() -> BareJid {
    "juliet@capulet.lit".parse().unwrap()
}

fn romeo() -> BareJid {
    "romeo@montague.lit".parse().unwrap()
}

fn certificate(name: &str) -> Certificate {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    Certificate::from_der(params.self_signed(&key).unwrap().der())
}

/// What Juliet may present.
struct Certificates {
    hers: Certificate,
    another: Certificate,
}

impl Certificates {
    fn new() -> Self {
        Self { hers: certificate("juliet"), another: certificate("another") }
    }

    /// The store in which hers is listed so.
    fn listed(&self, verification: Verification) -> KnownPeers {
        let known = KnownPeers::in_memory();
        known.remember(&juliet(), &self.hers, verification).unwrap();
        known
    }
}

/// Every policy for strangers, by its name.
fn policies(known: &KnownPeers) -> [(&'static str, Trust, Option<Questions>); 3] {
    let (asking, questions) = Trust::ask(known.clone());
    [
        ("first use", Trust::from(known.clone()), None),
        ("ask", asking, Some(questions)),
        ("strict", Trust::strict(known.clone()), None),
    ]
}

fn check(trust: &Trust, presented: &Certificate, has_secret: bool) -> Result<Standing, SecurityError> {
    trust.check(&juliet(), presented, &[], has_secret, SystemTime::now())
}

/// What a complete handshake with Juliet yields, in which nothing was announced.
fn handshake(trust: &Trust, presented: &Certificate, has_secret: bool) -> Result<Presented, SecurityError> {
    let mut options = TlsOptions::new(Identity::generate().unwrap(), trust.clone());
    if has_secret {
        options = options.secret_for(juliet(), Secret::generate().unwrap());
    }
    let expectation = Expectation { peer: juliet(), announced: Announced::Nothing, options };
    expectation.confirm(&[CertificateDer::from(presented.der())])
}

fn settle(
    trust: &Trust,
    certificate: &Certificate,
    proof: Option<Proof>,
) -> Result<Verification, SecurityError> {
    let has_secret = matches!(proof, Some(Proof::Secret));
    trust.settle(&handshake(trust, certificate, has_secret)?, proof)
}

#[test]
fn a_stranger_stands_as_the_policy_says_and_with_a_secret_has_to_prove_it() {
    let Certificates { hers, .. } = Certificates::new();
    let known = KnownPeers::in_memory();
    for (name, trust, _) in &policies(&known) {
        let without = check(trust, &hers, false);
        match *name {
            "first use" => assert_eq!(without, Ok(Standing::FirstUse)),
            "ask" => assert_eq!(without, Ok(Standing::ToBeAsked)),
            _ => assert!(matches!(without, Err(SecurityError::NotListed { .. })), "{without:?}"),
        }
        assert_eq!(check(trust, &hers, true), Ok(Standing::Unproven), "{name}");
    }
    assert!(known.certificates().unwrap().is_empty(), "to check writes nothing down");
}

#[test]
fn a_known_peer_stands_as_it_is_listed_whatever_the_policy() {
    let certificates = Certificates::new();
    for (listed, stands) in [
        (Verification::FirstUse, Verification::Known),
        (Verification::Accepted, Verification::Accepted),
        (Verification::Code, Verification::Code),
    ] {
        for (name, trust, _) in &policies(&certificates.listed(listed)) {
            for has_secret in [false, true] {
                let standing = check(trust, &certificates.hers, has_secret);
                assert_eq!(standing, Ok(Standing::Accepted(stands)), "{name}");
            }
        }
    }
}

#[test]
fn a_changed_certificate_is_refused_by_every_policy_with_a_secret_too() {
    let certificates = Certificates::new();
    for (name, trust, _) in &policies(&certificates.listed(Verification::FirstUse)) {
        let changed = SecurityError::KeyChanged {
            peer: juliet(),
            expected: vec![certificates.hers.fingerprint().clone()],
            presented: certificates.another.fingerprint().clone(),
        };
        for has_secret in [false, true] {
            assert_eq!(check(trust, &certificates.another, has_secret), Err(changed.clone()), "{name}");
        }
    }
}

#[test]
fn a_revoked_certificate_is_refused_by_every_policy_with_a_secret_too() {
    let certificates = Certificates::new();
    let known = certificates.listed(Verification::Code);
    known.revoke(&juliet(), certificates.hers.fingerprint()).unwrap();
    for (name, trust, _) in &policies(&known) {
        for has_secret in [false, true] {
            let refused = check(trust, &certificates.hers, has_secret);
            assert!(matches!(refused, Err(SecurityError::Revoked { .. })), "{name}: {refused:?}");
            let refused = check(trust, &certificates.another, has_secret);
            assert!(matches!(refused, Err(SecurityError::KeyChanged { .. })), "{name}: {refused:?}");
        }
    }
}

#[test]
fn what_is_pinned_is_above_all_else() {
    let Certificates { hers, another } = Certificates::new();
    let known = KnownPeers::in_memory();
    known.add(&juliet(), another.fingerprint().clone(), None).unwrap();
    known.revoke(&juliet(), hers.fingerprint()).unwrap();
    for (name, trust, _) in policies(&known) {
        let by_key = trust.clone().pin_key_for(juliet(), hers.key().unwrap().clone());
        let by_certificate = trust.pin_for(juliet(), hers.fingerprint().clone());
        for (trust, shown) in [
            (by_certificate, hers.fingerprint().to_string()),
            (by_key, format!("key {}", hers.key().unwrap())),
        ] {
            for has_secret in [false, true] {
                let standing = check(&trust, &hers, has_secret);
                assert_eq!(standing, Ok(Standing::Accepted(Verification::Pinned)), "{name}");
                let presented = another.fingerprint().clone();
                let refused = SecurityError::NotPinned { presented, pinned: vec![shown.clone()] };
                assert_eq!(check(&trust, &another, has_secret), Err(refused), "{name}");
            }
        }
    }
}

#[test]
fn a_pinned_certificate_is_accepted_and_no_other() {
    let Certificates { hers, another } = Certificates::new();
    let trust = Trust::pinned([hers.fingerprint().clone()]);
    assert_eq!(settle(&trust, &hers, None), Ok(Verification::Pinned));
    for has_secret in [false, true] {
        let refused = SecurityError::NotPinned {
            presented: another.fingerprint().clone(),
            pinned: vec![hers.fingerprint().to_string()],
        };
        assert_eq!(check(&trust, &another, has_secret), Err(refused));
    }
    assert!(trust.known_peers().certificates().unwrap().is_empty(), "pins are written elsewhere");
    assert!(matches!(check(&Trust::pinned([]), &hers, true), Err(SecurityError::NotPinned { .. })));
}

#[test]
fn a_key_without_a_certificate_that_can_be_read_is_nobodys() {
    let unreadable = Certificate::from_der(b"no certificate");
    let trust = Trust::first_use().pin_key_for(juliet(), certificate("juliet").key().unwrap().clone());
    assert!(matches!(check(&trust, &unreadable, false), Err(SecurityError::NotPinned { .. })));
}

#[test]
fn a_peer_with_pins_needs_one_of_them_whatever_holds_for_others() {
    let Certificates { hers, another } = Certificates::new();
    let (everybodys, sha512) =
        (another.fingerprint().clone(), Fingerprint::of_with(HashAlgo::Sha512, another.der()));
    let trust = Trust::pinned([everybodys]).pin_for(juliet(), hers.fingerprint().clone());
    assert!(matches!(check(&trust, &another, false), Err(SecurityError::NotPinned { .. })));
    let romeos = trust.check(&romeo(), &another, &[], false, SystemTime::now());
    assert_eq!(romeos, Ok(Standing::Accepted(Verification::Pinned)));

    let either = trust.pin_for(juliet(), sha512);
    assert_eq!(check(&either, &hers, false), Ok(Standing::Accepted(Verification::Pinned)));
    assert_eq!(check(&either, &another, false), Ok(Standing::Accepted(Verification::Pinned)));
}

#[test]
fn a_strict_user_is_told_why_the_authorities_did_not_help() {
    let Certificates { hers, .. } = Certificates::new();
    let authority = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::new([]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&authority).unwrap().pem();
    let authorities = Authorities::from_pem(&pem).unwrap();
    for (name, trust, _) in policies(&KnownPeers::in_memory()) {
        let trust = trust.authorities(authorities.clone());
        let standing = check(&trust, &hers, false);
        match name {
            "first use" => assert_eq!(standing, Ok(Standing::FirstUse)),
            "ask" => assert_eq!(standing, Ok(Standing::ToBeAsked)),
            _ => assert!(matches!(standing, Err(SecurityError::NotIssued { .. })), "{standing:?}"),
        }
        assert_eq!(check(&trust, &hers, true), Ok(Standing::Unproven), "{name}");
    }
}

/// An authority, and a certificate that it issued to Juliet; each call issues another one.
fn authority() -> (Authorities, impl Fn() -> Certificate) {
    let mut params = rcgen::CertificateParams::new([]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let authorities = Authorities::from_pem(&issuer.pem()).unwrap();
    let issue = move || {
        let mut params = rcgen::CertificateParams::default();
        let address = rcgen::OtherNameValue::Utf8String(juliet().to_string());
        let xmpp_addr = vec![1, 3, 6, 1, 5, 5, 7, 8, 5];
        params.subject_alt_names = vec![rcgen::SanType::OtherName((xmpp_addr, address))];
        let key = KeyPair::generate().unwrap();
        Certificate::from_der(params.signed_by(&key, &issuer).unwrap().der())
    };
    (authorities, issue)
}

#[test]
fn whom_an_authority_answered_for_is_no_stranger_without_it() {
    let (authorities, issue) = authority();
    let forged = certificate("a man in the middle");
    for (name, trust, _) in policies(&KnownPeers::in_memory()) {
        let trust = trust.authorities(authorities.clone());
        assert_eq!(settle(&trust, &issue(), None), Ok(Verification::Authority), "{name}");
        for has_secret in [false, true] {
            let refused = check(&trust, &forged, has_secret);
            assert!(matches!(refused, Err(SecurityError::NotIssued { .. })), "{name}: {refused:?}");
        }
        // A new key is the authority's business, as a second device is.
        assert_eq!(settle(&trust, &issue(), None), Ok(Verification::Authority), "{name}");
        // Nor does plaintext come instead of it.
        assert!(trust.expects_certificate_of(&juliet()), "{name}");
    }
}

#[test]
fn an_authority_that_is_not_trusted_any_more_leaves_nobody_to_be_believed() {
    let (authorities, issue) = authority();
    let (known, hers) = (KnownPeers::in_memory(), issue());
    settle(&Trust::from(known.clone()).authorities(authorities), &hers, None).unwrap();
    let refused = check(&Trust::from(known.clone()), &hers, false);
    assert!(matches!(refused, Err(SecurityError::NotIssued { .. })), "{refused:?}");
    known.add(&juliet(), hers.fingerprint().clone(), None).unwrap();
    let standing = check(&Trust::from(known), &hers, false);
    assert_eq!(standing, Ok(Standing::Accepted(Verification::Compared)));
}

#[test]
fn whoever_began_as_a_stranger_is_refused_once_an_authority_answers_for_the_peer() {
    let (authorities, issue) = authority();
    let forged = certificate("a man in the middle");
    let proofs = [None, Some(Proof::Once), Some(Proof::Accepted), Some(Proof::Secret), Some(Proof::Code)];
    for proof in proofs {
        let trust = Trust::first_use().authorities(authorities.clone());
        let presented = handshake(&trust, &forged, false).unwrap();
        settle(&trust, &issue(), None).unwrap();
        let refused = trust.settle(&presented, proof);
        assert!(
            matches!(refused, Err(SecurityError::NotIssued { .. } | SecurityError::KeyChanged { .. })),
            "{proof:?}: {refused:?}"
        );
    }
}

#[test]
fn an_authority_does_not_save_who_is_revoked_in_the_middle_of_a_handshake() {
    let (authorities, issue) = authority();
    let hers = issue();
    let trust = Trust::first_use().authorities(authorities);
    let presented = handshake(&trust, &hers, false).unwrap();
    trust.known_peers().revoke(&juliet(), hers.fingerprint()).unwrap();
    assert!(matches!(trust.settle(&presented, None), Err(SecurityError::Revoked { .. })));
}

#[test]
fn a_first_use_is_remembered_when_it_is_settled() {
    let Certificates { hers, another } = Certificates::new();
    let trust = Trust::first_use();
    assert_eq!(check(&trust, &hers, false), Ok(Standing::FirstUse));
    assert_eq!(check(&trust, &another, false), Ok(Standing::FirstUse));
    assert_eq!(settle(&trust, &hers, None), Ok(Verification::FirstUse));
    assert_eq!(settle(&trust, &hers, None), Ok(Verification::Known));
    assert!(matches!(settle(&trust.clone(), &another, None), Err(SecurityError::KeyChanged { .. })));
}

#[test]
fn what_is_proved_is_written_down_for_the_next_time() {
    let Certificates { hers, .. } = Certificates::new();
    for (proof, verification) in [
        (Proof::Secret, Verification::Secret),
        (Proof::Code, Verification::Code),
        (Proof::Accepted, Verification::Accepted),
    ] {
        for (name, trust, _) in policies(&KnownPeers::in_memory()) {
            let presented = handshake(&trust, &hers, true).unwrap();
            assert_eq!(trust.settle(&presented, Some(proof)), Ok(verification), "{name}");
            assert_eq!(settle(&trust, &hers, None), Ok(verification), "{name}");
        }
    }
}

#[test]
fn once_is_not_written_down() {
    let Certificates { hers, another } = Certificates::new();
    let (trust, _questions) = Trust::ask(KnownPeers::in_memory());
    assert_eq!(settle(&trust, &hers, Some(Proof::Once)), Ok(Verification::Accepted));
    assert_eq!(check(&trust, &hers, false), Ok(Standing::ToBeAsked));

    // While the user thinks about one stream, another makes the peer known, with another certificate.
    let presented = handshake(&trust, &hers, false).unwrap();
    trust.known_peers().add(&juliet(), another.fingerprint().clone(), None).unwrap();
    let refused = trust.settle(&presented, Some(Proof::Once));
    assert!(matches!(refused, Err(SecurityError::KeyChanged { .. })), "{refused:?}");
}

#[test]
fn whoever_has_to_prove_something_and_does_not_is_refused() {
    let Certificates { hers, .. } = Certificates::new();
    for (name, trust, _) in policies(&KnownPeers::in_memory()) {
        let asked = (name == "ask").then(|| handshake(&trust, &hers, false).unwrap());
        for presented in [handshake(&trust, &hers, true).ok(), asked].into_iter().flatten() {
            let refused = trust.settle(&presented, None);
            assert!(matches!(refused, Err(SecurityError::NotListed { .. })), "{name}: {refused:?}");
        }
        assert!(trust.known_peers().certificates().unwrap().is_empty());
    }
}

#[test]
fn whoever_is_forgotten_or_revoked_in_the_middle_of_a_handshake_is_refused() {
    let certificates = Certificates::new();
    let trust = Trust::strict(certificates.listed(Verification::Code));
    let presented = handshake(&trust, &certificates.hers, false).unwrap();
    trust.known_peers().revoke(&juliet(), certificates.hers.fingerprint()).unwrap();
    assert!(matches!(trust.settle(&presented, None), Err(SecurityError::Revoked { .. })));
    trust.known_peers().forget(&juliet()).unwrap();
    assert!(matches!(trust.settle(&presented, None), Err(SecurityError::NotListed { .. })));
}

#[test]
fn only_believed_strangers_may_come_without_a_certificate() {
    let certificates = Certificates::new();
    let known = certificates.listed(Verification::FirstUse);
    for (name, trust, _) in policies(&known) {
        assert!(trust.expects_certificate_of(&juliet()), "{name}");
        assert_eq!(trust.expects_certificate_of(&romeo()), name != "first use");
        let pin = certificates.another.fingerprint().clone();
        assert!(trust.pin_for(romeo(), pin).expects_certificate_of(&romeo()), "{name}");
    }
    assert!(Trust::pinned([]).expects_certificate_of(&romeo()));
    known.revoke(&juliet(), certificates.hers.fingerprint()).unwrap();
    assert!(Trust::from(known).expects_certificate_of(&juliet()), "revoked, and no stranger");
}

#[test]
fn what_a_peer_will_reach_is_known_before_anything_is_written_down() {
    let certificates = Certificates::new();
    let proofs = [None, Some(Proof::Once), Some(Proof::Accepted), Some(Proof::Secret), Some(Proof::Code)];
    for listed in [None, Some(Verification::FirstUse), Some(Verification::Secret)] {
        for proof in proofs {
            let known = listed.map_or_else(KnownPeers::in_memory, |listed| certificates.listed(listed));
            for (name, trust, _) in policies(&known) {
                let before = known.certificates().unwrap();
                let Ok(presented) = handshake(&trust, &certificates.hers, proof == Some(Proof::Secret))
                else {
                    continue;
                };
                let level = Trust::level(&presented, proof);
                assert_eq!(known.certificates().unwrap(), before);
                if let Ok(verification) = trust.settle(&presented, proof) {
                    assert_eq!(verification.level(), level, "{name}, {listed:?}, {proof:?}");
                }
                known.forget(&juliet()).unwrap();
                if let Some(listed) = listed {
                    known.remember(&juliet(), &certificates.hers, listed).unwrap();
                }
            }
        }
    }
}
