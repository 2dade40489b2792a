//! Making certificates of our own.

use std::time::{Duration, SystemTime};

use jid::BareJid;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::{super::certificate::Content, Identity};

/// The subject and issuer of our certificates. It says nothing about the bot, and by it we know which ones are of our
/// making.
const COMMON_NAME: &str = "jingle-xmlstream";

/// How [`Content`] writes that.
const SUBJECT: &str = "CN=jingle-xmlstream";

/// How long before now a new certificate becomes valid: peers' clocks may be behind.
const BACKDATED: Duration = DAY;

/// How long a certificate is valid that names nobody. Nothing renews it: peers know it by its fingerprint, and to
/// replace it they all have to be told; 20 years keep those peers happy that look at the date all the same.
const NAMELESS_FOR: Duration = DAY.saturating_mul(20 * 365);

/// How long a certificate is valid that names its account. Long enough that a bot which is started once a year renews
/// it in time; short enough that one which is found in an old backup is soon worth nothing to strangers.
const NAMED_FOR: Duration = DAY.saturating_mul(2 * 365);

/// It is renewed when less than one part in so many of its time is left.
const RENEWED_IN_THE_LAST: u32 = 3;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// id-on-xmppAddr (RFC 6120 §13.7.1.4).
const XMPP_ADDR: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 8, 5];

pub(super) fn nameless() -> Result<Identity, String> {
    self_signed(&new_key()?, None, NAMELESS_FOR, SystemTime::now())
}

pub(super) fn new_for(jid: &BareJid, now: SystemTime) -> Result<Identity, String> {
    self_signed(&new_key()?, Some(jid), NAMED_FOR, now)
}

pub(super) fn renewed(identity: &Identity, jid: &BareJid, now: SystemTime) -> Result<Identity, String> {
    let content = identity.certificate().content()?;
    if !content.is_self_issued() {
        return Err(format!("\"{}\" issued it, and has to be asked for another", content.issuer()));
    }
    let key = KeyPair::try_from(&identity.0.key).map_err(|error| error.to_string())?;
    self_signed(&key, Some(jid), NAMED_FOR, now)
}

/// Whether the certificate is of our making, which makes it ours to replace.
pub(super) fn is_ours(content: &Content) -> bool {
    content.is_self_issued() && content.subject() == SUBJECT
}

/// Whether a certificate is to be renewed. One that is not valid yet is not: it is the clock that is wrong.
pub(super) fn is_due(content: &Content, now: SystemTime) -> bool {
    let (from, until) = (content.not_before(), content.not_after());
    let lifetime = until.duration_since(from).unwrap_or_default();
    let left = until.duration_since(now).unwrap_or_default();
    left < lifetime / RENEWED_IN_THE_LAST
}

fn new_key() -> Result<KeyPair, String> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())
}

fn self_signed(
    key: &KeyPair,
    jid: Option<&BareJid>,
    valid_for: Duration,
    now: SystemTime,
) -> Result<Identity, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // An initiator is the TLS client, a responder the TLS server, and we are both.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    if let Some(jid) = jid {
        params.subject_alt_names.push(SanType::OtherName((XMPP_ADDR.to_vec(), jid.as_str().into())));
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(BACKDATED);
    // RFC 5280 §4.1.2.2: no two of one issuer. rcgen would make it from the key alone, which a renewal keeps.
    params.serial_number = Some(serial_number()?);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(BACKDATED);
    params.not_after = params.not_before + BACKDATED + valid_for;
    let certificate = params.self_signed(key).map_err(|error| error.to_string())?;
    Identity::new(vec![certificate.into()], PrivatePkcs8KeyDer::from(key.serialize_der()))
}

/// 16 random bytes, as a positive number.
fn serial_number() -> Result<SerialNumber, String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system has no randomness to give")?;
    Ok(SerialNumber::from([&[1], &bytes[..]].concat()))
}
