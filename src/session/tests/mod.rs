//! Sessions between two ends in memory, in virtual time: nothing moves unless the test moves it.

mod attack;
mod bytes;
mod callers;
mod connecting_random;
mod deadlines;
mod disco;
mod encryption;
mod fallback;
mod hostile;
mod ladder;
mod limits;
mod lost;
mod matrix;
mod moving;
mod moving_random;
mod net;
mod offers;
mod pubkeys;
mod random;
mod resuming;
mod roster;
mod s5b;
mod security;
mod server;
mod stalling;
mod ties;
mod whereabouts;

use std::{
    collections::VecDeque,
    sync::OnceLock,
    time::{Duration, Instant},
};

use jid::{FullJid, Jid};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{
    iq::Iq,
    minidom::Element,
    presence::{Presence, Type as PresenceType},
    stanza::Stanza,
};

use self::net::Net;
use super::{Effect, Output, Progress, RequestToken, Role, SessionId, Sessions, Word, state::State};
use crate::{
    Config, Error, Identity, PeerIncompatible, PeerMisbehaved, Reason, SecurityError, SignallingError, Step,
    Timeouts, TransportError, Transports, Trust,
    transport::{Done, Read, Write},
    wire::ns,
};

const ROMEO: &str = "romeo@montague.lit/orchard";
const JULIET: &str = "juliet@capulet.lit/balcony";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Romeo,
    Juliet,
}
use Side::{Juliet, Romeo};

impl Side {
    fn other(self) -> Self {
        match self {
            Romeo => Juliet,
            Juliet => Romeo,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Romeo => "romeo",
            Juliet => "juliet",
        }
    }
}

fn config(side: Side) -> Config {
    static IDENTITIES: OnceLock<[Identity; 2]> = OnceLock::new();
    let identities = IDENTITIES.get_or_init(|| [(); 2].map(|()| Identity::generate().unwrap()));
    Config::new(identities[side as usize].clone(), Trust::first_use()).transports(Transports::Ibb)
}

fn jid(text: &str) -> FullJid {
    text.parse().unwrap()
}

/// One endpoint, with what it gave its user.
struct End {
    jid: FullJid,
    sessions: Sessions,
    incoming: VecDeque<SessionId>,
    resumptions: VecDeque<SessionId>,
    replies: Vec<(RequestToken, Result<IqResponse, Error>)>,
    effects: Vec<Effect>,
    /// Requests to others than the other end.
    elsewhere: Vec<Element>,
}

impl End {
    /// Online.
    fn new(side: Side, config: Config, now: Instant) -> Self {
        let jid = jid([ROMEO, JULIET][side as usize]);
        let mut sessions = Sessions::new(config);
        sessions.handle_bound(now, jid.clone());
        Self {
            jid,
            sessions,
            incoming: VecDeque::new(),
            resumptions: VecDeque::new(),
            replies: Vec::new(),
            effects: Vec::new(),
            elsewhere: Vec::new(),
        }
    }

    /// What it wants to send, through text, as its server would pass it on.
    fn sent(&mut self) -> Vec<Element> {
        let mut sent = Vec::new();
        while let Some(output) = self.sessions.poll_output() {
            match output {
                Output::Send(stanza) => sent.push(self.on_the_wire(stanza)),
                Output::Incoming(id) => self.incoming.push_back(id),
                Output::Resumption(id) => self.resumptions.push_back(id),
                Output::Changed(_) => {}
                Output::Effect(effect) => self.effects.push(effect),
                Output::Reply(token, reply) => self.replies.push((token, reply)),
            }
        }
        sent
    }

    fn on_the_wire(&self, stanza: Stanza) -> Element {
        let mut stanza = Element::from(stanza);
        stanza.set_attr(rxml::Namespace::NONE, rxml::xml_ncname!("from").to_owned(), self.jid.to_string());
        String::from(&stanza).parse().unwrap()
    }

    /// Takes an iq-set from anybody; what it sends because of it.
    fn hears(&mut self, now: Instant, from: &str, payload: &str) -> Vec<String> {
        let payload = payload.parse().unwrap();
        let iq = Iq::Set { from: Some(from.parse().unwrap()), to: None, id: "x1".to_owned(), payload };
        let back = self.sessions.handle_stanza(now, iq.into(), Word::NotAsked);
        assert!(back.is_none(), "given back: {back:?}");
        self.sent().iter().map(describe).collect()
    }

    /// Takes a stanza as it stands on the wire; gives back what is not for the sessions.
    fn receives(&mut self, now: Instant, stanza: &Element) -> Option<Stanza> {
        self.sessions.handle_stanza(now, Stanza::try_from(stanza.clone()).unwrap(), Word::NotAsked)
    }

    fn presence(&mut self, now: Instant, from: &str, type_: PresenceType) {
        let presence = Presence::new(type_).with_from(from.parse::<Jid>().unwrap());
        assert!(
            self.sessions.handle_stanza(now, presence.into(), Word::NotAsked).is_some(),
            "the bot gets presences too"
        );
    }

    fn state(&self, id: SessionId) -> &'static str {
        let Some(session) = self.sessions.table.get(id) else { return "forgotten" };
        match (&session.state, session.role) {
            (State::Preparing(_), _) => "preparing",
            (State::Gathering(_), _) => "gathering",
            (State::Offered(_), _) => "offered",
            (State::Ringing(_), _) => "ringing",
            (State::Accepting(_), _) => "accepting",
            (State::Active(_), Role::Initiator) => "active as initiator",
            (State::Active(_), Role::Responder) => "active as responder",
            (State::Ended(_), _) => "ended",
        }
    }

    fn error(&self, id: SessionId) -> Option<Error> {
        match self.sessions.progress(id) {
            Progress::Ended(error) => error,
            progress => panic!("it did not end: {progress:?}"),
        }
    }

    fn is_open(&self, id: SessionId) -> bool {
        matches!(self.sessions.progress(id), Progress::Open)
    }

    /// Whether nothing is kept of any session.
    fn is_clean(&self) -> bool {
        let Sessions { table, requests, absent, expected, dials, resumable, lookouts, .. } = &self.sessions;
        table.is_empty()
            && resumable.is_empty()
            && lookouts.is_empty()
            && requests.is_empty()
            && absent.is_empty()
            && expected.is_empty()
            && dials.is_empty()
    }
}

/// Two ends, and what is on the way between them.
struct Pair {
    now: Instant,
    ends: [End; 2],
    /// What is on its way to each.
    inbox: [VecDeque<Element>; 2],
    /// What each has sent and its server has not got yet.
    outbox: [VecDeque<Element>; 2],
    /// All that was sent, in short.
    log: Vec<String>,
    /// All that was sent, as it was.
    stanzas: Vec<Element>,
    net: Net,
}

impl Pair {
    fn new() -> Self {
        Self::with(|_, config| config)
    }

    fn with(adjust: impl Fn(Side, Config) -> Config) -> Self {
        let now = Instant::now();
        let end = |side| End::new(side, adjust(side, config(side)), now);
        Self {
            now,
            ends: [end(Romeo), end(Juliet)],
            inbox: Default::default(),
            outbox: Default::default(),
            log: Vec::new(),
            stanzas: Vec::new(),
            net: Net::new(),
        }
    }

    fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    fn collect(&mut self) {
        for side in [Romeo, Juliet] {
            for stanza in self.end(side).sent() {
                let to: Jid = stanza.attr("to").unwrap().parse().unwrap();
                if to.to_bare() != self.end(side.other()).jid.to_bare() {
                    self.end(side).elsewhere.push(stanza);
                    continue;
                }
                self.log.push(format!("{}: {}", side.name(), describe(&stanza)));
                self.stanzas.push(stanza.clone());
                self.outbox[side as usize].push_back(stanza);
            }
            self.pass_on(side);
            self.perform(side);
        }
    }

    fn deliver(&mut self, to: Side) -> bool {
        self.collect();
        if self.end(to).sessions.link.is_down() {
            return false;
        }
        let Some(stanza) = self.inbox[to as usize].pop_front() else { return false };
        let now = self.now;
        self.forget_closed(to, &stanza);
        let back = self.end(to).receives(now, &stanza);
        // The answers to what [`End::hears`] made up are nobody's, and presence is the bot's too.
        let is_bots = stanza.attr("id") == Some("x1") || stanza.name() == "presence";
        assert!(back.is_none() || is_bots, "given back: {back:?}");
        self.collect();
        true
    }

    /// Delivers everything, and what it leads to.
    fn run(&mut self) {
        while self.deliver(Romeo) || self.deliver(Juliet) {}
    }

    /// Time passes; nothing else does.
    fn advance(&mut self, by: Duration) {
        self.now += by;
        let now = self.now;
        for side in [Romeo, Juliet] {
            self.end(side).sessions.handle_timeout(now);
        }
        self.collect();
    }

    fn connect(&mut self, side: Side) -> SessionId {
        let (now, peer) = (self.now, self.end(side.other()).jid.clone());
        self.end(side).sessions.connect(now, peer, None).unwrap()
    }

    /// The oldest offer is accepted.
    fn accept(&mut self, side: Side) -> SessionId {
        let now = self.now;
        let id = self.end(side).incoming.pop_front().expect("nobody called");
        self.end(side).sessions.accept(now, id).unwrap();
        id
    }

    /// Romeo's session with Juliet is offered, and she has not decided.
    fn ringing() -> (Self, SessionId, SessionId) {
        let mut pair = Self::new();
        let romeos = pair.connect(Romeo);
        pair.run();
        let juliets = pair.end(Juliet).incoming.pop_front().unwrap();
        (pair, romeos, juliets)
    }

    /// With an open bytestream.
    fn open() -> (Self, SessionId, SessionId) {
        Self::open_with(|_, config| config)
    }

    fn open_with(adjust: impl Fn(Side, Config) -> Config) -> (Self, SessionId, SessionId) {
        let mut pair = Self::with(adjust);
        let romeos = pair.connect(Romeo);
        pair.run();
        let juliets = pair.accept(Juliet);
        pair.run();
        assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets));
        pair.take_log();
        pair.stanzas.clear();
        (pair, romeos, juliets)
    }

    fn terminate(&mut self, side: Side, id: SessionId, reason: Reason, text: Option<&str>) {
        let now = self.now;
        self.end(side).sessions.terminate(now, id, reason, text);
        self.collect();
    }

    fn release(&mut self, side: Side, id: SessionId) {
        let now = self.now;
        self.end(side).sessions.release(now, id);
        self.collect();
    }

    fn write(&mut self, side: Side, id: SessionId, bytes: &[u8]) -> Result<usize, Error> {
        let now = self.now;
        let written = self.end(side).sessions.write(now, id, bytes);
        self.collect();
        written.map(|written| match written {
            Write::Taken(count) => count,
            Write::Pending => 0,
            Write::Socket(socket) => panic!("{socket:?} is to be written to"),
        })
    }

    /// Writes it all, which must fit, and flushes it.
    fn send(&mut self, side: Side, id: SessionId, bytes: &[u8]) {
        assert_eq!(self.write(side, id, bytes).unwrap(), bytes.len());
        let now = self.now;
        self.end(side).sessions.flush(now, id).unwrap();
        self.collect();
    }

    fn shutdown(&mut self, side: Side, id: SessionId) -> Result<bool, Error> {
        let now = self.now;
        let done = self.end(side).sessions.shutdown(now, id);
        self.collect();
        done.map(|done| done == Done::Yes)
    }

    /// Reads all that is there, and what comes after it.
    fn drain(&mut self, side: Side, id: SessionId) -> (Vec<u8>, Result<Read, Error>) {
        let (now, mut all, mut buffer) = (self.now, Vec::new(), [0; 4096]);
        loop {
            let read = self.end(side).sessions.read(now, id, &mut buffer);
            self.collect();
            match read {
                Ok(Read::Data(count)) => all.extend_from_slice(&buffer[..count]),
                end => return (all, end),
            }
        }
    }

    /// This side gets a request from the other end that the other end did not make; what it answers, and sends then.
    fn hears(&mut self, side: Side, payload: &str) -> Vec<String> {
        let from = self.end(side.other()).jid.to_string();
        let iq = format!("<iq xmlns='jabber:client' type='set' id='x1' from='{from}'>{payload}</iq>");
        let (now, before) = (self.now, self.log.len());
        assert!(self.end(side).receives(now, &iq.parse().unwrap()).is_none());
        self.collect();
        let prefix = format!("{}: ", side.name());
        let sent = self.log[before..].iter().filter_map(|line| line.strip_prefix(&prefix));
        sent.map(ToOwned::to_owned).collect()
    }

    /// A Jingle request about a session's transport.
    fn about(&mut self, side: Side, id: SessionId, action: &str, transport: &str) -> String {
        let sid = self.end(side).sessions.sid(id).unwrap().to_owned();
        jingle(action, &sid, &content("name='xmlstream'", transport))
    }

    fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// The iq with this Jingle action that was sent last.
    fn sent(&self, action: &str) -> &Element {
        let named = |stanza: &&Element| {
            stanza
                .children()
                .any(|payload| payload.attr("action") == Some(action) || payload.name() == action)
        };
        self.stanzas.iter().rev().find(named).unwrap_or_else(|| panic!("no {action} was sent"))
    }
}

/// A stanza in a few words.
fn describe(stanza: &Element) -> String {
    if stanza.name() == "presence" {
        return format!("presence to {}", stanza.attr("to").unwrap());
    }
    let payload = stanza.children().next();
    let name = match payload {
        Some(payload) if payload.name() == "jingle" => match reason(payload).or_else(|| notice(payload)) {
            Some(what) => format!(" {} {what}", payload.attr("action").unwrap()),
            None => format!(" {}", payload.attr("action").unwrap()),
        },
        Some(payload) if payload.name() == "data" => format!(" data {}", payload.attr("seq").unwrap()),
        Some(payload) if payload.name() == "error" => {
            let conditions = payload.children().filter(|child| child.name() != "text");
            let names: Vec<_> = conditions.map(Element::name).collect();
            format!(" {} {}", payload.attr("type").unwrap(), names.join(" "))
        }
        Some(payload) => format!(" {}", payload.name()),
        None => String::new(),
    };
    format!("{}{name}", stanza.attr("type").unwrap())
}

fn reason(jingle: &Element) -> Option<&str> {
    let reason = jingle.children().find(|child| child.name() == "reason")?;
    reason.children().next().map(Element::name)
}

/// What a transport-info says of candidates.
fn notice(jingle: &Element) -> Option<&str> {
    let told = jingle.attr("action") == Some("transport-info");
    told.then(|| find(jingle, "transport").children().next().map(Element::name)).flatten()
}

/// The first descendant of this name.
fn find<'a>(element: &'a Element, name: &str) -> &'a Element {
    fn search<'a>(element: &'a Element, name: &str) -> Option<&'a Element> {
        element
            .children()
            .find_map(|child| if child.name() == name { Some(child) } else { search(child, name) })
    }
    search(element, name).unwrap_or_else(|| panic!("no <{name}/> in {}", String::from(element)))
}

/// The iq of a fixture, as it arrives at a client.
fn fixture(path: &str) -> String {
    let file = format!("{}/fixtures/{path}.xml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.replacen("<iq", "<iq xmlns='jabber:client'", 1)
}

// ---- stanzas of a peer that is not one of us --------------------------------------------------

/// A `<security/>` that can be agreed to.
const SECURITY: &str = "<security xmlns='urn:xmpp:jingle:security:xtls:0'>\
    <fingerprint algo='sha-256'>00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff</fingerprint>\
    <method name='x509'/></security>";
const DESCRIPTION: &str = "<description xmlns='urn:xmpp:jingle:apps:xmlstream:0'/>";
const TRANSPORT: &str =
    "<transport xmlns='urn:xmpp:jingle:transports:ibb:1' block-size='4096' sid='vj3hs98y'/>";

fn jingle(action: &str, sid: &str, children: &str) -> String {
    format!("<jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='{sid}'>{children}</jingle>")
}

fn content(attributes: &str, children: &str) -> String {
    format!("<content creator='initiator' {attributes}>{children}</content>")
}

fn initiate(sid: &str) -> String {
    let children = format!("{DESCRIPTION}{TRANSPORT}{SECURITY}");
    jingle("session-initiate", sid, &content("name='xmlstream'", &children))
}

/// The answer to disco#info of somebody with these features.
fn disco_result(id: &str, features: &[&str]) -> Element {
    let features: String = features.iter().map(|var| format!("<feature var='{var}'/>")).collect();
    let result = format!(
        "<iq xmlns='jabber:client' type='result' id='{id}' from='{JULIET}'>\
         <query xmlns='http://jabber.org/protocol/disco#info'>{features}</query></iq>"
    );
    result.parse().unwrap()
}

const FEATURES: [&str; 4] = [ns::JINGLE, ns::XMLSTREAM, ns::JINGLE_IBB, ns::XTLS];

/// The empty result to a request of an end's, from Juliet.
fn ack(request: &Element) -> Element {
    let id = request.attr("id").unwrap();
    format!("<iq xmlns='jabber:client' type='result' id='{id}' from='{JULIET}'/>").parse().unwrap()
}

/// An error to a request of an end's, from Juliet.
fn nack(request: &Element, error: &str) -> Element {
    let id = request.attr("id").unwrap();
    let error = format!("<iq xmlns='jabber:client' type='error' id='{id}' from='{JULIET}'>{error}</iq>");
    error.parse().unwrap()
}

/// `<error/>` with these conditions.
fn error(type_: &str, condition: &str, jingle: &str) -> String {
    let jingle = match jingle {
        "" => String::new(),
        name => format!("<{name} xmlns='urn:xmpp:jingle:errors:1'/>"),
    };
    format!(
        "<error type='{type_}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>{jingle}</error>"
    )
}
