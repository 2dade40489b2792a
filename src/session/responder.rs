//! The responder's side: judging an offer, and the local user's decision.

use std::time::Instant;

use jid::FullJid;
use xmpp_parsers::{
    jingle::{Action, Creator, Senders},
    minidom::Element,
};

use super::{
    Doors, Output, Request, Sessions, security,
    state::{
        Accepting, Ack, Active, Announced, ContentName, Errand, Farewell, Offered, Ringing, Role, Session,
        SessionId, State,
    },
};
use crate::{
    ApiMisuse, Candidates, Error, Reason,
    transport::{Ibb, Proposal, Transport, s5b::candidate::Gathered},
    wire::{
        errors,
        jingle::{Content, Dialect, Jingle, ReasonElement},
        ns,
    },
};

/// The only disposition that means something for an XML stream (XEP-0166 #def-content).
pub(super) const SESSION: &str = "session";

/// An offer that we can accept.
struct Acceptable {
    content: ContentName,
    transport: Proposal,
    announced: Announced,
    declined: Vec<ContentName>,
}

/// Why an offer can't be accepted.
struct Obstacle {
    /// For the peer.
    why: ReasonElement,
    /// For our user, if it asked for a session with this peer too.
    error: Error,
}

/// What a session-initiate that crossed one of ours comes to (XEP-0166 #def-action-ties).
enum Tie {
    None,
    /// Ours overrules.
    Won,
    /// Theirs overrules; this session of ours gives way, and its user gets theirs.
    Lost(SessionId),
}

impl Sessions {
    /// XEP-0166 #protocol-initiate. Gives the request back if it is for another application, and the
    /// bot wants those.
    pub(super) fn handle_session_initiate(
        &mut self,
        now: Instant,
        request: Request,
        jingle: Jingle,
        dialect: Dialect,
    ) -> Option<Request> {
        if !jingle.contents.iter().any(is_xmlstream) && self.config.pass_foreign {
            return Some(request);
        }
        if self.doors == Doors::Closed && errand_of(&jingle.contents) == Errand::NewStream {
            self.refuse(request.from, request.id, errors::service_unavailable());
            return None;
        }
        if let Err(what) = check_contents(&jingle.contents) {
            self.refuse(request.from, request.id, errors::bad_request(what));
            return None;
        }
        let tie = self.tie(&request, &jingle);
        let named = self.table.find(&request.from, &jingle.sid);
        let loser = match tie {
            Tie::Won => {
                self.refuse(request.from, request.id, errors::tie_break());
                return None;
            }
            Tie::Lost(loser) if named.is_none_or(|named| named == loser) => Some(loser),
            Tie::None if named.is_none() => None,
            // The peer has a session of that name with us already.
            Tie::Lost(_) | Tie::None => {
                self.refuse(request.from, request.id, errors::out_of_order());
                return None;
            }
        };
        // XEP-0166 #protocol-response-ack: acknowledge at once, and terminate if it comes to nothing.
        self.acknowledge(request.from.clone(), request.id);
        self.consider(now, request.from, jingle, dialect, loser);
        None
    }

    /// An offer is acknowledged: it is taken or turned down.
    fn consider(
        &mut self,
        now: Instant,
        peer: FullJid,
        jingle: Jingle,
        dialect: Dialect,
        loser: Option<SessionId>,
    ) {
        let errand = errand_of(&jingle.contents);
        if errand == Errand::Resumption && self.resumable.of(&peer.to_bare()) == 0 {
            tracing::info!(%peer, sid = jingle.sid, "there is no stream to carry on");
            let why = ReasonElement::new(Reason::Expired).with_text("there is no stream to carry on");
            return self.turn_down(peer, &jingle.sid, dialect, why);
        }
        if loser.is_none() && self.is_full_for(&peer, errand) {
            tracing::info!(%peer, sid = jingle.sid, "too many sessions: busy");
            return self.turn_down(peer, &jingle.sid, dialect, ReasonElement::new(Reason::Busy));
        }
        let judged = self.judge(&peer, &jingle.contents);
        match judged.and_then(|offer| self.with_new_bytestream(&peer, loser, offer)) {
            Ok(offer) => self.ring(now, (peer, jingle.sid, dialect), errand, offer, loser),
            Err(obstacle) => {
                let Obstacle { why, error } = *obstacle;
                tracing::info!(%peer, sid = jingle.sid, reason = %why.reason, "declining an offer");
                self.turn_down(peer, &jingle.sid, dialect, why);
                if let Some(loser) = loser {
                    self.end(now, loser, Some(error), Farewell::Over);
                }
            }
        }
    }

    fn tie(&self, request: &Request, jingle: &Jingle) -> Tie {
        // A stream that is carried on is no answer to somebody who wants a new one, nor the other way round; and of two that
        // are carried on, each is known by its own initiator.
        let begins_stream = errand_of(&jingle.contents) == Errand::NewStream;
        if !jingle.contents.iter().any(is_xmlstream) || !begins_stream {
            return Tie::None;
        }
        let crossing = self.table.entries().filter_map(|(id, session)| {
            let is_candidate = matches!(session.state, State::Offered(Offered { ack: Ack::Awaited, .. }))
                && session.errand == Errand::NewStream
                && session.peer == request.from;
            is_candidate.then_some((&session.sid, id))
        });
        let Some((sid, id)) = crossing.min() else { return Tie::None };
        let own = self.bound.as_ref().map(ToString::to_string).unwrap_or_default();
        // The lower sid overrules, and if they are the same, the lower JID; both by octets.
        let ours = (sid.as_bytes(), own.as_bytes());
        let their_jid = request.from.to_string();
        if ours < (jingle.sid.as_bytes(), their_jid.as_bytes()) { Tie::Won } else { Tie::Lost(id) }
    }

    /// Finds the content that we can accept, or says what is wrong with the offer.
    fn judge(&self, peer: &FullJid, contents: &[Content]) -> Result<Acceptable, Box<Obstacle>> {
        let mut obstacle = None;
        for content in contents.iter().filter(|content| is_xmlstream(content)) {
            match self.judge_content(peer, content) {
                Ok((transport, announced)) => {
                    let accepted = name_of(content);
                    // Those of the same name are alternatives (XEP-0166 #def-content): with one accepted, they are gone.
                    let mut declined = Vec::new();
                    for name in contents.iter().map(name_of) {
                        if name != accepted && !declined.contains(&name) {
                            declined.push(name);
                        }
                    }
                    return Ok(Acceptable { content: accepted, transport, announced, declined });
                }
                Err(why) => obstacle = obstacle.or(Some(why)),
            }
        }
        Err(obstacle.unwrap_or_else(|| {
            let what = "the only application here is the XML stream of XEP-0247";
            unsupported(Reason::UnsupportedApplications, what)
        }))
    }

    /// Two sessions with one peer can't have the same bytestream.
    fn with_new_bytestream(
        &self,
        peer: &FullJid,
        loser: Option<SessionId>,
        offer: Acceptable,
    ) -> Result<Acceptable, Box<Obstacle>> {
        let sid = offer.transport.bytestream_sid();
        let holder = sid.and_then(|sid| self.table.find_bytestream(peer, sid));
        if holder.is_some_and(|holder| Some(holder) != loser) {
            return Err(unsupported(Reason::FailedTransport, "the bytestream's sid is in use"));
        }
        Ok(offer)
    }

    fn judge_content(
        &self,
        peer: &FullJid,
        content: &Content,
    ) -> Result<(Proposal, Announced), Box<Obstacle>> {
        if content.disposition != SESSION {
            let what = "an XML stream needs disposition='session'";
            return Err(unsupported(Reason::IncompatibleParameters, what));
        }
        if content.senders != Senders::Both {
            return Err(unsupported(Reason::IncompatibleParameters, "an XML stream needs senders='both'"));
        }
        let transport = content.transport().and_then(|element| Proposal::from_peer(element, &self.config));
        let transport = match transport {
            Some(Ok(transport)) => transport,
            Some(Err(what)) => return Err(unsupported(Reason::IncompatibleParameters, &what)),
            None => {
                let what = format!("the transports here: {}", Proposal::known(&self.config));
                return Err(unsupported(Reason::UnsupportedTransports, &what));
            }
        };
        match security::announced(content.security(), self.without_security(peer)) {
            Ok(announced) => Ok((transport, announced)),
            Err(insecure) => {
                let error = Error::Security(insecure);
                let why = ReasonElement { reason: Reason::SecurityError, text: error.peer_text() };
                Err(Box::new(Obstacle { why, error }))
            }
        }
    }

    /// The offer is sound: it waits for the local user, or takes the place of the user's own.
    fn ring(
        &mut self,
        now: Instant,
        (peer, sid, dialect): (FullJid, String, Dialect),
        errand: Errand,
        offer: Acceptable,
        loser: Option<SessionId>,
    ) {
        let Acceptable { content, transport, announced, declined } = offer;
        let deadline = now + self.config.timeouts.decision;
        let bytestream = transport.bytestream_sid().map(ToOwned::to_owned);
        if bytestream.is_none() && self.config.s5b.candidates != Candidates::None {
            // That takes a while, and so does a decision.
            self.look_for_proxies(now);
        }
        let state = State::Ringing(Ringing { transport, announced, declined, since: now, deadline });
        // What the user said of this peer for its own offer holds for the one that takes its place.
        let candidates = match loser {
            Some(loser) => self.candidates_for(loser),
            None => self.config.s5b.candidates,
        };
        let mut session = Session::new(peer, Role::Responder, content, candidates, state);
        session.rename(sid);
        session.dialect = dialect;
        session.errand = errand;
        session.span.in_scope(|| tracing::info!(?errand, "a session is offered"));
        let id = match loser {
            None => self.table.insert(session),
            Some(loser) => {
                // Its session-initiate will be answered with a conflict, which means nothing to the new one.
                self.requests.cancel(|purpose| purpose.session() == Some(loser));
                self.give_up_connecting(loser);
                self.table.replace(loser, session);
                loser
            }
        };
        if let Some(bytestream) = bytestream {
            let is_new = self.table.name_bytestream(id, &bytestream);
            debug_assert!(is_new, "looked up before");
        }
        self.watch(id);
        match (loser, errand) {
            (None, Errand::NewStream) => self.outputs.push_back(Output::Incoming(id)),
            (None, Errand::Resumption) => self.outputs.push_back(Output::Resumption(id)),
            // Its user asked for a session with this peer, so has decided already.
            (Some(id), _) => drop(self.accept(now, id)),
        }
    }

    /// Ends a session that never came to be.
    fn turn_down(&mut self, peer: FullJid, sid: &str, dialect: Dialect, why: ReasonElement) {
        let terminate = Jingle::new(Action::SessionTerminate, sid).with_reason(why);
        let id = self.requests.id_for_unanswered();
        self.send_set(peer.into(), id, terminate.into_element(dialect));
    }

    /// The local user accepts. Only now does the peer learn any address of ours (XEP-0260 #security-sharing).
    pub(crate) fn accept(&mut self, now: Instant, id: SessionId) -> Result<(), Error> {
        let Some(session) = self.table.get_mut(id) else { return Err(ApiMisuse::StreamClosed.into()) };
        let before = std::mem::replace(&mut session.state, State::ended());
        let State::Ringing(Ringing { transport, announced, declined, .. }) = before else {
            session.state = before;
            return Err(self.why_over(id));
        };
        match transport {
            Proposal::Ibb(offer) => {
                let element = offer.to_element();
                let ibb = Ibb::await_open(offer, now, &self.config.ibb, &self.config.timeouts);
                self.send_accept(now, id, Transport::Ibb(Box::new(ibb)), element, announced, &declined);
            }
            Proposal::S5b(transport) => {
                let gather = self.gather(now, id);
                if let Some(session) = self.table.get_mut(id) {
                    session.state = State::Accepting(Accepting { transport, announced, declined, gather });
                }
                self.watch(id);
                self.continue_gathering(now, id);
            }
        }
        Ok(())
    }

    /// We know what to offer in return.
    pub(super) fn accept_s5b(&mut self, now: Instant, id: SessionId, gathered: &Gathered) {
        let Some(session) = self.table.get_mut(id) else { return };
        let before = std::mem::replace(&mut session.state, State::ended());
        let State::Accepting(Accepting { transport: theirs, announced, declined, .. }) = before else {
            session.state = before;
            return;
        };
        let timeout = self.config.timeouts.transport;
        match self.answer_s5b(now, id, &theirs, gathered, timeout) {
            Some((s5b, element)) => {
                self.send_accept(now, id, Transport::S5b(s5b), element, announced, &declined);
                self.after_transport(now, id);
            }
            None => {
                // Offline, or an offer that was checked before.
                let error = Error::Signalling(crate::SignallingError::Offline);
                self.end(now, id, Some(error), Farewell::Over);
            }
        }
    }

    /// XEP-0166 #session-acceptance.
    fn send_accept(
        &mut self,
        now: Instant,
        id: SessionId,
        transport: Transport,
        element: Element,
        announced: Announced,
        declined: &[ContentName],
    ) {
        let span = self.span(id);
        let _entered = span.enter();
        let own = self.bound.clone();
        let Some(session) = self.table.get_mut(id) else { return };
        let mut content =
            session.own_content().with_child(Element::bare("description", ns::XMLSTREAM)).with_child(element);
        match &announced {
            Announced::Fingerprints(_) => {
                content = content.with_child(security::announcement(&self.config.tls.identity));
            }
            Announced::Starttls => tracing::debug!("accepting without XTLS: STARTTLS will be required"),
            Announced::Nothing => tracing::warn!("the stream is in plaintext: both servers can read it"),
        }
        let mut accept = Jingle::new(Action::SessionAccept, session.sid.clone()).with_content(content);
        if let Some(own) = own {
            accept = accept.with_responder(own);
        }
        let mut remove = Jingle::new(Action::ContentRemove, session.sid.clone());
        for ContentName { creator, name } in declined {
            remove = remove.with_content(Content::new(creator.clone(), name.clone()));
        }
        session.state = State::Active(Active::new(transport, announced));
        if !declined.is_empty() {
            self.tell(id, remove);
        }
        self.send_jingle(now, id, Action::SessionAccept, accept);
        self.watch(id);
    }

    /// Why a session can't be used any more.
    fn why_over(&self, id: SessionId) -> Error {
        match self.progress(id) {
            super::Progress::Ended(Some(error)) => error,
            _ => ApiMisuse::StreamClosed.into(),
        }
    }
}

pub(super) fn is_xmlstream(content: &Content) -> bool {
    content.description().is_some_and(|description| description.is("description", ns::XMLSTREAM))
}

/// What an offer is for.
fn errand_of(contents: &[Content]) -> Errand {
    let resumes = |content: &Content| is_xmlstream(content) && content.is_resumption();
    if contents.iter().any(resumes) { Errand::Resumption } else { Errand::NewStream }
}

fn name_of(content: &Content) -> ContentName {
    ContentName { creator: content.creator.clone(), name: content.name.clone() }
}

/// What makes a session-initiate malformed, whatever it is for.
fn check_contents(contents: &[Content]) -> Result<(), String> {
    if contents.is_empty() {
        return Err("a session-initiate without <content/>".to_owned());
    }
    if contents.iter().any(|content| content.creator != Creator::Initiator) {
        return Err("a session-initiate with a content that its sender did not create".to_owned());
    }
    // XEP-0166 #def-action-session-initiate.
    if !contents.iter().any(|content| content.disposition == SESSION) {
        return Err("a session-initiate without a content of disposition 'session'".to_owned());
    }
    contents.iter().try_for_each(check_content)
}

fn check_content(content: &Content) -> Result<(), String> {
    let lacks = |what: &str| format!("the content {:?} lacks <{what}/>", content.name);
    content.description().ok_or_else(|| lacks("description"))?;
    Proposal::check(content.transport().ok_or_else(|| lacks("transport"))?)?;
    content.security().map_or(Ok(()), security::check)
}

fn unsupported(reason: Reason, what: &str) -> Box<Obstacle> {
    let error = Error::PeerIncompatible(crate::PeerIncompatible::Unsupported(what.to_owned()));
    Box::new(Obstacle { why: ReasonElement::new(reason).with_text(what), error })
}
