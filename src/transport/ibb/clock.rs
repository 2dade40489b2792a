//! What an in-band bytestream waits for, and for how long.

use std::time::{Duration, Instant};

use super::{Done, Ibb, State};
use crate::{Error, Step};

/// How long an acknowledgement is held back at most because our user does not read. Peers take a block that stays
/// unacknowledged for a sign that we are gone, this crate after [`Timeouts::block_ack`].
const MERCY: Duration = Duration::from_secs(30);

/// Whether time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    Running,
    /// The server that carries the blocks is away.
    Standing,
}

impl Ibb {
    /// What is sent gets nowhere for now, and nothing comes: no word from the peer means nothing.
    ///
    /// Before the bytestream is open, its deadlines go on.
    pub(in crate::transport) fn stand_still(&mut self) {
        if self.is_open() {
            self.clock = Clock::Standing;
        }
    }

    /// It can go on where it was. Whatever was waited for has all its time again.
    pub(in crate::transport) fn go_on(&mut self, now: Instant) {
        if self.clock == Clock::Running {
            return;
        }
        self.clock = Clock::Running;
        self.sender.restart_clock(now);
        match &mut self.state {
            State::Closing { deadline } | State::PeerClosing { done: Done::NotYet { deadline }, .. } => {
                *deadline = now + self.timeouts.close;
            }
            State::OpenEarly { deadline } => *deadline = now + self.timeouts.transport,
            _ => {}
        }
    }

    pub(in crate::transport) fn poll_timeout(&self) -> Option<Instant> {
        if self.clock == Clock::Standing {
            return None;
        }
        let mercy =
            self.receiver.waiting_for_mercy().filter(|_| self.is_receiving()).map(|since| since + MERCY);
        self.state_deadline().into_iter().chain(self.block_deadline()).chain(mercy).min()
    }

    fn is_receiving(&self) -> bool {
        matches!(self.state, State::OpenEarly { .. } | State::Open | State::Draining | State::Closing { .. })
    }

    fn state_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitingOpen { deadline }
            | State::Opening { deadline }
            | State::OpenEarly { deadline }
            | State::Closing { deadline }
            | State::PeerClosing { done: Done::NotYet { deadline }, .. } => Some(*deadline),
            _ => None,
        }
    }

    fn block_deadline(&self) -> Option<Instant> {
        self.sender.waiting_since().filter(|_| self.is_sending()).map(|since| since + self.timeouts.block_ack)
    }

    pub(in crate::transport) fn handle_timeout(&mut self, now: Instant) {
        if self.clock == Clock::Standing {
            return;
        }
        if self.block_deadline().is_some_and(|due| now >= due) {
            return self.fail(Error::Timeout(Step::BlockAck, self.timeouts.block_ack));
        }
        if self.is_receiving() {
            for id in self.receiver.show_mercy(now, now.checked_sub(MERCY)) {
                self.reply(id, Ok(()));
            }
        }
        if self.state_deadline().is_none_or(|due| now < due) {
            return;
        }
        match &mut self.state {
            State::AwaitingOpen { .. } | State::Opening { .. } | State::OpenEarly { .. } => {
                self.fail(Error::Timeout(Step::Transport, self.timeouts.transport));
            }
            State::Closing { .. } => self.fail(Error::Timeout(Step::Close, self.timeouts.close)),
            // What was written goes out all the same.
            State::PeerClosing { done, .. } => {
                *done = Done::Yes;
                self.sender.flush();
                self.pump(now);
            }
            State::Open | State::Draining | State::Closed | State::Failed(_) => {}
        }
    }
}
