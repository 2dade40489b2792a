//! The responder's phase before there is a stream.

use std::sync::Arc;

use jid::FullJid;

use super::{
    Endpoint,
    secure::{self, First},
};
use crate::{
    Candidates, Error, Fingerprint, Reason,
    driver::SessionHandle,
    session::{Progress, SessionId},
    stream::E2eStream,
};

/// A session that a peer offers, to be accepted or declined. Dropping it declines.
///
/// Nothing but the acknowledgement has been sent to the peer so far (XEP-0166 #protocol-response-ack).
#[derive(Debug)]
#[must_use = "dropping it declines the session"]
pub struct Incoming {
    endpoint: Endpoint,
    session: SessionHandle,
    peer: FullJid,
    announced: Option<Vec<Fingerprint>>,
    /// Those that the user wants shown, if not the usual ones.
    candidates: Option<Candidates>,
}

impl Incoming {
    /// `None` if the peer has taken its offer back.
    pub(super) fn new(endpoint: Endpoint, session: SessionHandle) -> Option<Self> {
        let (peer, announced) = session.with(|sessions, id: SessionId, _| match sessions.progress(id) {
            Progress::Ended(_) => None,
            Progress::Pending | Progress::Open => Some((sessions.peer(id)?.clone(), sessions.announced(id))),
        })?;
        Some(Self { endpoint, session, peer, announced, candidates: None })
    }

    /// Who offers, as the servers say.
    #[must_use]
    pub fn peer(&self) -> &FullJid {
        &self.peer
    }

    /// The certificates that the peer announces for XTLS; `None` if it offers none.
    ///
    /// An offer without XTLS gets this far only where STARTTLS will follow, which is required then
    /// ([`Encryption::XtlsOrStarttls`](crate::Encryption::XtlsOrStarttls), [`Encryption::Starttls`](crate::Encryption::Starttls)),
    /// or with [`Dangerous::allow_plaintext`](crate::Dangerous::allow_plaintext).
    ///
    /// The servers carried this: it says what to expect, and proves nothing yet.
    #[must_use]
    pub fn security(&self) -> Option<&[Fingerprint]> {
        self.announced.as_deref()
    }

    /// Shows this peer other addresses than [`S5bConfig::candidates`](crate::S5bConfig::candidates) says (XEP-0260
    /// #security-sharing).
    pub fn candidates(mut self, candidates: Candidates) -> Self {
        self.candidates = Some(candidates);
        self.session.with(|sessions, id, _| sessions.show_candidates(id, candidates));
        self
    }

    /// Accepts: the bytestream is opened, TLS run, and the XML stream opened.
    ///
    /// Cancel safe in that dropping the future ends the session on the wire.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; see its variants. [`Error::Terminated`] if the peer took its offer back meanwhile.
    pub async fn accept(self) -> Result<E2eStream, Error> {
        let session = Arc::new(self.session);
        session.with(|sessions, id, now| sessions.accept(now, id))?;
        session.opened().await?;
        secure::open(session, First::accepted(self.endpoint, self.candidates)).await
    }

    /// Declines, for this reason: [`Reason::Decline`] or [`Reason::Busy`], usually (XEP-0166 #session-terminate).
    pub fn decline(self, reason: Reason) {
        self.session.with(|sessions, id, now| sessions.terminate(now, id, reason, None));
    }
}
