//! What waits to be written, already as bytes.

use std::time::Instant;

use xmpp_parsers::{
    minidom::Element,
    sm::HandledCountTooHigh,
    stanza::Stanza,
    stream_error::{DefinedCondition, StreamError},
};

use super::encode::{Encoder, OwnHeader};
use crate::{ApiMisuse, Error};

/// The encoder and its output.
pub(super) struct Outbox {
    encoder: Encoder,
    bytes: Vec<u8>,
    queued: u64,
    /// Of these, up to the end of the user's last stanza.
    stanzas_end: u64,
    automatic: usize,
    last: Instant,
}

impl Outbox {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            encoder: Encoder::new(),
            bytes: Vec::new(),
            queued: 0,
            stanzas_end: 0,
            automatic: 0,
            last: now,
        }
    }

    pub(super) fn header(&mut self, now: Instant, header: OwnHeader<'_>) {
        self.append(now, |encoder, out| encoder.header(header, out));
    }

    pub(super) fn features(&mut self, now: Instant, features: &[Element]) {
        if let Err(error) = self.append(now, |encoder, out| encoder.features(features, out)) {
            tracing::debug!(error, "stream features can't be sent");
        }
    }

    /// An element of STARTTLS or of SASL.
    pub(super) fn negotiation(&mut self, now: Instant, element: &Element) {
        if let Err(error) = self.append(now, |encoder, out| encoder.negotiation(element, out)) {
            tracing::debug!(error, name = element.name(), "an element of the negotiation can't be sent");
        }
    }

    /// A stanza of the user's.
    pub(super) fn stanza(&mut self, now: Instant, stanza: &Stanza) -> Result<(), Error> {
        self.append(now, |encoder, out| encoder.stanza(stanza, out)).map_err(ApiMisuse::BadStanza)?;
        self.stanzas_end = self.queued;
        Ok(())
    }

    /// A stanza that answers the peer by itself, and so is counted as such.
    pub(super) fn automatic(&mut self, now: Instant, stanza: &Stanza) -> Result<(), String> {
        let before = self.bytes.len();
        let result = self.append(now, |encoder, out| encoder.stanza(stanza, out));
        self.automatic += self.bytes.len() - before;
        result
    }

    /// An element of stream management that answers the peer by itself.
    pub(super) fn automatic_element(&mut self, now: Instant, element: &Element) {
        let before = self.bytes.len();
        self.negotiation(now, element);
        self.automatic += self.bytes.len() - before;
    }

    /// XEP-0198 #errors
    pub(super) fn count_too_high(&mut self, now: Instant, h: u32, sent: u32) {
        let error = StreamError::from(HandledCountTooHigh { h, send_count: sent });
        if let Err(error) = self.append(now, |encoder, out| encoder.stream_error(&error, out)) {
            tracing::debug!(error, "a stream error can't be sent");
        }
    }

    pub(super) fn stream_error(&mut self, now: Instant, condition: DefinedCondition, text: &str) {
        let error = StreamError::new(condition.clone(), "en", text);
        let bare = StreamError { condition, texts: Default::default(), application_specific: Vec::new() };
        // The text may quote the peer, with characters that XML has no place for.
        let result = self.append(now, |encoder, out| {
            encoder.stream_error(&error, out).or_else(|_| encoder.stream_error(&bare, out))
        });
        if let Err(error) = result {
            tracing::debug!(error, "a stream error can't be sent");
        }
    }

    pub(super) fn footer(&mut self, now: Instant) {
        self.append(now, |encoder, out| encoder.footer(out));
    }

    pub(super) fn space(&mut self, now: Instant) {
        self.append(now, |encoder, out| encoder.space(out));
    }

    /// Swaps the bytes with an empty buffer.
    pub(super) fn take(&mut self, empty: &mut Vec<u8>) {
        std::mem::swap(&mut self.bytes, empty);
        self.automatic = 0;
    }

    /// There is no bytestream to write to. What was queued was counted.
    pub(super) fn discard(&mut self) {
        self.bytes.clear();
        self.automatic = 0;
    }

    /// Comes after another outbox, whose bytes are not written any more: what it has counted counts here, too.
    pub(super) fn continue_after(&mut self, other: &Self) {
        self.queued = self.queued.saturating_add(other.queued);
        self.stanzas_end = other.stanzas_end;
    }

    /// Gives memory back that is not needed while nothing is said.
    pub(super) fn release(&mut self, bytes: usize) {
        self.bytes.shrink_to(bytes);
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that were ever queued.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// How many of these must be written for the user to have said everything.
    pub(super) fn stanzas_end(&self) -> u64 {
        self.stanzas_end
    }

    /// Bytes of automatic replies that were not taken yet.
    pub(super) fn automatic_len(&self) -> usize {
        self.automatic
    }

    /// Since when nothing was queued; `None` while something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.bytes.is_empty().then_some(self.last)
    }

    fn append<R>(&mut self, now: Instant, write: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> R) -> R {
        let before = self.bytes.len();
        let result = write(&mut self.encoder, &mut self.bytes);
        let added = self.bytes.len().saturating_sub(before);
        self.queued = self.queued.saturating_add(added as u64);
        self.last = now;
        result
    }
}
