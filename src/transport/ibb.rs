//! In-band bytestreams (XEP-0047) as a Jingle transport (XEP-0261), sans-IO.
//!
//! ```text
//!   initiator: Opening ──<open/> acknowledged──► Open ──shutdown──► Draining ──idle──► Closing ──┐
//!   responder: AwaitingOpen ──<open/>──────────► Open ──<close/> from the peer──► PeerClosing ───┤
//!                                                                                              Closed
//! ```
//!
//! Blocks go out as far as the window allows; acknowledgements of received blocks are held back
//! while the reader is behind, which is all the back-pressure that XEP-0047 has. A `<close/>` ends
//! both directions, so whoever receives one sends what it still has before it answers.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use xmpp_parsers::{
    minidom::Element,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use super::{
    Output, Read, Request,
    ibb_receiver::{Receiver, Refused},
    ibb_sender::Sender,
};
use crate::{
    Error, IbbConfig, PeerMisbehaved, SignallingError, Step, Timeouts, TransportError,
    wire::{
        errors,
        ibb::{Close, Data, IbbMalformed, IbbTransport, Open, data_element},
    },
};

/// What is agreed, or offered, before `<open/>`.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    sid: String,
    block_size: u16,
    v0: bool,
}

impl Offer {
    /// A new offer with an unguessable name.
    pub(crate) fn new(sid: String, v0: bool, config: &IbbConfig) -> Self {
        Self { sid, block_size: config.block_size.max(1), v0 }
    }

    pub(super) fn from_peer(element: &Element, config: &IbbConfig) -> Option<Result<Self, String>> {
        let known = IbbTransport::matches(element);
        known.then(|| {
            let wire = IbbTransport::parse(element).map_err(|malformed| malformed.to_string())?;
            Self::checked(wire, config.block_size.max(1))
        })
    }

    fn checked(wire: IbbTransport, at_most: u16) -> Result<Self, String> {
        if wire.message_mode {
            return Err("data in message stanzas, which have no acknowledgement".to_owned());
        }
        let sid = wire.sid.ok_or("<transport/> without sid")?;
        let offered = wire.block_size.ok_or("<transport/> without block-size")?;
        if offered == 0 {
            return Err("a block-size of 0".to_owned());
        }
        // Never larger than either side's.
        let block_size = u16::try_from(offered).unwrap_or(u16::MAX).min(at_most);
        Ok(Self { sid, block_size, v0: wire.v0 })
    }

    /// What remains of our offer after the responder's `<transport/>`: a smaller block-size is its
    /// right (XEP-0261 #protocol-start), a larger one is not taken.
    pub(super) fn narrowed(&self, answer: &Element) -> Result<Self, String> {
        if !IbbTransport::matches(answer) {
            return Err(format!("the transport {}, which was not offered", answer.ns()));
        }
        let wire = IbbTransport::parse(answer).map_err(|malformed| malformed.to_string())?;
        // COMPAT Conversations (before 2.10): an accept without sid.
        if wire.sid.as_ref().is_some_and(|sid| *sid != self.sid) {
            return Err("another bytestream sid than the offered one".to_owned());
        }
        if wire.message_mode {
            return Err("data in message stanzas, which was not offered".to_owned());
        }
        match wire.block_size {
            Some(0) => Err("a block-size of 0".to_owned()),
            Some(size) => {
                let block_size = u16::try_from(size).unwrap_or(u16::MAX).min(self.block_size);
                Ok(Self { block_size, ..self.clone() })
            }
            None => Ok(self.clone()),
        }
    }

    pub(super) fn to_element(&self) -> Element {
        let wire = IbbTransport {
            v0: self.v0,
            block_size: Some(self.block_size.into()),
            sid: Some(self.sid.clone()),
            message_mode: false,
        };
        wire.to_element()
    }

    pub(super) fn sid(&self) -> &str {
        &self.sid
    }
}

/// One in-band bytestream.
#[derive(Debug)]
pub(crate) struct Ibb {
    sid: String,
    block_size: u16,
    block_ack: Duration,
    close: Duration,
    state: State,
    sender: Sender,
    receiver: Receiver,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    /// The responder waits for `<open/>`.
    AwaitingOpen {
        since: Instant,
        deadline: Instant,
    },
    /// The initiator sent `<open/>`.
    Opening {
        since: Instant,
        deadline: Instant,
    },
    Open,
    /// Our user is done: what is left goes out, and has to be acknowledged, before `<close/>`. However long
    /// that takes with a slow server: only a block that stays unacknowledged ends it.
    Draining,
    /// We sent `<close/>`. The peer may still send what it has, until it answers.
    Closing {
        deadline: Instant,
    },
    /// The peer sent `<close/>`; it is answered when our user is done and everything is acknowledged.
    PeerClosing {
        id: String,
        deadline: Instant,
        done: Done,
    },
    /// Both sides consider the bytestream closed; what was received can still be read.
    Closed,
    Failed(Error),
}

/// Whether our user has more to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    NotYet,
    Yes,
}

impl Ibb {
    /// As initiator of the transport: opens the negotiated bytestream.
    pub(super) fn open(offer: Offer, now: Instant, config: &IbbConfig, timeouts: &Timeouts) -> Self {
        let open = Open { block_size: offer.block_size.into(), sid: offer.sid.clone(), message_mode: false };
        let state = State::Opening { since: now, deadline: now + timeouts.transport };
        let mut ibb = Self::new(offer, state, config, timeouts);
        ibb.outputs.push_back(Output::Request(Request::IbbOpen, open.to_element()));
        ibb
    }

    /// As responder: waits for the initiator's `<open/>`.
    pub(super) fn await_open(offer: Offer, now: Instant, config: &IbbConfig, timeouts: &Timeouts) -> Self {
        let state = State::AwaitingOpen { since: now, deadline: now + timeouts.transport };
        Self::new(offer, state, config, timeouts)
    }

    fn new(offer: Offer, state: State, config: &IbbConfig, timeouts: &Timeouts) -> Self {
        Self {
            sender: Sender::new(offer.block_size, config.window),
            receiver: Receiver::new(config.receive_buffer),
            sid: offer.sid,
            block_size: offer.block_size,
            block_ack: timeouts.block_ack,
            close: timeouts.close,
            state,
            outputs: VecDeque::new(),
        }
    }

    pub(crate) fn sid(&self) -> &str {
        &self.sid
    }

    /// The largest block either side sends.
    pub(crate) fn block_size(&self) -> u16 {
        self.block_size
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::AwaitingOpen { .. } | State::Opening { .. } | State::Failed(_))
    }

    // ---- what the peer sends -------------------------------------------------------------

    /// XEP-0261 #protocol-start: `<open/>` repeats what Jingle negotiated.
    pub(crate) fn handle_open(&mut self, id: String, open: &Open) {
        let State::AwaitingOpen { .. } = self.state else {
            let refusal =
                errors::unexpected_request("the bytestream is open, or is opened by the other side");
            return self.reply(id, Err(refusal));
        };
        if open.message_mode {
            return self.reply(id, Err(errors::not_acceptable("data in message stanzas was not negotiated")));
        }
        if open.block_size != u32::from(self.block_size) {
            // The bytestream stays negotiable until the deadline: the initiator may open it right.
            return self.reply(id, Err(errors::resource_constraint(ErrorType::Modify)));
        }
        self.state = State::Open;
        self.reply(id, Ok(()));
        self.outputs.push_back(Output::Open);
    }

    /// Takes a block, or refuses it and, where XEP-0047 #send says so, closes the bytestream.
    pub(crate) fn handle_data(&mut self, id: String, data: Result<Data, IbbMalformed>) {
        match self.state {
            State::Open | State::Draining | State::Closing { .. } => {}
            State::PeerClosing { .. } => {
                let refusal = errors::unexpected_request("the bytestream was closed by its sender");
                return self.reply(id, Err(refusal));
            }
            State::AwaitingOpen { .. } | State::Opening { .. } | State::Closed | State::Failed(_) => {
                return self.reply(id, Err(errors::item_not_found("the bytestream is not open")));
            }
        }
        let data = match data {
            Ok(data) => data,
            Err(malformed) => {
                let what = malformed.to_string();
                return self.refuse(id, errors::bad_request(&what), what);
            }
        };
        if data.bytes.len() > usize::from(self.block_size) {
            let what = format!("a block of {} bytes, {} were negotiated", data.bytes.len(), self.block_size);
            return self.refuse(id, errors::bad_request(&what), what);
        }
        let seq = (data.seq & 0xFFFF) as u16;
        match self.receiver.block(id.clone(), seq, data.bytes) {
            Ok(()) => {
                self.acknowledge();
                self.outputs.push_back(Output::Progress);
            }
            Err(Refused::OutOfSequence { expected, got }) => {
                let what = format!("a block with seq {got} where {expected} was due");
                self.refuse(id, errors::unexpected_request(&what), what);
            }
            Err(Refused::Overrun) => {
                let what = "more data than was acknowledged".to_owned();
                self.refuse(id, errors::resource_constraint(ErrorType::Wait), what);
            }
        }
    }

    /// XEP-0047 #close: it is answered once we have sent what we still have.
    pub(crate) fn handle_close(&mut self, now: Instant, id: String) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open => {
                let deadline = now + self.close;
                self.state = State::PeerClosing { id, deadline, done: Done::NotYet };
                self.outputs.push_back(Output::Progress);
            }
            State::Draining => {
                self.state = State::PeerClosing { id, deadline: now + self.close, done: Done::Yes };
                self.pump(now);
            }
            // Both at once: ours is still answered by the peer.
            State::Closing { deadline } => {
                self.state = State::Closing { deadline };
                self.reply(id, Ok(()));
            }
            State::AwaitingOpen { .. } | State::Opening { .. } => {
                self.reply(id, Ok(()));
                self.fail(Error::Transport(TransportError::Closed));
            }
            state @ (State::PeerClosing { .. } | State::Closed | State::Failed(_)) => {
                self.state = state;
                self.reply(id, Err(errors::item_not_found("the bytestream is not open")));
            }
        }
    }

    /// The peer, or a server in between, answered one of our requests.
    pub(super) fn handle_reply(&mut self, now: Instant, request: Request, reply: Result<(), StanzaError>) {
        match (request, reply) {
            (Request::IbbOpen, Ok(())) => {
                if let State::Opening { .. } = self.state {
                    self.state = State::Open;
                    self.outputs.push_back(Output::Open);
                    self.pump(now);
                }
            }
            (Request::IbbData, Ok(())) => {
                self.sender.acknowledged();
                self.pump(now);
            }
            // An answer of `item-not-found` means that the peer closed it first (XEP-0047 #close).
            (Request::IbbClose, _) => {
                if let State::Closing { .. } = self.state {
                    self.closed();
                }
            }
            (Request::IbbOpen | Request::IbbData, Err(error)) => self.refused(request, error),
        }
    }

    fn refused(&mut self, request: Request, error: StanzaError) {
        match self.state {
            State::Closed | State::Failed(_) => return,
            // The block crossed the peer's `<close/>`, or ours: the bytestream ends anyway.
            State::Closing { .. } if request == Request::IbbData => return self.sender.acknowledged(),
            _ => {}
        }
        let undeliverable = matches!(
            error.defined_condition,
            DefinedCondition::RecipientUnavailable
                | DefinedCondition::RemoteServerTimeout
                | DefinedCondition::RemoteServerNotFound
                | DefinedCondition::ServiceUnavailable
        );
        if undeliverable {
            return self.fail(Error::Signalling(SignallingError::PeerUnreachable(error.into())));
        }
        if request == Request::IbbData {
            // XEP-0047 #send: the sender closes the bytestream.
            self.send_close();
        }
        self.fail(Error::Transport(TransportError::Refused(error.into())));
    }

    // ---- what our side asks for ----------------------------------------------------------

    pub(super) fn write(&mut self, now: Instant, bytes: &[u8]) -> Result<usize, Error> {
        match &self.state {
            State::Open | State::PeerClosing { done: Done::NotYet, .. } => {
                let taken = self.sender.write(bytes);
                self.pump(now);
                Ok(taken)
            }
            State::AwaitingOpen { .. } | State::Opening { .. } => Ok(0),
            State::Failed(error) => Err(error.clone()),
            State::Draining | State::Closing { .. } | State::PeerClosing { .. } | State::Closed => {
                Err(Error::Transport(TransportError::Closed))
            }
        }
    }

    pub(super) fn flush(&mut self, now: Instant) -> Result<bool, Error> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        self.sender.flush();
        self.pump(now);
        // Closed with something unsent is a failure; see `pump`.
        Ok(self.sender.is_flushed())
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Read, Error> {
        let read = self.receiver.read(buffer);
        if read > 0 {
            self.acknowledge();
            return Ok(Read::Data(read));
        }
        match &self.state {
            State::PeerClosing { .. } | State::Closed => Ok(Read::End),
            State::Failed(error) => Err(error.clone()),
            _ => Ok(Read::Pending),
        }
    }

    pub(super) fn shutdown(&mut self, now: Instant) -> Result<bool, Error> {
        self.sender.flush();
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open => self.state = State::Draining,
            State::PeerClosing { id, deadline, .. } => {
                self.state = State::PeerClosing { id, deadline, done: Done::Yes };
            }
            // Nothing was ever opened, so there is nothing to close.
            State::AwaitingOpen { .. } | State::Opening { .. } => {}
            state => self.state = state,
        }
        self.pump(now);
        match &self.state {
            State::Closed => Ok(true),
            State::Failed(error) => Err(error.clone()),
            _ => Ok(false),
        }
    }

    pub(super) fn end(&mut self, error: Option<Error>) {
        if let State::PeerClosing { id, .. } = &self.state {
            let id = id.clone();
            self.reply(id, Ok(()));
        }
        match (&self.state, error) {
            (State::Closed | State::Failed(_), _) => {}
            (_, Some(error)) => self.state = State::Failed(error),
            (_, None) => self.state = State::Closed,
        }
        self.outputs.push_back(Output::Progress);
    }

    // ---- time ----------------------------------------------------------------------------

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let block_ack = self.sender.oldest_in_flight().map(|sent| sent + self.block_ack);
        match &self.state {
            State::AwaitingOpen { deadline, .. } | State::Opening { deadline, .. } => Some(*deadline),
            State::Open | State::Draining | State::PeerClosing { done: Done::Yes, .. } => block_ack,
            State::PeerClosing { done: Done::NotYet, deadline, .. } | State::Closing { deadline } => {
                Some(*deadline)
            }
            State::Closed | State::Failed(_) => None,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match &self.state {
            State::AwaitingOpen { since, deadline } | State::Opening { since, deadline } => {
                let given = *deadline - *since;
                self.fail(Error::Timeout(Step::Transport, given));
            }
            State::Open | State::Draining | State::PeerClosing { done: Done::Yes, .. } => {
                self.fail(Error::Timeout(Step::BlockAck, self.block_ack));
            }
            State::Closing { .. } => self.fail(Error::Timeout(Step::Close, self.close)),
            // Our user does not take notice: the peer need not wait for that, and what was written goes out.
            State::PeerClosing { id, deadline, .. } => {
                self.state = State::PeerClosing { id: id.clone(), deadline: *deadline, done: Done::Yes };
                self.sender.flush();
                self.pump(now);
            }
            State::Closed | State::Failed(_) => {}
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // ---- inside --------------------------------------------------------------------------

    /// Sends what the window lets go, and takes the next step of a close that waits for it.
    fn pump(&mut self, now: Instant) {
        if !matches!(self.state, State::Open | State::Draining | State::PeerClosing { .. }) {
            return;
        }
        let had_room = self.sender.has_room();
        let mut sent = false;
        while let Some(block) = self.sender.next_block(now) {
            let data = data_element(&self.sid, &block.bytes, block.seq.into());
            self.outputs.push_back(Output::Request(Request::IbbData, data));
            sent = true;
        }
        if sent && (!had_room || self.sender.is_flushed()) {
            self.outputs.push_back(Output::Progress);
        }
        if !self.sender.is_idle() {
            return;
        }
        match &self.state {
            State::Draining => {
                self.state = State::Closing { deadline: now + self.close };
                self.send_close();
            }
            State::PeerClosing { id, done: Done::Yes, .. } => {
                let id = id.clone();
                self.reply(id, Ok(()));
                self.closed();
            }
            _ => {}
        }
    }

    fn acknowledge(&mut self) {
        while let Some(id) = self.receiver.next_acknowledgement() {
            self.reply(id, Ok(()));
        }
    }

    fn reply(&mut self, id: String, reply: Result<(), StanzaError>) {
        self.outputs.push_back(Output::Reply(id, reply));
    }

    /// XEP-0047 #send: neither this block nor any that follows is processed, and the recipient closes the
    /// bytestream.
    fn refuse(&mut self, id: String, refusal: StanzaError, what: String) {
        self.reply(id, Err(refusal));
        self.send_close();
        self.fail(PeerMisbehaved::Bytestream(what).into());
    }

    fn send_close(&mut self) {
        let close = Close { sid: self.sid.clone() }.to_element();
        self.outputs.push_back(Output::Request(Request::IbbClose, close));
    }

    fn closed(&mut self) {
        self.state = State::Closed;
        self.outputs.push_back(Output::Progress);
    }

    fn fail(&mut self, error: Error) {
        self.state = State::Failed(error.clone());
        self.outputs.push_back(Output::Failed(error));
        self.outputs.push_back(Output::Progress);
    }

    #[cfg(test)]
    pub(super) fn start_at(&mut self, sent: u16, received: u16) {
        self.sender.start_at(sent);
        self.receiver.start_at(received);
    }
}
