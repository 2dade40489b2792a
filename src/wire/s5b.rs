//! `<transport/>` of SOCKS5 bytestreams (XEP-0260), and what goes in it.

use rxml::xml_ncname;
use xmpp_parsers::minidom::Element;

use super::{
    bytestreams::{MAX_HOST, optional_text_attribute, port, text_attribute},
    jingle::{MAX_SID, Malformed},
    ns, quoted,
};
use crate::transport::s5b::candidate::CandidateType;

/// `<transport/>` of XEP-0260.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct S5bTransport {
    /// The id of the bytestream, 1 to [`MAX_SID`] bytes. Required everywhere.
    pub(crate) sid: String,
    /// What the sender calculated for the proxies that it offers, if it says so: 40 hexadecimal digits, as written. Anything
    /// else is no SHA-1 hash and of no use; it is left out.
    pub(crate) dstaddr: Option<String>,
    /// `mode='udp'`.
    pub(crate) udp: bool,
    /// At most [`MAX_CANDIDATES`], each with its own cid; those of unknown types are left out.
    pub(crate) candidates: Vec<S5bCandidate>,
    /// Whether some of the candidates came in transport-infos ([`S5bTransport::add_candidates`]), as more may.
    pub(crate) trickled: bool,
    /// Whether it has children, and none that is understood.
    pub(crate) unsupported: bool,
    /// The notification, if it is one.
    pub(crate) notification: Option<Notification>,
}

/// Candidates in one `<transport/>`. Programs of today offer 2 to 20.
pub(crate) const MAX_CANDIDATES: usize = 64;
/// Length of a cid in bytes, the same as for a sid. Programs use 4 to 40.
const MAX_CID: usize = 256;
/// Length of a JID in bytes (RFC 7622 §3.1: three parts of at most 1023, and two separators).
const MAX_JID: usize = 3071;
/// Hexadecimal digits of a SHA-1 hash.
const HASH_DIGITS: usize = 40;

/// `<candidate/>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S5bCandidate {
    /// 1 to [`MAX_CID`] bytes.
    pub(crate) cid: String,
    /// A name or an address, 1 to [`MAX_HOST`] bytes.
    pub(crate) host: String,
    /// 1 to [`MAX_JID`] bytes; not checked further.
    // COMPAT Psi: direct candidates without `jid` and `type`.
    pub(crate) jid: Option<String>,
    /// 1080 where nothing is said (XEP-0065). Never 0.
    pub(crate) port: u16,
    /// A larger number than fits is the largest that does.
    pub(crate) priority: u32,
    pub(crate) type_: CandidateType,
}

/// What a transport-info tells about the negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    CandidateUsed(String),
    CandidateError,
    Activated(String),
    // COMPAT Psi: with a cid, which XEP-0260's has not.
    ProxyError,
}

impl S5bTransport {
    /// Whether this is a SOCKS5 transport, readable or not.
    pub(crate) fn matches(element: &Element) -> bool {
        element.is("transport", ns::JINGLE_S5B)
    }

    /// Reads a `<transport/>`; unknown attributes and children are ignored.
    ///
    /// # Errors
    ///
    /// Says what is missing, too long or contradictory. One candidate that can't be read is enough.
    pub(crate) fn parse(element: &Element) -> Result<Self, Malformed> {
        if !Self::matches(element) {
            return Err(Malformed::new("it is no <transport/> of SOCKS5 bytestreams"));
        }
        let is_hash =
            |text: &&str| text.len() == HASH_DIGITS && text.bytes().all(|it| it.is_ascii_hexdigit());
        let (candidates, notification) = (candidates(element)?, notification(element)?);
        Ok(Self {
            sid: text_attribute(element, "sid", MAX_SID)?,
            dstaddr: element.attr("dstaddr").filter(is_hash).map(ToOwned::to_owned),
            udp: udp(element)?,
            unsupported: element.children().next().is_some()
                && candidates.is_empty()
                && notification.is_none(),
            candidates,
            trickled: false,
            notification,
        })
    }

    /// Adds the candidates of a later `<transport/>` of the same bytestream (XEP-0260 #exchange).
    ///
    /// # Errors
    ///
    /// It is about another bytestream, or tells more than candidates; or there are too many of them, or two of one name.
    pub(crate) fn add_candidates(&mut self, later: Self) -> Result<(), Malformed> {
        if later.sid != self.sid {
            return Err(Malformed::new("the sid is not that of the bytestream that was offered"));
        }
        if later.notification.is_some() {
            return Err(Malformed::new("a notification about a bytestream that was not agreed on"));
        }
        if self.candidates.len() + later.candidates.len() > MAX_CANDIDATES {
            return Err(Malformed(format!("more than {MAX_CANDIDATES} candidates")));
        }
        self.trickled |= !later.candidates.is_empty();
        for candidate in later.candidates {
            if self.candidates.iter().any(|known| known.cid == candidate.cid) {
                return Err(Malformed(format!("two candidates have the cid {}", quoted(&candidate.cid))));
            }
            self.candidates.push(candidate);
        }
        self.dstaddr = self.dstaddr.take().or(later.dstaddr);
        Ok(())
    }

    pub(crate) fn to_element(&self) -> Element {
        Element::builder("transport", ns::JINGLE_S5B)
            .attr(xml_ncname!("dstaddr").into(), self.dstaddr.as_deref())
            // XEP-0260 #exchange: a responder must leave it out, and "tcp" is the default.
            .attr(xml_ncname!("mode").into(), self.udp.then_some("udp"))
            .attr(xml_ncname!("sid").into(), self.sid.as_str())
            .append_all(self.candidates.iter().map(S5bCandidate::to_element))
            .append_all(self.notification.as_ref().map(Notification::to_element))
            .build()
    }
}

fn udp(element: &Element) -> Result<bool, Malformed> {
    match element.attr("mode") {
        None | Some("tcp") => Ok(false),
        Some("udp") => Ok(true),
        Some(other) => Err(Malformed(format!("<transport/> has the mode {}", quoted(other)))),
    }
}

fn candidates(transport: &Element) -> Result<Vec<S5bCandidate>, Malformed> {
    let elements = || transport.children().filter(|child| child.is("candidate", ns::JINGLE_S5B));
    if elements().nth(MAX_CANDIDATES).is_some() {
        return Err(Malformed(format!("<transport/> has more than {MAX_CANDIDATES} candidates")));
    }
    let mut candidates: Vec<S5bCandidate> = Vec::new();
    for element in elements() {
        let Some(candidate) = S5bCandidate::parse(element)? else { continue };
        if candidates.iter().any(|other| other.cid == candidate.cid) {
            return Err(Malformed(format!("two candidates have the cid {}", quoted(&candidate.cid))));
        }
        candidates.push(candidate);
    }
    Ok(candidates)
}

impl S5bCandidate {
    /// Nothing for a type that is unknown: there is no telling how it would have to be read.
    fn parse(element: &Element) -> Result<Option<Self>, Malformed> {
        let type_ = match element.attr("type") {
            Some(name) => TYPES.into_iter().find(|type_| type_.name() == name),
            None => Some(CandidateType::Direct),
        };
        let Some(type_) = type_ else { return Ok(None) };
        Ok(Some(Self {
            cid: text_attribute(element, "cid", MAX_CID)?,
            host: text_attribute(element, "host", MAX_HOST)?,
            jid: optional_text_attribute(element, "jid", MAX_JID)?,
            port: port(element)?,
            priority: priority(element)?,
            type_,
        }))
    }

    // COMPAT Dino, Snikket: all six attributes are required, whatever has a default.
    fn to_element(&self) -> Element {
        Element::builder("candidate", ns::JINGLE_S5B)
            .attr(xml_ncname!("cid").into(), self.cid.as_str())
            .attr(xml_ncname!("host").into(), self.host.as_str())
            .attr(xml_ncname!("jid").into(), self.jid.as_deref())
            .attr(xml_ncname!("port").into(), self.port)
            .attr(xml_ncname!("priority").into(), self.priority)
            .attr(xml_ncname!("type").into(), self.type_.name())
            .build()
    }
}

const TYPES: [CandidateType; 4] =
    [CandidateType::Direct, CandidateType::Assisted, CandidateType::Tunnel, CandidateType::Proxy];

/// The schema knows no upper limit.
fn priority(candidate: &Element) -> Result<u32, Malformed> {
    let value = candidate.attr("priority").ok_or_else(|| Malformed::new("<candidate/> has no priority"))?;
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed(format!("<candidate/> has the priority {}", quoted(value))));
    }
    Ok(value.parse().unwrap_or(u32::MAX))
}

fn notification(transport: &Element) -> Result<Option<Notification>, Malformed> {
    let mut found = None;
    for child in transport.children().filter(|child| child.has_ns(ns::JINGLE_S5B)) {
        let notification = match child.name() {
            "candidate-used" => Notification::CandidateUsed(text_attribute(child, "cid", MAX_CID)?),
            "candidate-error" => Notification::CandidateError,
            "activated" => Notification::Activated(text_attribute(child, "cid", MAX_CID)?),
            "proxy-error" => Notification::ProxyError,
            _ => continue,
        };
        if found.replace(notification).is_some() {
            return Err(Malformed::new("<transport/> has more than one notification"));
        }
    }
    Ok(found)
}

impl Notification {
    fn to_element(&self) -> Element {
        let (name, cid) = match self {
            Self::CandidateUsed(cid) => ("candidate-used", Some(cid.as_str())),
            Self::CandidateError => ("candidate-error", None),
            Self::Activated(cid) => ("activated", Some(cid.as_str())),
            Self::ProxyError => ("proxy-error", None),
        };
        Element::builder(name, ns::JINGLE_S5B).attr(xml_ncname!("cid").into(), cid).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "972b7bf47291ca609517f67f86b5081086052dad";

    fn parse(attributes: &str, inner: &str) -> Result<S5bTransport, Malformed> {
        let xml = format!("<transport xmlns='{}' sid='a' {attributes}>{inner}</transport>", ns::JINGLE_S5B);
        S5bTransport::parse(&xml.parse().unwrap())
    }

    fn candidate(cid: &str, type_: CandidateType) -> S5bCandidate {
        let (host, jid) = ("192.0.2.1".to_owned(), Some("romeo@montague.lit/orchard".to_owned()));
        S5bCandidate { cid: cid.to_owned(), host, jid, port: 5086, priority: 8257636, type_ }
    }

    #[test]
    fn a_transport_is_written_with_all_attributes_of_its_candidates() {
        let transport = S5bTransport {
            sid: "vj3hs98y".into(),
            dstaddr: Some(HASH.into()),
            candidates: vec![candidate("c1", CandidateType::Direct)],
            ..S5bTransport::default()
        };
        let expected: Element = format!(
            "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' dstaddr='{HASH}' sid='vj3hs98y'>\
                <candidate cid='c1' host='192.0.2.1' jid='romeo@montague.lit/orchard' \
                    port='5086' priority='8257636' type='direct'/></transport>"
        )
        .parse()
        .unwrap();
        assert_eq!(transport.to_element(), expected);
    }

    #[test]
    fn everything_survives_being_written_and_read() {
        let candidates = TYPES.map(|type_| candidate(type_.name(), type_)).to_vec();
        let offer = S5bTransport { sid: "a".into(), udp: true, candidates, ..S5bTransport::default() };
        assert_eq!(S5bTransport::parse(&offer.to_element()), Ok(offer));

        for notification in [
            Notification::CandidateUsed("c".into()),
            Notification::CandidateError,
            Notification::Activated("c".into()),
            Notification::ProxyError,
        ] {
            let info =
                S5bTransport { sid: "a".into(), notification: Some(notification), ..S5bTransport::default() };
            assert_eq!(S5bTransport::parse(&info.to_element()), Ok(info));
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let transport = parse("", "<candidate cid='c' host='relay.lit' priority='0'/>").unwrap();
        let expected = S5bCandidate {
            cid: "c".into(),
            host: "relay.lit".into(),
            jid: None,
            port: 1080,
            priority: 0,
            type_: CandidateType::Direct,
        };
        assert_eq!(transport.candidates, [expected]);
        assert_eq!((transport.dstaddr, transport.udp, transport.notification), (None, false, None));
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let transport = parse(
            "colour='red'",
            "<candidate type='carrier-pigeon'/><candidate xmlns='urn:example'/><hint/>\
             <candidate-error xmlns='urn:example'/><candidate cid='c' host='h' priority='1' weight='2'/>",
        )
        .unwrap();
        assert_eq!(transport.candidates.len(), 1);
        assert_eq!(transport.notification, None);
    }

    #[test]
    fn a_transport_of_which_nothing_is_understood_is_told_from_an_empty_one() {
        let unsupported = |inner| parse("", inner).unwrap().unsupported;
        assert!(unsupported("<hint/>"));
        assert!(unsupported("<candidate-error xmlns='urn:example'/>"));
        assert!(unsupported("<candidate type='carrier-pigeon'/><candidate type='heliograph'/>"));
        assert!(!unsupported(""));
        assert!(!unsupported(" text "));
        assert!(!unsupported("<hint/><candidate-error/>"));
        assert!(!unsupported("<candidate type='carrier-pigeon'/><candidate cid='c' host='h' priority='1'/>"));
    }

    #[test]
    fn a_priority_has_no_upper_limit() {
        for (written, read) in
            [("007", 7), ("4294967295", u32::MAX), ("4294967296", u32::MAX), (&"9".repeat(99), u32::MAX)]
        {
            let inner = format!("<candidate cid='c' host='h' priority='{written}'/>");
            assert_eq!(parse("", &inner).unwrap().candidates[0].priority, read);
        }
    }

    #[test]
    fn a_dstaddr_that_is_no_hash_is_ignored() {
        let upper = HASH.to_ascii_uppercase();
        for (written, read) in [
            (HASH, Some(HASH)),
            (&upper, Some(upper.as_str())),
            ("", None),
            (&HASH[1..], None),
            (&HASH.replace('9', "g"), None),
            (&"ä".repeat(HASH_DIGITS / 2), None),
        ] {
            let transport = parse(&format!("dstaddr='{written}'"), "").unwrap();
            assert_eq!(transport.dstaddr.as_deref(), read);
        }
    }

    #[test]
    fn as_many_candidates_as_allowed_are_read() {
        let inner: String =
            (0..MAX_CANDIDATES).map(|n| format!("<candidate cid='{n}' host='h' priority='1'/>")).collect();
        assert_eq!(parse("", &inner).unwrap().candidates.len(), MAX_CANDIDATES);
        assert_eq!(
            parse("", &format!("{inner}<candidate type='unknown'/>")),
            Err(Malformed::new("<transport/> has more than 64 candidates"))
        );
    }

    #[test]
    fn other_elements_are_refused() {
        for other in [Element::bare("transport", ns::JINGLE_IBB), Element::bare("candidate", ns::JINGLE_S5B)]
        {
            assert!(!S5bTransport::matches(&other));
            assert!(S5bTransport::parse(&other).is_err());
        }
    }
}
