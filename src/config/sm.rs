//! Settings of stream management.

use std::time::Duration;

use super::FOR_EVER;

/// Stream management on the e2e stream (XEP-0198).
///
/// With it, stanzas are acknowledged by the peer's side, once its bot has received them, and a stream outlives its bytestream:
/// it is resumed over another one to the same peer with the same certificate, with nothing lost and nothing repeated.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SmConfig {
    /// Whether it is offered, and used with peers that offer it. Default true.
    pub enabled: bool,
    /// An acknowledgement is asked for after so many stanzas, at least 1. Default 64.
    pub request_after: u32,
    /// And so long after a stanza at the latest. Default 1 s.
    pub request_within: Duration,
    /// How long a stream may stay without a bytestream before it is given up; zero for never to resume one. Both sides have a
    /// say, the shorter time counts. Default 5 min.
    pub resumption: Duration,
    /// As initiator: where the peer does not know the stream any more, as after its restart, goes on with a new one, after
    /// the stanzas that the peer did not acknowledge were handed back ([`StreamEvent::Renewed`](crate::StreamEvent::Renewed)).
    /// That takes somebody who looks at the [`events`](crate::E2eStream::events): without, the stream ends as if this were
    /// false. A `send` that waits goes out on the new stream once that event was taken. Default false: the stream ends.
    pub renew: bool,
}

impl SmConfig {
    pub(crate) fn bounded(mut self) -> Self {
        self.request_after = self.request_after.max(1);
        self.request_within = FOR_EVER.min(self.request_within);
        self.resumption = FOR_EVER.min(self.resumption);
        self
    }
}

impl Default for SmConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            request_after: 64,
            request_within: Duration::from_secs(1),
            resumption: Duration::from_secs(300),
            renew: false,
        }
    }
}
