//! Whether the peer is there: after a silence it is asked, and if nothing comes of that the bytestream counts as lost.

use std::time::{Duration, Instant};

use tokio_xmpp::IqRequest;
use xmpp_parsers::{ping::Ping, stanza::Stanza};

use super::{Machine, acking::Management};
use crate::{Error, Step, stream::acks::Origin};

/// How long it is since the peer showed that it lives.
#[derive(Clone, Copy, Debug)]
pub(super) enum Vigil {
    /// The last sign of life was then.
    Quiet { since: Instant },
    /// It was asked then, and nothing has come since.
    Asked { since: Instant },
    /// We don't read, and so can't know.
    Deaf,
}

impl Vigil {
    pub(super) fn new(now: Instant) -> Self {
        Self::Quiet { since: now }
    }
}

impl Machine {
    /// The bytestream shows that the peer is alive: something came, or it takes again what it did not take before.
    pub(crate) fn handle_alive(&mut self, now: Instant) {
        if !matches!(self.vigil, Vigil::Deaf) {
            self.vigil = Vigil::Quiet { since: now };
        }
    }

    /// Whether we read at all: while we don't, nothing can be said of the peer.
    pub(crate) fn set_listening(&mut self, now: Instant, listening: bool) {
        match (listening, self.vigil) {
            (true, Vigil::Deaf) => self.vigil = Vigil::Quiet { since: now },
            (false, _) => self.vigil = Vigil::Deaf,
            (true, Vigil::Quiet { .. } | Vigil::Asked { .. }) => {}
        }
    }

    pub(super) fn watch_deadline(&self) -> Option<Instant> {
        let (probe, silence) = (self.timeouts.probe, self.timeouts.silence);
        match self.vigil {
            _ if probe == Duration::ZERO => None,
            Vigil::Quiet { since } => Some(since + probe),
            Vigil::Asked { since } => Some(since + silence),
            Vigil::Deaf => None,
        }
    }

    /// Asks the peer whether it is there, or gives the bytestream up, if it is time.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.watch_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.vigil {
            Vigil::Quiet { .. } => {
                self.vigil = Vigil::Asked { since: now };
                self.probe(now);
            }
            Vigil::Asked { .. } => {
                let time = self.timeouts.probe + self.timeouts.silence;
                self.handle_end(Error::Timeout(Step::Silence, time));
            }
            Vigil::Deaf => {}
        }
    }

    fn probe(&mut self, now: Instant) {
        if matches!(self.management, Management::Active(_)) {
            return self.ask(now);
        }
        // XEP-0199 #e2e. Nobody waits for its reply, which counts whatever it says.
        let (ping, _) = self.replies.request(now, IqRequest::Get(Ping.into()));
        if let Err(error) = self.say(now, Stanza::Iq(ping), Origin::Automatic) {
            tracing::debug!(%error, "a ping can't be sent");
        }
    }
}
