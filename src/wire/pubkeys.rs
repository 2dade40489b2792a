//! Certificates over the stream (jingle-xtls #exchange, after XEP-0189 0.7).

use base64::{Engine, engine::general_purpose::STANDARD};
use xmpp_parsers::minidom::Element;

use super::{decode_base64, jingle::Malformed, ns};

/// Certificates in one answer: those of a user's devices, and the user's own.
pub(crate) const MAX_CERTIFICATES: usize = 16;
/// Characters of base64 in one answer: twice the largest certificate that a TLS handshake may bring, 32 KiB, and some
/// white space.
pub(crate) const MAX_CHARACTERS: usize = 96 * 1024;

/// Which of its two namespaces `<pubkeys/>` is in. An answer is in that of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As jingle-xtls prints it.
    Tmp,
    // COMPAT Gajim: up to 1.5.3 it asks, and answers, in XEP-0189's present namespace with the elements of its earlier version.
    Pubkey2,
}

impl Dialect {
    /// `None` if that is no `<pubkeys/>`.
    pub(crate) fn of(element: &Element) -> Option<Self> {
        [Self::Tmp, Self::Pubkey2].into_iter().find(|dialect| element.is("pubkeys", dialect.ns()))
    }

    fn ns(self) -> &'static str {
        match self {
            Self::Tmp => ns::PUBKEY_TMP,
            Self::Pubkey2 => ns::PUBKEY,
        }
    }

    pub(crate) fn request(self) -> Element {
        Element::bare("pubkeys", self.ns())
    }
}

/// `<keyinfo/>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyInfo {
    /// `<name/>`: a fingerprint. It says no more than the certificate itself, so it is not read.
    pub(crate) name: String,
    /// `<x509cert/>`: DER.
    pub(crate) certificate: Vec<u8>,
}

impl KeyInfo {
    fn to_element(&self, ns: &'static str) -> Element {
        let child = |name, text: String| Element::builder(name, ns).append(text).build();
        Element::builder("keyinfo", ns)
            .append(child("name", self.name.clone()))
            .append(child("x509cert", STANDARD.encode(&self.certificate)))
            .build()
    }
}

/// `<pubkeys/>` with these.
pub(crate) fn answer(dialect: Dialect, keys: &[KeyInfo]) -> Element {
    let ns = dialect.ns();
    Element::builder("pubkeys", ns).append_all(keys.iter().map(|key| key.to_element(ns))).build()
}

/// What an answer contains; each certificate, or why it can't be read.
pub(crate) fn parse(element: &Element) -> Result<Vec<Result<Vec<u8>, Malformed>>, Malformed> {
    let Some(dialect) = Dialect::of(element) else {
        return Err(Malformed::new("the answer has no <pubkeys/>"));
    };
    let ns = dialect.ns();
    let mut characters = 0_usize;
    let mut found = Vec::new();
    for keyinfo in element.children().filter(|child| child.is("keyinfo", ns)) {
        if found.len() == MAX_CERTIFICATES {
            return Err(Malformed(format!("<pubkeys/> has more than {MAX_CERTIFICATES} certificates")));
        }
        let text = keyinfo.get_child("x509cert", ns).map(Element::text);
        characters = characters.saturating_add(text.as_ref().map_or(0, String::len));
        if characters > MAX_CHARACTERS {
            return Err(Malformed(format!("<pubkeys/> has more than {MAX_CHARACTERS} characters")));
        }
        found.push(certificate(text));
    }
    Ok(found)
}

fn certificate(text: Option<String>) -> Result<Vec<u8>, Malformed> {
    let text = text.ok_or_else(|| Malformed::new("<keyinfo/> has no <x509cert/>"))?;
    decode_base64(&text).map_err(|error| Malformed(format!("<x509cert/> is not valid base64: {error}")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DIALECTS: [Dialect; 2] = [Dialect::Tmp, Dialect::Pubkey2];

    fn payload(file: &str) -> Element {
        let path = format!("{}/fixtures/{file}.xml", env!("CARGO_MANIFEST_DIR"));
        let iq = fs::read_to_string(path).unwrap().replacen("<iq ", "<iq xmlns='jabber:client' ", 1);
        iq.parse::<Element>().unwrap().children().next().unwrap().clone()
    }

    fn key(certificate: &[u8]) -> KeyInfo {
        KeyInfo { name: "AB:CD".into(), certificate: certificate.to_vec() }
    }

    #[test]
    fn the_printed_request_and_its_answer_are_understood() {
        assert_eq!(payload("xtls/pubkeys-request"), Dialect::Tmp.request());
        let found = parse(&payload("xtls/pubkeys-result")).unwrap();
        let [Ok(der)] = &found[..] else { panic!("{found:?}") };
        // A SEQUENCE of 521 bytes.
        assert_eq!((der.len(), &der[..4]), (525, [0x30, 0x82, 0x02, 0x09].as_slice()));
    }

    #[test]
    fn an_answer_is_read_back_in_either_namespace() {
        for dialect in DIALECTS {
            let element = answer(dialect, &[key(b"one"), key(b"two")]);
            assert_eq!(Dialect::of(&element), Some(dialect));
            assert_eq!(parse(&element), Ok(vec![Ok(b"one".to_vec()), Ok(b"two".to_vec())]));
        }
    }

    #[test]
    fn xep_0189s_own_request_is_another_one() {
        assert_eq!(Dialect::of(&payload("xep-0189/pubkey-request")), None);
        assert!(parse(&payload("xep-0189/pubkey-result")).is_err());
    }

    #[test]
    fn what_is_unreadable_does_not_hide_the_rest() {
        let xml = format!(
            "<pubkeys xmlns='{}'><hint/><keyinfo/><keyinfo><x509cert>?</x509cert></keyinfo>\
             <keyinfo><x509cert>Um9t\n ZW8=</x509cert></keyinfo></pubkeys>",
            ns::PUBKEY
        );
        let found = parse(&xml.parse().unwrap()).unwrap();
        assert!(matches!(&found[..], [Err(_), Err(_), Ok(der)] if der == b"Romeo"), "{found:?}");
    }

    #[test]
    fn an_answer_has_an_end() {
        let full = vec![key(b"x"); MAX_CERTIFICATES];
        assert_eq!(parse(&answer(Dialect::Tmp, &full)).unwrap().len(), MAX_CERTIFICATES);
        let many = vec![key(b"x"); MAX_CERTIFICATES + 1];
        assert!(parse(&answer(Dialect::Tmp, &many)).unwrap_err().0.contains("16 certificates"));

        let large = key(&vec![0; MAX_CHARACTERS / 4 * 3]);
        assert!(parse(&answer(Dialect::Tmp, std::slice::from_ref(&large))).is_ok());
        assert!(parse(&answer(Dialect::Tmp, &[large, key(b"x")])).unwrap_err().0.contains("characters"));
    }
}
