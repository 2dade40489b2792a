//! Certificates that authorities issued (RFC 6120 §13.7).

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jid::BareJid;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, DnsName, ServerName, TrustAnchor, UnixTime,
    pem::{self, PemObject},
};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::certificate::{Certificate, Content, date};
use crate::error::{Error, SecurityError};

/// The longest PEM text that is read. The authorities that browsers trust take a quarter of it together.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Authorities whose certificates are taken for what they say; see
/// [`Trust::authorities`](super::Trust::authorities).
///
/// A certificate counts if one of them issued it, directly or by intermediates that the peer sends along, if it and
/// those are valid now and made for TLS clients or servers, and if it is for the peer's address (RFC 6120 §13.7.1):
///
/// - for an account, the bare JID as an `XmppAddr`; one with a resource does not count;
/// - for a service (a JID that is a domain), that, or an SRVName `_xmpp-client.…` or `_xmpp-server.…`, or a DNS
///   name, where a wildcard may stand for the whole left-most label. A domain that is not ASCII is only compared with
///   `XmppAddr`;
/// - never the common name.
///
/// With OpenSSL, an authority, and an identity file for Juliet, which [`Identity::load_or_generate_for`] reads:
///
/// ```sh
/// openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=Our bots' \
///     -keyout authority.key -out authority.crt
/// openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout juliet.key -out juliet.csr
/// echo 'subjectAltName=otherName:1.3.6.1.5.5.7.8.5;UTF8:juliet@capulet.lit' > juliet.ext
/// openssl x509 -req -in juliet.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 365 \
///     -extfile juliet.ext -out juliet.crt
/// (umask 077 && cat juliet.crt juliet.key > juliet.pem)
/// ```
///
/// [`Identity::load_or_generate_for`]: super::Identity::load_or_generate_for
///
/// **Revocation lists are not asked**, nor is OCSP. To refuse a certificate before it expires, revoke it in the
/// [`KnownPeers`](super::KnownPeers), which come first.
///
/// Clones are cheap.
#[derive(Clone, Debug)]
pub struct Authorities {
    roots: Arc<[TrustAnchor<'static>]>,
}

impl Authorities {
    /// Reads the authorities' own certificates from PEM text.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`] if there is none, or one of them is damaged or no authority's.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        parse(pem).map_err(|cause| refused(&cause))
    }

    /// Reads them from a file. Blocks on the disk; meant for the start of a program.
    ///
    /// # Errors
    ///
    /// Those of [`from_pem`](Self::from_pem), with the path, also if it can't be read or is longer than 1 MiB.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        read(path)
            .and_then(|pem| parse(&pem))
            .map_err(|cause| refused(&format!("{}: {cause}", path.display())))
    }

    /// Why the certificate was not issued for this address by one of them; `Ok` if it was.
    pub(crate) fn check(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), String> {
        let content = certificate.content()?;
        let der = CertificateDer::from(certificate.der());
        let end_entity = EndEntityCert::try_from(&der)
            .map_err(|error| format!("it can't be read as an end entity's ({error})"))?;
        let moment = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.verify(&end_entity, intermediates, UnixTime::since_unix_epoch(moment))
            .map_err(|error| explain(&error, content, now))?;
        if is_for(peer, content, &end_entity) { Ok(()) } else { Err(content.not_for(peer)) }
    }

    /// RFC 5280 §6, with the extended key usage of a client or of a server: a peer has one certificate, and the session
    /// decides which of the two it is in TLS.
    fn verify(
        &self,
        end_entity: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let verify = |usage| {
            end_entity
                .verify_for_usage(ALL_VERIFICATION_ALGS, &self.roots, intermediates, now, usage, None, None)
                .map(drop)
        };
        match verify(KeyUsage::client_auth()) {
            Err(webpki::Error::RequiredEkuNotFoundContext(_)) => verify(KeyUsage::server_auth()),
            verdict => verdict,
        }
    }
}

/// RFC 6120 §13.7.1.2 for services, §13.7.1.3 for accounts.
fn is_for(peer: &BareJid, content: &Content, end_entity: &EndEntityCert<'_>) -> bool {
    if content.names_xmpp_address(peer) {
        return true;
    }
    if peer.node().is_some() {
        return false;
    }
    let domain = peer.domain().as_str();
    let by_dns = || {
        DnsName::try_from(domain)
            .is_ok_and(|name| end_entity.verify_is_valid_for_subject_name(&ServerName::DnsName(name)).is_ok())
    };
    content.names_xmpp_service(domain) || by_dns()
}

fn explain(error: &webpki::Error, content: &Content, now: SystemTime) -> String {
    let at = |time: &UnixTime| {
        let since = Duration::from_secs(time.as_secs());
        SystemTime::UNIX_EPOCH.checked_add(since).map_or_else(|| "no date".to_owned(), date)
    };
    match error {
        webpki::Error::CertExpired { not_after, .. } => content
            .check_dates(now)
            .err()
            .unwrap_or_else(|| format!("the certificate of one of its issuers expired on {}", at(not_after))),
        webpki::Error::CertNotValidYet { not_before, .. } => {
            content.check_dates(now).err().unwrap_or_else(|| {
                format!("the certificate of one of its issuers is not valid before {}", at(not_before))
            })
        }
        webpki::Error::UnknownIssuer if content.is_self_issued() => {
            "it is self-signed, and so not issued by a trusted authority".to_owned()
        }
        webpki::Error::UnknownIssuer => format!(
            "its issuer is \"{}\", which is no trusted authority, and none issued one that the peer sent along",
            content.issuer()
        ),
        webpki::Error::InvalidSignatureForPublicKey => {
            format!("its issuer is said to be \"{}\", whose signature is not on it", content.issuer())
        }
        webpki::Error::CaUsedAsEndEntity => {
            "it is an authority's own (CA:TRUE), where an end entity's was expected".to_owned()
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            "it is made neither for TLS clients nor for TLS servers (extended key usage)".to_owned()
        }
        other => format!("it could not be verified ({other})"),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error| format!("can't be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mut pem = String::new();
    file.take(MAX_PEM_BYTES + 1).read_to_string(&mut pem).map_err(unreadable)?;
    Ok(pem)
}

fn parse(pem: &str) -> Result<Authorities, String> {
    if pem.len() as u64 > MAX_PEM_BYTES {
        return Err(format!("longer than {MAX_PEM_BYTES} bytes"));
    }
    let roots = CertificateDer::pem_slice_iter(pem.as_bytes())
        .enumerate()
        .map(|(position, der)| root(der).map_err(|cause| format!("certificate {}: {cause}", position + 1)))
        .collect::<Result<Arc<[_]>, _>>()?;
    if roots.is_empty() {
        return Err("there is no certificate (BEGIN CERTIFICATE)".to_owned());
    }
    Ok(Authorities { roots })
}

fn root(der: Result<CertificateDer<'static>, pem::Error>) -> Result<TrustAnchor<'static>, String> {
    let der = der.map_err(|error| format!("damaged: {error}"))?;
    let certificate = Certificate::from_der(&der);
    let content = certificate.content()?;
    // What an end entity's key signs would count as issued.
    if !content.is_authority() {
        return Err(format!("that of \"{}\" is no authority's (CA:TRUE is missing)", content.subject()));
    }
    let anchor = anchor_from_trusted_cert(&der).map_err(|error| format!("damaged: {error}"))?;
    Ok(anchor.to_owned())
}

fn refused(cause: &str) -> Error {
    SecurityError::Identity(format!("authorities: {cause}")).into()
}

#[cfg(test)]
mod tests;
