//! Tests of what authorities vouch for.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};

use super::{super::identity::fixture, *};

const CA: &str = include_str!("../../../fixtures/tls/ca.pem");
const OTHER_CA: &str = include_str!("../../../fixtures/tls/other-ca.pem");

fn jid(text: &str) -> BareJid {
    text.parse().unwrap()
}

/// What the authority says of the identity in a fixture, chain and all.
fn check(name: &str, peer: &str) -> Result<(), String> {
    let identity = fixture(name);
    let key = identity.certified_key();
    let (_, intermediates) = key.cert.split_first().unwrap();
    Authorities::from_pem(CA).unwrap().check(
        &jid(peer),
        identity.certificate(),
        intermediates,
        SystemTime::now(),
    )
}

/// An authority made up on the spot, and what it issues.
fn issue(change: impl FnOnce(&mut CertificateParams)) -> (Authorities, Certificate) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    change(&mut params);
    let issued = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let authorities = parse_root(issuer.der());
    (authorities, Certificate::from_der(issued.der()))
}

fn parse_root(der: &CertificateDer<'static>) -> Authorities {
    Authorities { roots: Arc::new([root(Ok(der.clone())).unwrap()]) }
}

#[test]
fn an_account_is_vouched_for_by_its_address() {
    assert_eq!(check("ca-romeo", "romeo@montague.lit"), Ok(()));
    let why = check("ca-romeo", "juliet@capulet.lit").unwrap_err();
    assert_eq!(why, "it is for romeo@montague.lit, not for juliet@capulet.lit");
    // Nor does the account stand for its server.
    assert!(check("ca-romeo", "montague.lit").is_err());
}

#[test]
fn an_issuer_in_between_vouches_if_the_peer_sends_its_certificate() {
    assert_eq!(check("chain-romeo", "romeo@montague.lit"), Ok(()));
    let alone = fixture("chain-romeo");
    let why = Authorities::from_pem(CA)
        .unwrap()
        .check(&jid("romeo@montague.lit"), alone.certificate(), &[], SystemTime::now())
        .unwrap_err();
    assert!(why.starts_with("its issuer is \"CN=intermediate\", which is no trusted authority"), "{why}");
}

#[test]
fn a_service_is_vouched_for_by_srv_name_dns_name_or_wildcard() {
    for service in ["capulet.lit", "rooms.capulet.lit", "pubsub.verona.lit"] {
        assert_eq!(check("ca-service", service), Ok(()), "{service}");
    }
    for other in ["montague.lit", "verona.lit", "a.b.verona.lit", "x.capulet.lit", "ca-service"] {
        let why = check("ca-service", other).unwrap_err();
        let names = "rooms.capulet.lit, *.verona.lit, _xmpp-server.capulet.lit";
        assert_eq!(why, format!("it is for {names}, not for {other}"));
    }
}

#[test]
fn a_services_names_are_no_accounts() {
    for account in ["romeo@capulet.lit", "romeo@rooms.capulet.lit", "romeo@pubsub.verona.lit"] {
        assert!(check("ca-service", account).is_err(), "{account}");
    }
}

#[test]
fn a_wildcard_is_a_whole_label() {
    for (name, service, vouched) in
        [("*.verona.lit", "a.verona.lit", true), ("a*.verona.lit", "ab.verona.lit", false)]
    {
        let (authorities, certificate) = issue(|params| {
            params.subject_alt_names.push(SanType::DnsName(name.try_into().unwrap()));
        });
        let verdict = authorities.check(&jid(service), &certificate, &[], SystemTime::now());
        assert_eq!(verdict.is_ok(), vouched, "{verdict:?}");
    }
}

#[test]
fn the_common_name_does_not_count() {
    let (authorities, certificate) = issue(|params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "capulet.lit");
    });
    let why = authorities.check(&jid("capulet.lit"), &certificate, &[], SystemTime::now()).unwrap_err();
    assert_eq!(why, "it has no names that count (the common name does not), and capulet.lit was expected");
}

#[test]
fn dates_count_and_are_named() {
    let why = check("ca-expired", "romeo@montague.lit").unwrap_err();
    assert!(why.starts_with("it expired on 2009-01-31T00:00:00Z, and now it is "), "{why}");
    let why = check("ca-early", "romeo@montague.lit").unwrap_err();
    assert!(why.starts_with("it is not valid before 2125-01-01T00:00:00Z, and now it is "), "{why}");
}

#[test]
fn an_issuer_in_between_that_is_expired_is_named_as_such() {
    let authority = || {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let key = || KeyPair::generate().unwrap();
    let top = CertifiedIssuer::self_signed(authority(), key()).unwrap();
    let mut params = authority();
    params.distinguished_name.push(rcgen::DnType::CommonName, "in between");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let between = CertifiedIssuer::signed_by(params, key(), &top).unwrap();
    let issued = CertificateParams::default().signed_by(&key(), &between).unwrap();
    let why = parse_root(top.der())
        .check(
            &jid("romeo@montague.lit"),
            &Certificate::from_der(issued.der()),
            &[between.der().clone()],
            SystemTime::now(),
        )
        .unwrap_err();
    assert_eq!(why, "the certificate of one of its issuers expired on 2020-01-01T00:00:00Z");
}

#[test]
fn another_authority_does_not_count() {
    let why = check("other-ca-romeo", "romeo@montague.lit").unwrap_err();
    assert!(why.starts_with("its issuer is \"CN=other-ca\", which is no trusted authority"), "{why}");
    let both = Authorities::from_pem(&format!("{CA}{OTHER_CA}")).unwrap();
    let romeo = fixture("other-ca-romeo");
    let verdict = both.check(&jid("romeo@montague.lit"), romeo.certificate(), &[], SystemTime::now());
    assert_eq!(verdict, Ok(()));
}

#[test]
fn a_namesake_of_the_authority_is_not_it() {
    let (_, certificate) = issue(|_| {});
    let (namesake, _) = issue(|_| {});
    let why = namesake.check(&jid("romeo@montague.lit"), &certificate, &[], SystemTime::now()).unwrap_err();
    assert!(why.ends_with("whose signature is not on it"), "{why}");
}

#[test]
fn what_nobody_issued_is_not_vouched_for() {
    let own = super::super::Identity::generate_for(&jid("romeo@montague.lit")).unwrap();
    let why = Authorities::from_pem(CA)
        .unwrap()
        .check(&jid("romeo@montague.lit"), own.certificate(), &[], SystemTime::now())
        .unwrap_err();
    assert_eq!(why, "it is self-signed, and so not issued by a trusted authority");
    let garbage = Certificate::from_der(b"garbage");
    let garbage = Authorities::from_pem(CA).unwrap().check(&jid("a@b"), &garbage, &[], SystemTime::now());
    assert_eq!(garbage.unwrap_err(), "it is no X.509 certificate in DER");
}

#[test]
fn an_authoritys_own_certificate_is_no_peers() {
    let ca = CertificateDer::from_pem_slice(CA.as_bytes()).unwrap();
    let ca = Certificate::from_der(&ca);
    let authorities = Authorities::from_pem(CA).unwrap();
    let why = authorities.check(&jid("romeo@montague.lit"), &ca, &[], SystemTime::now()).unwrap_err();
    assert_eq!(why, "it is an authority's own (CA:TRUE), where an end entity's was expected");
}

#[test]
fn what_is_made_for_something_else_is_refused() {
    let name = || SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, 5], "romeo@montague.lit".into()));
    for (usage, vouched) in [
        (ExtendedKeyUsagePurpose::ClientAuth, true),
        (ExtendedKeyUsagePurpose::ServerAuth, true),
        (ExtendedKeyUsagePurpose::CodeSigning, false),
    ] {
        let (authorities, certificate) = issue(|params| {
            params.extended_key_usages.push(usage.clone());
            params.subject_alt_names.push(name());
        });
        let verdict = authorities.check(&jid("romeo@montague.lit"), &certificate, &[], SystemTime::now());
        assert_eq!(verdict.is_ok(), vouched, "{usage:?} {verdict:?}");
        assert!(vouched || verdict.unwrap_err().contains("neither for TLS clients nor for TLS servers"));
    }
}

#[test]
fn what_is_no_authority_can_not_be_trusted_as_one() {
    let peer =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls/ca-romeo.pem")).unwrap();
    for (pem, expected) in [
        (String::new(), "identity: authorities: there is no certificate (BEGIN CERTIFICATE)"),
        (
            peer,
            "identity: authorities: certificate 1: that of \"CN=ca-romeo\" is no authority's (CA:TRUE is missing)",
        ),
        (format!("{CA}{}", &CA[..200]), "identity: authorities: certificate 2: damaged"),
        ("x".repeat(2_000_000), "identity: authorities: longer than 1048576 bytes"),
    ] {
        let Err(Error::Security(error)) = Authorities::from_pem(&pem) else { panic!("{expected}") };
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn a_file_is_named_in_its_errors() {
    Authorities::from_pem_file(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls/ca.pem")).unwrap();
    let Err(Error::Security(error)) = Authorities::from_pem_file("nowhere.pem") else { panic!() };
    assert!(error.to_string().starts_with("identity: authorities: nowhere.pem: can't be read"), "{error}");
}
