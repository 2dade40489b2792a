//! Our own certificate and its private key.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use jid::BareJid;
use tokio_rustls::rustls::{
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use zeroize::Zeroize;

use super::{
    certificate::{Certificate, KeyPin, MAX_CERTIFICATE_BYTES},
    fingerprint::Fingerprint,
};
use crate::error::{Error, SecurityError};

mod file;
mod issue;

/// The most certificates of an identity: its own, and those of the authorities between it and a root.
const MAX_CHAIN: usize = 8;

/// Our own certificate and its private key, with which we prove to peers who we are.
///
/// Clones are cheap and share the key. `Debug` shows only the fingerprint. The key is wiped from memory when the last
/// clone is dropped, as far as this crate holds copies of it.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    /// The certificate, then those of its issuers, and what signs.
    certified: Arc<CertifiedKey>,
    certificate: Certificate,
    key: PrivatePkcs8KeyDer<'static>,
    pin: KeyPin,
}

impl Identity {
    /// Makes a new self-signed certificate with an ECDSA P-256 key, valid from yesterday for 20 years, that names
    /// nobody.
    ///
    /// For a bot with several accounts, which serves them all, or with peers that pin its fingerprint, which stays.
    /// For a bot with one account [`generate_for`](Self::generate_for) is better: peers that know nothing of it yet
    /// refuse it in another's name.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`] if the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        issue::nameless().map_err(|cause| refused(format!("a new one can't be made: {cause}")))
    }

    /// Makes a new self-signed certificate with an ECDSA P-256 key for an account, which it names (`XmppAddr`, RFC 6120
    /// §13.7.1.4), valid from yesterday for two years. [`renew`](Self::renew) it before that is over.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`] if the system has no randomness to give.
    pub fn generate_for(jid: &BareJid) -> Result<Self, Error> {
        issue::new_for(jid, SystemTime::now())
            .map_err(|cause| refused(format!("a new one can't be made: {cause}")))
    }

    /// Makes another certificate for the same key and this account, valid from yesterday for two years. Peers that
    /// know the [key](Self::key) know it, too; those that pin the [fingerprint](Self::fingerprint) do not.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`] if an authority issued the certificate: it is to be asked for another.
    pub fn renew(&self, jid: &BareJid) -> Result<Self, Error> {
        issue::renewed(self, jid, SystemTime::now())
            .map_err(|cause| refused(format!("it can't be renewed: {cause}")))
    }

    /// Reads the identity from a file (see [`from_pem`](Self::from_pem)), or makes a [new one](Self::generate) and
    /// stores it there if there is no such file. Blocks on the disk; meant for the start of a program.
    ///
    /// A new file appears complete or not at all, and can be read by its owner only (on Unix). Of several programs
    /// that do this at the same time, all end up with the same identity.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`], with the path and the cause: the file can't be read or written, is no identity, or
    /// (on Unix) may be read by others than its owner. An existing file is never changed.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        file::load_or_generate(path).map_err(|cause| refused(format!("{}: {cause}", path.display())))
    }

    /// The same for an account: makes one [for it](Self::generate_for), and [renews](Self::renew) it when less than a
    /// third of its time is left. Blocks on the disk; meant for the start of a program, and to be called again by one
    /// that runs for months.
    ///
    /// Only self-signed certificates that this crate made are ever renewed; others, those of authorities above all,
    /// are taken as they are. The file is replaced in one step and keeps its mode. Of several programs that do this
    /// at the same time, all end up with the same identity; where files can't be locked, at least with the same key.
    ///
    /// # Errors
    ///
    /// As those of [`load_or_generate`](Self::load_or_generate); also if the certificate that is there names another
    /// account, since each needs a file of its own then. One that names nobody is left as it is until it is to be
    /// renewed. A renewed one that can't be stored is only an error if the old one is no longer valid.
    pub fn load_or_generate_for(path: impl AsRef<Path>, jid: &BareJid) -> Result<Self, Error> {
        let path = path.as_ref();
        file::load_or_generate_for(path, jid, SystemTime::now())
            .map_err(|cause| refused(format!("{}: {cause}", path.display())))
    }

    /// Reads a certificate and its private key (PKCS#8, not encrypted) from PEM text. The first certificate is our
    /// own; up to seven more are those between it and an authority that peers trust, and are sent along.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`] if either is missing or damaged, or they do not belong together, or there are too
    /// many.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        parse(pem).map_err(refused)
    }

    /// The certificates and the private key as PEM text. **Who reads it can pass for us**: keep it secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut text = String::new();
        for certificate in &self.0.certified.cert {
            text.push_str(&pem_section("CERTIFICATE", certificate));
        }
        text.push_str(&pem_section("PRIVATE KEY", self.0.key.secret_pkcs8_der()));
        text
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.0.certificate
    }

    /// The certificate's SHA-256 fingerprint: what peers pin.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        self.0.certificate.fingerprint()
    }

    /// The hash over the public key: what peers pin that are to know us after a [renewal](Self::renew), too.
    #[must_use]
    pub fn key(&self) -> &KeyPin {
        &self.0.pin
    }

    /// The certificate, in DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        self.0.certificate.der()
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.certified)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivatePkcs8KeyDer<'static>) -> Result<Self, String> {
        let key = PrivateKeyDer::Pkcs8(key);
        let signing = aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|error| format!("the private key can't be used: {error}"))?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|error| format!("certificate and private key do not fit: {error}"))?;
        let PrivateKeyDer::Pkcs8(key) = key else { return Err("the private key is not PKCS#8".to_owned()) };
        let der = certified.end_entity_cert().map_err(|error| error.to_string())?;
        let certificate = Certificate::from_der(der);
        let pin = certificate.key().cloned().ok_or("the certificate can't be read")?;
        Ok(Self(Arc::new(Inner { certified: Arc::new(certified), certificate, key, pin })))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn refused(cause: String) -> Error {
    Error::Security(SecurityError::Identity(cause))
}

fn parse(text: &str) -> Result<Identity, String> {
    const CERTIFICATE: &str = "certificate (BEGIN CERTIFICATE)";
    let chain = CertificateDer::pem_slice_iter(text.as_bytes())
        .take(MAX_CHAIN + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| damaged(CERTIFICATE, &error))?;
    if chain.is_empty() {
        return Err(damaged(CERTIFICATE, &pem::Error::NoItemsFound));
    }
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    // Peers, at least those of our kind, refuse more.
    if chain.len() > MAX_CHAIN || bytes > MAX_CERTIFICATE_BYTES {
        return Err(format!(
            "has more than {MAX_CHAIN} certificates or {MAX_CERTIFICATE_BYTES} bytes of them: its own and those of its \
             issuers were expected"
        ));
    }
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| damaged("unencrypted PKCS#8 private key (BEGIN PRIVATE KEY)", &error))?;
    Identity::new(chain, key)
}

fn damaged(what: &str, error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => format!("has no {what}"),
        pem::Error::MissingSectionEnd { .. } => "is cut off in the middle of a PEM section".to_owned(),
        other => format!("has no readable {what}: {other}"),
    }
}

/// One section of a PEM file (RFC 7468 §2).
fn pem_section(label: &str, der: &[u8]) -> String {
    /// 48 bytes make a line of 64 characters.
    const LINE_BYTES: usize = 48;
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(LINE_BYTES) {
        BASE64_STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// One of `fixtures/tls`.
#[cfg(test)]
pub(super) fn fixture(name: &str) -> Identity {
    let path = format!("{}/fixtures/tls/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    Identity::from_pem(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[cfg(test)]
mod tests;
