//! What a certificate says: dates, names, issuer (RFC 5280 §4).

use std::{fmt, time::SystemTime};

use jid::{BareJid, Jid};
use x509_cert::{
    Certificate as Parsed,
    der::{
        Any, DateTime, Decode,
        asn1::{Ia5StringRef, ObjectIdentifier, Utf8StringRef},
    },
    ext::pkix::{
        BasicConstraints, SubjectAltName,
        name::{GeneralName, OtherName},
    },
    name::Name,
    time::Time,
};

/// id-on-xmppAddr (RFC 6120 §13.7.1.4).
const XMPP_ADDR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.5");

/// id-on-dnsSRV (RFC 4985 §2).
const SRV_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.7");

/// The most names that are looked through. A certificate for one party has a handful; one with more is not read.
const MAX_NAMES: usize = 256;

/// How many names an error lists, and how much of each: whoever made the certificate chose them.
const SHOWN_NAMES: usize = 4;
const SHOWN_CHARS: usize = 100;

/// What a certificate says. Whether it is true is for others to find out.
#[derive(Debug)]
pub(in crate::security) struct Content {
    not_before: Time,
    not_after: Time,
    issuer: Name,
    subject: Name,
    is_authority: bool,
    names: Vec<NamedAs>,
}

/// For whom a certificate is.
#[derive(Debug, PartialEq, Eq)]
enum NamedAs {
    /// XmppAddr (RFC 6120 §13.7.1.4), prepared for comparison.
    Xmpp(BareJid),
    /// An XmppAddr that is nobody's, since it has a resource or is no address at all.
    NobodysXmpp(String),
    /// SRVName (RFC 4985), such as `_xmpp-server.capulet.lit`.
    Srv(String),
    Dns(String),
}

impl Content {
    /// The error says what of it can't be read.
    pub(super) fn read(der: &[u8]) -> Result<Self, &'static str> {
        let parsed = Parsed::from_der(der).map_err(|_| "it is no X.509 certificate in DER")?;
        let certificate = parsed.tbs_certificate();
        let constraints = certificate
            .get_extension::<BasicConstraints>()
            .map_err(|_| "its basic constraints can't be read")?;
        let names = certificate.get_extension::<SubjectAltName>().map_err(|_| "its names can't be read")?;
        let names = names.map_or_else(Vec::new, |(_, SubjectAltName(names))| names);
        if names.len() > MAX_NAMES {
            return Err("it has too many names");
        }
        Ok(Self {
            not_before: certificate.validity().not_before,
            not_after: certificate.validity().not_after,
            issuer: certificate.issuer().clone(),
            subject: certificate.subject().clone(),
            is_authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
            names: names.iter().filter_map(NamedAs::read).collect(),
        })
    }

    pub(in crate::security) fn not_before(&self) -> SystemTime {
        self.not_before.to_system_time()
    }

    pub(in crate::security) fn not_after(&self) -> SystemTime {
        self.not_after.to_system_time()
    }

    /// Whether it may issue others.
    pub(in crate::security) fn is_authority(&self) -> bool {
        self.is_authority
    }

    pub(in crate::security) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// For errors and logs.
    pub(in crate::security) fn issuer(&self) -> String {
        shown(&self.issuer.to_string())
    }

    /// For errors and logs.
    pub(in crate::security) fn subject(&self) -> String {
        shown(&self.subject.to_string())
    }

    /// Why it is not valid now (RFC 5280 §4.1.2.5: the dates themselves are). Clocks that differ are not made up for.
    pub(in crate::security) fn check_dates(&self, now: SystemTime) -> Result<(), String> {
        let today = || date(now);
        if now < self.not_before() {
            return Err(format!("it is not valid before {}, and now it is {}", self.not_before, today()));
        }
        if now > self.not_after() {
            return Err(format!("it expired on {}, and now it is {}", self.not_after, today()));
        }
        Ok(())
    }

    /// Whether it names XMPP addresses, be they anybody's.
    pub(in crate::security) fn names_xmpp_addresses(&self) -> bool {
        self.names.iter().any(|name| matches!(name, NamedAs::Xmpp(_) | NamedAs::NobodysXmpp(_)))
    }

    /// Whether it names this XMPP address. One with a resource does not stand for the whole account (RFC 6120
    /// §13.7.2 compares bare JIDs).
    pub(in crate::security) fn names_xmpp_address(&self, peer: &BareJid) -> bool {
        self.names.iter().any(|name| matches!(name, NamedAs::Xmpp(jid) if jid == peer))
    }

    /// Whether it names the XMPP service of a domain (RFC 6120 §13.7.1.2.1).
    pub(in crate::security) fn names_xmpp_service(&self, domain: &str) -> bool {
        self.names.iter().any(|name| match name {
            NamedAs::Srv(srv) => ["_xmpp-client.", "_xmpp-server."].into_iter().any(|service| {
                srv.split_at_checked(service.len()).is_some_and(|(left, right)| {
                    left.eq_ignore_ascii_case(service) && right.eq_ignore_ascii_case(domain)
                })
            }),
            _ => false,
        })
    }

    /// Says that it is for others.
    pub(in crate::security) fn not_for(&self, peer: &BareJid) -> String {
        if self.names.is_empty() {
            return format!("it has no names that count (the common name does not), and {peer} was expected");
        }
        let names: Vec<_> = self.names.iter().take(SHOWN_NAMES).map(NamedAs::to_string).collect();
        let more = match self.names.len().saturating_sub(SHOWN_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("it is for {}{more}, not for {peer}", names.join(", "))
    }
}

impl NamedAs {
    /// `None` for kinds of names that XMPP has no use for.
    fn read(name: &GeneralName) -> Option<Self> {
        match name {
            GeneralName::DnsName(name) => Some(Self::Dns(name.as_str().to_owned())),
            GeneralName::OtherName(OtherName { type_id, value }) if *type_id == XMPP_ADDR => {
                Some(Self::xmpp_addr(value))
            }
            GeneralName::OtherName(OtherName { type_id, value }) if *type_id == SRV_NAME => {
                let name: Ia5StringRef<'_> = value.decode_as().ok()?;
                Some(Self::Srv(name.as_str().to_owned()))
            }
            _ => None,
        }
    }

    fn xmpp_addr(value: &Any) -> Self {
        let Ok(text) = value.decode_as::<Utf8StringRef<'_>>() else {
            return Self::NobodysXmpp("an XMPP address that is not in UTF-8".to_owned());
        };
        match Jid::new(text.as_str()).map(BareJid::try_from) {
            Ok(Ok(bare)) => Self::Xmpp(bare),
            _ => Self::NobodysXmpp(text.as_str().to_owned()),
        }
    }
}

impl fmt::Display for NamedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Xmpp(jid) => shown(jid.as_str()),
            Self::NobodysXmpp(text) | Self::Srv(text) | Self::Dns(text) => shown(text),
        };
        f.write_str(&text)
    }
}

/// Text of somebody else's, fit for a log.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// As certificates have it, `2009-01-31T00:00:00Z`.
pub(in crate::security) fn date(time: SystemTime) -> String {
    DateTime::from_system_time(time)
        .map_or_else(|_| "out of the calendar".to_owned(), |date| date.to_string())
}
