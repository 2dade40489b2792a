//! What a SOCKS5 proxy may be holding back, and when to send it another byte.
//!
// COMPAT Prosody 0.12.3, mod_proxy65 with the default epoll backend: it takes up to 8192 bytes out of the kernel, passes
// on 4096, and looks at the rest only when the kernel has another byte. Measured, in plain bytes: of a burst that it
// takes in one go, 4097 to 8192 bytes arrive as 4096, 12289 to 16384 as 12288, and so on; ten writes of 600 bytes in a
// row are such a burst too. One byte that comes later frees all of it: after 1 ms mostly, after 5 ms always on
// loopback; a byte right behind the burst is part of it. With `network_backend = "select"` nothing is held back.

use std::time::{Duration, Instant};

use crate::stream::Path;

/// What can't be held back in any case is 4096 bytes. Some of them may be the end of the last white space, and of
/// the encryption around it.
const SURELY_THROUGH: usize = 4000;

/// What TLS 1.3 adds to a write of ours, which is one record if it is small: a header, a type, a tag.
const RECORD: usize = 22;

/// After so long without a byte from us, the proxy has looked at the last ones.
const QUIET: Duration = Duration::from_millis(200);

/// When white space is sent: after the burst, and after the white space before it. The first is for the usual proxy, the
/// later ones for a busy one, or a path on which the first caught up with the burst.
const NUDGES: [Duration; 3] = [Duration::from_millis(20), QUIET, Duration::from_secs(1)];

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Relay {
    state: State,
}

#[derive(Debug)]
enum State {
    /// There is no proxy.
    Direct,
    Little(Little),
    /// More was written than is surely through, and not all of it is flushed.
    Burst,
    /// All is flushed; the next white space is sent when it is due, unless something else is written.
    Waiting {
        sent: usize,
        due: Instant,
    },
    /// White space number `sent` (from 0) is being written.
    Nudging {
        sent: usize,
    },
}

/// So few bytes were written since all was through that the proxy passes them on.
#[derive(Debug)]
struct Little {
    bytes: usize,
    last: Instant,
}

impl Relay {
    pub(super) fn new() -> Self {
        Self { state: State::Direct }
    }

    /// Which way the bytes go from now on. Where that is through a proxy, it may hold back what came before, such as the
    /// TLS handshake.
    pub(super) fn set_path(&mut self, now: Instant, path: Path, is_written: bool) {
        match (path, &self.state) {
            (Path::Direct, _) => self.state = State::Direct,
            (Path::Relayed, State::Direct) if is_written => self.state = State::waiting(now, 0),
            (Path::Relayed, State::Direct) => self.state = State::Burst,
            (Path::Relayed, _) => {}
        }
    }

    pub(super) fn handle_written(&mut self, now: Instant, bytes: usize) {
        match self.state {
            State::Direct | State::Burst => {}
            // A stanza is longer.
            State::Nudging { .. } if bytes == 1 => {}
            _ => {
                self.state = match self.little(now).plus(now, bytes) {
                    Some(little) => State::Little(little),
                    None => State::Burst,
                }
            }
        }
    }

    /// All that was written is on its way.
    pub(super) fn handle_flushed(&mut self, now: Instant) {
        match self.state {
            State::Burst => self.state = State::waiting(now, 0),
            State::Nudging { sent } => self.state = State::waiting(now, sent + 1),
            State::Direct | State::Little(_) | State::Waiting { .. } => {}
        }
    }

    /// The white space that was due is being written.
    pub(super) fn handle_nudged(&mut self) {
        if let State::Waiting { sent, .. } = self.state {
            self.state = State::Nudging { sent };
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { due, .. } => Some(due),
            _ => None,
        }
    }

    /// What is due comes after another white space that has freed all before it.
    pub(super) fn is_due_again(&self) -> bool {
        matches!(self.state, State::Waiting { sent: 1.., .. })
    }

    /// Whether the proxy would perhaps hold back what is written right after so many more bytes.
    pub(super) fn holds(&self, now: Instant, more: usize) -> bool {
        match self.state {
            State::Direct => false,
            _ => self.little(now).plus(now, more).is_none(),
        }
    }

    /// What was written since all was surely through.
    fn little(&self, now: Instant) -> Little {
        let bytes = match &self.state {
            State::Little(Little { last, .. }) if now.saturating_duration_since(*last) >= QUIET => 0,
            State::Little(Little { bytes, .. }) => *bytes,
            // Nothing was written for a while after white space.
            State::Nudging { sent: 1.. } | State::Waiting { sent: 2.., .. } | State::Direct => 0,
            State::Burst | State::Nudging { .. } | State::Waiting { .. } => SURELY_THROUGH,
        };
        Little { bytes, last: now }
    }
}

impl State {
    /// For white space number `sent`, if there is to be another.
    fn waiting(now: Instant, sent: usize) -> Self {
        match NUDGES.get(sent) {
            Some(delay) => Self::Waiting { sent, due: now + *delay },
            None => Self::Little(Little { bytes: 0, last: now }),
        }
    }
}

impl Little {
    /// `None` if that is more than a little.
    fn plus(self, now: Instant, bytes: usize) -> Option<Self> {
        let bytes = self.bytes.saturating_add(bytes).saturating_add(RECORD);
        (bytes <= SURELY_THROUGH).then_some(Self { bytes, last: now })
    }
}
