//! Tests of what certificates say, and of what is not believed of them.

use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};

use super::{
    super::{authorities::Authorities, dice::Dice, identity::fixture},
    *,
};

/// RFC 5280 §4.2.1.6.
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

fn jid(text: &str) -> BareJid {
    text.parse().unwrap()
}

fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
    let mut params = CertificateParams::default();
    change(&mut params);
    Certificate::from_der(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
}

/// One that names these XMPP addresses.
fn naming(addresses: &[&str]) -> Certificate {
    certificate(|params| {
        for address in addresses {
            let name = SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, 5], (*address).into()));
            params.subject_alt_names.push(name);
        }
    })
}

/// One whose subjectAltName is these bytes.
fn with_names(der: &[u8]) -> Certificate {
    let names = CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, der.to_vec());
    certificate(|params| params.custom_extensions.push(names))
}

#[test]
fn the_key_is_the_one_that_openssl_sees() {
    // openssl x509 -in p256.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum
    let expected = "c58b245a1126566d7c44b89bc2aaeba8d11160cab72785c4a774e3cb9085e6d6".parse().unwrap();
    assert_eq!(Certificate::from_der(fixture("p256").certificate_der()).key(), Some(&expected));
}

#[test]
fn what_can_not_be_read_has_no_key_and_is_nobodys() {
    let damaged = Certificate::from_der(b"a certificate");
    assert_eq!((damaged.key(), damaged.expires()), (None, None));
    let why = damaged.check_first_use(&jid("romeo@montague.lit"), now()).unwrap_err();
    assert_eq!(why, "it is no X.509 certificate in DER");

    let der = fixture("p256").certificate_der().to_vec();
    let trailing = Certificate::from_der(&[&der[..], b"!"].concat());
    assert!(trailing.check_first_use(&jid("romeo@montague.lit"), now()).is_err());
    let long = Certificate::from_der(&[&der[..], &[0; MAX_CERTIFICATE_BYTES]].concat());
    assert_eq!(long.key(), None);
    assert_eq!(long.check_first_use(&jid("romeo@montague.lit"), now()).unwrap_err(), "it is too long");
}

#[test]
fn damaged_certificates_do_no_harm() {
    for name in ["ca-service", "rsa2048", "ca-romeo"] {
        let der = fixture(name).certificate_der().to_vec();
        for position in 0..der.len() {
            let _ = Certificate::from_der(&der[..position]);
            for flipped in [0x01, 0x80, 0xFF] {
                let mut damaged = der.clone();
                damaged[position] ^= flipped;
                let _ = Certificate::from_der(&damaged).check_first_use(&jid("romeo@montague.lit"), now());
            }
        }
    }
}

#[test]
fn a_stranger_must_be_valid_now_and_the_refusal_names_the_dates() {
    let romeo = jid("romeo@montague.lit");
    let why = fixture("ca-expired").certificate().check_first_use(&romeo, at(1_800_000_000)).unwrap_err();
    assert_eq!(why, "it expired on 2009-01-31T00:00:00Z, and now it is 2027-01-15T08:00:00Z");
    let why = fixture("ca-early").certificate().check_first_use(&romeo, at(1_800_000_000)).unwrap_err();
    assert_eq!(why, "it is not valid before 2125-01-01T00:00:00Z, and now it is 2027-01-15T08:00:00Z");
}

#[test]
fn both_dates_are_in_the_time_of_validity() {
    let romeo = jid("romeo@montague.lit");
    let expired = fixture("ca-expired");
    let (from, until) = (at(1_230_768_000), at(1_233_360_000));
    let second = Duration::from_secs(1);
    assert_eq!(expired.certificate().expires(), Some(until));
    for (moment, valid) in [(from - second, false), (from, true), (until, true), (until + second, false)] {
        assert_eq!(expired.certificate().check_first_use(&romeo, moment).is_ok(), valid, "{moment:?}");
    }
}

#[test]
fn who_names_addresses_must_name_the_strangers() {
    let romeo = fixture("ca-romeo").certificate().clone();
    assert_eq!(romeo.check_first_use(&jid("romeo@montague.lit"), now()), Ok(()));
    let why = romeo.check_first_use(&jid("juliet@capulet.lit"), now()).unwrap_err();
    assert_eq!(why, "it is for romeo@montague.lit, not for juliet@capulet.lit");
    let several = naming(&["romeo@montague.lit", "juliet@capulet.lit"]);
    assert_eq!(several.check_first_use(&jid("juliet@capulet.lit"), now()), Ok(()));
}

#[test]
fn who_names_no_address_is_believed_of_anybody() {
    for name in ["p256", "ca-service"] {
        let certificate = fixture(name).certificate().clone();
        assert_eq!(certificate.check_first_use(&jid("juliet@capulet.lit"), now()), Ok(()));
    }
}

#[test]
fn addresses_are_compared_as_addresses() {
    let loud = naming(&["ROMEO@Montague.LIT"]);
    assert_eq!(loud.check_first_use(&jid("romeo@montague.lit"), now()), Ok(()));
}

#[test]
fn an_address_with_a_resource_or_none_at_all_is_nobodys() {
    for address in ["romeo@montague.lit/orchard", "romeo@", "", "not an address"] {
        let why = naming(&[address]).check_first_use(&jid("romeo@montague.lit"), now()).unwrap_err();
        assert_eq!(why, format!("it is for {address}, not for romeo@montague.lit"));
    }
}

#[test]
fn an_address_that_is_no_utf_8_string_is_nobodys() {
    // otherName { id-on-xmppAddr, IA5String "romeo@montague.lit" }
    let mut names = vec![0x30, 0x22, 0xA0, 0x20];
    names.extend([0x06, 0x08, 0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x08, 0x05, 0xA0, 0x14, 0x16, 0x12]);
    names.extend(b"romeo@montague.lit");
    let why = with_names(&names).check_first_use(&jid("romeo@montague.lit"), now()).unwrap_err();
    assert_eq!(why, "it is for an XMPP address that is not in UTF-8, not for romeo@montague.lit");
}

#[test]
fn names_that_can_not_be_read_are_refused() {
    let why = with_names(&[0x30, 0x7F]).check_first_use(&jid("romeo@montague.lit"), now()).unwrap_err();
    assert_eq!(why, "its names can't be read");
}

#[test]
fn a_refusal_lists_a_few_names_and_nothing_that_a_terminal_would_obey() {
    let long = "x".repeat(300);
    let names = naming(&["a\u{1b}[2J", &long, "b@c", "d@e", "f@g", "h@i"]);
    let why = names.check_first_use(&jid("romeo@montague.lit"), now()).unwrap_err();
    let expected = format!(
        "it is for a\\u{{1b}}[2J, {}…, b@c, d@e and 2 more, not for romeo@montague.lit",
        "x".repeat(100)
    );
    assert_eq!(why, expected);
}

#[test]
fn certificates_are_equal_if_their_bytes_are() {
    let [one, other] = ["p256", "ed25519"].map(|name| fixture(name).certificate().clone());
    assert_eq!(one, Certificate::from_der(one.der()));
    assert_ne!(one, other);
}

#[test]
fn whatever_a_certificate_is_made_of_it_is_read_or_refused() {
    let authorities = Authorities::from_pem(include_str!("../../../fixtures/tls/ca.pem")).unwrap();
    let peer = jid("romeo@montague.lit");
    let words = ["\u{0}", "\u{30}\u{0}", "\u{30}\u{7f}", "\u{6}\u{8}", "9999", "@", "é"];
    for name in ["p256", "rsa2048", "ca-romeo", "ca-service"] {
        let honest = fixture(name).certificate_der().to_vec();
        for seed in 0..1500 {
            let damaged = Dice::new(seed).damaged(&honest, &words);
            println!("{name}, seed {seed}");
            let certificate = Certificate::from_der(&damaged);
            let believed = certificate.check_first_use(&peer, now());
            assert!(believed.is_err() || certificate.content().is_ok());
            let issued = authorities.check(&peer, &certificate, &[], now());
            assert!(issued.is_err() || damaged == honest, "whatever is changed, the signature is not on it");
            if let Ok(content) = certificate.content() {
                let shown = [content.issuer(), content.subject(), content.not_for(&peer)].concat();
                assert!(shown.len() < 20_000 && !shown.contains(char::is_control), "{shown}");
            }
        }
    }
}
