//! One end of an e2e XML stream, without IO: what was read, verbs of the local user and time go in;
//! bytes to write and stanzas come out (XEP-0246, XEP-0247, RFC 6120 §4).
//!
//! ```text
//! HeaderAwaited ──header──► FeaturesAwaited ──features──► Open ──close──► Closing ──footer──► Closed
//!       │                     (initiator)    or a while    └───────────footer───────────────►   │
//!       └───────────────── an error, from either side, in any state ──► Failed                ◄─┘
//!
//! Open, Closing ──the bytestream is lost──► Suspended ──adopt──► Open, Closing (XEP-0198 #resumption)
//! HeaderAwaited, FeaturesAwaited ──of a bytestream to resume on──► Reviving, whose bytestream the suspended stream adopts
//!
//! HeaderAwaited, FeaturesAwaited ──STARTTLS or SASL──► Negotiating ──► Negotiated, and no more: what comes next is
//!                                                                      another stream, of another machine
//! ```

mod acking;
mod early;
mod ending;
mod liveness;
pub(crate) mod management;
mod negotiating;
mod parting;
mod reading;
mod relay;
mod reviving;
mod saying;
mod services;
mod suspending;

use std::time::{Duration, Instant};

use jid::Jid;
use xmpp_parsers::{stanza::Stanza, stream_error::DefinedCondition};

use self::{
    acking::Management,
    early::Early,
    liveness::Vigil,
    management::Plan,
    relay::Relay,
    reviving::Reviving,
    services::Services,
    suspending::{Link, Suspended},
};
use super::{
    Path,
    addressing::{Introduction, Parties},
    inbox::Inbox,
    iq::{Replies, Requests},
    negotiation::{self, Agenda, Next},
    outbox::Outbox,
};
use crate::{
    ApiMisuse, Error, Limits, Step, Timeouts, TransportError, Undelivered,
    security::{Certificate, code::CodeKey},
};

/// Bytes of answers that we make ourselves (to pings, to requests that nobody answers) and that the peer
/// does not read. Reading can't just stop there: where both sides do that, neither ever reads again. Two
/// honest bots that flood each other with requests have less than this under way.
const AUTOMATIC_BYTES: usize = 2 * 1024 * 1024;

/// Bytes that the peer has to take in the time of a close, so that it gets that time again. It is a tenth of what the
/// strictest servers let through; without it, a peer that takes a byte at a time could hold up a close for weeks.
pub(super) const CLOSING_BYTES: usize = 1024;

/// How often a stream that is being closed may lose its bytestream before the peer acknowledges anything more. Each time it has
/// the time of a close again, and somebody on the way who lets it be resumed and cuts it off could make that last for ever.
const CLOSING_LOSSES: u32 = 5;

/// How long the initiator waits for features, at most: a responder that sends them does so with its header.
// COMPAT XEP-0247: the printed flow has version='1.0' and no features, and XEP-0246 only recommends them.
const FEATURES_GRACE: Duration = Duration::from_secs(3);

/// Who speaks first (XEP-0247: the Jingle initiator).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// Whose footer came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closer {
    /// Ours; or both at the same time, when each side takes itself for the first.
    Us,
    Peer,
}

/// What a stream is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) role: Role,
    pub(crate) local: Option<Jid>,
    pub(crate) peer: Option<Jid>,
    pub(crate) introduction: Introduction,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    /// Random: the stream's id, where we are the responder, and what our iq ids begin with.
    pub(crate) nonce: String,
    /// `None` without encryption.
    pub(crate) channel: Option<Channel>,
    /// What this stream is for, if not for stanzas.
    pub(crate) agenda: Agenda,
    pub(crate) management: Plan,
}

/// What is known of the TLS connection around the stream.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) code_key: CodeKey,
    pub(crate) own: Certificate,
    pub(crate) peer: Certificate,
}

/// See the module's documentation.
pub(crate) struct Machine {
    role: Role,
    parties: Parties,
    timeouts: Timeouts,
    limits: Limits,
    nonce: String,
    /// The latest time that was told.
    clock: Instant,
    state: State,
    outbox: Outbox,
    /// How many of all bytes that were ever queued were written.
    written: u64,
    relay: Relay,
    inbox: Inbox,
    requests: Requests,
    replies: Replies,
    violations: u64,
    audience: Audience,
    services: Services,
    agenda: Agenda,
    early: Early,
    management: Management,
    vigil: Vigil,
    /// How often the bytestream was lost while we close, since the peer last acknowledged something.
    closing_losses: u32,
}

enum State {
    HeaderAwaited(HeaderAwaited),
    FeaturesAwaited(FeaturesAwaited),
    /// Nothing may be said before this has come to an end.
    Negotiating(Negotiating),
    /// This stream was for no more; the next thing on the bytestream is another.
    Negotiated(Negotiated),
    /// An earlier stream is to be carried on, and nothing else.
    Reviving(Reviving),
    Open(Open),
    Closing(Closing),
    /// The bytestream is lost, or stands still.
    Suspended(Suspended),
    Closed(Closed),
    Failed(Error),
}

#[derive(Debug)]
struct HeaderAwaited {
    deadline: Instant,
}

#[derive(Debug)]
struct FeaturesAwaited {
    deadline: Instant,
    /// When all of the negotiation has to be over.
    end: Instant,
    id: Option<String>,
}

struct Negotiating {
    deadline: Instant,
    step: negotiation::Step,
}

/// All has come; what is to be said for it may still be on its way out.
#[derive(Debug)]
struct Negotiated {
    deadline: Instant,
    next: Next,
}

#[derive(Debug)]
struct Open {
    id: Option<String>,
}

/// Nothing more is sent but our footer, and not all has come.
#[derive(Debug)]
struct Closing {
    deadline: Instant,
    /// Bytes written since the deadline was set.
    written: usize,
    footer: Footer,
}

/// Both footers are here.
#[derive(Debug)]
struct Closed {
    closer: Closer,
    /// What the peer has not acknowledged all the same.
    undelivered: Option<Undelivered>,
}

/// Our footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Footer {
    /// The peer's is not here.
    Sent,
    /// A proxy would perhaps keep it from the peer, and nothing may be sent behind it.
    Held,
    /// As before; and the peer's is here.
    HeldLast,
}

/// Whether somebody reads the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Present,
    Gone,
}

impl Machine {
    /// The initiator's header is queued at once.
    pub(crate) fn new(now: Instant, setup: Setup) -> Self {
        let Setup { role, local, peer, introduction, timeouts, limits, nonce, channel, agenda, management } =
            setup;
        let prefix = format!("{}-", nonce.get(..8).unwrap_or(&nonce));
        let mut machine = Self {
            role,
            parties: Parties { local, peer, introduction },
            timeouts,
            limits,
            clock: now,
            state: State::HeaderAwaited(HeaderAwaited { deadline: now + timeouts.stream_header }),
            outbox: Outbox::new(now),
            written: 0,
            relay: Relay::new(),
            inbox: Inbox::new(limits.inbox_bytes),
            requests: Requests::new(limits.pending_requests, timeouts.iq_unanswered),
            replies: Replies::new(prefix, timeouts.iq),
            violations: 0,
            audience: Audience::Present,
            nonce,
            services: Services::new(role, channel.as_ref()),
            agenda,
            early: Early::Nothing,
            management: Management::planned(management),
            vigil: Vigil::new(now),
            closing_losses: 0,
        };
        if role == Role::Initiator {
            machine.queue_header(now);
        }
        machine
    }

    // What comes in.

    /// Which way the bytestream goes now.
    pub(crate) fn set_path(&mut self, now: Instant, path: Path) {
        self.clock = now;
        self.relay.set_path(now, path, self.written > 0);
        self.release_footer_in_time(now);
    }

    /// So many of the outgoing bytes were written: while we close, the peer gets its time from now if they were many, or
    /// the last.
    pub(crate) fn handle_written(&mut self, now: Instant, bytes: usize, left: usize) {
        self.written = self.written.saturating_add(bytes as u64);
        self.relay.handle_written(now, bytes);
        let all = left == 0 && self.outbox.len() == 0;
        if let State::Closing(closing) = &mut self.state {
            closing.written += bytes;
            if all || closing.written >= CLOSING_BYTES {
                closing.deadline = now + self.timeouts.close;
                closing.written = 0;
            }
        }
    }

    /// All that was written is on its way.
    pub(crate) fn handle_flushed(&mut self, now: Instant) {
        self.relay.handle_flushed(now);
        self.release_footer_in_time(now);
    }

    /// A deadline may have passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.clock = now;
        self.replies.expire(now);
        self.services.expire(now);
        self.nudge(now);
        match &self.state {
            State::HeaderAwaited(HeaderAwaited { deadline }) if *deadline <= now => {
                let text = "no stream header came";
                self.send_stream_error(now, DefinedCondition::ConnectionTimeout, text);
                self.fail(Error::Timeout(Step::StreamHeader, self.timeouts.stream_header));
            }
            State::FeaturesAwaited(FeaturesAwaited { deadline, .. }) if *deadline <= now => {
                tracing::debug!("the responder sends no stream features");
                self.go_on_without_features(now, "no stream features");
            }
            State::Negotiating(Negotiating { deadline, .. })
            | State::Negotiated(Negotiated { deadline, .. })
            | State::Reviving(Reviving { deadline, .. })
                if *deadline <= now =>
            {
                let text = "the negotiation takes too long";
                self.send_stream_error(now, DefinedCondition::ConnectionTimeout, text);
                self.fail(Error::Timeout(Step::StreamHeader, self.timeouts.stream_header));
            }
            State::Closing(Closing { deadline, .. }) if *deadline <= now => {
                self.say_footer(now);
                self.fail(Error::Timeout(Step::Close, self.timeouts.close));
            }
            State::Open(_) => {
                self.answer_for_the_user(now);
                self.ask_in_time(now);
                self.watch(now);
                self.keep_alive(now);
            }
            State::Suspended(_) => {
                self.answer_for_the_user(now);
                self.give_up_in_time(now);
            }
            _ => {}
        }
    }

    // What the local user does.

    /// Nobody reads the inbox any more: what comes in is dropped, and requests are refused.
    pub(crate) fn stop_receiving(&mut self, now: Instant) {
        self.audience = Audience::Gone;
        self.inbox.clear();
        if self.is_open() {
            self.refuse_requests(now);
            self.tell_in_time(now);
        }
    }

    /// The oldest stanza that the user has not seen. With that it is handled, which the peer may be told now.
    pub(crate) fn next_stanza(&mut self) -> Option<Stanza> {
        let stanza = self.inbox.pop();
        self.tell_in_time(self.clock);
        stanza
    }

    /// Gives memory back that a burst has taken, and keeps room for so many bytes.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.outbox.release(bytes);
    }

    /// Room for bytes to write, and for stanzas that were read.
    #[cfg(test)]
    pub(crate) fn capacities(&self) -> [usize; 2] {
        [self.outbox.capacity(), self.inbox.capacity()]
    }

    // What goes out.

    /// Swaps the outgoing bytes with an empty buffer.
    pub(crate) fn take_outgoing(&mut self, empty: &mut Vec<u8>) {
        self.outbox.take(empty);
    }

    pub(crate) fn outgoing_len(&self) -> usize {
        self.outbox.len()
    }

    /// How many bytes were ever queued for writing.
    pub(crate) fn queued(&self) -> u64 {
        self.outbox.queued()
    }

    /// Whether the user's stanzas are all among the first `written` of these bytes.
    pub(crate) fn is_said(&self, written: u64) -> bool {
        self.outbox.stanzas_end() <= written
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let step = match &self.state {
            State::HeaderAwaited(HeaderAwaited { deadline })
            | State::FeaturesAwaited(FeaturesAwaited { deadline, .. })
            | State::Negotiating(Negotiating { deadline, .. })
            | State::Negotiated(Negotiated { deadline, .. })
            | State::Reviving(Reviving { deadline, .. })
            | State::Closing(Closing { deadline, .. }) => Some(*deadline),
            State::Open(_) => [
                self.requests.next_deadline(),
                self.keep_alive_deadline(),
                self.management.next_request(),
                self.watch_deadline(),
            ]
            .into_iter()
            .flatten()
            .min(),
            State::Suspended(Suspended { suspension, .. }) => {
                Some(self.requests.next_deadline().map_or(suspension.until, |due| due.min(suspension.until)))
            }
            State::Closed(_) | State::Failed(_) => None,
        };
        let replies = [self.replies.next_deadline(), self.services.next_deadline()];
        replies.into_iter().chain([step, self.nudge_deadline()]).flatten().min()
    }

    // Questions.

    pub(crate) fn is_open(&self) -> bool {
        match &self.state {
            State::Open(_) => true,
            State::Suspended(suspended) => suspended.is_open(),
            _ => false,
        }
    }

    /// Nothing more will be read.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Closed(_) | State::Failed(_))
    }

    /// Nothing more will come, though not all is sent.
    pub(crate) fn is_silent(&self) -> bool {
        match &self.state {
            State::Closing(Closing { footer: Footer::HeldLast, .. }) | State::Negotiated(_) => true,
            State::Reviving(reviving) => reviving.is_agreed(),
            _ => false,
        }
    }

    /// What comes next on the bytestream, once all is written that is to be.
    pub(crate) fn negotiated(&self) -> Option<Next> {
        match &self.state {
            State::Negotiated(Negotiated { next, .. }) => Some(*next),
            _ => None,
        }
    }

    /// Who closed the stream, if it was closed in good order.
    pub(crate) fn closed_by(&self) -> Option<Closer> {
        match self.state {
            State::Closed(Closed { closer, .. }) => Some(closer),
            _ => None,
        }
    }

    /// Why the stream failed.
    pub(crate) fn error(&self) -> Option<&Error> {
        match &self.state {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Why nothing can be sent.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            _ if self.is_open() => Ok(()),
            _ => Err(ApiMisuse::StreamClosed.into()),
        }
    }

    /// There is something for the user to receive, be it the end.
    pub(crate) fn has_news(&self) -> bool {
        !self.inbox.is_empty() || self.is_over()
    }

    /// The inbox holds as much as it may: reading should pause, unless nothing more is put in. While sending waits for
    /// acknowledgements it may hold more: they come behind what the peer has sent before, and a bot that waits to send receives
    /// nothing.
    pub(crate) fn is_inbox_full(&self) -> bool {
        if self.audience == Audience::Gone {
            false
        } else if self.management.has_room(&self.limits) {
            self.inbox.is_full()
        } else {
            self.inbox.is_full_beyond(self.reserve())
        }
    }

    /// What a peer with the same limits has under way at most, in the bytes that the inbox counts, before it waits for us.
    fn reserve(&self) -> usize {
        let Limits { unacked_stanzas, unacked_bytes, .. } = self.limits;
        let each = size_of::<Stanza>() + self.parties.length();
        unacked_bytes.saturating_mul(2).saturating_add(unacked_stanzas.saturating_mul(each))
    }

    /// Reading should go on after a pause.
    pub(crate) fn has_inbox_room(&self) -> bool {
        self.audience == Audience::Gone
            || self.inbox.has_room()
            || !(self.management.has_room(&self.limits) || self.is_inbox_full())
    }

    /// Whether a request of ours has no reply yet.
    pub(crate) fn is_reply_awaited(&self) -> bool {
        self.replies.next_deadline().is_some()
    }

    pub(crate) fn peer(&self) -> Option<&Jid> {
        self.parties.peer.as_ref()
    }

    pub(crate) fn stream_id(&self) -> Option<&str> {
        match (&self.state, self.role) {
            (State::Open(open), Role::Initiator) => open.id.as_deref(),
            (_, Role::Responder) => Some(&self.nonce),
            _ => None,
        }
    }

    /// How many stanzas claimed an address that is not the peer's or not ours.
    pub(crate) fn violations(&self) -> u64 {
        self.violations
    }
}

/// The bytestream ended before the XML stream did.
pub(crate) fn cut_off() -> Error {
    Error::Transport(TransportError::Closed)
}
