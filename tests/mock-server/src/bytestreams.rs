//! What the address of the SOCKS5 proxy answers (XEP-0065), as Prosody 0.12.3's mod_proxy65 does.

use std::sync::Arc;

use rxml::xml_ncname;
use xmpp_parsers::{
    caps::hash_caps,
    disco::{DiscoInfoResult, DiscoItemsResult, Identity, Item},
    hashes::Algo,
    jid::Jid,
    minidom::Element,
    ns,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use crate::{
    hub::Hub,
    intercept::Route,
    proxy65::{Activation, Proxy},
    record::Outcome,
    route::plain_error,
    stanza,
};

const BYTESTREAMS: &str = "http://jabber.org/protocol/bytestreams";

/// `proxy.montague.lit` is the proxy of `montague.lit`.
const LABEL: &str = "proxy.";

/// Whether this would be the address of a proxy.
pub(crate) fn is_proxy(jid: &Jid) -> bool {
    jid.is_bare() && jid.node().is_none() && jid.domain().as_str().starts_with(LABEL)
}

/// What service discovery lists for a domain.
pub(crate) fn item_of(domain: &Jid) -> Option<Item> {
    let jid = Jid::new(&format!("{LABEL}{}", domain.domain())).ok()?;
    domain.node().is_none().then_some(Item { jid, node: None, name: None })
}

/// Answers a request to the proxy; a request to activate perhaps later.
pub(crate) fn handle(hub: &Hub, proxy: Arc<Proxy>, request: Element, route: Route) {
    let delay = proxy.activation_delay();
    let is_get = request.attr("type") == Some("get");
    let query = request.children().next().cloned();
    let is_activation = !is_get && query.as_ref().is_some_and(|query| query.is("query", BYTESTREAMS));
    if !is_activation || delay.is_zero() {
        let answer = query.map_or_else(|| Err(bad_request()), |query| answer(&proxy, &query, is_get, &route));
        reply(hub, &request, &route, answer);
        return;
    }
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        if let (Some(hub), Some(query)) = (proxy.hub(), query) {
            reply(&hub, &request, &route, answer(&proxy, &query, is_get, &route));
        }
    });
}

fn reply(hub: &Hub, request: &Element, route: &Route, answer: Result<Option<Element>, Box<StanzaError>>) {
    let answer = match answer {
        Ok(payload) => {
            let mut result = stanza::result();
            if let Some(payload) = payload {
                result.append_child(payload);
            }
            stanza::address_reply(request, &route.to, &route.from, result)
        }
        Err(error) => stanza::error(request, &route.to, &route.from, *error),
    };
    hub.deliver(&route.to, &route.from, answer, Outcome::Delivered).ok();
}

fn answer(
    proxy: &Proxy,
    query: &Element,
    is_get: bool,
    route: &Route,
) -> Result<Option<Element>, Box<StanzaError>> {
    match (query.name(), query.ns().as_str()) {
        ("query", ns::DISCO_INFO) if is_get => Ok(Some(info())),
        ("query", ns::DISCO_ITEMS) if is_get => {
            Ok(Some(DiscoItemsResult { node: None, items: Vec::new(), rsm: None }.into()))
        }
        ("query", BYTESTREAMS) if is_get => Ok(Some(address(proxy, query, &route.to))),
        ("query", BYTESTREAMS) => activate(proxy, query, &route.from).map(|()| None),
        _ => Err(refusal(ErrorType::Cancel, DefinedCondition::ServiceUnavailable)),
    }
}

fn info() -> Element {
    let features = [BYTESTREAMS, ns::DISCO_INFO, ns::DISCO_ITEMS];
    let info = DiscoInfoResult {
        node: None,
        identities: vec![Identity::new("proxy", "bytestreams", "en", "SOCKS5 Bytestreams Service")],
        features: features.into_iter().map(str::to_owned).collect(),
        extensions: Vec::new(),
    };
    info.into()
}

/// XEP-0065 #disco: where to connect.
fn address(proxy: &Proxy, query: &Element, jid: &Jid) -> Element {
    let (host, port) = proxy.advertised();
    let streamhost = Element::builder("streamhost", BYTESTREAMS)
        .attr(xml_ncname!("jid").to_owned(), jid.to_string())
        .attr(xml_ncname!("host").to_owned(), host)
        .attr(xml_ncname!("port").to_owned(), port.to_string());
    Element::builder("query", BYTESTREAMS)
        .attr(xml_ncname!("sid").to_owned(), query.attr("sid"))
        .append(streamhost)
        .build()
}

/// XEP-0065 #mediated, in the order in which Prosody looks at it.
fn activate(proxy: &Proxy, query: &Element, from: &Jid) -> Result<(), Box<StanzaError>> {
    let to = query.get_child("activate", BYTESTREAMS).map(|to| Jid::new(&to.text()));
    let (sid, to) = match (query.attr("sid"), to) {
        (Some(sid), Some(Ok(to))) => (sid, to),
        (Some(_), Some(Err(_))) => {
            return Err(refusal(ErrorType::Modify, DefinedCondition::JidMalformed));
        }
        _ => return Err(bad_request()),
    };
    let address = dst_addr(sid, from, &to).ok_or_else(bad_request)?;
    match proxy.activate(address) {
        Activation::Linked => Ok(()),
        Activation::NobodyIsConnected => Err(refusal(ErrorType::Modify, DefinedCondition::ItemNotFound)),
        Activation::OneIsConnected => {
            let text = "The sender (you) is not connected to the proxy".to_owned();
            let mut error = refusal(ErrorType::Cancel, DefinedCondition::NotAllowed);
            error.texts.insert("en".into(), text);
            Err(error)
        }
    }
}

/// What both connections asked for: the hash of these three, in hexadecimal (XEP-0065 #mediated).
fn dst_addr(sid: &str, initiator: &Jid, target: &Jid) -> Option<String> {
    let text = format!("{sid}{initiator}{target}");
    let hash = hash_caps(text.as_bytes(), Algo::Sha_1).ok()?;
    Some(hash.hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn bad_request() -> Box<StanzaError> {
    refusal(ErrorType::Modify, DefinedCondition::BadRequest)
}

fn refusal(type_: ErrorType, condition: DefinedCondition) -> Box<StanzaError> {
    Box::new(plain_error(type_, condition))
}
