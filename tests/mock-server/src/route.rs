//! Where a stanza goes (RFC 6120, 10; RFC 6121, 8), and what the intercepts make of that.

use xmpp_parsers::{
    iq::Iq,
    jid::{BareJid, FullJid, Jid},
    minidom::Element,
    ns,
    roster::{Item, Roster},
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use crate::{
    bytestreams,
    ending::Ending,
    hub::{Hub, Presence, SessionKey},
    intercept::{Fate, Route},
    record::Outcome,
    service::{self, Facts},
    stanza::{self, Attribute},
};

/// Routes what a bound client sent. An error ends its stream.
pub(crate) fn from_client(hub: &Hub, key: &SessionKey, mut sent: Element) -> Result<(), Ending> {
    if !hub.is_current(key) {
        return Err(Ending::error("conflict", "another client took this resource"));
    }
    if !sent.has_ns(ns::JABBER_CLIENT) || !matches!(sent.name(), "message" | "presence" | "iq") {
        return Err(Ending::error("unsupported-stanza-type", format!("<{}/> is no stanza", sent.name())));
    }
    let me = Jid::from(key.jid.clone());
    // RFC 6120, 8.1.2.1: the server stamps the full JID, whatever the client claimed.
    stanza::set(&mut sent, Attribute::From, me.as_str());

    let own_account = Jid::from(key.jid.to_bare());
    let to = match sent.attr("to").map(Jid::new) {
        Some(Ok(to)) => Some(to),
        Some(Err(_)) => {
            refuse(hub, &me, &own_account, sent, ErrorType::Modify, DefinedCondition::JidMalformed);
            return Ok(());
        }
        None => None,
    };
    match (sent.name(), to) {
        ("iq", _) if !is_valid_iq(&sent) => {
            refuse(hub, &me, &own_account, sent, ErrorType::Modify, DefinedCondition::BadRequest);
        }
        ("presence", None) => announce(hub, key, sent),
        ("presence", Some(to)) => {
            hub.directed_presence(key);
            dispatch(hub, me, to, sent);
        }
        (_, to) => dispatch(hub, me, to.unwrap_or(own_account), sent),
    }
    Ok(())
}

/// Tells the others that a session is gone.
pub(crate) fn leave(hub: &Hub, jid: &FullJid, known: Presence) {
    if matches!(known, Presence::Silent) {
        return;
    }
    let mut gone = Element::bare("presence", ns::JABBER_CLIENT);
    stanza::set(&mut gone, Attribute::Type, "unavailable");
    stanza::set(&mut gone, Attribute::From, jid.as_str());
    for (other, _) in hub.others(jid) {
        pass_presence(hub, jid, &other, gone.clone());
    }
}

fn is_valid_iq(iq: &Element) -> bool {
    iq.attr("id").is_some() && matches!(iq.attr("type"), Some("get" | "set" | "result" | "error"))
}

/// Presence without an addressee: everybody else gets it, and a newcomer gets everybody's.
fn announce(hub: &Hub, key: &SessionKey, presence: Element) {
    let now = match presence.attr("type") {
        None => Presence::Available(presence.clone()),
        Some("unavailable") => Presence::Silent,
        // Subscriptions need an addressee.
        Some(_) => {
            let me = Jid::from(key.jid.clone());
            refuse(hub, &me, &me, presence, ErrorType::Modify, DefinedCondition::BadRequest);
            return;
        }
    };
    let came_online = matches!(now, Presence::Available(_));
    let Some(before) = hub.set_presence(key, now) else { return };
    let newcomer = came_online && !matches!(before, Presence::Available(_));
    for (other, others_presence) in hub.others(&key.jid) {
        pass_presence(hub, &key.jid, &other, presence.clone());
        if let (true, Presence::Available(theirs)) = (newcomer, others_presence) {
            pass_presence(hub, &other, &key.jid, theirs);
        }
    }
}

fn pass_presence(hub: &Hub, from: &FullJid, to: &FullJid, mut presence: Element) {
    stanza::set(&mut presence, Attribute::To, to.as_str());
    pass(hub, Route { from: from.clone().into(), to: to.clone().into() }, presence);
}

/// One stanza to each session that its addressee stands for.
fn dispatch(hub: &Hub, from: Jid, to: Jid, sent: Element) {
    let is_account = to.is_bare() && to.node().is_some();
    // An iq to an account is for its server to answer (RFC 6121, 8.5.2.1.3).
    let to_all_resources = is_account && sent.name() != "iq";
    let mut resources = if to_all_resources { hub.resources(&to) } else { Vec::new() };
    if let Some(sender) = from.try_as_full().ok().filter(|_| resources.len() > 1) {
        resources.retain(|resource| hub.impostors.know_each_other(sender, resource));
    }
    if resources.is_empty() {
        let to = hub.impostors.addressee(&from, to);
        pass(hub, Route { from, to }, sent);
        return;
    }
    for resource in resources {
        pass(hub, Route { from: from.clone(), to: resource.into() }, sent.clone());
    }
}

/// Asks the intercepts and does as they say.
fn pass(hub: &Hub, route: Route, sent: Element) {
    let judgement = hub.intercepts.judge(&route, sent);
    let stanza = judgement.stanza;
    match judgement.fate {
        Fate::Deliver => arrive(hub, &route, stanza, Outcome::Delivered),
        Fate::DeliverAltered => arrive(hub, &route, stanza, Outcome::Altered),
        Fate::Drop => hub.note(&route.from, &route.to, stanza, Outcome::Dropped),
        Fate::Bounce(error) => {
            let bounce = stanza::error(&stanza, &route.to, &route.from, error);
            hub.note(&route.from, &route.to, stanza, Outcome::Intercepted);
            hub.deliver(&route.to, &route.from, bounce, Outcome::Injected).ok();
        }
        Fate::Reply(reply) => {
            let reply = stanza::address_reply(&stanza, &route.to, &route.from, reply);
            hub.note(&route.from, &route.to, stanza, Outcome::Intercepted);
            hub.deliver(&route.to, &route.from, reply, Outcome::Injected).ok();
        }
    }
    for mut extra in judgement.extras {
        let to = extra.attr("to").and_then(|to| Jid::new(to).ok()).unwrap_or_else(|| route.to.clone());
        if extra.attr("from").is_none() {
            stanza::set(&mut extra, Attribute::From, route.from.as_str());
        }
        inject(hub, &to, extra);
    }
    for resource in judgement.cut.iter().flat_map(|jid| hub.resources(jid)) {
        hub.cut_when_written(&resource);
    }
}

/// Delivers a stanza that a test made, recorded under the sender that it claims; `false` if nobody is there.
pub(crate) fn inject(hub: &Hub, to: &Jid, stanza: Element) -> bool {
    let from =
        stanza.attr("from").and_then(|from| Jid::new(from).ok()).unwrap_or_else(|| to.to_bare().into());
    hub.deliver(&from, to, stanza, Outcome::Injected).is_ok()
}

/// RFC 6121, 2.1.6: tells all of an account's resources that a contact changed, whether or not they asked for the roster.
pub(crate) fn push_roster(hub: &Hub, account: &BareJid, contact: &Item) {
    let payload = Element::from(Roster { ver: None, items: vec![contact.clone()] });
    for resource in hub.resources(&account.clone().into()) {
        let id = format!("push-{}", contact.jid);
        let to = Jid::from(resource);
        let push = Iq::Set { from: None, to: Some(to.clone()), id, payload: payload.clone() };
        hub.deliver(&account.clone().into(), &to, push.into(), Outcome::Delivered).ok();
    }
}

fn arrive(hub: &Hub, route: &Route, stanza: Element, outcome: Outcome) {
    if route.to.is_full() {
        if let Err(stanza) = hub.deliver(&route.from, &route.to, stanza, outcome) {
            undeliverable(hub, route, stanza);
        }
        return;
    }
    // An account without a resource online: only its server answers, and only requests.
    if stanza.name() != "iq" && route.to.node().is_some() {
        undeliverable(hub, route, stanza);
        return;
    }
    let proxy = hub.proxy();
    if let Some(proxy) = &proxy
        && bytestreams::is_proxy(&route.to)
    {
        hub.note(&route.from, &route.to, stanza.clone(), outcome);
        if stanza.name() == "iq" && !stanza::is_answer(&stanza) {
            bytestreams::handle(hub, proxy.clone(), stanza, route.clone());
        }
        return;
    }
    let items = proxy.and_then(|_| bytestreams::item_of(&route.to)).into_iter().collect();
    let answer = service::answer(&stanza, route, Facts { items, roster: hub.roster(&route.from) });
    hub.note(&route.from, &route.to, stanza, outcome);
    if let Some(answer) = answer {
        hub.deliver(&route.to, &route.from, answer, Outcome::Delivered).ok();
    }
}

/// RFC 6121, 8.5.3.2: nobody has this address. Presence for nobody is ignored, as are answers.
fn undeliverable(hub: &Hub, route: &Route, sent: Element) {
    let bounce = (sent.name() != "presence" && !stanza::is_answer(&sent)).then(|| {
        let error = plain_error(ErrorType::Cancel, DefinedCondition::ServiceUnavailable);
        stanza::error(&sent, &route.to, &route.from, error)
    });
    hub.note(&route.from, &route.to, sent, Outcome::Undeliverable);
    if let Some(bounce) = bounce {
        hub.deliver(&route.to, &route.from, bounce, Outcome::Delivered).ok();
    }
}

/// Answers a stanza that cannot be routed at all, in the name of `server`.
fn refuse(hub: &Hub, me: &Jid, server: &Jid, sent: Element, type_: ErrorType, condition: DefinedCondition) {
    let bounce =
        (!stanza::is_answer(&sent)).then(|| stanza::error(&sent, server, me, plain_error(type_, condition)));
    hub.note(me, server, sent, Outcome::Undeliverable);
    if let Some(bounce) = bounce {
        hub.deliver(server, me, bounce, Outcome::Delivered).ok();
    }
}

/// An error with a condition and nothing else.
pub(crate) fn plain_error(type_: ErrorType, defined_condition: DefinedCondition) -> StanzaError {
    StanzaError { type_, by: None, defined_condition, texts: Default::default(), other: None }
}
