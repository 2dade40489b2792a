//! One end of an e2e XML stream, without IO: what was read, verbs of the local user and time go in;
//! bytes to write and stanzas come out (XEP-0246, XEP-0247, RFC 6120 §4).
//!
//! ```text
//! HeaderAwaited ──header──► FeaturesAwaited ──features──► Open ──close──► Closing ──footer──► Closed
//!       │                     (initiator)    or a while    └───────────footer───────────────►   │
//!       └───────────────── an error, from either side, in any state ──► Failed                ◄─┘
//!
//! HeaderAwaited, FeaturesAwaited ──STARTTLS or SASL──► Negotiating ──► Negotiated, and no more: what comes next is
//!                                                                      another stream, of another machine
//! ```

pub(crate) mod management;
mod negotiating;
mod parting;
mod reading;
mod relay;
mod services;

use std::time::{Duration, Instant};

use jid::Jid;
use tokio_xmpp::IqRequest;
use xmpp_parsers::{iq::Iq, stanza::Stanza, stream_error::DefinedCondition};

use self::{
    management::{Plan, ReceiptSender},
    relay::Relay,
    services::Services,
};
use super::{
    Path,
    addressing::{Introduction, Parties},
    encode::OwnHeader,
    inbox::Inbox,
    iq::{self, Replies, ReplyReceiver, Requests},
    negotiation::{self, Agenda, Next},
    outbox::Outbox,
    violation::Violation,
};
use crate::{
    ApiMisuse, Direction, Error, Limits, Step, StreamFailure, Timeouts, TransportError,
    security::{Certificate, code::CodeKey},
};

/// Bytes of answers that we make ourselves (to pings, to requests that nobody answers) and that the peer
/// does not read. Reading can't just stop there: where both sides do that, neither ever reads again. Two
/// honest bots that flood each other with requests have less than this under way.
const AUTOMATIC_BYTES: usize = 2 * 1024 * 1024;

/// Bytes that the peer has to take in the time of a close, so that it gets that time again. It is a tenth of what the
/// strictest servers let through; without it, a peer that takes a byte at a time could hold up a close for weeks.
pub(super) const CLOSING_BYTES: usize = 1024;

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
    nonce: String,
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
}

enum State {
    HeaderAwaited(HeaderAwaited),
    FeaturesAwaited(FeaturesAwaited),
    /// Nothing may be said before this has come to an end.
    Negotiating(Negotiating),
    /// This stream was for no more; the next thing on the bytestream is another.
    Negotiated(Negotiated),
    Open(Open),
    Closing(Closing),
    Closed(Closer),
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
        let _ = management;
        let prefix = format!("{}-", nonce.get(..8).unwrap_or(&nonce));
        let mut machine = Self {
            role,
            parties: Parties { local, peer, introduction },
            timeouts,
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
        };
        if role == Role::Initiator {
            machine.queue_header(now);
        }
        machine
    }

    // What comes in.

    /// The bytestream ended or failed; the error says how.
    pub(crate) fn handle_end(&mut self, error: Error) {
        if !self.is_over() {
            self.fail(error);
        }
    }

    /// Which way the bytestream goes now.
    pub(crate) fn set_path(&mut self, now: Instant, path: Path) {
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
                if *deadline <= now =>
            {
                let text = "the negotiation takes too long";
                self.send_stream_error(now, DefinedCondition::ConnectionTimeout, text);
                self.fail(Error::Timeout(Step::StreamHeader, self.timeouts.stream_header));
            }
            State::Closing(Closing { deadline, .. }) if *deadline <= now => {
                self.release_footer(now);
                self.fail(Error::Timeout(Step::Close, self.timeouts.close));
            }
            State::Open(_) => {
                while let Some(id) = self.requests.pop_due(now) {
                    tracing::debug!(id, "nobody answered an iq request");
                    self.outbox.automatic(now, &Stanza::Iq(iq::unanswered(id)));
                }
                self.keep_alive(now);
            }
            _ => {}
        }
    }

    // What the local user does.

    /// Queues a stanza, without the addresses of others. A reply is dropped where nobody waits for it.
    pub(crate) fn send(&mut self, now: Instant, stanza: Stanza) -> Result<(), Error> {
        self.send_for(now, stanza, None)
    }

    /// The same; the acknowledgement goes to whoever waits for it, and is asked for at once.
    pub(crate) fn send_for(
        &mut self,
        now: Instant,
        mut stanza: Stanza,
        _receipt: Option<ReceiptSender>,
    ) -> Result<(), Error> {
        self.check_open()?;
        // RFC 6120 §8.2.3: one reply to a request, and perhaps we have given it.
        if let Stanza::Iq(Iq::Result { id, .. } | Iq::Error { id, .. }) = &stanza
            && !self.requests.awaits(id)
        {
            tracing::debug!(id, "dropped a reply to a request that was answered before, or never came");
            return Ok(());
        }
        if let Stanza::Iq(iq) = &mut stanza
            && iq.id().is_empty()
        {
            *iq.id_mut() = self.replies.new_id();
        }
        self.parties.clear_others(&mut stanza);
        self.outbox.stanza(now, &stanza)?;
        if let Stanza::Iq(Iq::Result { id, .. } | Iq::Error { id, .. }) = &stanza {
            self.requests.answered(id);
        }
        Ok(())
    }

    /// Queues an iq request; its reply will come out of the receiver.
    pub(crate) fn send_iq(&mut self, now: Instant, request: IqRequest) -> Result<ReplyReceiver, Error> {
        self.check_open()?;
        let (iq, reply) = self.replies.request(now, request);
        let stanza = Stanza::Iq(iq);
        if let Err(error) = self.outbox.stanza(now, &stanza) {
            if let Stanza::Iq(iq) = &stanza {
                self.replies.forget(iq.id());
            }
            return Err(error);
        }
        Ok(reply)
    }

    /// Closes in good order (RFC 6120 §4.4): what is queued goes out, then our footer; what the peer
    /// sends until its own footer is still received.
    pub(crate) fn close(&mut self, now: Instant) {
        match self.state {
            State::Open(_) => self.part(now, Footer::Held),
            State::HeaderAwaited(_)
            | State::FeaturesAwaited(_)
            | State::Negotiating(_)
            | State::Negotiated(_) => {
                self.refuse_requests(now);
                self.outbox.footer(now);
                self.fail(ApiMisuse::StreamClosed.into());
            }
            State::Closing(_) | State::Closed(_) | State::Failed(_) => {}
        }
    }

    /// Ends the stream with a stream error (RFC 6120 §4.9.1.1).
    pub(crate) fn abort(&mut self, now: Instant, violation: Violation) {
        let Violation { condition, text } = violation;
        tracing::warn!(%condition, text, "the peer broke the rules of XML streams");
        self.send_stream_error(now, condition.clone(), &text);
        self.fail(Error::Stream(StreamFailure { direction: Direction::Sent, condition, text: Some(text) }));
    }

    /// The peer is not who it should be (RFC 6120 §4.9.3.12). It is told no more than that.
    pub(crate) fn refuse(&mut self, now: Instant, error: Error) {
        self.send_stream_error(now, DefinedCondition::NotAuthorized, "you could not be authenticated");
        self.fail(error);
    }

    /// Nobody reads the inbox any more: what comes in is dropped, and requests are refused.
    pub(crate) fn stop_receiving(&mut self, now: Instant) {
        self.audience = Audience::Gone;
        self.inbox.clear();
        if matches!(self.state, State::Open(_)) {
            self.refuse_requests(now);
        }
    }

    /// The oldest stanza that the user has not seen.
    pub(crate) fn next_stanza(&mut self) -> Option<Stanza> {
        self.inbox.pop()
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
            | State::Closing(Closing { deadline, .. }) => Some(*deadline),
            State::Open(_) => {
                [self.requests.next_deadline(), self.keep_alive_deadline()].into_iter().flatten().min()
            }
            State::Closed(_) | State::Failed(_) => None,
        };
        let replies = [self.replies.next_deadline(), self.services.next_deadline()];
        replies.into_iter().chain([step, self.nudge_deadline()]).flatten().min()
    }

    // Questions.

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Nothing more will be read.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Closed(_) | State::Failed(_))
    }

    /// Nothing more will come, though not all is sent.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.state, State::Closing(Closing { footer: Footer::HeldLast, .. }) | State::Negotiated(_))
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
            State::Closed(closer) => Some(closer),
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
            State::Open(_) => Ok(()),
            State::Failed(error) => Err(error.clone()),
            _ => Err(ApiMisuse::StreamClosed.into()),
        }
    }

    /// There is something for the user to receive, be it the end.
    pub(crate) fn has_news(&self) -> bool {
        !self.inbox.is_empty() || self.is_over()
    }

    /// The inbox holds as much as it may: reading should pause.
    pub(crate) fn is_inbox_full(&self) -> bool {
        self.inbox.is_full()
    }

    /// Reading should go on after a pause.
    pub(crate) fn has_inbox_room(&self) -> bool {
        self.inbox.has_room()
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

    // Writing.

    fn queue_header(&mut self, now: Instant) {
        let Parties { local, peer, .. } = &self.parties;
        let (from, to) = (local.as_ref().map(Jid::as_str), peer.as_ref().map(Jid::as_str));
        let header = match self.role {
            Role::Initiator => OwnHeader::initiator(from, to),
            Role::Responder => OwnHeader::responder(from, to, &self.nonce),
        };
        self.outbox.header(now, header);
    }

    fn refuse_requests(&mut self, now: Instant) {
        while let Some(id) = self.requests.pop() {
            self.outbox.automatic(now, &Stanza::Iq(iq::unanswered(id)));
        }
    }

    /// Answers a request that has just come.
    fn answer(&mut self, now: Instant, reply: Iq) {
        self.outbox.automatic(now, &Stanza::Iq(reply));
        if self.outbox.automatic_len() > AUTOMATIC_BYTES {
            self.abort(now, Violation::policy("too many requests whose answers are not read"));
        }
    }

    fn send_stream_error(&mut self, now: Instant, condition: DefinedCondition, text: &str) {
        match (&self.state, self.role) {
            // RFC 6120 §4.9.1.2: an error in the initial header is answered by a header first. Its `from` may be
            // empty, so that whoever asked for somebody else does not learn who is here.
            (State::HeaderAwaited(_), Role::Responder) => {
                self.outbox.header(now, OwnHeader::responder(Some(""), None, &self.nonce));
            }
            (State::Closing(Closing { footer: Footer::Held | Footer::HeldLast, .. }), _) => {}
            // Our footer is sent, or XML is not what the peer expects.
            (State::Closing(_) | State::Closed(_) | State::Failed(_) | State::Negotiated(_), _) => return,
            _ => {}
        }
        self.outbox.stream_error(now, condition, text);
        self.outbox.footer(now);
    }

    fn keep_alive(&mut self, now: Instant) {
        if self.keep_alive_deadline().is_some_and(|deadline| deadline <= now) {
            self.outbox.space(now);
        }
    }

    /// What still waits to be written keeps the connection alive, too.
    fn keep_alive_deadline(&self) -> Option<Instant> {
        let interval = Some(self.timeouts.keep_alive).filter(|interval| *interval > Duration::ZERO)?;
        Some(self.outbox.idle_since()? + interval)
    }

    fn fail(&mut self, error: Error) {
        self.replies.fail_all(&error);
        self.services.fail_all(&error);
        self.state = State::Failed(error);
    }
}

/// The bytestream ended before the XML stream did.
pub(crate) fn cut_off() -> Error {
    Error::Transport(TransportError::Closed)
}
