//! What becomes of what was read.

use std::time::Instant;

use jid::Jid;
use xmpp_parsers::{
    iq::Iq,
    minidom::Element,
    stanza::Stanza,
    stream_error::{DefinedCondition, StreamError},
};

use super::{Audience, Closer, Closing, FEATURES_GRACE, FeaturesAwaited, Footer, Machine, Open, Role, State};
use crate::{
    ApiMisuse, Direction, Error, PeerIncompatible, StreamFailure,
    stream::{
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
        if self.is_over() {
            return;
        }
        match read {
            Ok(Decoded::Header(header)) => self.handle_header(now, &header),
            Ok(Decoded::Features(features)) => self.handle_features(now, &features),
            Ok(Decoded::Stanza { stanza, claims, bytes }) => self.handle_stanza(now, stanza, claims, bytes),
            Ok(Decoded::BadStanza(bad)) => self.handle_bad_stanza(now, bad),
            Ok(Decoded::StreamError(error)) => self.handle_stream_error(now, error),
            Ok(Decoded::Unknown { namespace, name }) => {
                tracing::debug!(namespace, name, "skipped an unknown child of the stream");
            }
            Ok(Decoded::Footer) => self.handle_footer(now),
            Err(violation) => self.abort(now, violation),
        }
    }

    fn handle_header(&mut self, now: Instant, header: &Header) {
        if let Err(violation) = self.parties.check_header(header) {
            return self.abort(now, violation);
        }
        match self.role {
            // RFC 6120 §4.7.5: whoever sends no version gets no features, and sends none.
            Role::Responder => {
                self.queue_header(now);
                if header.has_features() {
                    self.outbox.no_features(now);
                }
                self.state = State::Open(Open { id: None });
            }
            Role::Initiator if header.has_features() => {
                let deadline = now + FEATURES_GRACE.min(self.timeouts.stream_header);
                self.state = State::FeaturesAwaited(FeaturesAwaited { deadline, id: header.id.clone() });
            }
            Role::Initiator => self.state = State::Open(Open { id: header.id.clone() }),
        }
    }

    /// We negotiate nothing, so the stream is open, unless the responder insists on something: then nothing may be
    /// said before it is negotiated, least of all in the clear.
    fn handle_features(&mut self, now: Instant, features: &Element) {
        // An initiator has none; features that come late may still forbid to go on.
        if self.role == Role::Responder {
            return;
        }
        match features::mandatory(features) {
            None => self.open_without_features(),
            Some(name) => {
                let text = format!("the feature {name} can't be negotiated here");
                self.send_stream_error(now, DefinedCondition::UnsupportedFeature, &text);
                self.fail(Error::PeerIncompatible(PeerIncompatible::MandatoryFeature(name.to_owned())));
            }
        }
    }

    /// The features are known, or will not come.
    pub(super) fn open_without_features(&mut self) {
        if let State::FeaturesAwaited(FeaturesAwaited { id, .. }) = &mut self.state {
            self.state = State::Open(Open { id: id.take() });
        }
    }

    fn handle_stanza(&mut self, now: Instant, mut stanza: Stanza, claims: Claims, bytes: usize) {
        // A peer that forgot its features means that there are none.
        self.open_without_features();
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
                    self.deliver(now, Stanza::Iq(unexpected), bytes);
                }
            }
            Stanza::Iq(request) => self.handle_request(now, request, bytes),
            other => self.deliver(now, other, bytes),
        }
    }

    fn handle_request(&mut self, now: Instant, request: Iq, bytes: usize) {
        if !matches!(self.state, State::Open(_)) {
            // Our footer is sent, so that it can't be answered.
            return self.deliver(now, Stanza::Iq(request), bytes);
        }
        let Some(request) = self.serve(now, request) else { return };
        if self.audience == Audience::Gone {
            return self.answer(now, iq::unanswered(request.id().to_owned()));
        }
        match self.requests.add(now, request.id()) {
            Ok(()) => self.deliver(now, Stanza::Iq(request), bytes),
            Err(iq::Full) => self.answer(now, iq::too_many(request.id().to_owned())),
        }
    }

    /// RFC 6120 §8.3.3.1: the stream goes on; whoever waits for the stanza is told.
    fn handle_bad_stanza(&mut self, now: Instant, bad: BadStanza) {
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
    fn handle_stream_error(&mut self, now: Instant, error: StreamError) {
        let text = error.get_best_text(vec!["en"]).map(|(_, text)| text.clone());
        if matches!(self.state, State::HeaderAwaited(_) | State::FeaturesAwaited(_) | State::Open(_)) {
            self.outbox.footer(now);
        }
        self.release_footer(now);
        let condition = error.condition;
        self.fail(Error::Stream(StreamFailure { direction: Direction::Received, condition, text }));
    }

    /// RFC 6120 §4.4: after the peer's footer nothing comes, so we close too.
    fn handle_footer(&mut self, now: Instant) {
        match &mut self.state {
            State::Closing(Closing { footer: Footer::Sent, .. }) => self.state = State::Closed(Closer::Us),
            State::Closing(Closing { footer, .. }) => *footer = Footer::HeldLast,
            State::Open(_) | State::FeaturesAwaited(_) => self.part(now, Footer::HeldLast),
            State::HeaderAwaited(_) | State::Closed(_) | State::Failed(_) => return,
        }
        self.replies.fail_all(&ApiMisuse::StreamClosed.into());
        self.services.fail_all(&ApiMisuse::StreamClosed.into());
    }

    fn deliver(&mut self, now: Instant, stanza: Stanza, bytes: usize) {
        match self.audience {
            Audience::Present => {
                self.inbox.push(stanza, bytes + self.parties.length());
                // A slow peer that still has something to say to somebody who listens is not late.
                if let State::Closing(closing) = &mut self.state {
                    closing.deadline = now + self.timeouts.close;
                }
            }
            Audience::Gone => tracing::debug!("dropped a stanza, because nobody receives"),
        }
    }
}
