//! What SOCKS5 bytestreams say to proxies (XEP-0065), and how proxies are found (XEP-0030).

use jid::{FullJid, Jid};
use rxml::xml_ncname;
use xmpp_parsers::minidom::Element;

use super::{jingle::Malformed, ns, quoted};

/// Items of one disco#items answer that are looked at. Servers of today list 2 to 10.
pub(crate) const MAX_ITEMS: usize = 64;
/// Streamhosts of one proxy that are looked at. One for each of its addresses is usual.
pub(crate) const MAX_STREAMHOSTS: usize = 8;
/// Length of a host in bytes: no name in the DNS is longer (RFC 1035 §2.3.4), nor is an IP address.
pub(super) const MAX_HOST: usize = 255;
/// Where nothing is said (XEP-0065's schema, and SOCKS5's own).
const DEFAULT_PORT: u16 = 1080;

/// Where a proxy can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Streamhost {
    pub(crate) jid: Jid,
    /// A name or an address, 1 to [`MAX_HOST`] bytes.
    pub(crate) host: String,
    /// Never 0.
    pub(crate) port: u16,
}

/// `<query/>` that asks a proxy for its address (XEP-0065 #disco).
pub(crate) fn address_query() -> Element {
    Element::bare("query", ns::BYTESTREAMS)
}

/// The streamhosts in a proxy's answer, at least one. Those that can't be read are left out.
///
/// # Errors
///
/// It is no such answer, or there is no streamhost in it that can be read; says what is wrong with the first.
pub(crate) fn parse_streamhosts(query: &Element) -> Result<Vec<Streamhost>, Malformed> {
    expect_query(query, ns::BYTESTREAMS)?;
    let streamhosts = query.children().filter(|child| child.is("streamhost", ns::BYTESTREAMS));
    let (mut readable, mut first_error) = (Vec::new(), None);
    for streamhost in streamhosts.take(MAX_STREAMHOSTS) {
        match Streamhost::parse(streamhost) {
            Ok(streamhost) => readable.push(streamhost),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    match first_error {
        Some(error) if readable.is_empty() => Err(error),
        None if readable.is_empty() => Err(Malformed::new("the proxy's answer has no <streamhost/>")),
        _ => Ok(readable),
    }
}

impl Streamhost {
    fn parse(element: &Element) -> Result<Self, Malformed> {
        let jid = element.attr("jid").ok_or_else(|| Malformed::new("<streamhost/> has no jid"))?;
        Ok(Self {
            jid: jid.parse().map_err(|_| Malformed(format!("<streamhost/> has the jid {}", quoted(jid))))?,
            host: text_attribute(element, "host", MAX_HOST)?,
            port: port(element)?,
        })
    }
}

/// `<query/>` that activates a bytestream at a proxy (XEP-0065 #mediated-proto-activation).
pub(crate) fn activate(sid: &str, target: &FullJid) -> Element {
    let activate = Element::builder("activate", ns::BYTESTREAMS).append(target.to_string());
    Element::builder("query", ns::BYTESTREAMS).attr(xml_ncname!("sid").into(), sid).append(activate).build()
}

/// `<query/>` of disco#items (XEP-0030 #items).
pub(crate) fn items_query() -> Element {
    Element::bare("query", ns::DISCO_ITEMS)
}

/// The JIDs in a disco#items answer, those with a node left out, and those that are no JIDs.
///
/// # Errors
///
/// It is no disco#items.
pub(crate) fn parse_items(query: &Element) -> Result<Vec<Jid>, Malformed> {
    expect_query(query, ns::DISCO_ITEMS)?;
    let items = query.children().filter(|child| child.is("item", ns::DISCO_ITEMS)).take(MAX_ITEMS);
    let entities = items.filter(|item| item.attr("node").is_none());
    Ok(entities.filter_map(|item| item.attr("jid")?.parse().ok()).collect())
}

/// `<query/>` of disco#info (XEP-0030 #info).
pub(crate) fn info_query() -> Element {
    Element::bare("query", ns::DISCO_INFO)
}

/// Whether a disco#info answer is that of a bytestreams proxy (XEP-0065 #disco).
pub(crate) fn is_proxy(info: &Element) -> bool {
    let says_so = |child: &Element| {
        child.is("identity", ns::DISCO_INFO)
            && child.attr("category") == Some("proxy")
            && child.attr("type") == Some("bytestreams")
    };
    info.is("query", ns::DISCO_INFO) && info.children().any(says_so)
}

fn expect_query(answer: &Element, namespace: &str) -> Result<(), Malformed> {
    if answer.is("query", namespace) {
        return Ok(());
    }
    let name = quoted(answer.name());
    Err(Malformed(format!("the answer is the element {name} instead of the <query/> of {namespace}")))
}

/// An attribute that has to be there, of 1 to `max` bytes.
pub(super) fn text_attribute(element: &Element, attribute: &str, max: usize) -> Result<String, Malformed> {
    optional_text_attribute(element, attribute, max)?
        .ok_or_else(|| Malformed(format!("<{}/> has no {attribute}", element.name())))
}

/// An attribute of 1 to `max` bytes.
pub(super) fn optional_text_attribute(
    element: &Element,
    attribute: &str,
    max: usize,
) -> Result<Option<String>, Malformed> {
    let Some(value) = element.attr(attribute) else { return Ok(None) };
    if value.is_empty() || value.len() > max {
        let (name, length) = (element.name(), value.len());
        return Err(Malformed(format!(
            "the {attribute} of <{name}/> has {length} bytes; it may have 1 to {max}"
        )));
    }
    Ok(Some(value.to_owned()))
}

/// The attribute `port`, or its default.
pub(super) fn port(element: &Element) -> Result<u16, Malformed> {
    let Some(value) = element.attr("port") else { return Ok(DEFAULT_PORT) };
    match value.parse() {
        Ok(0) | Err(_) => Err(Malformed(format!("<{}/> has the port {}", element.name(), quoted(value)))),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(jid: &str) -> Jid {
        jid.parse().unwrap()
    }

    fn streamhosts(inner: &str) -> Result<Vec<Streamhost>, Malformed> {
        parse_streamhosts(&format!("<query xmlns='{}'>{inner}</query>", ns::BYTESTREAMS).parse().unwrap())
    }

    fn items(inner: &str) -> Result<Vec<Jid>, Malformed> {
        parse_items(&format!("<query xmlns='{}'>{inner}</query>", ns::DISCO_ITEMS).parse().unwrap())
    }

    #[test]
    fn a_streamhost_without_port_listens_on_1080() {
        let expected = Streamhost { jid: jid("proxy.lit"), host: "relay.lit".into(), port: 1080 };
        assert_eq!(streamhosts("<streamhost jid='proxy.lit' host='relay.lit'/>"), Ok(vec![expected]));
    }

    #[test]
    fn a_streamhost_that_is_unreadable_does_not_hide_the_others() {
        let found = streamhosts(
            "<hint xmlns='urn:example'/><streamhost host='h' jid='@'/><streamhost jid='a.lit'/>\
             <streamhost jid='a.lit' host='h' port='0'/><streamhost jid='a.lit' host='h' port='7'/>",
        );
        assert_eq!(found, Ok(vec![Streamhost { jid: jid("a.lit"), host: "h".into(), port: 7 }]));
    }

    #[test]
    fn an_answer_without_any_usable_streamhost_says_what_is_wrong() {
        let long = format!("<streamhost jid='a.lit' host='{}'/>", "h".repeat(MAX_HOST + 1));
        for (inner, error) in [
            ("", "the proxy's answer has no <streamhost/>"),
            ("<streamhost host='h'/><streamhost jid='a.lit'/>", "<streamhost/> has no jid"),
            ("<streamhost host='h' jid='@'/>", r#"<streamhost/> has the jid "@""#),
            ("<streamhost jid='a.lit'/>", "<streamhost/> has no host"),
            (
                "<streamhost jid='a.lit' host=''/>",
                "the host of <streamhost/> has 0 bytes; it may have 1 to 255",
            ),
            (&long, "the host of <streamhost/> has 256 bytes; it may have 1 to 255"),
            ("<streamhost jid='a.lit' host='h' port='70000'/>", r#"<streamhost/> has the port "70000""#),
        ] {
            assert_eq!(streamhosts(inner), Err(Malformed::new(error)));
        }
    }

    #[test]
    fn no_more_than_the_first_streamhosts_and_items_are_looked_at() {
        let inner: String = (0..1000).map(|n| format!("<streamhost jid='a.lit' host='h{n}'/>")).collect();
        assert_eq!(streamhosts(&inner).unwrap().len(), MAX_STREAMHOSTS);

        let inner: String = (0..1000).map(|n| format!("<item jid='{n}.lit'/>")).collect();
        let found = items(&inner).unwrap();
        assert_eq!((found.len(), found.last()), (MAX_ITEMS, Some(&jid("63.lit"))));
    }

    #[test]
    fn items_with_a_node_or_without_a_jid_are_left_out() {
        let found = items(
            "<item jid='a.lit' name='A'/><item jid='b.lit' node='n'/><item/><item jid='@'/>\
             <item xmlns='urn:example' jid='c.lit'/><item jid='d.lit'/>",
        );
        assert_eq!(found, Ok(vec![jid("a.lit"), jid("d.lit")]));
    }

    #[test]
    fn only_the_identity_makes_a_proxy() {
        let info =
            |inner: &str| format!("<query xmlns='{}'>{inner}</query>", ns::DISCO_INFO).parse().unwrap();
        assert!(is_proxy(&info(
            "<identity category='a' type='b'/><identity category='proxy' type='bytestreams'/>"
        )));
        assert!(!is_proxy(&info(&format!("<feature var='{}'/>", ns::BYTESTREAMS))));
        assert!(!is_proxy(&info("<identity category='proxy' type='other'/>")));
        assert!(!is_proxy(&address_query()));
    }

    #[test]
    fn other_answers_are_refused() {
        assert!(parse_items(&info_query()).is_err());
        assert!(parse_streamhosts(&items_query()).is_err());
        assert!(parse_streamhosts(&Element::bare("streamhost", ns::BYTESTREAMS)).is_err());
    }
}
