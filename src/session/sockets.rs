//! Between SOCKS5 bytestreams and whoever holds the sockets.

use std::time::Instant;

use xmpp_parsers::{iq::Iq, stanza::Stanza};

use super::{
    Output, Purpose, Sessions,
    state::{Session, SessionId, State},
};
use crate::{
    Error,
    transport::{
        Offer, TransportInfo,
        s5b::{
            self, Attempt, Dial, S5b,
            candidate::{Connection, SocketId},
        },
    },
    wire::jingle::Jingle,
};

/// Names an attempt to connect, of whichever session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DialToken(u64);

/// What is to be done with sockets.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Listen, and bring the addresses with [`Sessions::handle_gathered`].
    Gather(SessionId),
    /// Connect, for the session of this span, and bring what became of it with [`Sessions::handle_dialed`].
    Dial(DialToken, Dial, tracing::Span),
    /// Give up an attempt.
    Abandon(DialToken),
    /// Close a connection.
    HangUp(SocketId),
    /// Nobody needs the listener.
    StopListening,
}

impl Sessions {
    /// What became of an attempt; false if nobody wants the connection.
    pub(crate) fn handle_dialed(
        &mut self,
        now: Instant,
        token: DialToken,
        result: Result<Connection, String>,
    ) -> bool {
        let Some((id, attempt)) = self.dials.remove(&token) else { return false };
        let Some(s5b) = self.table.get_mut(id).and_then(Session::s5b_mut) else { return false };
        s5b.handle_dialed(now, attempt, result);
        self.after_transport(now, id);
        true
    }

    /// Somebody connected to our listener, and asked for this DST.ADDR; false to refuse.
    pub(crate) fn handle_incoming(&mut self, now: Instant, dst_addr: &str, connection: Connection) -> bool {
        let Some(id) = self.expected.get(dst_addr).copied() else { return false };
        let Some(session) = self.table.get_mut(id) else { return false };
        let taken = match session.offer_mut().and_then(Offer::s5b_mut) {
            Some(offer) => offer.handle_incoming(connection),
            None => session.s5b_mut().is_some_and(|s5b| s5b.handle_incoming(now, connection)),
        };
        self.after_transport(now, id);
        taken
    }

    /// The connections that wait to be used by the session that this stanza is about. Whether they are still there has to be
    /// known before that is handled: a peer that says which one it uses has closed the others by then.
    pub(crate) fn waiting_sockets(&mut self, stanza: &Stanza) -> Vec<SocketId> {
        let Some(session) = self.session_of(stanza).and_then(|id| self.table.get_mut(id)) else {
            return Vec::new();
        };
        let early = session.offer_mut().and_then(Offer::s5b_mut).map(|offer| offer.waiting().collect());
        early.unwrap_or_else(|| session.s5b_mut().map(|s5b| s5b.waiting()).unwrap_or_default())
    }

    fn session_of(&self, stanza: &Stanza) -> Option<SessionId> {
        match stanza {
            Stanza::Iq(Iq::Set { from: Some(from), payload, .. }) if Jingle::matches(payload) => {
                self.table.find(from.try_as_full().ok()?, payload.attr("sid")?)
            }
            Stanza::Iq(reply @ (Iq::Result { .. } | Iq::Error { .. })) => {
                self.requests.purpose(reply.id())?.session()
            }
            _ => None,
        }
    }

    /// The other end of a connection that waits to be used says no more; false if somebody will find out who reads it, and
    /// may have something to say to it.
    pub(crate) fn handle_closed(&mut self, socket: SocketId) -> bool {
        for id in self.table.ids() {
            let Some(session) = self.table.get_mut(id) else { continue };
            if session.transport_mut().and_then(|transport| transport.socket()) == Some(socket) {
                return false;
            }
            if let Some(offer) = session.offer_mut().and_then(Offer::s5b_mut) {
                offer.handle_closed(socket);
            }
            if let Some(s5b) = session.s5b_mut() {
                s5b.handle_closed(socket);
            }
        }
        true
    }

    pub(super) fn dial(&mut self, id: SessionId, dial: Dial) {
        let token = DialToken(self.next_dial);
        self.next_dial += 1;
        self.dials.insert(token, (id, dial.attempt));
        let span = self.span(id);
        self.outputs.push_back(Output::Effect(Effect::Dial(token, dial, span)));
    }

    pub(super) fn abandon(&mut self, id: SessionId, attempt: Attempt) {
        let token =
            self.dials.iter().find(|(_, dialled)| **dialled == (id, attempt)).map(|(token, _)| *token);
        if let Some(token) = token {
            self.dials.remove(&token);
            self.outputs.push_back(Output::Effect(Effect::Abandon(token)));
        }
    }

    pub(super) fn hang_up(&mut self, socket: SocketId) {
        self.outputs.push_back(Output::Effect(Effect::HangUp(socket)));
    }

    pub(super) fn hang_up_all(&mut self, connections: Vec<Connection>) {
        for connection in connections {
            self.hang_up(connection.socket);
        }
    }

    /// Gives up a negotiation: nothing of it may go on.
    pub(super) fn dismantle(&mut self, id: SessionId, mut s5b: Box<S5b>) {
        self.expect_nobody(id);
        // What a proxy answers is about this one, and not about the one after it.
        self.requests.cancel(|purpose| matches!(purpose, Purpose::Activation { session } if *session == id));
        s5b.end();
        while let Some(output) = s5b.poll_output() {
            match output {
                s5b::Output::Abandon(attempt) => self.abandon(id, attempt),
                s5b::Output::HangUp(socket) => self.hang_up(socket),
                _ => {}
            }
        }
        if let Some((connection, _)) = s5b.connection() {
            self.hang_up(connection.socket);
        }
    }

    /// Takes back what was offered.
    pub(super) fn withdraw(&mut self, id: SessionId, mut offer: Offer) {
        self.expect_nobody(id);
        self.hang_up_all(offer.s5b_mut().map(|offer| offer.take_early()).unwrap_or_default());
    }

    /// The session is ending, and with it whatever was to connect it.
    pub(super) fn give_up_connecting(&mut self, id: SessionId) {
        self.expect_nobody(id);
        self.give_up_replacement(id);
        let early = match self.table.get_mut(id).map(|session| &mut session.state) {
            Some(State::Offered(offered)) => offered.transport.s5b_mut().map(|offer| offer.take_early()),
            _ => None,
        };
        self.hang_up_all(early.unwrap_or_default());
    }

    /// Why SOCKS5 was tried and does not carry the stream, if it was.
    pub(crate) fn unconnected(&self, id: SessionId) -> Option<Error> {
        self.table.get(id)?.unconnected.clone()
    }

    /// What carries the bytes of a session, once that is known.
    pub(crate) fn transport_info(&self, id: SessionId) -> Option<TransportInfo> {
        match &self.table.get(id)?.state {
            State::Active(active) => active.transport.info(),
            State::Ended(ended) => ended.transport.as_ref()?.info(),
            _ => None,
        }
    }
}
