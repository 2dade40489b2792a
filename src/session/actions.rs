//! Jingle requests, by action and by the state of their session.

use std::{mem, time::Instant};

use xmpp_parsers::{
    jingle::{Action, Senders},
    minidom::Element,
    stanza_error::StanzaError,
};

use super::{
    Request, Sessions, security,
    state::{Accepting, Active, ContentName, Farewell, Replacement, Ringing, Session, SessionId, State},
};
use crate::{
    Error, Reason, Terminated,
    transport::{Offer, Proposal},
    wire::{
        errors,
        jingle::{Content, Jingle},
        ns,
        s5b::S5bTransport,
    },
};

impl Sessions {
    /// Answers one `<jingle/>` request; gives it back if it is the bot's.
    pub(super) fn handle_jingle(&mut self, now: Instant, mut request: Request) -> Option<Request> {
        self.heard_from(&request.from);
        let is_unwelcome = self.is_unwelcome(&request);
        // Only a bot that takes what is not ours needs it afterwards.
        let payload = match self.config.pass_foreign {
            true => request.payload.clone(),
            false => mem::replace(&mut request.payload, Element::bare("jingle", ns::JINGLE)),
        };
        let parsed = Jingle::parse(payload);
        if is_unwelcome && !self.is_foreign(&parsed) {
            self.turn_away(now, request);
            return None;
        }
        let (jingle, dialect) = match parsed {
            Ok(parsed) => parsed,
            Err(malformed) if !self.config.pass_foreign => {
                self.refuse(request.from, request.id, errors::bad_request(malformed.to_string()));
                return None;
            }
            Err(_) => return Some(request),
        };
        let session = self.table.find(&request.from, &jingle.sid);
        let Some(action) = jingle.known_action() else {
            if session.is_none() && self.config.pass_foreign {
                return Some(request);
            }
            // XEP-0166 #def-action.
            let what = format!("there is no Jingle action {:?}", jingle.action);
            self.refuse(request.from, request.id, errors::bad_request(what));
            return None;
        };
        match (action, session) {
            (Action::SessionInitiate, _) => {
                return self.handle_session_initiate(now, request, jingle, dialect);
            }
            (action, Some(id)) => self.handle_action(now, id, action, request, jingle),
            (_, None) if self.config.pass_foreign => return Some(request),
            (_, None) => self.refuse(request.from, request.id, errors::unknown_session()),
        }
        None
    }

    fn handle_action(
        &mut self,
        now: Instant,
        id: SessionId,
        action: Action,
        request: Request,
        jingle: Jingle,
    ) {
        let span = self.span(id);
        let _entered = span.enter();
        match action {
            Action::SessionAccept => self.handle_session_accept(now, id, request, &jingle),
            Action::SessionTerminate => self.handle_session_terminate(now, id, request, jingle),
            Action::SessionInfo => self.handle_session_info(request, &jingle),
            Action::SecurityInfo => self.handle_security_info(id, request, &jingle),
            Action::DescriptionInfo => self.handle_named(id, request, &jingle, |sessions, request| {
                // XEP-0247's description has no parameters.
                sessions.refuse(request.from, request.id, errors::unsupported_info());
            }),
            Action::TransportInfo => self.handle_transport_info(now, id, request, &jingle),
            Action::TransportReplace => self.handle_transport_replace(now, id, request, &jingle),
            Action::TransportAccept => self.handle_transport_accept(now, id, request, &jingle),
            Action::TransportReject => self.handle_transport_reject(now, id, request, &jingle),
            Action::ContentAdd => self.handle_content_add(id, request, jingle),
            Action::ContentModify => self.handle_content_modify(id, request, &jingle),
            Action::ContentRemove => self.handle_content_remove(now, id, request, &jingle),
            // Answers to requests that we don't make.
            Action::ContentAccept | Action::ContentReject => {
                self.refuse(request.from, request.id, errors::out_of_order());
            }
            Action::SessionInitiate => self.refuse(request.from, request.id, errors::out_of_order()),
        }
    }

    /// XEP-0166 #session-terminate: acknowledged whatever state the session is in.
    fn handle_session_terminate(&mut self, now: Instant, id: SessionId, request: Request, jingle: Jingle) {
        let (reason, text) = match jingle.reason {
            Some(why) => (why.reason, why.text),
            None => (Reason::Other(String::new()), None),
        };
        tracing::debug!(%reason, "the peer terminated the session");
        self.acknowledge(request.from, request.id);
        if self.retry_after(now, id, &reason) {
            return;
        }
        self.end(now, id, Some(Error::Terminated(Terminated::new(reason, text))), Farewell::Over);
    }

    /// XEP-0166 #session-info: empty, it is a ping; we know no payload.
    fn handle_session_info(&mut self, request: Request, jingle: &Jingle) {
        if jingle.others.is_empty() && jingle.contents.is_empty() {
            self.acknowledge(request.from, request.id);
        } else {
            self.refuse(request.from, request.id, errors::unsupported_info());
        }
    }

    /// jingle-xtls #proto: the initiator names the method it chose; the responder needs no telling.
    fn handle_security_info(&mut self, id: SessionId, request: Request, jingle: &Jingle) {
        let understood = |content: &Content| content.security().is_some_and(security::is_understood);
        let all_understood = jingle.contents.iter().all(understood);
        self.handle_named(id, request, jingle, |sessions, request| {
            if all_understood {
                sessions.acknowledge(request.from, request.id);
            } else {
                sessions.refuse(request.from, request.id, errors::unsupported_info());
            }
        });
    }

    /// XEP-0260 #exchange and #connect: further candidates, and what became of them.
    fn handle_transport_info(&mut self, now: Instant, id: SessionId, request: Request, jingle: &Jingle) {
        let parsed = match jingle.contents.as_slice() {
            [content] => content.transport().filter(|it| S5bTransport::matches(it)).map(S5bTransport::parse),
            _ => None,
        };
        self.handle_named(id, request, jingle, |sessions, request| {
            let answer = match parsed {
                Some(Ok(info)) => sessions.take_transport_info(now, id, info),
                Some(Err(malformed)) => Err(errors::bad_request(malformed.to_string()).into()),
                // XEP-0261 #protocol-multi: further bytestreams of a session, which an XML stream has no use for.
                None => Err(errors::unsupported_info().into()),
            };
            match answer {
                Ok(()) => sessions.acknowledge(request.from, request.id),
                Err(refusal) => sessions.refuse(request.from, request.id, *refusal),
            }
            sessions.after_transport(now, id);
        });
    }

    fn take_transport_info(
        &mut self,
        now: Instant,
        id: SessionId,
        info: S5bTransport,
    ) -> Result<(), Box<StanzaError>> {
        let Some(session) = self.table.get_mut(id) else { return Err(errors::unknown_session().into()) };
        if let Some(s5b) = session.s5b_mut() {
            return s5b.handle_info(now, &info);
        }
        // XEP-0166 #concepts-session: anything may come before the answer to an offer.
        if let Some(offer) = session.offer_mut().and_then(Offer::s5b_mut) {
            return offer.handle_info(info);
        }
        match &mut session.state {
            State::Ringing(Ringing { transport: Proposal::S5b(offered), .. })
            | State::Accepting(Accepting { transport: offered, .. })
            | State::Active(Active {
                replacement: Replacement::Answering { transport: offered, .. }, ..
            }) => match info.notification {
                _ if info.sid != offered.sid => {
                    Err(errors::item_not_found("there is no bytestream with this sid").into())
                }
                _ if info.unsupported => Err(errors::unsupported_info().into()),
                Some(_) => Err(errors::out_of_order().into()),
                None => offered
                    .add_candidates(info)
                    .map_err(|malformed| errors::bad_request(malformed.to_string()).into()),
            },
            // About a negotiation that this side has given up: it crossed our word of that.
            State::Active(_) => Ok(()),
            _ => Err(errors::out_of_order().into()),
        }
    }

    /// XEP-0166 #def-action-content-add: one stream is all that a session has here.
    fn handle_content_add(&mut self, id: SessionId, request: Request, jingle: Jingle) {
        if jingle.contents.is_empty() {
            return self.refuse(
                request.from,
                request.id,
                errors::bad_request("a content-add without <content/>"),
            );
        }
        if jingle.contents.iter().any(|content| self.has_content(id, content)) {
            let what = "a content-add of a content that is there already";
            return self.refuse(request.from, request.id, errors::bad_request(what));
        }
        self.acknowledge(request.from, request.id);
        let mut reject = Jingle::new(Action::ContentReject, jingle.sid);
        reject.contents = jingle.contents;
        self.tell(id, reject);
    }

    /// XEP-0166 #def-action-content-modify: an XML stream goes both ways, which we say again if need be.
    fn handle_content_modify(&mut self, id: SessionId, request: Request, jingle: &Jingle) {
        let one_way = jingle.contents.iter().any(|content| content.senders != Senders::Both);
        self.handle_named(id, request, jingle, |sessions, request| {
            sessions.acknowledge(request.from, request.id);
            let Some(session) = sessions.table.get(id).filter(|_| one_way) else { return };
            let contrary =
                Jingle::new(Action::ContentModify, session.sid.clone()).with_content(session.own_content());
            sessions.tell(id, contrary);
        });
    }

    /// XEP-0166 #def-action-content-remove: a session without content is void.
    fn handle_content_remove(&mut self, now: Instant, id: SessionId, request: Request, jingle: &Jingle) {
        self.handle_named(id, request, jingle, |sessions, request| {
            sessions.acknowledge(request.from, request.id);
            if sessions.still_has_content(id, &jingle.contents) {
                return;
            }
            let text = Some("the peer removed the only content".to_owned());
            let error = Error::Terminated(Terminated::new(Reason::Success, text));
            sessions.terminate_with(now, id, Reason::Success, None, Some(error));
        });
    }

    /// Goes on with a request about contents if they are the session's.
    pub(super) fn handle_named(
        &mut self,
        id: SessionId,
        request: Request,
        jingle: &Jingle,
        then: impl FnOnce(&mut Self, Request),
    ) {
        if jingle.contents.is_empty() {
            let what = format!("a {} without <content/>", jingle.action);
            self.refuse(request.from, request.id, errors::bad_request(what));
        } else if !jingle.contents.iter().all(|content| self.has_content(id, content)) {
            let what = format!("a {} about a content that the session does not have", jingle.action);
            self.refuse(request.from, request.id, errors::item_not_found(what));
        } else {
            then(self, request);
        }
    }

    /// Forgets the contents that the peer takes back; whether the one that we could accept is left.
    fn still_has_content(&mut self, id: SessionId, removed: &[Content]) -> bool {
        let Some(session) = self.table.get_mut(id) else { return false };
        let is_removed = |name: &ContentName| {
            removed.iter().any(|content| content.name == name.name && content.creator == name.creator)
        };
        if let State::Ringing(ringing) = &mut session.state {
            ringing.declined.retain(|name| !is_removed(name));
        }
        !is_removed(&session.content)
    }

    fn has_content(&self, id: SessionId, content: &Content) -> bool {
        let named = |name: &ContentName| name.name == content.name && name.creator == content.creator;
        self.table.get(id).is_some_and(|session| named(&session.content) || session.offers(named))
    }
}

impl Session {
    /// Our side of the session's one content, to be filled.
    pub(super) fn own_content(&self) -> Content {
        Content::new(self.content.creator.clone(), self.content.name.clone())
    }

    /// Whether a pending offer has further contents, and one of them is meant.
    fn offers(&self, named: impl Fn(&ContentName) -> bool) -> bool {
        matches!(&self.state, State::Ringing(ringing) if ringing.declined.iter().any(named))
    }
}
