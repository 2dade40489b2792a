//! What this side says: stanzas of the user's, answers of the stream's own, and the white space between them.

use std::time::{Duration, Instant};

use jid::Jid;
use tokio_xmpp::IqRequest;
use xmpp_parsers::{iq::Iq, stanza::Stanza, stream_error::DefinedCondition};

use super::{
    AUTOMATIC_BYTES, Closing, Footer, HeaderAwaited, Link, Machine, Role, State, Suspended,
    management::ReceiptSender,
};
use crate::{
    ApiMisuse, Error, PeerIncompatible,
    stream::{
        acks::{Entry, Origin},
        addressing::Parties,
        encode::OwnHeader,
        iq::{self, ReplyReceiver},
        violation::Violation,
    },
    wire::ns,
};

impl Machine {
    /// Queues a stanza, without the addresses of others. A reply is dropped where nobody waits for it.
    pub(crate) fn send(&mut self, now: Instant, stanza: Stanza) -> Result<(), Error> {
        self.send_for(now, stanza, None)
    }

    /// The same; the acknowledgement goes to whoever waits for it, and is asked for at once.
    pub(crate) fn send_for(
        &mut self,
        now: Instant,
        mut stanza: Stanza,
        receipt: Option<ReceiptSender>,
    ) -> Result<(), Error> {
        self.check_open()?;
        if receipt.is_some() && !self.management.tracks() {
            return Err(no_receipts());
        }
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
        let answered = match &stanza {
            Stanza::Iq(Iq::Result { id, .. } | Iq::Error { id, .. }) => Some(id.clone()),
            _ => None,
        };
        let is_urgent = receipt.is_some();
        self.say(now, stanza, Origin::User(receipt))?;
        if let Some(id) = answered {
            self.requests.answered(&id);
        }
        if is_urgent {
            self.ask(now);
        }
        Ok(())
    }

    /// Queues an iq request; its reply will come out of the receiver.
    pub(crate) fn send_iq(&mut self, now: Instant, request: IqRequest) -> Result<ReplyReceiver, Error> {
        self.check_open()?;
        let (iq, reply) = self.replies.request(now, request);
        let id = iq.id().to_owned();
        if let Err(error) = self.say(now, Stanza::Iq(iq), Origin::Request) {
            self.replies.forget(&id);
            return Err(error);
        }
        Ok(reply)
    }

    /// Queues a stanza for writing, and keeps it until it is acknowledged.
    pub(super) fn say(&mut self, now: Instant, stanza: Stanza, origin: Origin) -> Result<(), Error> {
        let before = self.outbox.queued();
        match origin {
            Origin::User(_) | Origin::Request => self.outbox.stanza(now, &stanza)?,
            Origin::Automatic => {
                self.outbox.automatic(now, &stanza).map_err(ApiMisuse::BadStanza)?;
            }
        }
        let bytes = usize::try_from(self.outbox.queued() - before).unwrap_or(usize::MAX);
        if matches!(self.state, State::Suspended(Suspended { link: Link::Lost, .. })) {
            self.forget_unwritten();
        }
        self.management.track(now, Entry { stanza, bytes, origin }, &self.limits);
        self.ask_in_time(now);
        Ok(())
    }

    /// A stanza of the stream's own.
    pub(super) fn say_by_itself(&mut self, now: Instant, stanza: Stanza) {
        if let Err(error) = self.say(now, stanza, Origin::Automatic) {
            tracing::debug!(%error, "an automatic stanza can't be sent");
        }
    }

    /// Answers a request that has just come.
    pub(super) fn answer(&mut self, now: Instant, reply: Iq) {
        self.say_by_itself(now, Stanza::Iq(reply));
        self.check_automatic(now);
    }

    /// The peer has to take what it made us say, and to acknowledge it.
    pub(super) fn check_automatic(&mut self, now: Instant) {
        if self.outbox.automatic_len().max(self.management.automatic_bytes()) > AUTOMATIC_BYTES {
            self.abort(now, Violation::policy("too many requests whose answers are not read"));
        }
    }

    pub(super) fn refuse_requests(&mut self, now: Instant) {
        while let Some(id) = self.requests.pop() {
            self.say_by_itself(now, Stanza::Iq(iq::unanswered(id)));
        }
    }

    /// Answers the requests that our user has left for too long.
    pub(super) fn answer_for_the_user(&mut self, now: Instant) {
        while let Some(id) = self.requests.pop_due(now) {
            tracing::debug!(id, "nobody answered an iq request");
            self.say_by_itself(now, Stanza::Iq(iq::unanswered(id)));
        }
    }

    pub(super) fn queue_header(&mut self, now: Instant) {
        let Parties { local, peer, .. } = &self.parties;
        let (from, to) = (local.as_ref().map(Jid::as_str), peer.as_ref().map(Jid::as_str));
        let header = match self.role {
            Role::Initiator => OwnHeader::initiator(from, to),
            Role::Responder => OwnHeader::responder(from, to, &self.nonce),
        };
        self.outbox.header(now, header);
    }

    pub(super) fn send_stream_error(&mut self, now: Instant, condition: DefinedCondition, text: &str) {
        if self.begin_farewell(now) {
            self.outbox.stream_error(now, condition, text);
            self.outbox.footer(now);
        }
    }

    /// Whether a stream error can be sent; what has to be before it is queued.
    pub(super) fn begin_farewell(&mut self, now: Instant) -> bool {
        match (&self.state, self.role) {
            // RFC 6120 §4.9.1.2: an error in the initial header is answered by a header first. Its `from` may be
            // empty, so that whoever asked for somebody else does not learn who is here.
            (State::HeaderAwaited(HeaderAwaited { .. }), Role::Responder) => {
                self.outbox.header(now, OwnHeader::responder(Some(""), None, &self.nonce));
                true
            }
            (State::Closing(Closing { footer: Footer::Held | Footer::HeldLast, .. }), _) => true,
            // Our footer is sent, or XML is not what the peer expects, or there is no bytestream.
            (
                State::Closing(_)
                | State::Closed(_)
                | State::Failed(_)
                | State::Negotiated(_)
                | State::Suspended(_),
                _,
            ) => false,
            _ => true,
        }
    }

    pub(super) fn keep_alive(&mut self, now: Instant) {
        if self.keep_alive_deadline().is_some_and(|deadline| deadline <= now) {
            self.outbox.space(now);
        }
    }

    /// What still waits to be written keeps the connection alive, too.
    pub(super) fn keep_alive_deadline(&self) -> Option<Instant> {
        let interval = Some(self.timeouts.keep_alive).filter(|interval| *interval > Duration::ZERO)?;
        Some(self.outbox.idle_since()? + interval)
    }
}

pub(super) fn no_receipts() -> Error {
    Error::PeerIncompatible(PeerIncompatible::MissingFeature(ns::SM.to_owned()))
}
