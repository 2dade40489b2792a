//! Certificates over the stream (`jingle-xtls` #exchange, XEP-0189).
//!
//! They are of use for what the peer will do later, with another device say. The stream itself is secured already.

use xmpp_parsers::minidom::Element;

use super::certificate::Certificate;
use crate::{
    error::PeerMisbehaved,
    wire::pubkeys::{self, Dialect, KeyInfo},
};

/// What we answer: our own certificate, which this TLS connection has shown already.
pub(crate) fn answer(dialect: Dialect, own: &Certificate) -> Element {
    let name = own.fingerprint().to_string();
    pubkeys::answer(dialect, &[KeyInfo { name, certificate: own.der().to_vec() }])
}

/// What the peer answered to us; `presented` is what it showed in the TLS handshake. Each certificate is there once, and
/// what can't be read is left out.
pub(crate) fn certificates(
    answer: Option<&Element>,
    presented: &Certificate,
) -> Result<Vec<Certificate>, PeerMisbehaved> {
    let malformed = |what: String| PeerMisbehaved::XmlStream(format!("asked for its certificates: {what}"));
    let answer = answer.ok_or_else(|| malformed("the answer is empty".to_owned()))?;
    let mut certificates: Vec<Certificate> = Vec::new();
    for found in pubkeys::parse(answer).map_err(|why| malformed(why.0))? {
        match found.map(|der| Certificate::from_der(&der)) {
            Ok(certificate) if !is_readable(&certificate, presented) => {
                tracing::debug!(?certificate, "skipped a certificate that can't be read");
            }
            Ok(certificate) if certificates.contains(&certificate) => {}
            Ok(certificate) => certificates.push(certificate),
            Err(why) => tracing::debug!(why = why.0, "skipped a certificate that can't be read"),
        }
    }
    // `jingle-xtls` #exchange: the peer MUST return its own client certificate.
    if !certificates.contains(presented) {
        let fingerprint = presented.fingerprint();
        return Err(malformed(format!(
            "expected {fingerprint} among them, the certificate of this TLS connection, and got {} others",
            certificates.len()
        )));
    }
    Ok(certificates)
}

/// TLS has read the presented one.
fn is_readable(certificate: &Certificate, presented: &Certificate) -> bool {
    certificate == presented || certificate.key().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Certificate {
        Certificate::from_der(b"a certificate that TLS has read")
    }

    fn keys(ders: &[&[u8]]) -> Element {
        let keys: Vec<_> =
            ders.iter().map(|der| KeyInfo { name: String::new(), certificate: der.to_vec() }).collect();
        pubkeys::answer(Dialect::Tmp, &keys)
    }

    #[test]
    fn our_answer_names_the_fingerprint_and_is_understood() {
        let answer = answer(Dialect::Pubkey2, &own());
        let keyinfo = answer.children().next().unwrap();
        assert_eq!(keyinfo.children().next().unwrap().text(), own().fingerprint().to_string());
        assert_eq!(certificates(Some(&answer), &own()), Ok(vec![own()]));
    }

    #[test]
    fn a_certificate_counts_once_and_rubbish_never() {
        let answer = keys(&[own().der(), b"rubbish", own().der()]);
        assert_eq!(certificates(Some(&answer), &own()), Ok(vec![own()]));
    }

    #[test]
    fn an_answer_without_the_certificate_of_the_connection_is_refused() {
        for answer in [keys(&[]), keys(&[b"another one"])] {
            let refused = certificates(Some(&answer), &own()).unwrap_err().to_string();
            assert!(refused.contains(&own().fingerprint().to_string()), "{refused}");
        }
        assert!(certificates(None, &own()).unwrap_err().to_string().contains("empty"));
    }
}
