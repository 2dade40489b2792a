//! One-line names of stanzas, as a ladder diagram shows them.

use std::collections::HashMap;

use xmpp_parsers::{jid::Jid, minidom::Element, ns};

const JINGLE: &str = "urn:xmpp:jingle:";
const BYTESTREAMS: &str = "http://jabber.org/protocol/bytestreams";

/// Requests remembered for the names of their answers. When so many are unanswered, all are forgotten, and their answers
/// are named without them.
const MAX_OPEN_REQUESTS: usize = 10_000;

/// Names stanzas; remembers requests, so that an answer is named after what it answers.
#[derive(Debug, Default)]
pub(crate) struct Namer {
    /// (requester, id) and the other side, to the request's short name.
    open: HashMap<(Jid, Jid, String), String>,
}

impl Namer {
    pub(crate) fn name(&mut self, from: &Jid, to: &Jid, stanza: &Element) -> String {
        match (stanza.name(), stanza.attr("type")) {
            ("iq", Some("result")) => match self.answered(from, to, stanza) {
                Some(request) => format!("iq result ({request})"),
                None => "iq result".to_owned(),
            },
            ("iq", Some("error")) => {
                let error = error_name(stanza);
                match self.answered(from, to, stanza) {
                    Some(request) => format!("iq error {error} ({request})"),
                    None => format!("iq error {error}"),
                }
            }
            ("iq", kind) => {
                let topic = iq_topic(stanza);
                let name = format!("iq {} {topic}", kind.unwrap_or("?"));
                self.remember(from, to, stanza, topic);
                name
            }
            ("message", Some("error")) => format!("message error {}", error_name(stanza)),
            ("message", kind) => message_name(stanza, kind),
            ("presence", Some("error")) => format!("presence error {}", error_name(stanza)),
            (name, None) => name.to_owned(),
            (name, Some(kind)) => format!("{name} {kind}"),
        }
    }

    fn remember(&mut self, from: &Jid, to: &Jid, stanza: &Element, topic: String) {
        let Some(id) = stanza.attr("id") else { return };
        if self.open.len() >= MAX_OPEN_REQUESTS {
            self.open.clear();
        }
        let short = match topic.strip_prefix("jingle ") {
            Some(action) => action.to_owned(),
            None => topic,
        };
        self.open.insert((from.clone(), to.clone(), id.to_owned()), short);
    }

    fn answered(&mut self, from: &Jid, to: &Jid, stanza: &Element) -> Option<String> {
        self.open.remove(&(to.clone(), from.clone(), stanza.attr("id")?.to_owned()))
    }
}

fn iq_topic(stanza: &Element) -> String {
    let Some(payload) = stanza.children().next() else { return "(empty)".to_owned() };
    let namespace = payload.ns();
    match (payload.name(), namespace.as_str()) {
        ("jingle", namespace) if namespace.starts_with(JINGLE) => jingle_topic(payload),
        (_, ns::IBB) => ibb_topic(payload),
        ("query", BYTESTREAMS) => match payload.children().next().map(Element::name) {
            Some("activate") => "bytestreams activate".to_owned(),
            _ => "bytestreams".to_owned(),
        },
        ("query", namespace) => {
            // http://jabber.org/protocol/disco#info is "disco#info", jabber:iq:roster is "roster".
            namespace.rsplit(['/', ':']).next().unwrap_or(namespace).to_owned()
        }
        (name, _) => name.to_owned(),
    }
}

/// The action, and for actions that mean little without it, what they carry.
fn jingle_topic(jingle: &Element) -> String {
    let action = jingle.attr("action").unwrap_or("(no action)");
    let detail = match action {
        "session-terminate" => jingle
            .children()
            .find(|c| c.name() == "reason")
            .and_then(|r| r.children().next())
            .map(Element::name),
        "session-info" => jingle.children().next().map(Element::name),
        "transport-info" => jingle
            .children()
            .find(|c| c.name() == "content")
            .and_then(|content| content.children().find(|c| c.name() == "transport"))
            .and_then(|transport| transport.children().next())
            .map(Element::name),
        _ => None,
    };
    match detail {
        Some(detail) => format!("jingle {action} {detail}"),
        None => format!("jingle {action}"),
    }
}

fn ibb_topic(payload: &Element) -> String {
    match payload.name() {
        "data" => format!("ibb data seq={}", payload.attr("seq").unwrap_or("?")),
        name => format!("ibb {name}"),
    }
}

fn message_name(stanza: &Element, kind: Option<&str>) -> String {
    match stanza.children().find(|c| c.has_ns(ns::IBB)) {
        Some(payload) => format!("message {}", ibb_topic(payload)),
        None => match kind {
            Some(kind) => format!("message {kind}"),
            None => "message".to_owned(),
        },
    }
}

/// The defined condition and the application's own, if there is one.
fn error_name(stanza: &Element) -> String {
    let Some(error) = stanza.children().find(|c| c.name() == "error") else {
        return "(no condition)".to_owned();
    };
    let condition = error.children().find(|c| c.has_ns(ns::XMPP_STANZAS) && c.name() != "text");
    let own = error.children().find(|c| !c.has_ns(ns::XMPP_STANZAS));
    match (condition.map(Element::name), own.map(Element::name)) {
        (Some(condition), Some(own)) => format!("{condition} {own}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "(no condition)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn romeo() -> Jid {
        "romeo@montague.lit/orchard".parse().unwrap()
    }

    fn juliet() -> Jid {
        "juliet@capulet.lit/balcony".parse().unwrap()
    }

    fn stanza(xml: &str) -> Element {
        xml.replacen(' ', " xmlns='jabber:client' ", 1).parse().unwrap()
    }

    #[test]
    fn a_result_is_named_after_its_request() {
        let mut namer = Namer::default();
        let initiate = stanza(
            "<iq type='set' id='1'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate'/></iq>",
        );
        assert_eq!(namer.name(&romeo(), &juliet(), &initiate), "iq set jingle session-initiate");
        let result = stanza("<iq type='result' id='1'/>");
        assert_eq!(namer.name(&juliet(), &romeo(), &result), "iq result (session-initiate)");
        assert_eq!(namer.name(&juliet(), &romeo(), &result), "iq result", "answered only once");
    }

    #[test]
    fn requests_that_nobody_answers_are_forgotten_in_the_end() {
        let mut namer = Namer::default();
        for id in 0..=MAX_OPEN_REQUESTS {
            let ping = stanza(&format!("<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"));
            namer.name(&romeo(), &juliet(), &ping);
        }
        let mut answer =
            |id| namer.name(&juliet(), &romeo(), &stanza(&format!("<iq type='result' id='{id}'/>")));
        assert_eq!(answer(0), "iq result");
        assert_eq!(answer(MAX_OPEN_REQUESTS), "iq result (ping)");
    }

    #[test]
    fn an_answer_from_somebody_else_is_not_named_after_the_request() {
        let mut namer = Namer::default();
        namer.name(&romeo(), &juliet(), &stanza("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"));
        let nurse: Jid = "nurse@capulet.lit/hall".parse().unwrap();
        assert_eq!(namer.name(&nurse, &romeo(), &stanza("<iq type='result' id='1'/>")), "iq result");
    }

    #[test]
    fn an_error_names_both_conditions_and_the_request() {
        let mut namer = Namer::default();
        let terminate = stanza(
            "<iq type='set' id='9'><jingle xmlns='urn:xmpp:jingle:1' action='session-terminate'>\
             <reason><success/></reason></jingle></iq>",
        );
        assert_eq!(namer.name(&romeo(), &juliet(), &terminate), "iq set jingle session-terminate success");
        let error = stanza(
            "<iq type='error' id='9'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <unknown-session xmlns='urn:xmpp:jingle:errors:1'/></error></iq>",
        );
        assert_eq!(
            namer.name(&juliet(), &romeo(), &error),
            "iq error item-not-found unknown-session (session-terminate success)"
        );
    }

    #[test]
    fn in_band_bytestreams_show_their_sequence_in_iq_and_message() {
        let mut namer = Namer::default();
        let mut name = |xml| namer.name(&romeo(), &juliet(), &stanza(xml));
        assert_eq!(
            name("<iq type='set' id='1'><open xmlns='http://jabber.org/protocol/ibb' sid='a'/></iq>"),
            "iq set ibb open"
        );
        assert_eq!(
            name(
                "<iq type='set' id='2'><data xmlns='http://jabber.org/protocol/ibb' seq='3'>AA==</data></iq>"
            ),
            "iq set ibb data seq=3"
        );
        assert_eq!(
            name("<message ><data xmlns='http://jabber.org/protocol/ibb' seq='4'>AA==</data></message>"),
            "message ibb data seq=4"
        );
    }

    #[test]
    fn queries_are_named_by_the_end_of_their_namespace() {
        let mut namer = Namer::default();
        let mut name = |xml| namer.name(&romeo(), &juliet(), &stanza(xml));
        assert_eq!(
            name("<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"),
            "iq get disco#info"
        );
        assert_eq!(name("<iq type='get' id='2'><query xmlns='jabber:iq:roster'/></iq>"), "iq get roster");
        assert_eq!(
            name(
                "<iq type='set' id='3'><query xmlns='http://jabber.org/protocol/bytestreams'>\
                 <activate>x</activate></query></iq>"
            ),
            "iq set bytestreams activate"
        );
        assert_eq!(name("<presence type='unavailable'/>"), "presence unavailable");
    }
}
