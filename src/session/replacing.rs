//! Replacing the transport of a session (XEP-0166 #def-action-transport-replace): by us, and by the peer.
//!
//! There are two occasions, `falling_back.rs` and `moving.rs`.

use std::time::Instant;

use xmpp_parsers::{jingle::Action, minidom::Element};

use super::{
    Output, Purpose, Request, Sessions,
    state::{Active, Line, Peer, Replacement, Role, Session, SessionId, State},
};
use crate::{
    Error, PeerMisbehaved,
    transport::{Ibb, Offer, Proposal, Transport, Unfit, ibb},
    wire::{
        errors,
        jingle::{Content, Jingle},
        s5b::S5bTransport,
    },
};

/// Replacements of one session's transport, by either side. One is needed to fall back, one to move.
pub(super) const MAX_REPLACES: u8 = 4;

/// SOCKS5 bytestreams that one session negotiates: each can make us connect to what the peer names. One is for the offer or
/// for a move, and one more for a peer that tries again.
const MAX_NEGOTIATIONS: u8 = 2;

impl Sessions {
    /// Sends transport-replace.
    pub(super) fn replace(&mut self, now: Instant, id: SessionId, offer: Offer) {
        let deadline = now + self.config.timeouts.transport;
        let transport = offer.to_element();
        let bytestream = offer.bytestream_sid().map(ToOwned::to_owned);
        let Some(Session { state: State::Active(active), .. }) = self.table.get_mut(id) else { return };
        active.replaces += 1;
        active.replacement = Replacement::Offered { offer, deadline };
        if let Some(bytestream) = bytestream {
            let is_new = self.table.name_bytestream(id, &bytestream);
            debug_assert!(is_new, "random ids repeat");
        }
        let Some(session) = self.table.get(id) else { return };
        let jingle = session.about_transport(Action::TransportReplace, transport);
        self.watch(id);
        self.send_jingle(now, id, Action::TransportReplace, jingle);
    }

    /// Whatever was to take the place of the transport will not.
    pub(super) fn give_up_replacement(&mut self, id: SessionId) {
        // Somebody may be waiting for it.
        self.outputs.push_back(Output::Changed(id));
        self.forget_replacing(id);
        let Some(Session { state: State::Active(active), .. }) = self.table.get_mut(id) else { return };
        match std::mem::replace(&mut active.replacement, Replacement::None) {
            Replacement::Offered { offer, .. } => self.withdraw(id, offer),
            Replacement::Connecting(s5b) => self.dismantle(id, s5b),
            Replacement::None | Replacement::Gathering(_) | Replacement::Answering { .. } => {}
        }
    }

    /// What becomes of our requests about a replacement means nothing for the one after it, nor to one that is agreed:
    /// who accepts it has received it.
    fn forget_replacing(&mut self, id: SessionId) {
        let about = [Action::TransportReplace, Action::TransportAccept];
        self.requests.cancel(|purpose| {
            matches!(purpose, Purpose::Jingle { session, action } if *session == id && about.contains(action))
        });
    }

    // ---- what the peer says --------------------------------------------------------------

    /// XEP-0166 #def-action-transport-replace: transport-accept or transport-reject.
    pub(super) fn handle_transport_replace(
        &mut self,
        now: Instant,
        id: SessionId,
        request: Request,
        jingle: &Jingle,
    ) {
        if jingle.contents.iter().any(|content| content.transport().is_none()) {
            let what = "a transport-replace without <transport/>";
            return self.refuse(request.from, request.id, errors::bad_request(what));
        }
        let unreadable = |content: &Content| content.transport().and_then(|it| Proposal::check(it).err());
        if let Some(what) = jingle.contents.iter().find_map(unreadable) {
            return self.refuse(request.from, request.id, errors::bad_request(what));
        }
        self.handle_named(id, request, jingle, |sessions, request| {
            // XEP-0166 #def-action-ties: the initiator's overrules.
            if sessions.table.get(id).is_some_and(Session::overrules_replacement) {
                return sessions.refuse(request.from, request.id, errors::tie_break());
            }
            sessions.acknowledge(request.from, request.id);
            let [content] = jingle.contents.as_slice() else {
                return sessions.reject_all(id, &jingle.contents);
            };
            let Some(transport) = content.transport() else { return };
            if !sessions.take_replacement(now, id, transport) {
                sessions.reject_all(id, &jingle.contents);
            }
        });
    }

    /// Takes a transport that the peer proposes in place of the one in use; false if it can't be taken.
    fn take_replacement(&mut self, now: Instant, id: SessionId, transport: &Element) -> bool {
        let Some(Ok(proposal)) = Proposal::from_peer(transport, &self.config) else { return false };
        let Some(Session { role, state: State::Active(active), .. }) = self.table.get(id) else {
            return false;
        };
        if active.replaces >= MAX_REPLACES {
            return false;
        }
        let in_band = matches!(active.transport, Transport::Ibb(_));
        // As initiator, we show no address for a move before TLS has shown who the peer is; the responder's user has accepted.
        let may_be_shown = *role == Role::Responder || active.peer == Peer::Proved;
        let can_move = active.transport.can_move() && may_be_shown && active.negotiations < MAX_NEGOTIATIONS;
        match proposal {
            Proposal::Ibb(offer) if !active.transport.is_open() && !in_band => self.take_ibb(now, id, offer),
            Proposal::S5b(theirs) if can_move => self.take_s5b(now, id, theirs),
            // What is on its way over one connection would be lost with it.
            Proposal::Ibb(_) | Proposal::S5b(_) => false,
        }
    }

    fn take_ibb(&mut self, now: Instant, id: SessionId, offer: ibb::Offer) -> bool {
        if !self.table.name_bytestream(id, offer.sid()) {
            return false;
        }
        self.give_up_replacement(id);
        let transport = offer.to_element();
        let ibb = Ibb::await_open(offer, now, &self.config.ibb, &self.config.timeouts);
        let Some(session) = self.table.get_mut(id) else { return false };
        let accept = session.about_transport(Action::TransportAccept, transport);
        let State::Active(active) = &mut session.state else { return false };
        active.replaces += 1;
        if let Transport::S5b(s5b) = std::mem::replace(&mut active.transport, Transport::Ibb(Box::new(ibb))) {
            self.dismantle(id, s5b);
        }
        self.watch(id);
        self.send_jingle(now, id, Action::TransportAccept, accept);
        true
    }

    fn take_s5b(&mut self, now: Instant, id: SessionId, transport: S5bTransport) -> bool {
        self.give_up_replacement(id);
        let gather = self.gather(now, id);
        let Some(State::Active(active)) = self.table.get_mut(id).map(|session| &mut session.state) else {
            return false;
        };
        active.replaces += 1;
        active.negotiations += 1;
        active.replacement = Replacement::Answering { transport, gather };
        self.watch(id);
        self.continue_gathering(now, id);
        true
    }

    /// XEP-0166 #def-action-transport-accept.
    pub(super) fn handle_transport_accept(
        &mut self,
        now: Instant,
        id: SessionId,
        request: Request,
        jingle: &Jingle,
    ) {
        if !self.table.get(id).is_some_and(Session::awaits_replacement) {
            return self.refuse(request.from, request.id, errors::out_of_order());
        }
        self.handle_named(id, request, jingle, |sessions, request| {
            let Some(offer) = sessions.table.get_mut(id).and_then(Session::take_offered) else { return };
            let answer = jingle.contents.iter().find_map(Content::transport);
            let agreed = match answer {
                Some(answer) => offer.accepted(answer, now, &sessions.config),
                None => {
                    sessions.withdraw(id, offer);
                    let what = "a transport-accept without <transport/>".to_owned();
                    Err(Unfit { what, early: Vec::new() })
                }
            };
            match agreed {
                Ok(transport) => {
                    sessions.acknowledge(request.from, request.id);
                    sessions.forget_replacing(id);
                    sessions.begin_replacement(now, id, transport);
                }
                Err(Unfit { what, early }) => {
                    sessions.expect_nobody(id);
                    sessions.hang_up_all(early);
                    sessions.refuse(request.from, request.id, errors::bad_request(what.clone()));
                    sessions.replacement_refused(now, id, PeerMisbehaved::BadAccept(what).into());
                }
            }
        });
    }

    fn begin_replacement(&mut self, now: Instant, id: SessionId, transport: Transport) {
        let Some(Session { state: State::Active(active), .. }) = self.table.get_mut(id) else { return };
        match transport {
            Transport::S5b(s5b) => active.replacement = Replacement::Connecting(s5b),
            transport => active.transport = transport,
        }
        self.after_transport(now, id);
    }

    /// XEP-0166 #def-action-transport-reject.
    pub(super) fn handle_transport_reject(
        &mut self,
        now: Instant,
        id: SessionId,
        request: Request,
        jingle: &Jingle,
    ) {
        if !self.table.get(id).is_some_and(Session::awaits_replacement) {
            return self.refuse(request.from, request.id, errors::out_of_order());
        }
        self.handle_named(id, request, jingle, |sessions, request| {
            sessions.acknowledge(request.from, request.id);
            sessions.replacement_refused(now, id, rejected());
        });
    }

    /// The peer does not take the transport that we sent in a transport-replace.
    pub(super) fn replacement_refused(&mut self, now: Instant, id: SessionId, why: Error) {
        self.give_up_replacement(id);
        let Some(Session { state: State::Active(active), .. }) = self.table.get(id) else { return };
        match &active.transport {
            Transport::Failed { error, .. } => self.retry_in_band(now, id, error.clone()),
            _ => tracing::info!(%why, "the stream stays in band"),
        }
    }

    /// No word from the peer, where the transport in use has failed or is to be replaced.
    pub(super) fn handle_replacement_timeout(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.table.get(id) else { return };
        let State::Active(active) = &session.state else { return };
        let overdue =
            matches!(&active.replacement, Replacement::Offered { deadline, .. } if now >= *deadline);
        if overdue {
            return self.replacement_refused(now, id, rejected());
        }
        match &active.transport {
            Transport::Failed { error, deadline } if now >= *deadline => {
                let error = error.clone();
                self.fail(now, id, error);
            }
            _ => {}
        }
    }

    pub(super) fn reject(&mut self, id: SessionId, transport: Element) {
        let Some(session) = self.table.get(id) else { return };
        let reject = session.about_transport(Action::TransportReject, transport);
        self.tell(id, reject);
    }

    fn reject_all(&mut self, id: SessionId, contents: &[Content]) {
        let Some(session) = self.table.get(id) else { return };
        let mut reject = Jingle::new(Action::TransportReject, session.sid.clone());
        for content in contents {
            let named = Content::new(content.creator.clone(), content.name.clone());
            reject = reject
                .with_content(content.transport().cloned().into_iter().fold(named, Content::with_child));
        }
        self.tell(id, reject);
    }
}

fn rejected() -> Error {
    Error::PeerIncompatible(crate::PeerIncompatible::Unsupported("transport-replace".to_owned()))
}

impl Session {
    /// A Jingle request about the one content's transport.
    pub(super) fn about_transport(&self, action: Action, transport: Element) -> Jingle {
        Jingle::new(action, self.sid.clone()).with_content(self.own_content().with_child(transport))
    }

    /// Whether a transport-replace of ours waits for its answer.
    fn awaits_replacement(&self) -> bool {
        matches!(&self.state, State::Active(Active { replacement: Replacement::Offered { .. }, .. }))
    }

    /// The transport of a transport-replace of ours, which is answered.
    fn take_offered(&mut self) -> Option<Offer> {
        let State::Active(active) = &mut self.state else { return None };
        match std::mem::replace(&mut active.replacement, Replacement::None) {
            Replacement::Offered { offer, .. } => Some(offer),
            other => {
                active.replacement = other;
                None
            }
        }
    }

    /// Whether the stream in band goes on, so that it could go on elsewhere.
    pub(super) fn can_move(&self) -> bool {
        matches!(&self.state, State::Active(active) if active.transport.can_move())
    }

    fn overrules_replacement(&self) -> bool {
        self.role == Role::Initiator && self.awaits_replacement() && self.line == Line::Up
    }
}
