//! What the server answers itself: for its domain, and for an account.

use xmpp_parsers::{
    disco::{DiscoInfoQuery, DiscoInfoResult, DiscoItemsResult, Identity, Item},
    minidom::Element,
    ns,
    roster::{Item as Contact, Roster},
    stanza_error::{DefinedCondition, ErrorType},
};

use crate::{intercept::Route, route::plain_error, stanza};

const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";

/// What the answers are made of.
pub(crate) struct Facts {
    /// What service discovery lists.
    pub(crate) items: Vec<Item>,
    /// The contacts of whoever asks.
    pub(crate) roster: Vec<Contact>,
}

/// The answer to a request that no client gets; none where it is no request.
pub(crate) fn answer(request: &Element, route: &Route, facts: Facts) -> Option<Element> {
    if request.name() != "iq" || stanza::is_answer(request) {
        return None;
    }
    let answer = match payload(request, route, facts) {
        Ok(payload) => {
            let mut result = stanza::result();
            if let Some(payload) = payload {
                result.append_child(payload);
            }
            stanza::address_reply(request, &route.to, &route.from, result)
        }
        Err((type_, condition)) => {
            stanza::error(request, &route.to, &route.from, plain_error(type_, condition))
        }
    };
    Some(answer)
}

/// The content of the result.
fn payload(
    request: &Element,
    route: &Route,
    facts: Facts,
) -> Result<Option<Element>, (ErrorType, DefinedCondition)> {
    let unavailable = (ErrorType::Cancel, DefinedCondition::ServiceUnavailable);
    let query = request.children().next().ok_or((ErrorType::Modify, DefinedCondition::BadRequest))?;
    let is_get = request.attr("type") == Some("get");
    let is_own_account = route.to == route.from.to_bare();
    let is_domain = route.to.node().is_none();
    match (query.name(), query.ns().as_str()) {
        ("ping", ns::PING) if is_get => Ok(None),
        ("query", ns::DISCO_INFO) if is_get => disco_info(query, is_domain).map(Some),
        ("query", ns::DISCO_ITEMS) if is_get => {
            Ok(Some(DiscoItemsResult { node: None, items: facts.items, rsm: None }.into()))
        }
        ("query", ns::ROSTER) if is_get && is_own_account => {
            Ok(Some(Roster { ver: None, items: facts.roster }.into()))
        }
        ("session", SESSION) if !is_get && (is_own_account || is_domain) => Ok(None),
        _ => Err(unavailable),
    }
}

fn disco_info(query: &Element, is_domain: bool) -> Result<Element, (ErrorType, DefinedCondition)> {
    let query = DiscoInfoQuery::try_from(query.clone())
        .map_err(|_| (ErrorType::Modify, DefinedCondition::BadRequest))?;
    if query.node.is_some() {
        return Err((ErrorType::Cancel, DefinedCondition::ItemNotFound));
    }
    let identity = match is_domain {
        true => Identity::new("server", "im", "en", "mock-server"),
        false => Identity::new("account", "registered", "en", "an account"),
    };
    let info = DiscoInfoResult {
        node: None,
        identities: vec![identity],
        features: [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING].into_iter().map(str::to_owned).collect(),
        extensions: Vec::new(),
    };
    Ok(info.into())
}
