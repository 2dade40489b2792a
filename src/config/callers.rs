//! Who may open a session with us.

use std::{collections::HashSet, fmt, sync::Arc};

use jid::{BareJid, FullJid};

/// Who may open a session with us.
///
/// Others are answered `service-unavailable`, as by somebody who knows nothing of Jingle (XEP-0166 #protocol-response-errors,
/// RFC 6120 §8.3.3.19): they learn no address and no certificate of ours, and the bot never hears of them. The same goes for
/// in-band bytestreams that they want to open. What service discovery says of us, and presence, is not changed by it.
///
/// A peer that we are connecting to at the time may always call, so that two who call each other meet (XEP-0166
/// #def-action-ties). Sessions that are open stay, whatever becomes of their peer's permission.
///
/// It is no authentication: servers can say that anybody is calling. Who it is, [`Trust`](crate::Trust) decides.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Callers {
    /// Everybody.
    #[default]
    Everybody,
    /// These, with any resource.
    Only(HashSet<BareJid>),
    /// Those who may see our presence, by a roster subscription `from` or `both` (RFC 6121 §2.1.2.5), and our own account's
    /// other resources.
    ///
    /// The endpoint asks for the roster when a session with the server begins, and follows its changes. Until it is
    /// there, nobody but our own account may call; so it stays if the server refuses it, or does not answer in
    /// [`Timeouts::iq`](crate::Timeouts::iq), which is logged at `warn`. At most 16,384 contacts are kept, and those beyond
    /// may not call.
    ///
    /// Having asked, we are sent roster pushes (RFC 6121 §2.1.6). They come out of the [`Events`](crate::Events) too, for
    /// the bot to answer.
    Roster,
    /// Those of whom a function says so; see [`Callers::filter`].
    Filter(Arc<dyn Fn(&FullJid) -> bool + Send + Sync>),
}

impl Callers {
    /// Those of whom this function says so.
    ///
    /// It is asked about whoever sends a Jingle or in-band bytestream request that belongs to no session, once for each.
    /// It may call the endpoint's functions that don't wait. It must not block: nothing else is read from the server meanwhile.
    #[must_use]
    pub fn filter(may_call: impl Fn(&FullJid) -> bool + Send + Sync + 'static) -> Self {
        Self::Filter(Arc::new(may_call))
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("Everybody"),
            Self::Only(some) => f.debug_tuple("Only").field(some).finish(),
            Self::Roster => f.write_str("Roster"),
            Self::Filter(_) => f.write_str("Filter(_)"),
        }
    }
}
