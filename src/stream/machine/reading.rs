//! What becomes of what was read.

use std::time::Instant;

use jid::Jid;
use xmpp_parsers::{iq::Iq, minidom::Element, stanza::Stanza, stream_error::StreamError};

use super::{Audience, Closer, Closing, FeaturesAwaited, Footer, HeaderAwaited, Machine, Role, State};
use crate::{
    ApiMisuse, Direction, Error, StreamFailure,
    stream::{
        acks::Number,
        addressing::Claims,
        decode::{BadStanza, Decoded, Waiting},
        features,
        header::Header,
        iq,
        violation::Violation,
    },
};

impl Machine {
    /// Something was read.
    pub(crate) fn handle(&mut self, now: Instant, read: Result<Decoded, Violation>) {
        self.clock = now;
        if self.is_over() || self.negotiated().is_some() {
            return;
        }
        match &self.state {
            State::Negotiating(_) => return self.handle_negotiating(now, read),
            State::Reviving(_) => return self.handle_reviving(now, read),
            State::Suspended(_) => return self.handle_suspended(now, read),
            _ => self.handle_alive(now),
        }
        match read {
            Ok(Decoded::Header(header)) => self.handle_header(now, &header),
            Ok(Decoded::Features(features)) => self.handle_features(now, &features),
            Ok(Decoded::Stanza { stanza, claims, bytes }) => self.handle_stanza(now, stanza, claims, bytes),
            Ok(Decoded::BadStanza(bad)) => self.handle_bad_stanza(now, bad),
            Ok(Decoded::StreamError(error)) => self.handle_stream_error(now, error),
            Ok(Decoded::Negotiation { element, .. }) => self.handle_unasked(now, &element),
            Ok(Decoded::Management(nonza)) => self.handle_management(now, nonza),
            Ok(Decoded::Unknown { namespace, name }) => {
                tracing::debug!(namespace, name, "skipped an unknown child of the stream");
            }
            Ok(Decoded::Footer) => self.handle_footer(now),
            Err(violation) => self.abort(now, violation),
        }
        self.tell_in_time(now);
    }

    fn handle_header(&mut self, now: Instant, header: &Header) {
        if let Err(violation) = self.parties.check_header(header) {
            return self.abort(now, violation);
        }
        let State::HeaderAwaited(HeaderAwaited { deadline }) = self.state else { return };
        match self.role {
            Role::Responder => self.offer(now, header, deadline),
            Role::Initiator => self.await_features(now, header, deadline),
        }
    }

    /// An initiator has no features; those that come late may still forbid to go on.
    fn handle_features(&mut self, now: Instant, features: &Element) {
        match (self.role, &self.state) {
            (Role::Responder, _) => {}
            (Role::Initiator, State::FeaturesAwaited(FeaturesAwaited { end, .. })) => {
                let end = *end;
                self.choose(now, features, end);
            }
            (Role::Initiator, _) => self.check_mandatory(now, features::mandatory(features)),
        }
    }

    fn handle_stanza(&mut self, now: Instant, mut stanza: Stanza, claims: Claims, bytes: usize) {
        // A peer that forgot its features means that there are none.
        self.go_on_without_features(now, "a stanza, and no stream features");
        if self.is_over() {
            return;
        }
        let Some(number) = self.count() else { return };
        if let Some(claimed) = self.parties.name(&mut stanza, claims) {
            self.violations += 1;
            // A peer that does nothing else must not fill the log.
            if self.violations.is_power_of_two() {
                let (peer, count) = (self.peer().map(Jid::as_str), self.violations);
                tracing::warn!(peer, claimed, count, "a stanza claims another address");
            }
        }
        match stanza {
            Stanza::Iq(iq @ (Iq::Result { .. } | Iq::Error { .. })) => {
                let Some(iq) = self.handle_own_reply(now, iq) else { return };
                if let Some(unexpected) = self.replies.matches(iq) {
                    self.deliver(now, Stanza::Iq(unexpected), bytes, number);
                }
            }
            Stanza::Iq(request) => self.handle_request(now, request, bytes, number),
            other => self.deliver(now, other, bytes, number),
        }
    }

    fn handle_request(&mut self, now: Instant, request: Iq, bytes: usize, number: Number) {
        if !matches!(self.state, State::Open(_)) {
            // Our footer is sent, so that it can't be answered.
            return self.deliver(now, Stanza::Iq(request), bytes, number);
        }
        let Some(request) = self.serve(now, request) else { return };
        if self.audience == Audience::Gone {
            return self.answer(now, iq::unanswered(request.id().to_owned()));
        }
        match self.requests.add(now, request.id()) {
            Ok(()) => self.deliver(now, Stanza::Iq(request), bytes, number),
            Err(iq::Full) => self.answer(now, iq::too_many(request.id().to_owned())),
        }
    }

    /// RFC 6120 §8.3.3.1: the stream goes on; whoever waits for the stanza is told.
    fn handle_bad_stanza(&mut self, now: Instant, bad: BadStanza) {
        if self.count().is_none() {
            return;
        }
        tracing::debug!(name = bad.name, error = bad.error, "a stanza does not follow its schema");
        match bad.waiting {
            Waiting::Peer(id) if self.is_open() => self.answer(now, iq::malformed(id, &bad.error)),
            Waiting::Us(id) => {
                self.replies.malformed(&id, &bad.error);
                self.services.malformed(&id, &bad.error);
            }
            Waiting::Peer(_) | Waiting::Nobody => {}
        }
    }

    /// RFC 6120 §4.9.1.1: whoever gets a stream error closes its side too.
    pub(super) fn handle_stream_error(&mut self, now: Instant, error: StreamError) {
        let text = error.get_best_text(vec!["en"]).map(|(_, text)| text.clone());
        let condition = error.condition;
        let failure = StreamFailure { direction: Direction::Received, condition, text };
        if self.is_replaced(&failure) {
            return self.suspend(Error::Stream(failure));
        }
        if matches!(
            self.state,
            State::HeaderAwaited(_)
                | State::FeaturesAwaited(_)
                | State::Negotiating(_)
                | State::Reviving(_)
                | State::Open(_)
        ) {
            self.outbox.footer(now);
        }
        self.say_footer(now);
        self.fail(Error::Stream(failure));
    }

    /// RFC 6120 §4.4: after the peer's footer nothing comes, so we close too.
    fn handle_footer(&mut self, now: Instant) {
        if matches!(self.state, State::FeaturesAwaited(_)) && self.agenda.is_required() {
            return self.go_on_without_features(now, "no stream features, and the end of the stream");
        }
        self.management.pass();
        match &mut self.state {
            State::Closing(Closing { footer: Footer::Sent, .. }) => self.finish(Closer::Us),
            State::Closing(Closing { footer, .. }) => {
                *footer = Footer::HeldLast;
                self.release_footer_in_time(now);
            }
            State::Open(_) | State::FeaturesAwaited(_) => self.part(now, Footer::HeldLast),
            State::HeaderAwaited(_)
            | State::Negotiating(_)
            | State::Negotiated(_)
            | State::Reviving(_)
            | State::Suspended(_)
            | State::Closed(_)
            | State::Failed(_) => return,
        }
        self.replies.fail_all(&ApiMisuse::StreamClosed.into());
        self.services.fail_all(&ApiMisuse::StreamClosed.into());
    }

    fn deliver(&mut self, now: Instant, stanza: Stanza, bytes: usize, number: Number) {
        match self.audience {
            Audience::Present => {
                self.inbox.push(stanza, bytes + self.parties.length(), number);
                // A slow peer that still has something to say to somebody who listens is not late.
                self.renew_closing(now);
            }
            Audience::Gone => tracing::debug!("dropped a stanza, because nobody receives"),
        }
    }
}
