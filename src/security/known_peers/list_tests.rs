use std::sync::LazyLock;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate, and those that replaced it one after the other, for the same key.
static CERTIFICATES: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let of_year = |year| {
        let params = CertificateParams::new([format!("year-{year}")]).unwrap();
        Certificate::from_der(params.self_signed(&key).unwrap().der())
    };
    (0..MAX_RENEWALS + 2).map(of_year).collect()
});

fn old() -> Certificate {
    CERTIFICATES[0].clone()
}

fn renewed() -> Certificate {
    CERTIFICATES[1].clone()
}

/// Juliet's certificate, which was renewed.
fn with_renewal() -> List {
    let mut list = List::default();
    meet(&mut list, &old(), Verification::Code).unwrap();
    meet(&mut list, &renewed(), Verification::FirstUse).unwrap();
    list
}

fn another() -> Certificate {
    Certificate::from_der(b"another certificate")
}

fn juliet() -> BareJid {
    "juliet@capulet.lit".parse().unwrap()
}

fn at(minute: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + NOTED_TO * 1000 + Duration::from_secs(60 * minute)
}

/// Meets Juliet, and tells what she counts as and what there is to tell.
fn meet(
    list: &mut List,
    certificate: &Certificate,
    shown: Verification,
) -> Result<(Verification, Vec<&'static str>), SecurityError> {
    let plan = list.plan(&juliet(), certificate, Some(shown), at(0))?;
    list.carry_out(&plan);
    let news = plan.news(certificate).into_iter().map(|event| match event {
        PeerEvent::FirstUse { .. } => "first use",
        PeerEvent::Verified { .. } => "verified",
        PeerEvent::Renewed { .. } => "renewed",
        PeerEvent::Refused { .. } => "refused",
    });
    Ok((plan.verification(), news.collect()))
}

fn key_changed(expected: &[&Certificate], presented: &Certificate) -> SecurityError {
    SecurityError::KeyChanged {
        peer: juliet(),
        expected: expected.iter().map(|certificate| certificate.fingerprint().clone()).collect(),
        presented: presented.fingerprint().clone(),
    }
}

fn revoked(presented: &Certificate) -> SecurityError {
    SecurityError::Revoked { peer: juliet(), presented: presented.fingerprint().clone() }
}

#[test]
fn a_stranger_is_known_after_the_first_use() {
    let mut list = List::default();
    assert_eq!(list.find(&juliet(), &old()), Ok(None));
    assert_eq!(
        meet(&mut list, &old(), Verification::FirstUse),
        Ok((Verification::FirstUse, vec!["first use"]))
    );
    assert_eq!(list.find(&juliet(), &old()), Ok(Some(Verification::Known)));
    assert_eq!(meet(&mut list, &old(), Verification::FirstUse), Ok((Verification::Known, vec![])));
    assert_eq!(list.rows().len(), 1);
}

#[test]
fn another_certificate_is_refused_and_both_are_named() {
    let mut list = List::default();
    meet(&mut list, &old(), Verification::FirstUse).unwrap();
    let refused = key_changed(&[&old()], &another());
    assert_eq!(list.find(&juliet(), &another()), Err(refused.clone()));
    // Not even with the secret: who stole that must not replace the key.
    assert_eq!(meet(&mut list, &another(), Verification::Secret), Err(refused));
    let romeo = "romeo@montague.lit".parse().unwrap();
    assert_eq!(list.find(&romeo, &another()), Ok(None));
}

#[test]
fn what_is_shown_raises_and_never_lowers() {
    let mut list = List::default();
    for (shown, becomes, news) in [
        (Verification::FirstUse, Verification::FirstUse, vec!["first use"]),
        (Verification::Accepted, Verification::Accepted, vec![]),
        (Verification::Secret, Verification::Secret, vec!["verified"]),
        (Verification::FirstUse, Verification::Secret, vec![]),
        (Verification::Code, Verification::Code, vec!["verified"]),
        (Verification::Secret, Verification::Code, vec![]),
    ] {
        assert_eq!(meet(&mut list, &old(), shown), Ok((becomes, news)), "{shown:?}");
    }
    list.add(&juliet(), old().fingerprint().clone(), None).unwrap();
    assert_eq!(list.find(&juliet(), &old()), Ok(Some(Verification::Compared)));
    assert_eq!(list.rows().len(), 1);
}

#[test]
fn a_stranger_that_proves_the_secret_is_listed_so() {
    let mut list = List::default();
    assert_eq!(meet(&mut list, &old(), Verification::Secret), Ok((Verification::Secret, vec!["verified"])));
    assert_eq!(list.find(&juliet(), &old()), Ok(Some(Verification::Secret)));
}

#[test]
fn a_renewed_certificate_takes_the_place_of_the_old_one() {
    let mut list = List::default();
    meet(&mut list, &old(), Verification::Code).unwrap();
    assert_eq!(list.find(&juliet(), &renewed()), Ok(Some(Verification::Code)));
    assert_eq!(
        meet(&mut list, &renewed(), Verification::FirstUse),
        Ok((Verification::Code, vec!["renewed"]))
    );
    let listed: Vec<_> = list.of(&juliet()).map(|known| known.fingerprint.clone()).collect();
    assert_eq!(listed, [renewed().fingerprint().clone()]);
}

#[test]
fn whoever_revokes_the_fingerprint_in_his_notes_means_the_key_also_after_a_renewal() {
    let mut list = with_renewal();
    list.revoke(&juliet(), old().fingerprint(), at(5)).unwrap();
    assert_eq!(list.rows().len(), 1);
    for presented in [old(), renewed(), CERTIFICATES[2].clone()] {
        assert_eq!(list.find(&juliet(), &presented), Err(revoked(&presented)));
    }
    let added = list.add(&juliet(), old().fingerprint().clone(), None).unwrap_err();
    assert!(added.to_string().contains("is revoked"), "{added}");
}

#[test]
fn a_revocation_that_a_person_wrote_without_the_key_refuses_what_was_renewed_from_it() {
    let mut list = with_renewal();
    let mut by_hand = KnownCertificate::unseen(juliet(), old().fingerprint().clone());
    by_hand.revoked = Some(SystemTime::UNIX_EPOCH);
    list.push(Row { known: by_hand, origin: None });
    for presented in [old(), renewed(), CERTIFICATES[2].clone()] {
        assert_eq!(list.find(&juliet(), &presented), Err(revoked(&presented)));
    }
    assert_eq!(list.find(&juliet(), &another()), Err(key_changed(&[], &another())));
}

#[test]
fn whoever_adds_or_names_a_certificate_of_before_a_renewal_means_the_renewed_one() {
    let mut list = with_renewal();
    list.add(&juliet(), old().fingerprint().clone(), Some("balcony")).unwrap();
    assert_eq!(list.find(&juliet(), &renewed()), Ok(Some(Verification::Compared)));
    list.label(&juliet(), old().fingerprint(), "garden").unwrap();
    assert_eq!(list.rows().len(), 1);
    assert_eq!(list.of(&juliet()).next().unwrap().label.as_deref(), Some("garden"));

    // What is valid now comes before what was.
    let mut other = KnownCertificate::unseen(juliet(), old().fingerprint().clone());
    other.label = Some("study".to_owned());
    list.push(Row { known: other, origin: None });
    list.label(&juliet(), old().fingerprint(), "cell").unwrap();
    let labels: Vec<_> = list.of(&juliet()).map(|known| known.label.as_deref().unwrap()).collect();
    assert_eq!(labels, ["garden", "cell"]);
}

#[test]
fn no_fingerprint_of_before_is_forgotten_for_a_further_renewal() {
    let mut list = List::default();
    for certificate in &CERTIFICATES[..=MAX_RENEWALS] {
        meet(&mut list, certificate, Verification::FirstUse).unwrap();
    }
    let listed = list.of(&juliet()).next().unwrap();
    let before = CERTIFICATES[..MAX_RENEWALS].iter().map(|certificate| certificate.fingerprint().clone());
    assert_eq!(listed.renewed_from, before.collect::<Vec<_>>());

    let (last, next) = (&CERTIFICATES[MAX_RENEWALS], &CERTIFICATES[MAX_RENEWALS + 1]);
    assert_eq!(list.find(&juliet(), next), Err(key_changed(&[last], next)));
    assert_eq!(meet(&mut list, next, Verification::Secret), Err(key_changed(&[last], next)));
    assert_eq!(list.find(&juliet(), last), Ok(Some(Verification::Known)));

    // It is for the user to say, and then there is room again.
    list.add(&juliet(), next.fingerprint().clone(), None).unwrap();
    assert_eq!(meet(&mut list, next, Verification::FirstUse), Ok((Verification::Compared, vec![])));
    list.revoke(&juliet(), old().fingerprint(), at(5)).unwrap();
    assert_eq!(list.find(&juliet(), next), Err(revoked(next)));
}

#[test]
fn two_programs_with_one_key_do_not_use_up_the_renewals() {
    let mut list = with_renewal();
    for _ in 0..MAX_RENEWALS {
        assert_eq!(meet(&mut list, &old(), Verification::FirstUse).unwrap().1, ["renewed"]);
        assert_eq!(meet(&mut list, &renewed(), Verification::FirstUse).unwrap().1, ["renewed"]);
    }
    assert_eq!(list.of(&juliet()).next().unwrap().renewed_from.len(), 2);
}

#[test]
fn a_certificate_that_a_person_listed_gets_its_key_when_it_is_met() {
    let mut list = List::default();
    let sha512 = Fingerprint::of_with(HashAlgo::Sha512, old().der());
    list.add(&juliet(), sha512.clone(), Some("balcony")).unwrap();
    assert_eq!(list.find(&juliet(), &renewed()), Err(key_changed_from(&sha512, &renewed())));
    assert_eq!(meet(&mut list, &old(), Verification::FirstUse), Ok((Verification::Compared, vec![])));
    let known = list.of(&juliet()).next().unwrap();
    assert_eq!((&known.fingerprint, &known.key), (&sha512, &old().key().cloned()));
    assert_eq!((known.label.as_deref(), known.first_seen), (Some("balcony"), Some(at(0))));
    assert_eq!(list.find(&juliet(), &renewed()), Ok(Some(Verification::Compared)));
}

fn key_changed_from(expected: &Fingerprint, presented: &Certificate) -> SecurityError {
    let presented = presented.fingerprint().clone();
    SecurityError::KeyChanged { peer: juliet(), expected: vec![expected.clone()], presented }
}

#[test]
fn a_person_may_have_several_devices() {
    let mut list = List::default();
    meet(&mut list, &old(), Verification::FirstUse).unwrap();
    list.add(&juliet(), another().fingerprint().clone(), Some("study")).unwrap();
    assert_eq!(list.find(&juliet(), &old()), Ok(Some(Verification::Known)));
    assert_eq!(list.find(&juliet(), &another()), Ok(Some(Verification::Compared)));
    let third = Certificate::from_der(b"a third certificate");
    assert_eq!(list.find(&juliet(), &third), Err(key_changed(&[&old(), &another()], &third)));
}

#[test]
fn what_is_revoked_is_refused_and_its_key_does_not_come_back() {
    let mut list = List::default();
    meet(&mut list, &old(), Verification::Code).unwrap();
    list.revoke(&juliet(), old().fingerprint(), at(5)).unwrap();
    assert_eq!(list.find(&juliet(), &old()), Err(revoked(&old())));
    assert_eq!(list.find(&juliet(), &renewed()), Err(revoked(&renewed())));
    assert_eq!(meet(&mut list, &old(), Verification::Secret), Err(revoked(&old())));
    // Not even if it is listed, which only the user can have done, who said both.
    list.add(&juliet(), renewed().fingerprint().clone(), None).unwrap();
    assert_eq!(list.find(&juliet(), &renewed()), Err(revoked(&renewed())));
}

#[test]
fn a_peer_whose_certificates_are_all_revoked_is_no_stranger() {
    let mut list = List::default();
    list.revoke(&juliet(), old().fingerprint(), at(0)).unwrap();
    let changed = list.find(&juliet(), &another()).unwrap_err();
    assert_eq!(changed, key_changed(&[], &another()));
    assert!(
        changed.to_string().contains("expected none of those before, which are all revoked"),
        "{changed}"
    );
    list.add(&juliet(), another().fingerprint().clone(), None).unwrap();
    assert_eq!(list.find(&juliet(), &another()), Ok(Some(Verification::Compared)));
    list.forget(&juliet());
    assert_eq!(list.find(&juliet(), &old()), Ok(None));
}

#[test]
fn a_revoked_certificate_can_not_be_added_by_mistake() {
    let mut list = List::default();
    list.revoke(&juliet(), old().fingerprint(), at(0)).unwrap();
    list.revoke(&juliet(), old().fingerprint(), at(1)).unwrap();
    let revocations: Vec<_> = list.of(&juliet()).map(|known| known.revoked).collect();
    assert_eq!(revocations, [Some(at(0))], "the first one counts");
    let refused = list.add(&juliet(), old().fingerprint().clone(), None).unwrap_err();
    assert!(refused.to_string().contains("is revoked"), "{refused}");
}

#[test]
fn sha1_is_too_weak_to_be_listed() {
    let mut list = List::default();
    let sha1 = Fingerprint::of_with(HashAlgo::Sha1, old().der());
    assert_eq!(list.add(&juliet(), sha1.clone(), None), Err(refused(SHA1_REFUSED.to_owned())));
    assert_eq!(list.revoke(&juliet(), &sha1, at(0)), Err(refused(SHA1_REFUSED.to_owned())));
    assert_eq!(list, List::default());
}

#[test]
fn only_what_is_listed_can_have_a_label() {
    let mut list = List::default();
    let unlisted = list.label(&juliet(), old().fingerprint(), "balcony").unwrap_err();
    assert!(unlisted.to_string().contains("juliet@capulet.lit is not listed"), "{unlisted}");
    list.add(&juliet(), old().fingerprint().clone(), Some("balcony")).unwrap();
    list.add(&juliet(), old().fingerprint().clone(), None).unwrap();
    assert_eq!(list.of(&juliet()).next().unwrap().label.as_deref(), Some("balcony"));
    list.label(&juliet(), old().fingerprint(), "garden").unwrap();
    assert_eq!(list.of(&juliet()).next().unwrap().label.as_deref(), Some("garden"));
}

#[test]
fn of_many_meetings_in_a_minute_one_is_worth_writing() {
    let mut list = List::default();
    meet(&mut list, &old(), Verification::FirstUse).unwrap();
    let weight = |now| list.plan(&juliet(), &old(), None, now).unwrap().weight();
    assert_eq!(weight(at(0) + Duration::from_secs(59)), Weight::Nothing);
    assert_eq!(weight(at(1)), Weight::LastSeen);
    assert_eq!(weight(SystemTime::UNIX_EPOCH), Weight::Nothing, "a clock that was set back");
    let raised = list.plan(&juliet(), &old(), Some(Verification::Secret), at(1)).unwrap();
    assert_eq!(raised.weight(), Weight::Trust);
}

#[test]
fn a_peer_that_was_just_forgotten_is_not_known_by_having_been() {
    let refused = List::default().plan(&juliet(), &old(), None, at(0)).unwrap_err();
    let presented = old().fingerprint().clone();
    assert_eq!(refused, SecurityError::NotListed { peer: juliet(), presented });
}

/// One more peer that was met.
fn met(list: &mut List, peer: &str, verification: Verification) -> BareJid {
    let peer: BareJid = peer.parse().unwrap();
    let known = KnownCertificate::met(&peer, &another(), verification, at(0));
    list.push(Row { known, origin: None });
    peer
}

#[test]
fn too_many_first_uses_are_refused_and_none_is_forgotten() {
    let mut list = List::default();
    for number in 0..MAX_FIRST_USES {
        met(&mut list, &format!("bot{number}@capulet.lit"), Verification::FirstUse);
    }
    let refused = Err(SecurityError::TooManyPeers { limit: MAX_FIRST_USES });
    assert_eq!(meet(&mut list, &old(), Verification::FirstUse), refused);
    let first = "bot0@capulet.lit".parse().unwrap();
    assert_eq!(list.find(&first, &another()), Ok(Some(Verification::Known)));
    // Strangers can't take the place of whoever has a secret.
    assert!(meet(&mut list, &old(), Verification::Secret).is_ok());
    // One that the user looked at makes room.
    list.add(&first, another().fingerprint().clone(), None).unwrap();
    list.forget(&juliet());
    assert!(meet(&mut list, &old(), Verification::FirstUse).is_ok());
}

#[test]
fn whoever_has_the_secret_for_everybody_can_not_be_remembered_without_end() {
    let mut list = List::default();
    for number in 0..MAX_MET {
        met(&mut list, &format!("bot{number}@capulet.lit"), Verification::Secret);
    }
    for shown in [Verification::FirstUse, Verification::Accepted, Verification::Secret, Verification::Code] {
        let refused = Err(SecurityError::TooManyPeers { limit: MAX_MET });
        assert_eq!(meet(&mut list, &old(), shown), refused, "{shown:?}");
    }
    // The user adds whom he likes, and that takes nobody's room.
    list.add(&juliet(), old().fingerprint().clone(), None).unwrap();
    let one = "bot7@capulet.lit".parse().unwrap();
    list.add(&one, another().fingerprint().clone(), None).unwrap();
    list.forget(&juliet());
    assert!(meet(&mut list, &old(), Verification::Secret).is_ok());
}
