//! Where SOCKS5 finds no way (XEP-0260 #fallback).
//!
//! The initiator puts an in-band bytestream in its place, in the same session. With a peer that can't do that it ends the
//! session and begins a new one, once, that offers nothing else.

use std::time::Instant;

use xmpp_parsers::jingle::Action;

use super::{
    Sessions,
    replacing::MAX_REPLACES,
    state::{Active, Retry, Role, Session, SessionId, State},
};
use crate::{
    Error, Reason, Transports,
    disco::Needs,
    transport::{Offer, Transport},
    wire::jingle::{Jingle, ReasonElement},
};

impl Sessions {
    /// SOCKS5 found no way for the transport in use.
    pub(super) fn fall_back(&mut self, now: Instant, id: SessionId, error: Error) {
        tracing::info!(%error, "no SOCKS5 bytestream");
        if let Some(session) = self.table.get_mut(id) {
            session.unconnected = Some(error.clone());
        }
        self.expect_nobody(id);
        if self.config.transports == Transports::S5b {
            return self.fail(now, id, error);
        }
        let deadline = now + self.config.timeouts.transport;
        let Some(Session { role, needs, state: State::Active(active), .. }) = self.table.get_mut(id) else {
            return;
        };
        let replaceable = *role == Role::Initiator && active.replaces < MAX_REPLACES;
        let in_band = needs.filter(|needs| replaceable && needs.ibb.is_some());
        active.transport = Transport::Failed { error: error.clone(), deadline };
        match (*role, in_band) {
            // XEP-0260 #fallback: it is the initiator's to replace the transport, or to end the session.
            (Role::Responder, _) => self.watch(id),
            (Role::Initiator, Some(needs)) => {
                let offer = self.in_band(needs);
                self.replace(now, id, offer);
            }
            (Role::Initiator, None) => self.retry_in_band(now, id, error),
        }
    }

    /// The peer can't, or won't, have the transport of this session replaced: a new session offers nothing but the one
    /// that every peer has, once.
    pub(super) fn retry_in_band(&mut self, now: Instant, id: SessionId, error: Error) {
        let Some(needs) = self.may_retry_in_band(id) else { return self.fail(now, id, error) };
        let mut why = ReasonElement::new(error.reason());
        why.text = error.peer_text();
        if let Some(session) = self.table.get(id).filter(|session| session.is_on_wire()) {
            let terminate = Jingle::new(Action::SessionTerminate, session.sid.clone()).with_reason(why);
            self.tell(id, terminate);
        }
        self.start_anew(now, id, needs);
    }

    /// The same where the peer has ended the session.
    pub(super) fn retry_after(&mut self, now: Instant, id: SessionId, reason: &Reason) -> bool {
        let is_about_transport = matches!(
            reason,
            Reason::UnsupportedTransports
                | Reason::FailedTransport
                | Reason::ConnectivityError
                | Reason::IncompatibleParameters
        );
        match self.may_retry_in_band(id).filter(|_| is_about_transport) {
            Some(needs) => {
                self.start_anew(now, id, needs);
                true
            }
            None => false,
        }
    }

    /// What to offer if a new session may follow: nothing has gone over this one, and SOCKS5 was to carry it.
    pub(super) fn may_retry_in_band(&self, id: SessionId) -> Option<Needs> {
        let session = self.table.get(id)?;
        let needs = session.needs.filter(|needs| needs.ibb.is_some())?;
        let was_s5b = match &session.state {
            State::Offered(offered) => matches!(offered.transport, Offer::S5b(_)),
            State::Active(active) => match &active.transport {
                Transport::S5b(_) => !active.transport.is_open(),
                Transport::Failed { .. } => true,
                Transport::Ibb(_) | Transport::Moving(_) => false,
            },
            _ => false,
        };
        let allowed = self.config.transports == Transports::Auto && session.retry == Retry::Left;
        Some(needs).filter(|_| was_s5b && allowed)
    }

    pub(super) fn start_anew(&mut self, now: Instant, id: SessionId, needs: Needs) {
        tracing::info!("trying again, with in-band bytestreams alone");
        self.give_up_connecting(id);
        self.give_up_transport(id);
        self.requests.cancel(|purpose| purpose.session() == Some(id));
        self.table.unname(id);
        let Some(session) = self.table.get_mut(id) else { return };
        session.retry = Retry::Spent;
        self.offer_ibb(now, id, needs);
    }

    fn give_up_transport(&mut self, id: SessionId) {
        let Some(Session { state, .. }) = self.table.get_mut(id) else { return };
        if let State::Active(Active { transport: Transport::S5b(s5b), .. }) =
            std::mem::replace(state, State::ended())
        {
            self.dismantle(id, s5b);
        }
    }
}
