//! Moving a live stream from an in-band bytestream to SOCKS5.
//!
//! The initiator asks for it with transport-replace. The stream goes on while both sides connect; whatever comes to
//! nothing leaves it where it is. How the bytes change over is in [`transport`](crate::transport).

use std::time::{Duration, Instant};

use xmpp_parsers::jingle::Action;

use super::{
    Output, Sessions,
    replacing::MAX_REPLACES,
    state::{Active, Peer, Replacement, Retry, Role, Session, SessionId, State},
};
use crate::{
    Start, Transports,
    transport::{
        Offer, Transport, When,
        s5b::{self, candidate::Gathered},
    },
};

/// How long the other side may take to connect, or to say that it can't. Longer than any notification is on its way: a
/// side that gives up has the stream ended if the other one goes over after that.
const PATIENCE: Duration = Duration::from_secs(300);

impl Sessions {
    /// Moves a stream that began in band to SOCKS5, if that is wanted and the peer can.
    pub(crate) fn start_move(&mut self, now: Instant, id: SessionId) {
        if let Some(State::Active(active)) = self.table.get_mut(id).map(|session| &mut session.state) {
            active.peer = Peer::Proved;
        }
        let wanted = self.config.transports == Transports::Auto && self.start_for(id) == Start::Fast;
        let Some(session) = self.table.get(id).filter(|_| wanted) else { return };
        let possible = session.needs.is_some_and(|needs| needs.s5b) && session.retry == Retry::Left;
        let State::Active(Active { transport: Transport::Ibb(_), replacement: Replacement::None, .. }) =
            &session.state
        else {
            return;
        };
        if !possible {
            return;
        }
        let gather = self.gather(now, id);
        if let Some(State::Active(active)) = self.table.get_mut(id).map(|session| &mut session.state) {
            active.replacement = Replacement::Gathering(gather);
        }
        self.watch(id);
        self.continue_gathering(now, id);
    }

    /// Whether the session's transport may yet be another one than now.
    pub(crate) fn may_move(&self, id: SessionId) -> bool {
        let Some(Session { role, state: State::Active(active), .. }) = self.table.get(id) else {
            return false;
        };
        let at_the_peers_wish = *role == Role::Responder && active.replaces < MAX_REPLACES;
        let under_way = !matches!(active.replacement, Replacement::None);
        matches!(active.transport, Transport::Ibb(_)) && (under_way || at_the_peers_wish)
    }

    /// We know what to offer: transport-replace.
    pub(super) fn propose_move(&mut self, now: Instant, id: SessionId, gathered: &Gathered) {
        let offer = match self.table.get(id).is_some_and(Session::can_move) {
            true => self.s5b_offer(id, gathered, PATIENCE, When::WithTheOffer),
            false => None,
        };
        match offer {
            Some(offer) => self.replace(now, id, Offer::S5b(Box::new(offer))),
            None => self.give_up_replacement(id),
        }
    }

    /// We know what to offer in return: transport-accept.
    pub(super) fn agree_to_move(&mut self, now: Instant, id: SessionId, gathered: &Gathered) {
        let Some(Session { state: State::Active(active), .. }) = self.table.get_mut(id) else { return };
        let Replacement::Answering { transport: theirs, .. } =
            std::mem::replace(&mut active.replacement, Replacement::None)
        else {
            return;
        };
        match self.answer_s5b(now, id, &theirs, gathered, PATIENCE) {
            Some((s5b, transport)) => {
                let Some(session) = self.table.get_mut(id) else { return };
                let accept = session.about_transport(Action::TransportAccept, transport);
                if let State::Active(active) = &mut session.state {
                    active.replacement = Replacement::Connecting(s5b);
                }
                self.send_jingle(now, id, Action::TransportAccept, accept);
                self.after_transport(now, id);
            }
            None => self.reject(id, theirs.to_element()),
        }
    }

    /// What the replacement in preparation has come to.
    pub(super) fn handle_replacement_output(&mut self, now: Instant, id: SessionId, output: s5b::Output) {
        match output {
            s5b::Output::Open => self.complete_move(now, id),
            s5b::Output::Failed(error) => {
                tracing::info!(%error, "the stream stays in band");
                if let Some(session) = self.table.get_mut(id) {
                    session.unconnected = Some(error);
                }
                self.give_up_replacement(id);
            }
            output => self.handle_s5b_output(now, id, output),
        }
    }

    fn complete_move(&mut self, now: Instant, id: SessionId) {
        let Some(Session { state: State::Active(active), .. }) = self.table.get_mut(id) else { return };
        let replacement = std::mem::replace(&mut active.replacement, Replacement::None);
        let Replacement::Connecting(s5b) = replacement else { return };
        if !active.transport.can_move() {
            // Both users have closed it.
            return self.dismantle(id, s5b);
        }
        active.transport.move_to(now, s5b);
        if let Some(info) = active.transport.info() {
            tracing::info!(transport = %info, "the stream moves");
        }
        self.expect_nobody(id);
        self.outputs.push_back(Output::Changed(id));
    }
}
