//! All Jingle sessions of an endpoint (XEP-0166), sans-IO.
//!
//! Stanzas, the time and the local user's wishes go in; stanzas and news come out of
//! [`Sessions::poll_output`]. Sessions are keyed by the peer's full JID and the sid, in-band
//! bytestreams by the peer's full JID and their own sid: nobody else can touch them.

mod actions;
mod bytestreams;
mod callers;
mod deadlines;
mod falling_back;
mod gathering;
mod initiator;
mod losing;
mod moving;
mod pubkeys;
mod replacing;
mod requests;
mod responder;
mod resuming;
mod roster;
mod security;
mod sockets;
mod stalling;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod whereabouts;

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use jid::{FullJid, Jid};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{
    iq::{Iq, IqPayload},
    jingle::Action,
    message::MessageType,
    minidom::Element,
    presence::{Presence, Type as PresenceType},
    stanza::Stanza,
    stanza_error::StanzaError,
};

use self::{
    callers::Refusals,
    requests::Requests,
    resuming::Resumable,
    roster::Roster,
    stalling::Link,
    state::{ABSENCE, Ended, Farewell, Session, State},
    table::Table,
    whereabouts::Lookouts,
};
pub(crate) use self::{
    callers::Word,
    sockets::{DialToken, Effect},
    state::{Announced, Role, SessionId},
};
use crate::{
    Config, Error, Fingerprint, Reason,
    disco::{Ask, Disco, Proxies},
    transport::{self, Kept, s5b::Attempt},
    wire::{
        jingle::{Jingle, ReasonElement},
        ns,
    },
};

/// Everything sans-IO behind an endpoint.
#[derive(Debug)]
pub(crate) struct Sessions {
    config: Config,
    /// The full JID that the server gave us, while there is a session with it.
    bound: Option<FullJid>,
    link: Link,
    table: Table,
    requests: Requests<Purpose>,
    disco: Disco,
    proxies: Proxies,
    roster: Roster,
    refusals: Refusals,
    resumable: Resumable,
    lookouts: Lookouts,
    kept: Kept,
    /// Which session somebody who connects to our listener is for, by DST.ADDR.
    expected: HashMap<String, SessionId>,
    listening_until: Option<Instant>,
    /// The attempts to connect that are being made.
    dials: HashMap<DialToken, (SessionId, Attempt)>,
    next_dial: u64,
    /// Peers with a session whose presence says that they are gone, since when; without a sign of life after it.
    absent: HashMap<FullJid, Instant>,
    outputs: VecDeque<Output>,
    doors: Doors,
    /// No timer is due before this.
    wake_at: Option<Instant>,
}

/// Whether peers can start sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doors {
    Open,
    /// The endpoint is being closed.
    Closed,
}

/// What the sessions want done, or made known.
#[derive(Debug)]
pub(crate) enum Output {
    /// To be sent to the server.
    Send(Stanza),
    /// A peer opened a session; the local user has to decide.
    Incoming(SessionId),
    /// A peer opened a session to carry on a stream with us that there may be; it is to be accepted or terminated.
    Resumption(SessionId),
    /// Something about the session changed: look at it again.
    Changed(SessionId),
    /// To be done with sockets.
    Effect(Effect),
    /// The reply to a request that the local user made.
    Reply(RequestToken, Result<IqResponse, Error>),
}

/// Names a request of the local user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestToken(pub(crate) u64);

/// How far a session is.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Being negotiated, or the bytestream being opened.
    Pending,
    /// The bytestream can be used.
    Open,
    /// Ended on the wire. The acknowledgement of our session-terminate may be outstanding.
    Ended(Option<Error>),
}

/// What a request's reply is for.
#[derive(Debug)]
enum Purpose {
    User(RequestToken),
    Disco {
        session: SessionId,
        node: Option<String>,
    },
    Jingle {
        session: SessionId,
        action: Action,
    },
    Transport {
        session: SessionId,
        request: transport::Request,
    },
    /// A proxy is to let the bytes through.
    Activation {
        session: SessionId,
    },
    Proxies(Ask),
    Roster,
}

impl Purpose {
    fn session(&self) -> Option<SessionId> {
        match self {
            Self::User(_) | Self::Proxies(_) | Self::Roster => None,
            Self::Disco { session, .. }
            | Self::Jingle { session, .. }
            | Self::Transport { session, .. }
            | Self::Activation { session } => Some(*session),
        }
    }

    /// Whether it outlives its session.
    fn is_farewell(&self) -> bool {
        matches!(self, Self::Jingle { action: Action::SessionTerminate, .. })
    }
}

/// An iq request from somebody, taken apart.
struct Request {
    from: FullJid,
    id: String,
    payload: Element,
    /// What the bot's filter says of its sender.
    word: Word,
}

impl Sessions {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            table: Table::new(config.limits),
            requests: Requests::new(format!("{}-", random_id())),
            disco: Disco::new(&config.disco, config.transports),
            proxies: Proxies::new(&config.s5b.proxies),
            roster: Roster::default(),
            refusals: Refusals::default(),
            resumable: Resumable::default(),
            lookouts: Lookouts::default(),
            kept: Kept::new(config.ibb.receive_total),
            expected: HashMap::new(),
            listening_until: None,
            dials: HashMap::new(),
            next_dial: 0,
            config,
            bound: None,
            link: Link::Up,
            absent: HashMap::new(),
            outputs: VecDeque::new(),
            doors: Doors::Open,
            wake_at: None,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn disco(&self) -> &Disco {
        &self.disco
    }

    pub(crate) fn bound(&self) -> Option<&FullJid> {
        self.bound.as_ref()
    }

    /// Takes a stanza from the server, and gives it back if it is not for us. See [`Sessions::asks_about`] for the word.
    pub(crate) fn handle_stanza(&mut self, now: Instant, stanza: Stanza, word: Word) -> Option<Stanza> {
        if let Some(Ok(from)) = sign_of_life(&stanza).map(Jid::try_as_full) {
            self.heard_from(from);
        }
        match stanza {
            Stanza::Iq(iq) => self.handle_iq(now, iq, word).map(Stanza::Iq),
            Stanza::Presence(presence) => {
                self.handle_presence(now, &presence);
                Some(Stanza::Presence(presence))
            }
            message @ Stanza::Message(_) => Some(message),
        }
    }

    fn handle_presence(&mut self, now: Instant, presence: &Presence) {
        self.disco.handle_presence(presence);
        self.note_whereabouts(presence);
        let Some(from) = presence.from.as_ref().and_then(|from| from.try_as_full().ok()) else { return };
        let concerned = |session: &Session| session.peer == *from && session.is_on_wire();
        if presence.type_ == PresenceType::Unavailable && self.table.sessions().any(concerned) {
            self.absent.entry(from.clone()).or_insert(now);
            self.wake_no_later_than(now + ABSENCE);
        }
    }

    fn heard_from(&mut self, peer: &FullJid) {
        if !self.absent.is_empty() {
            self.absent.remove(peer);
        }
    }

    fn handle_iq(&mut self, now: Instant, iq: Iq, word: Word) -> Option<Iq> {
        match iq {
            Iq::Get { from: Some(from), to, id, payload } => {
                let ours = payload.is("query", ns::DISCO_INFO) && self.config.disco.answer;
                if self.refuses_pubkeys(&from, to.as_ref(), &id, &payload) {
                    return None;
                }
                if !ours || !self.is_for_us(to.as_ref()) {
                    return Some(Iq::Get { from: Some(from), to, id, payload });
                }
                let answer = self.disco.info(payload.attr("node")).map_err(|refusal| *refusal);
                self.send_iq(from, id, answer.map(Some));
                None
            }
            Iq::Set { from: Some(from), to, id, payload } => {
                let jingle = Jingle::matches(&payload);
                if !jingle && !payload.has_ns(ns::IBB) {
                    self.handle_push(Some(&from), &payload);
                    return Some(Iq::Set { from: Some(from), to, id, payload });
                }
                let from = match from.try_into_full() {
                    Ok(from) => from,
                    Err(bare) if self.config.pass_foreign => {
                        return Some(Iq::Set { from: Some(bare.into()), to, id, payload });
                    }
                    Err(bare) => {
                        let refusal = self.refusal_of_bare();
                        self.send_iq(bare.into(), id, Err(refusal));
                        return None;
                    }
                };
                let request = Request { from, id, payload, word };
                let back =
                    if jingle { self.handle_jingle(now, request) } else { self.handle_ibb(now, request) };
                back.map(|Request { from, id, payload, .. }| Iq::Set {
                    from: Some(from.into()),
                    to,
                    id,
                    payload,
                })
            }
            reply @ (Iq::Result { .. } | Iq::Error { .. }) => self.handle_reply(now, reply),
            Iq::Set { from: None, to, id, payload } => {
                self.handle_push(None, &payload);
                Some(Iq::Set { from: None, to, id, payload })
            }
            request => Some(request),
        }
    }

    fn is_for_us(&self, to: Option<&Jid>) -> bool {
        match (to, &self.bound) {
            (None, _) | (_, None) => true,
            (Some(to), Some(bound)) => to.try_as_full().is_ok_and(|to| to == bound),
        }
    }

    fn handle_reply(&mut self, now: Instant, reply: Iq) -> Option<Iq> {
        let own = self.bound.clone().map(Jid::from);
        let Some(purpose) = self.requests.take(reply.id(), reply.from(), own.as_ref()) else {
            // Late, or from somebody who was not asked: nobody else can want it.
            return Some(reply).filter(|reply| !self.requests.is_ours(reply.id()));
        };
        match reply.into_payload() {
            IqPayload::Result(payload) => self.settle(now, purpose, Ok(payload)),
            IqPayload::Error(error) => self.settle(now, purpose, Err(error)),
            IqPayload::Get(_) | IqPayload::Set(_) => {}
        }
        None
    }

    fn settle(&mut self, now: Instant, purpose: Purpose, reply: Result<Option<Element>, StanzaError>) {
        let span = purpose.session().map_or_else(tracing::Span::none, |id| self.span(id));
        let _entered = span.enter();
        match purpose {
            Purpose::User(token) => {
                let response = reply.map_or_else(IqResponse::Error, IqResponse::Result);
                self.outputs.push_back(Output::Reply(token, Ok(response)));
            }
            Purpose::Disco { session, node } => self.handle_disco_reply(now, session, node.as_deref(), reply),
            Purpose::Jingle { session, action } => self.handle_ack(now, session, action, reply.map(drop)),
            Purpose::Proxies(ask) => self.handle_proxies(now, &ask, reply.ok().flatten().as_ref()),
            Purpose::Roster => self.handle_roster(reply),
            Purpose::Activation { session } => {
                if let Some(s5b) = self.table.get_mut(session).and_then(Session::s5b_mut) {
                    s5b.handle_activated(now, reply.map(drop));
                }
                self.after_transport(now, session);
            }
            Purpose::Transport { session, request } => {
                let Some(transport) = self.table.get_mut(session).and_then(Session::transport_mut) else {
                    return;
                };
                transport.handle_reply(now, request, reply.map(drop));
                self.after_transport(now, session);
            }
        }
    }

    // ---- what the local user wants -------------------------------------------------------

    /// Sends an iq request; the reply comes as [`Output::Reply`].
    pub(crate) fn request(&mut self, now: Instant, token: RequestToken, to: Option<Jid>, request: IqRequest) {
        let deadline = (now + self.config.timeouts.iq, self.config.timeouts.iq);
        let id = self.requests.add(to.clone(), Purpose::User(token), Some(deadline));
        let iq = match request {
            IqRequest::Get(payload) => Iq::Get { from: None, to, id, payload },
            IqRequest::Set(payload) => Iq::Set { from: None, to, id, payload },
        };
        self.wake_no_later_than(deadline.0);
        self.outputs.push_back(Output::Send(iq.into()));
    }

    /// The user does not wait for the reply any more.
    pub(crate) fn forget_request(&mut self, token: RequestToken) {
        self.requests.cancel(|purpose| matches!(purpose, Purpose::User(cancelled) if *cancelled == token));
    }

    /// Ends the session with session-terminate, if the peer knows of it (XEP-0166 #session-terminate).
    pub(crate) fn terminate(&mut self, now: Instant, id: SessionId, reason: Reason, text: Option<&str>) {
        self.terminate_with(now, id, reason, text, None);
    }

    /// Ends the session because of an error of this side's making or finding.
    pub(crate) fn fail(&mut self, now: Instant, id: SessionId, error: Error) {
        let text = error.peer_text();
        self.terminate_with(now, id, error.reason(), text.as_deref(), Some(error));
    }

    fn terminate_with(
        &mut self,
        now: Instant,
        id: SessionId,
        reason: Reason,
        text: Option<&str>,
        error: Option<Error>,
    ) {
        let span = self.span(id);
        let _entered = span.enter();
        let Some(session) = self.table.get_mut(id) else { return };
        if matches!(session.state, State::Ended(_)) {
            return;
        }
        if !session.is_on_wire() {
            return self.end(now, id, error, Farewell::Over);
        }
        tracing::debug!(%reason, "terminating the session");
        let mut why = ReasonElement::new(reason);
        why.text = text.map(ToOwned::to_owned);
        let jingle = Jingle::new(Action::SessionTerminate, session.sid.clone()).with_reason(why);
        self.send_jingle(now, id, Action::SessionTerminate, jingle);
        self.end(now, id, error, Farewell::AwaitingAck);
    }

    /// From now on, peers can't start sessions for new streams.
    pub(crate) fn close_doors(&mut self) {
        self.doors = Doors::Closed;
    }

    /// The user let go of the session: it is ended if need be, and forgotten.
    pub(crate) fn release(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.table.get_mut(id) else { return };
        let reason = session.reason_for_dropping();
        self.terminate(now, id, reason, None);
        if let Some(socket) = self.table.get_mut(id).and_then(|session| session.transport_mut()?.socket()) {
            // Unless somebody has taken it.
            self.hang_up(socket);
        }
        self.table.remove(id);
    }

    pub(crate) fn progress(&self, id: SessionId) -> Progress {
        match self.table.get(id).map(|session| &session.state) {
            Some(State::Active(active)) if active.transport.is_open() => Progress::Open,
            Some(State::Ended(Ended { error, .. })) => Progress::Ended(error.clone()),
            Some(_) => Progress::Pending,
            None => Progress::Ended(None),
        }
    }

    /// Whether nothing of the session is outstanding on the wire.
    pub(crate) fn is_over(&self, id: SessionId) -> bool {
        match self.table.get(id).map(|session| &session.state) {
            Some(State::Ended(Ended { farewell, .. })) => *farewell == Farewell::Over,
            Some(_) => false,
            None => true,
        }
    }

    pub(crate) fn role(&self, id: SessionId) -> Option<Role> {
        self.table.get(id).map(|session| session.role)
    }

    pub(crate) fn peer(&self, id: SessionId) -> Option<&FullJid> {
        self.table.get(id).map(|session| &session.peer)
    }

    /// For whatever is done for the session.
    pub(crate) fn span(&self, id: SessionId) -> tracing::Span {
        self.table.get(id).map_or_else(tracing::Span::none, |session| session.span.clone())
    }

    #[cfg(test)]
    pub(crate) fn sid(&self, id: SessionId) -> Option<&str> {
        self.table.get(id).map(|session| session.sid.as_str())
    }

    /// What the peer announced about its certificate; `None` for a session without XTLS.
    pub(crate) fn announced(&self, id: SessionId) -> Option<Vec<Fingerprint>> {
        match self.security(id)? {
            Announced::Fingerprints(fingerprints) => Some(fingerprints.clone()),
            Announced::Starttls | Announced::Nothing => None,
        }
    }

    /// How the session is encrypted; `None` before that is known.
    pub(crate) fn security(&self, id: SessionId) -> Option<&Announced> {
        match &self.table.get(id)?.state {
            State::Ringing(ringing) => Some(&ringing.announced),
            State::Accepting(accepting) => Some(&accepting.announced),
            State::Active(active) => Some(&active.announced),
            State::Ended(ended) => ended.announced.as_ref(),
            State::Preparing(_) | State::Gathering(_) | State::Offered(_) => None,
        }
    }

    /// The sessions that are not over, oldest first.
    pub(crate) fn live(&self) -> Vec<SessionId> {
        self.table.ids().into_iter().filter(|id| !self.is_over(*id)).collect()
    }

    // ---- output --------------------------------------------------------------------------

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // ---- inside --------------------------------------------------------------------------

    fn end(&mut self, now: Instant, id: SessionId, error: Option<Error>, farewell: Farewell) {
        if self.table.get(id).is_none() {
            return;
        }
        self.give_up_connecting(id);
        self.table.close(id, error, farewell);
        self.requests.cancel(|purpose| purpose.session() == Some(id) && !purpose.is_farewell());
        // What the peer still waits for is answered.
        self.after_transport(now, id);
        self.outputs.push_back(Output::Changed(id));
    }

    /// Sends a Jingle action whose acknowledgement matters.
    fn send_jingle(&mut self, now: Instant, id: SessionId, action: Action, jingle: Jingle) {
        let Some(session) = self.table.get(id) else { return };
        let to = Jid::from(session.peer.clone());
        let payload = jingle.into_element(session.dialect);
        let deadline = (now + self.config.timeouts.jingle_ack, self.config.timeouts.jingle_ack);
        let purpose = Purpose::Jingle { session: id, action };
        let id = self.requests.add(Some(to.clone()), purpose, Some(deadline));
        self.wake_no_later_than(deadline.0);
        self.send_set(to, id, payload);
    }

    /// Sends a Jingle action that informs the peer; nothing of ours depends on the answer.
    fn tell(&mut self, id: SessionId, jingle: Jingle) {
        let Some(session) = self.table.get(id) else { return };
        let (to, payload) = (session.peer.clone().into(), jingle.into_element(session.dialect));
        let id = self.requests.id_for_unanswered();
        self.send_set(to, id, payload);
    }

    fn send_set(&mut self, to: Jid, id: String, payload: Element) {
        self.outputs.push_back(Output::Send(Iq::Set { from: None, to: Some(to), id, payload }.into()));
    }

    fn acknowledge(&mut self, to: FullJid, id: String) {
        self.send_iq(to.into(), id, Ok(None));
    }

    fn refuse(&mut self, to: FullJid, id: String, refusal: StanzaError) {
        self.send_iq(to.into(), id, Err(refusal));
    }

    fn send_iq(&mut self, to: Jid, id: String, answer: Result<Option<Element>, StanzaError>) {
        let (from, to) = (None, Some(to));
        let iq = match answer {
            Ok(payload) => Iq::Result { from, to, id, payload },
            Err(error) => Iq::Error { from, to, id, error, payload: None },
        };
        self.outputs.push_back(Output::Send(iq.into()));
    }
}

/// From whom this stanza is, if it shows that its sender is there. Servers send errors in the name of who is not,
/// and much of the presence that comes from accounts says nothing of the resource.
fn sign_of_life(stanza: &Stanza) -> Option<&Jid> {
    match stanza {
        Stanza::Iq(Iq::Error { .. }) => None,
        Stanza::Iq(iq) => iq.from(),
        Stanza::Presence(presence) if presence.type_ == PresenceType::None => presence.from.as_ref(),
        Stanza::Presence(_) => None,
        Stanza::Message(message) if message.type_ == MessageType::Error => None,
        Stanza::Message(message) => message.from.as_ref(),
    }
}

/// A name that can't be guessed, fit for an NMTOKEN (XEP-0166 #def-jingle, RFC 4086).
pub(crate) fn random_id() -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut bytes = [0; 18];
    #[expect(clippy::expect_used, reason = "no peer can make the operating system run out of randomness")]
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}
