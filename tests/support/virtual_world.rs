//! Two bots and the servers between them, in virtual time: whatever computing takes, the clock only moves when everybody
//! waits. So what passes can be counted in round trips.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jid::{FullJid, Jid};
use jingle_xmlstream::{ByHand, Config, Endpoint};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep_until},
};
use tokio_xmpp::Event;
use xmpp_parsers::{
    caps::{Caps, compute_disco, hash_caps},
    disco::{DiscoInfoResult, Identity},
    hashes::Algo,
    iq::{Iq, IqPayload},
    minidom::Element,
    presence::Presence,
    stanza::Stanza,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use super::{JULIET, ROMEO, jid};

/// From one bot to the other through the servers and back: what the ladders count in.
pub const ROUND_TRIP: Duration = Duration::from_millis(100);

/// Keeps two orders of magnitude from the roundings of a timer, which has milliseconds.
const HALF: Duration = Duration::from_millis(50);

/// Servers that carry stanzas between bots, each in half a round trip.
#[derive(Clone, Default)]
pub struct VirtualWorld {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    bots: HashMap<FullJid, UnboundedSender<(Instant, Stanza)>>,
    /// What bots of other programs say of themselves.
    foreign: HashMap<FullJid, DiscoInfoResult>,
    ladder: Vec<Line>,
    since: Option<Instant>,
}

/// A stanza from one bot to the other, when it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// In half round trips since the ladder began.
    pub halves: u32,
    /// Such as `romeo> ibb open`.
    pub what: String,
}

impl VirtualWorld {
    /// Romeo and Juliet, who know each other's presence.
    pub async fn pair(&self, romeos: Config, juliets: Config) -> (Endpoint, Endpoint) {
        let (romeo, juliet) = (self.bot(ROMEO, romeos), self.bot(JULIET, juliets));
        self.introduce(&romeo, &juliet).await;
        (romeo, juliet)
    }

    /// A bot whose program has not all features of ours: this one is missing from what it announces.
    pub fn bot_without(&self, feature: &str, name: &str, config: Config) -> Endpoint {
        let endpoint = self.bot(name, config);
        let mut info = info("client", "bot");
        info.features = endpoint.features().into_iter().filter(|known| known != feature).collect();
        self.inner.lock().unwrap().foreign.insert(jid(name), info);
        endpoint
    }

    /// A bot that is online.
    pub fn bot(&self, name: &str, config: Config) -> Endpoint {
        let name: FullJid = jid(name);
        let (endpoint, mut by_hand) = Endpoint::by_hand(config);
        by_hand.handle_bound(name.clone());
        let (to_bot, from_server) = unbounded_channel();
        self.inner.lock().unwrap().bots.insert(name.clone(), to_bot);
        tokio::spawn(drive(self.clone(), name, by_hand, from_server));
        endpoint
    }

    /// Each sends the other its presence, with its capabilities, and all of that has come.
    pub async fn introduce(&self, one: &Endpoint, other: &Endpoint) {
        for (from, to) in [(one, other), (other, one)] {
            let mut presence = Presence::available();
            presence.to = to.jid().map(Jid::from);
            from.send_presence(presence).await.unwrap();
        }
        tokio::time::sleep(ROUND_TRIP).await;
    }

    /// From now on time is counted, and what passes.
    pub fn begin_ladder(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.ladder.clear();
        inner.since = Some(Instant::now());
    }

    /// What the bots sent each other.
    pub fn ladder(&self) -> Vec<Line> {
        self.inner.lock().unwrap().ladder.clone()
    }

    /// The requests among them, one flight a line: `1.0 romeo> security-info, open`.
    pub fn flights(&self) -> Vec<String> {
        let mut flights: Vec<String> = Vec::new();
        for Line { halves, what } in self.ladder() {
            let (who, what) = what.split_once(' ').unwrap();
            if what == "result" {
                continue;
            }
            let begin = format!("{:.1} {who} ", f64::from(halves) / 2.0);
            match flights.iter_mut().find(|flight| flight.starts_with(&begin)) {
                Some(flight) => {
                    flight.push_str(", ");
                    flight.push_str(what);
                }
                None => flights.push(begin + what),
            }
        }
        flights
    }

    /// How many round trips have passed since the ladder began, in halves.
    pub fn round_trips(&self) -> f64 {
        f64::from(self.inner.lock().unwrap().halves()) / 2.0
    }

    /// What another program answers to a question about its features.
    fn foreign_answer(&self, name: &FullJid, stanza: &Stanza) -> Option<Stanza> {
        let Stanza::Iq(Iq::Get { from, id, payload, .. }) = stanza else { return None };
        let mut info = self.inner.lock().unwrap().foreign.get(name).cloned()?;
        info.node = payload.attr("node").map(ToOwned::to_owned);
        let answer = Iq::Result { from: None, to: from.clone(), id: id.clone(), payload: Some(info.into()) };
        payload.is("query", "http://jabber.org/protocol/disco#info").then(|| answer.into())
    }

    fn handle(&self, from: &FullJid, mut stanza: Stanza) {
        let mut inner = self.inner.lock().unwrap();
        let to = match &stanza {
            Stanza::Iq(iq) => iq.to().cloned(),
            Stanza::Message(message) => message.to.clone(),
            Stanza::Presence(presence) => presence.to.clone(),
        };
        let to = to.and_then(|to| to.try_into_full().ok()).filter(|to| inner.bots.contains_key(to));
        let Some(to) = to else {
            if let Some(answer) = answer(from, stanza) {
                inner.deliver(from, answer);
            }
            return;
        };
        match &mut stanza {
            Stanza::Iq(iq) => *iq.from_mut() = Some(from.clone().into()),
            Stanza::Message(message) => message.from = Some(from.clone().into()),
            Stanza::Presence(presence) => {
                presence.from = Some(from.clone().into());
                if let Some(info) = inner.foreign.get(from) {
                    let hash = hash_caps(&compute_disco(info), Algo::Sha_1).unwrap();
                    presence.payloads = vec![Caps::new("https://foreign.example", hash).into()];
                }
            }
        }
        inner.note(from, &stanza);
        inner.deliver(&to, stanza);
    }
}

impl Inner {
    fn halves(&self) -> u32 {
        let since = self.since.map(|since| since.elapsed()).unwrap_or_default();
        u32::try_from((since.as_millis() + 5) / HALF.as_millis()).unwrap()
    }

    fn note(&mut self, from: &FullJid, stanza: &Stanza) {
        let who = from.node().unwrap().to_string();
        let what = format!("{who}> {}", name(stanza));
        let halves = self.halves();
        if self.since.is_some() {
            self.ladder.push(Line { halves, what });
        }
    }

    fn deliver(&mut self, to: &FullJid, stanza: Stanza) {
        if let Some(bot) = self.bots.get(to) {
            // A bot that has ended takes nothing.
            let _ = bot.send((Instant::now() + HALF, stanza));
        }
    }
}

/// A bot's own loop.
async fn drive(
    world: VirtualWorld,
    name: FullJid,
    mut by_hand: ByHand,
    mut from_server: UnboundedReceiver<(Instant, Stanza)>,
) {
    let mut coming: Option<(Instant, Stanza)> = None;
    loop {
        let due = coming.as_ref().map(|(due, _)| *due);
        tokio::select! {
            next = from_server.recv(), if coming.is_none() => coming = next,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let Some((_, stanza)) = coming.take() else { continue };
                match world.foreign_answer(&name, &stanza) {
                    Some(answer) => world.handle(&name, answer),
                    None => drop(by_hand.handle(Event::Stanza(stanza))),
                }
            }
            stanza = by_hand.outgoing() => match stanza {
                Some(stanza) => world.handle(&name, stanza),
                None => return,
            },
        }
    }
}

/// What a server answers to what is meant for itself.
fn answer(from: &FullJid, stanza: Stanza) -> Option<Stanza> {
    let Stanza::Iq(iq @ (Iq::Get { .. } | Iq::Set { .. })) = stanza else { return None };
    let (id, server) = (iq.id().to_owned(), iq.to().cloned());
    let result = |payload| {
        let (from, to) = (server.clone(), Some(from.clone().into()));
        Some(Iq::Result { from, to, id: id.clone(), payload: Some(payload) }.into())
    };
    match iq.into_payload() {
        IqPayload::Get(query) if query.name() == "query" && query.ns().ends_with("disco#info") => {
            result(info("server", "im").into())
        }
        IqPayload::Get(query) if query.name() == "query" => {
            result(Element::bare("query", query.ns().as_str()))
        }
        _ => {
            let error = StanzaError::new(
                ErrorType::Cancel,
                DefinedCondition::ServiceUnavailable,
                "en",
                "there is no such service in the virtual world",
            );
            Some(Iq::Error { from: server, to: Some(from.clone().into()), id, error, payload: None }.into())
        }
    }
}

fn info(category: &str, kind: &str) -> DiscoInfoResult {
    let identities = vec![Identity::new_anonymous::<_, _, String, String>(category, kind)];
    DiscoInfoResult { node: None, identities, features: Default::default(), extensions: Vec::new() }
}

fn name(stanza: &Stanza) -> String {
    let payload = match stanza {
        Stanza::Iq(Iq::Get { payload, .. } | Iq::Set { payload, .. }) => payload,
        Stanza::Iq(Iq::Result { .. }) => return "result".to_owned(),
        Stanza::Iq(Iq::Error { .. }) => return "error".to_owned(),
        Stanza::Message(_) => return "message".to_owned(),
        Stanza::Presence(_) => return "presence".to_owned(),
    };
    payload.attr("action").unwrap_or_else(|| payload.name()).to_owned()
}
