//! In-band bytestreams (XEP-0047) as a Jingle transport (XEP-0261), sans-IO.
//!
//! ```text
//!   initiator: Opening ──<open/> acknowledged──► Open ──shutdown──► Draining ──idle──► Closing ──┐
//!              OpenEarly ────────the same──────► Open                                           │
//!   responder: AwaitingOpen ──<open/>──────────► Open ──<close/> from the peer──► PeerClosing ───┤
//!                                                                                              Closed
//! ```
//!
//! Blocks go out as far as the window allows; acknowledgements of received blocks are held back
//! while the reader is behind, which is all the back-pressure that XEP-0047 has. A `<close/>` ends
//! both directions, so whoever receives one sends what it still has before it answers.

use std::{collections::VecDeque, time::Instant};

use bytes::BytesMut;
use xmpp_parsers::{
    minidom::Element,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use self::clock::Clock;
use super::{
    Output, Read, Request, TransportInfo,
    ibb_receiver::{Kept, Receiver, Refused},
    ibb_sender::Sender,
};
use crate::{
    Error, IbbConfig, PeerMisbehaved, SignallingError, Timeouts, TransportError,
    disco::{EarlyData, InBand},
    wire::{
        errors,
        ibb::{Close, Data, IbbMalformed, IbbTransport, Open, data_element},
    },
};

mod clock;

/// What is agreed, or offered, before `<open/>`.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    sid: String,
    block_size: u16,
    version: InBand,
    /// Whether data may go right behind `<open/>`.
    early_data: EarlyData,
}

impl Offer {
    /// A new offer with an unguessable name.
    pub(crate) fn new(sid: String, version: InBand, config: &IbbConfig) -> Self {
        Self { sid, block_size: config.block_size.max(1), version, early_data: EarlyData::Unknown }
    }

    /// To a peer of which this is known.
    pub(crate) fn early_data(mut self, early_data: EarlyData) -> Self {
        self.early_data = early_data;
        self
    }

    pub(super) fn check(element: &Element) -> Result<(), String> {
        if IbbTransport::matches(element) {
            let wire = IbbTransport::parse(element).map_err(|malformed| malformed.to_string())?;
            wire.sid.ok_or("<transport/> without sid")?;
            wire.block_size.ok_or("<transport/> without block-size")?;
        }
        Ok(())
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
        // Never larger than either side's.
        let block_size = u16::try_from(offered).unwrap_or(u16::MAX).min(at_most);
        let version = if wire.v0 { InBand::V0 } else { InBand::V1 };
        Ok(Self { sid, block_size, version, early_data: EarlyData::Unknown })
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
        let answered = wire.block_size.and_then(|size| u16::try_from(size).ok()).unwrap_or(u16::MAX);
        Ok(Self { block_size: self.block_size.min(answered), ..self.clone() })
    }

    pub(crate) fn to_element(&self) -> Element {
        let wire = IbbTransport {
            v0: self.version == InBand::V0,
            block_size: Some(self.block_size.into()),
            sid: Some(self.sid.clone()),
            message_mode: false,
        };
        wire.to_element()
    }

    pub(crate) fn sid(&self) -> &str {
        &self.sid
    }
}

/// One in-band bytestream.
#[derive(Debug)]
pub(crate) struct Ibb {
    sid: String,
    block_size: u16,
    timeouts: Timeouts,
    state: State,
    clock: Clock,
    sender: Sender,
    receiver: Receiver,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    /// The responder waits for `<open/>`.
    AwaitingOpen {
        deadline: Instant,
    },
    /// The initiator sent `<open/>`.
    Opening {
        deadline: Instant,
    },
    /// The initiator sent `<open/>` to a responder that takes data right behind it.
    OpenEarly {
        deadline: Instant,
    },
    Open,
    /// Our user is done: what is left goes out, and has to be acknowledged, before `<close/>`. However long
    /// that takes with a slow server: only a block that stays unacknowledged ends it.
    Draining,
    /// We sent `<close/>`. The peer may still send what it has, until it answers; each block shows that it
    /// does, and moves the deadline.
    Closing {
        deadline: Instant,
    },
    /// The peer sent `<close/>`; it is answered when our user is done and everything is acknowledged.
    PeerClosing {
        id: String,
        done: Done,
    },
    /// Both sides consider the bytestream closed; what was received can still be read.
    Closed,
    Failed(Error),
}

/// Whether our user has more to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// It has until the deadline: the peer need not wait for a user that takes no notice.
    NotYet {
        deadline: Instant,
    },
    Yes,
}

impl Ibb {
    /// As initiator of the transport: opens the negotiated bytestream.
    ///
    /// XEP-0047 #send has data follow once the responder has agreed. To one that announces that it takes data earlier,
    /// the bytestream is open with that; if it refuses it all the same, it has failed with what was written.
    pub(crate) fn open(offer: Offer, now: Instant, config: &IbbConfig, timeouts: &Timeouts) -> Self {
        let open = Open { block_size: offer.block_size.into(), sid: offer.sid.clone(), message_mode: false };
        let deadline = now + timeouts.transport;
        let (state, is_open) = match offer.early_data {
            EarlyData::Unknown => (State::Opening { deadline }, None),
            EarlyData::Announced => (State::OpenEarly { deadline }, Some(Output::Open)),
        };
        let mut ibb = Self::new(offer, state, config, timeouts);
        ibb.outputs.push_back(Output::Request(Request::Open, open.to_element()));
        ibb.outputs.extend(is_open);
        ibb
    }

    /// As responder: waits for the initiator's `<open/>`.
    pub(crate) fn await_open(offer: Offer, now: Instant, config: &IbbConfig, timeouts: &Timeouts) -> Self {
        let state = State::AwaitingOpen { deadline: now + timeouts.transport };
        Self::new(offer, state, config, timeouts)
    }

    fn new(offer: Offer, state: State, config: &IbbConfig, timeouts: &Timeouts) -> Self {
        Self {
            sender: Sender::new(offer.block_size, config),
            receiver: Receiver::new(config.receive_buffer),
            sid: offer.sid,
            block_size: offer.block_size,
            timeouts: *timeouts,
            state,
            clock: Clock::Running,
            outputs: VecDeque::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn sid(&self) -> &str {
        &self.sid
    }

    pub(super) fn info(&self) -> TransportInfo {
        TransportInfo::Ibb { block_size: self.block_size }
    }

    /// Whether a connection can take its place. That is so even while it is being closed: each side learns of the connection
    /// at a time of its own, so the other one may have moved and be saying its last words there.
    pub(super) fn can_move(&self) -> bool {
        self.is_open() && !self.is_closed()
    }

    /// Whether both sides have closed it in good order.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::AwaitingOpen { .. } | State::Opening { .. } | State::Failed(_))
    }

    // ---- what the peer sends -------------------------------------------------------------

    /// XEP-0261 #protocol-start: `<open/>` repeats what Jingle negotiated.
    pub(crate) fn handle_open(&mut self, id: String, open: &Open) {
        match self.state {
            State::AwaitingOpen { .. } => {}
            State::Closed | State::Failed(_) => return self.reply(id, Err(not_open())),
            _ => {
                let what = "the bytestream is open, or is opened by the other side";
                return self.reply(id, Err(errors::unexpected_request(what)));
            }
        }
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

    /// From now on what it keeps for its reader counts among this.
    pub(crate) fn count_in(&mut self, kept: &Kept) {
        self.receiver.count_in(kept);
    }

    /// Takes a block, or refuses it and, where XEP-0047 #send says so, closes the bytestream.
    pub(crate) fn handle_data(&mut self, now: Instant, id: String, data: Result<Data, IbbMalformed>) {
        match &mut self.state {
            State::OpenEarly { .. } | State::Open | State::Draining => {}
            State::Closing { deadline } => *deadline = now + self.timeouts.close,
            State::PeerClosing { .. } => {
                let refusal = errors::unexpected_request("the bytestream was closed by its sender");
                return self.reply(id, Err(refusal));
            }
            State::AwaitingOpen { .. } | State::Opening { .. } | State::Closed | State::Failed(_) => {
                return self.reply(id, Err(not_open()));
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
        match self.receiver.check(&id, seq, data.bytes.len()) {
            Ok(()) => {
                self.receiver.take(now, id, seq, data.bytes);
                self.acknowledge();
                self.outputs.push_back(Output::Progress);
            }
            Err(Refused::OutOfSequence { expected, got }) => {
                let what = format!("a block with seq {got} where {expected} was due");
                self.refuse(id, errors::unexpected_request(&what), what);
            }
            Err(Refused::Full) => {
                let what = "more data than there is room for, and nobody reads it".to_owned();
                self.refuse(id, errors::resource_constraint(ErrorType::Wait), what);
            }
            Err(Refused::LongId) => {
                let what = format!("a block whose id has {} bytes", id.len());
                self.refuse(id, errors::resource_constraint(ErrorType::Modify), what);
            }
            Err(Refused::Overrun) => {
                let what = "more data than was acknowledged".to_owned();
                self.refuse(id, errors::resource_constraint(ErrorType::Wait), what);
            }
        }
    }

    /// XEP-0047 #close: it is answered once we have sent what we still have.
    pub(crate) fn handle_close(&mut self, now: Instant, id: String) {
        match self.state {
            State::OpenEarly { .. } | State::Open => {
                let done = Done::NotYet { deadline: now + self.timeouts.close };
                self.state = State::PeerClosing { id, done };
                self.outputs.push_back(Output::Progress);
            }
            State::Draining => {
                self.state = State::PeerClosing { id, done: Done::Yes };
                self.outputs.push_back(Output::Progress);
                self.pump(now);
            }
            // Both at once: ours is still answered by the peer.
            State::Closing { .. } => self.reply(id, Ok(())),
            State::AwaitingOpen { .. } | State::Opening { .. } => {
                self.reply(id, Ok(()));
                self.fail(Error::Transport(TransportError::Closed));
            }
            State::PeerClosing { .. } | State::Closed | State::Failed(_) => self.reply(id, Err(not_open())),
        }
    }

    /// The peer, or a server in between, answered one of our requests.
    pub(super) fn handle_reply(&mut self, now: Instant, request: Request, reply: Result<(), StanzaError>) {
        match (request, reply) {
            (Request::Open, Ok(())) => match self.state {
                State::Opening { .. } => {
                    self.state = State::Open;
                    self.outputs.push_back(Output::Open);
                    self.pump(now);
                }
                State::OpenEarly { .. } => self.state = State::Open,
                _ => {}
            },
            (Request::Data, Ok(())) => {
                self.sender.acknowledged(now);
                self.pump(now);
            }
            // An answer of `item-not-found` means that the peer closed it first (XEP-0047 #close).
            (Request::Close, _) => {
                if let State::Closing { .. } = self.state {
                    self.finish(State::Closed);
                }
            }
            (Request::Open | Request::Data, Err(error)) => self.refused(request, error),
        }
    }

    fn refused(&mut self, request: Request, error: StanzaError) {
        if let State::Closed | State::Failed(_) = self.state {
            return;
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
        // XEP-0047 #send: the sender closes the bytestream, unless the peer did, or never opened it.
        if let (Request::Data, State::Open | State::Draining) = (request, &self.state) {
            self.send_close();
        }
        self.fail(Error::Transport(TransportError::Refused(error.into())));
    }

    // ---- what our side asks for ----------------------------------------------------------

    pub(super) fn write(&mut self, now: Instant, bytes: &[u8]) -> Result<usize, Error> {
        match &self.state {
            State::OpenEarly { .. } | State::Open | State::PeerClosing { done: Done::NotYet { .. }, .. } => {
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
        self.sender.flush();
        self.pump(now);
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            State::Closed if !self.sender.is_flushed() => Err(Error::Transport(TransportError::Closed)),
            _ => Ok(self.sender.is_flushed()),
        }
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
        match &mut self.state {
            State::OpenEarly { .. } | State::Open => self.state = State::Draining,
            State::PeerClosing { done, .. } => *done = Done::Yes,
            // Nothing was ever opened, so there is nothing to close.
            State::AwaitingOpen { .. } | State::Opening { .. } => self.finish(State::Closed),
            State::Draining | State::Closing { .. } | State::Closed | State::Failed(_) => {}
        }
        self.sender.flush();
        self.pump(now);
        match &self.state {
            State::Closed => Ok(true),
            State::Failed(error) => Err(error.clone()),
            _ => Ok(false),
        }
    }

    pub(super) fn end(&mut self, error: Option<Error>) {
        let all_said = match self.state {
            State::Closed | State::Failed(_) => return,
            State::Closing { .. } => true,
            State::PeerClosing { .. } => self.sender.is_idle(),
            _ => false,
        };
        let error = error.filter(|_| !all_said);
        self.finish(error.map_or(State::Closed, State::Failed));
    }

    /// It is shut down because a connection takes its place: nobody wants to be rid of it, and a peer that still has
    /// blocks to send takes as long as its server, and our reader, need for them. Gives what was written and has not been
    /// sent, which the connection carries faster.
    pub(super) fn give_way(&mut self, now: Instant) -> BytesMut {
        self.timeouts.close = self.timeouts.block_ack;
        let unsent = self.sender.take_uncut();
        // If it has failed by now, whoever reads it is told.
        let _ = self.shutdown(now);
        unsent
    }

    // ---- inside --------------------------------------------------------------------------

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn is_sending(&self) -> bool {
        matches!(
            self.state,
            State::OpenEarly { .. } | State::Open | State::Draining | State::PeerClosing { .. }
        )
    }

    /// Sends what the window lets go, and takes the next step of a close that waits for it.
    fn pump(&mut self, now: Instant) {
        if !self.is_sending() {
            return;
        }
        let mut sent = false;
        while let Some(block) = self.sender.next_block(now) {
            let data = data_element(&self.sid, &block.bytes, block.seq.into());
            self.outputs.push_back(Output::Request(Request::Data, data));
            sent = true;
        }
        if self.sender.frees_writer() || (sent && self.sender.is_flushed()) {
            self.outputs.push_back(Output::Progress);
        }
        if !self.sender.is_idle() {
            return;
        }
        match self.state {
            State::Draining => {
                self.state = State::Closing { deadline: now + self.timeouts.close };
                self.send_close();
            }
            State::PeerClosing { done: Done::Yes, .. } => self.finish(State::Closed),
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
        if let State::OpenEarly { .. } | State::Open | State::Draining = self.state {
            self.send_close();
        }
        self.fail(PeerMisbehaved::Bytestream(what).into());
    }

    fn send_close(&mut self) {
        let close = Close { sid: self.sid.clone() }.to_element();
        self.outputs.push_back(Output::Request(Request::Close, close));
    }

    fn fail(&mut self, error: Error) {
        self.finish(State::Failed(error.clone()));
        self.outputs.push_back(Output::Failed(error));
    }

    /// Goes to a last state. The peer gets the answers that it still waits for: what it sent can be read, and
    /// the bytestream that it closed is closed.
    fn finish(&mut self, last: State) {
        while let Some(id) = self.receiver.take_unacknowledged() {
            self.reply(id, Ok(()));
        }
        if let State::PeerClosing { id, .. } = std::mem::replace(&mut self.state, last) {
            self.reply(id, Ok(()));
        }
        self.outputs.push_back(Output::Progress);
    }

    #[cfg(test)]
    pub(super) fn start_at(&mut self, sent: u16, received: u16) {
        self.sender.start_at(sent);
        self.receiver.start_at(received);
    }
}

fn not_open() -> StanzaError {
    errors::item_not_found("the bytestream is not open")
}
