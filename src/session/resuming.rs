//! Sessions that carry on a stream whose bytestream was lost, and where its peer is.

use std::time::Instant;

use jid::{BareJid, FullJid};

use super::{SessionId, Sessions};
use crate::{Error, stream::Flow};

impl Sessions {
    /// Starts towards a session that carries on a stream with this peer: as [`Sessions::connect`], on the best transport
    /// there is, and marked, so that the peer's user is not asked.
    ///
    /// The session ends with [`Reason::Expired`](crate::Reason::Expired) if the peer has no stream to carry on.
    pub(crate) fn connect_to_resume(&mut self, _now: Instant, _peer: FullJid) -> Result<SessionId, Error> {
        Err(crate::ApiMisuse::StreamClosed.into())
    }

    /// There is one stream more that this account may carry on.
    pub(crate) fn expect_resumption(&mut self, _peer: &BareJid) {}

    /// One of them is over.
    pub(crate) fn forget_resumption(&mut self, _peer: &BareJid) {}

    /// A stream to this peer was lost: from now on it is remembered where the peer shows up, and the peer is told where we are
    /// (directed presence, RFC 6121 §4.6), whenever one of us has a new full JID. To be called once for each stream.
    pub(crate) fn look_out_for(&mut self, _now: Instant, _peer: &FullJid) {}

    /// That stream goes on, or is given up.
    pub(crate) fn stop_looking_out_for(&mut self, _peer: &BareJid) {}

    /// Under which full JIDs the peer may be reached, the best guess first: where it was last, then where it was seen since.
    pub(crate) fn whereabouts(&self, peer: &FullJid) -> Vec<FullJid> {
        vec![peer.clone()]
    }

    /// The session with the server is lost for now. It may be resumed, so that nothing is lost yet.
    pub(crate) fn handle_link_down(&mut self, _now: Instant) {}

    /// The session with the server is there again, and the same as before.
    pub(crate) fn handle_link_resumed(&mut self, _now: Instant) {}

    /// Whether what is written to a session's bytestream can get anywhere.
    pub(crate) fn flow(&self, _id: SessionId) -> Flow {
        Flow::Flowing
    }
}
