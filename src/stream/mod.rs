//! The e2e XML stream (XEP-0246, XEP-0247, RFC 6120 §4).
//!
//! [`initiate`] and [`accept`] make an [`E2eStream`] of any bytestream. They know nothing of Jingle: over a
//! plain TCP connection they are XEP-0246's first scenario. There everybody on the way can read and change what is said,
//! unless [`StreamOptions::starttls`] encrypts it.
//!
//! ```text
//!             bytes ─► decode ─┐                       ┌─► inbox ─► next
//!  bytestream                  ├─► machine (sans-IO) ──┤
//!             bytes ◄─ outbox ─┘    states, iq, time   └── encode ◄─ send, send_iq
//! ```
//!
//! What a peer sends is bounded before it is built: the size and the depth of a stanza, one start tag, the header.
//! What breaks the rules ends the stream with the stream error that RFC 6120 §4.9.3 has for it.

mod acks;
mod addressing;
mod backoff;
mod decode;
mod e2e;
mod e2e_buffers;
mod e2e_bytestream;
mod e2e_closer;
mod e2e_desk;
mod e2e_end;
mod e2e_events;
mod e2e_handle;
mod e2e_moves;
mod e2e_open;
mod e2e_peer;
mod e2e_resume;
mod e2e_revive;
mod e2e_sender;
mod e2e_shared;
mod e2e_visits;
mod e2e_worker;
mod encode;
mod features;
mod header;
mod inbox;
mod iq;
mod machine;
mod negotiation;
mod options;
mod outbox;
mod source;
mod text;
mod violation;

#[cfg(test)]
mod e2e_batch_tests;
#[cfg(test)]
mod e2e_piece_tests;
#[cfg(test)]
mod e2e_relayed_tests;
#[cfg(test)]
mod e2e_revive_tests;
#[cfg(test)]
mod e2e_tests;
#[cfg(test)]
mod e2e_visits_tests;
#[cfg(test)]
mod tests;

pub use self::{
    e2e::{E2eStream, StreamReceiver},
    e2e_bytestream::Bytestream,
    e2e_events::{StreamEvent, StreamEvents},
    e2e_moves::Moves,
    e2e_open::{accept, initiate},
    e2e_sender::{Receipt, StreamSender},
    options::{Negotiated, StreamInfo, StreamOptions},
};
pub(crate) use self::{
    e2e_buffers::buffered,
    e2e_closer::Closer,
    e2e_open::{accept_on, check_stanza, initiate_on},
    e2e_resume::{Goal, Reconnect, Reconnected, Registry, Resumable, Revival, await_resume, renew, resume},
    e2e_sender::WeakSender,
    options::{Established, FirstStanzas},
};

/// The codec without a stream around it.
#[cfg(any(test, feature = "internals"))]
pub(crate) mod codec {
    pub(crate) use super::{
        decode::{Decoded, Decoder},
        encode::{Encoder, OwnHeader},
    };
}

use std::task::{Context, Poll};

use futures::future::BoxFuture;

use crate::{Error, Reason, TransportInfo};

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    Direct,
    /// Through a SOCKS5 proxy.
    Relayed,
}

/// Whether what is written to a bytestream can get anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Flowing,
    /// It goes through a server that is not there at present.
    Stalled,
}

/// The session that carries a bytestream: it explains why the bytestream fails, and ends with it.
pub(crate) trait Carrier: Send + Sync + 'static {
    /// Ends the session. Called exactly once.
    fn terminate(&self, reason: Reason, text: Option<String>);
    /// Why the session ended or is about to, if it did.
    fn error(&self) -> Option<Error>;
    /// What carries the bytes now.
    fn transport(&self) -> Option<TransportInfo>;
    /// Ready when something else carries them than before; `None` when nothing else will.
    fn poll_moved(&self, cx: &Context<'_>, before: Option<&TransportInfo>) -> Poll<Option<TransportInfo>>;
    /// Resolves when the session has ended, whoever ended it.
    fn ended(&self) -> BoxFuture<'static, ()>;
    /// Ready when the bytestream stands still, or no longer does; pending while it is as `known`.
    fn poll_flow(&self, _cx: &Context<'_>, _known: Flow) -> Poll<Flow> {
        Poll::Pending
    }
    /// Whether the bytestream goes through a SOCKS5 proxy now. It may change; the stream looks whenever it writes.
    fn is_relayed(&self) -> bool {
        false
    }
}
