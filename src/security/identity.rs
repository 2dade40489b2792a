//! Our own certificate and its private key.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use tempfile::NamedTempFile;
use tokio_rustls::rustls::{
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use zeroize::Zeroize;

use super::fingerprint::Fingerprint;
use crate::error::{Error, SecurityError};

/// The certificate's only name. It says nothing about the bot: one identity may serve several accounts, and peers know
/// it by its fingerprint.
const COMMON_NAME: &str = "jingle-xmlstream";

/// How long before now a new certificate becomes valid: peers' clocks may be behind.
const BACKDATED: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a new certificate is valid. Peers know it by its fingerprint, and to replace it they all have to be told;
/// 20 years keep those peers happy that look at the date all the same.
const VALID_FOR: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);

/// More than any certificate with its key takes; a larger file is something else.
const MAX_PEM_BYTES: u64 = 64 * 1024;

/// Our own certificate and its private key, with which we prove to peers who we are.
///
/// Clones are cheap and share the key. `Debug` shows only the fingerprint. The key is wiped from memory when the last
/// clone is dropped, as far as this crate holds copies of it.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    certified: Arc<CertifiedKey>,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// Makes a new self-signed certificate with an ECDSA P-256 key, valid from yesterday for 20 years.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`] if the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        fresh_certificate()
            .map_err(|error| error.to_string())
            .and_then(|(certificate, key)| Self::new(certificate, key))
            .map_err(|cause| refused(format!("a new one can't be made: {cause}")))
    }

    /// Reads the identity from a file (see [`from_pem`](Self::from_pem)), or makes a new one and stores it there if
    /// there is no such file. Blocks on the disk; meant for the start of a program.
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
        load_or_generate(path).map_err(|cause| refused(format!("{}: {cause}", path.display())))
    }

    /// Reads a certificate and its private key (PKCS#8, not encrypted) from PEM text. Of several certificates the first
    /// one counts.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`] if either is missing or damaged, or they do not belong together.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        parse(pem).map_err(refused)
    }

    /// The certificate and the private key as PEM text. **Who reads it can pass for us**: keep it secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut text = pem_section("CERTIFICATE", &self.0.certificate);
        text.push_str(&pem_section("PRIVATE KEY", self.0.key.secret_pkcs8_der()));
        text
    }

    /// The certificate's SHA-256 fingerprint: what peers pin.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.0.fingerprint
    }

    /// The certificate, in DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.0.certificate
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.certified)
    }

    fn new(certificate: CertificateDer<'static>, key: PrivatePkcs8KeyDer<'static>) -> Result<Self, String> {
        let key = PrivateKeyDer::Pkcs8(key);
        let signing = aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|error| format!("the private key can't be used: {error}"))?;
        let certified = CertifiedKey::new(vec![certificate.clone()], signing);
        certified.keys_match().map_err(|error| format!("certificate and private key do not fit: {error}"))?;
        let PrivateKeyDer::Pkcs8(key) = key else { return Err("the private key is not PKCS#8".to_owned()) };
        let fingerprint = Fingerprint::of(&certificate);
        Ok(Self(Arc::new(Inner { certified: Arc::new(certified), certificate, key, fingerprint })))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0.fingerprint)
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

fn fresh_certificate() -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // An initiator is the TLS client, a responder the TLS server, and we are both.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(BACKDATED);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(BACKDATED);
    params.not_after = params.not_before + VALID_FOR;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.into(), PrivatePkcs8KeyDer::from(key.serialize_der())))
}

fn load_or_generate(path: &Path) -> Result<Identity, String> {
    if let Some(identity) = load(path)? {
        return Ok(identity);
    }
    let fresh = Identity::generate().map_err(|error| error.to_string())?;
    if store_new(path, &fresh.to_pem()).map_err(|error| format!("can't be written: {error}"))? {
        return Ok(fresh);
    }
    // Somebody else was quicker.
    load(path)?.ok_or_else(|| "is there, but leads to no file (a dangling symbolic link?)".to_owned())
}

/// `None` if there is no such file.
fn load(path: &Path) -> Result<Option<Identity>, String> {
    let unreadable = |error: io::Error| format!("can't be read: {error}");
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    refuse_shared(&file)?;
    let mut text = String::new();
    file.take(MAX_PEM_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_PEM_BYTES {
        return Err(format!("is longer than {MAX_PEM_BYTES} bytes, so it is no identity"));
    }
    let identity = parse(&text);
    text.zeroize();
    identity.map(Some)
}

/// A key that others could read may be theirs already.
#[cfg(unix)]
fn refuse_shared(file: &File) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;

    let mode = file.metadata().map_err(|error| format!("can't be read: {error}"))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let mode = mode & 0o777;
    Err(format!("holds a private key, and its mode {mode:03o} gives others access to it (`chmod 600` helps)"))
}

#[cfg(not(unix))]
fn refuse_shared(_: &File) -> Result<(), String> {
    Ok(())
}

/// False if there is a file by that name already.
fn store_new(path: &Path, text: &str) -> io::Result<bool> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Mode 0600 from the start; the name of the real file comes only when all of it is on the disk.
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    match temporary.persist_noclobber(path) {
        Ok(_) => sync_folder(folder).map(|()| true),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(refused) => Err(refused.error),
    }
}

/// Makes the new name itself survive a power failure.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

fn parse(text: &str) -> Result<Identity, String> {
    let certificate = CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|error| damaged("certificate (BEGIN CERTIFICATE)", &error))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| damaged("unencrypted PKCS#8 private key (BEGIN PRIVATE KEY)", &error))?;
    Identity::new(certificate, key)
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

#[cfg(test)]
mod tests;
