//! `<security/>` of XTLS (jingle-xtls).

use rxml::xml_ncname;
use xmpp_parsers::minidom::Element;

use super::{jingle::Malformed, ns};

/// Fingerprints in one `<security/>`: one for each hash function that there is, and some.
pub(crate) const MAX_FINGERPRINTS: usize = 8;
/// Methods in one `<security/>`; the draft knows two.
pub(crate) const MAX_METHODS: usize = 8;
/// Length of a fingerprint's text in bytes. SHA-512 with colons has 191, and may be wrapped.
pub(crate) const MAX_FINGERPRINT: usize = 512;
/// Length of the name of a method or a hash function in bytes.
const MAX_NAME: usize = 64;

/// The method that this crate speaks: certificates on both sides.
pub(crate) const METHOD_X509: &str = "x509";

/// Which certificate a party will present, and how it can authenticate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    /// At most [`MAX_FINGERPRINTS`].
    pub(crate) fingerprints: Vec<FingerprintElement>,
    /// Names of methods, at most [`MAX_METHODS`].
    pub(crate) methods: Vec<String>,
}

/// `<fingerprint/>`: as written, to be understood by the security layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FingerprintElement {
    /// The hash function's name, if given.
    pub(crate) algo: Option<String>,
    /// At most [`MAX_FINGERPRINT`] bytes.
    pub(crate) text: String,
}

impl Security {
    /// Whether this is the `<security/>` of XTLS, readable or not.
    pub(crate) fn matches(element: &Element) -> bool {
        element.is("security", ns::XTLS)
    }

    pub(crate) fn parse(element: &Element) -> Result<Self, Malformed> {
        if !Self::matches(element) {
            return Err(Malformed::new("it is no <security/> of XTLS"));
        }
        let mut security = Self::default();
        for child in element.children().filter(|child| child.has_ns(ns::XTLS)) {
            match child.name() {
                "fingerprint" => security.fingerprints.push(FingerprintElement::parse(child)?),
                "method" => security.methods.push(parse_method(child)?),
                _ => (),
            }
            if security.fingerprints.len() > MAX_FINGERPRINTS || security.methods.len() > MAX_METHODS {
                return Err(Malformed(format!(
                    "<security/> has more than {MAX_FINGERPRINTS} fingerprints or {MAX_METHODS} methods"
                )));
            }
        }
        Ok(security)
    }

    pub(crate) fn into_element(self) -> Element {
        let methods = self.methods.into_iter().map(|name| {
            let method = Element::builder("method", ns::XTLS);
            method.attr(xml_ncname!("name").into(), name).build()
        });
        Element::builder("security", ns::XTLS)
            .append_all(self.fingerprints.into_iter().map(FingerprintElement::into_element))
            .append_all(methods)
            .build()
    }
}

impl FingerprintElement {
    fn parse(element: &Element) -> Result<Self, Malformed> {
        // The draft names no attribute at all. COMPAT kaa: `algo`, which we send too. XEP-0320 and others: `hash`.
        let algo = element.attr("algo").or_else(|| element.attr("hash")).map(ToOwned::to_owned);
        if algo.as_ref().is_some_and(|algo| algo.len() > MAX_NAME) {
            return Err(Malformed::new("<fingerprint/> names a hash function that is too long"));
        }
        let text = element.text();
        if text.len() > MAX_FINGERPRINT {
            let length = text.len();
            return Err(Malformed(format!("<fingerprint/> has {length} bytes; at most {MAX_FINGERPRINT}")));
        }
        Ok(Self { algo, text })
    }

    fn into_element(self) -> Element {
        Element::builder("fingerprint", ns::XTLS)
            .attr(xml_ncname!("algo").into(), self.algo)
            .append(self.text)
            .build()
    }
}

fn parse_method(element: &Element) -> Result<String, Malformed> {
    match element.attr("name") {
        Some(name) if name.len() <= MAX_NAME => Ok(name.to_owned()),
        Some(_) => Err(Malformed::new("<method/> has a name that is too long")),
        None => Err(Malformed::new("<method/> has no name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_is_written_with_algo() {
        let fingerprint = FingerprintElement { algo: Some("sha-256".into()), text: "AB:CD".into() };
        let security = Security { fingerprints: vec![fingerprint], methods: vec![METHOD_X509.into()] };
        let expected: Element = "<security xmlns='urn:xmpp:jingle:security:xtls:0'>\
            <fingerprint algo='sha-256'>AB:CD</fingerprint><method name='x509'/></security>"
            .parse()
            .unwrap();
        assert_eq!(security.into_element(), expected);
    }

    #[test]
    fn the_hash_function_may_be_called_algo_or_hash_or_nothing() {
        for (attribute, algo) in
            [("algo='sha1'", Some("sha1")), ("hash='sha-256'", Some("sha-256")), ("", None)]
        {
            let xml = format!(
                "<security xmlns='{}'><fingerprint {attribute}>AB</fingerprint></security>",
                ns::XTLS
            );
            let security = Security::parse(&xml.parse().unwrap()).unwrap();
            assert_eq!(
                security.fingerprints,
                [FingerprintElement { algo: algo.map(Into::into), text: "AB".into() }]
            );
        }
    }

    #[test]
    fn unknown_children_are_ignored_and_other_elements_refused() {
        let xml = format!("<security xmlns='{}'><hint/><method xmlns='urn:example'/></security>", ns::XTLS);
        assert_eq!(Security::parse(&xml.parse().unwrap()), Ok(Security::default()));
        assert!(Security::parse(&Element::bare("security", ns::JINGLE)).is_err());
    }
}
