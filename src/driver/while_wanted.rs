//! A connector that stops when nobody wants the connection any more.

use std::{convert::Infallible, future::pending};

use jid::Jid;
use sasl::common::ChannelBinding;
use tokio::sync::watch;
use tokio_xmpp::{
    Error,
    connect::ServerConnector,
    xmlstream::{PendingFeaturesRecv, Timeouts},
};

/// As long as this is held, the connector that came with it connects.
#[derive(Debug)]
pub(super) struct Wanted {
    _held: watch::Sender<()>,
}

/// tokio-xmpp tries to connect until it succeeds, even if its stream was dropped long ago: it would log in behind the
/// bot's back, and end the session of a bot that came back under the same full JID.
#[derive(Clone, Debug)]
pub(super) struct WhileWanted<C> {
    inner: C,
    wanted: watch::Receiver<()>,
}

impl<C> WhileWanted<C> {
    pub(super) fn new(inner: C) -> (Wanted, Self) {
        let (held, wanted) = watch::channel(());
        (Wanted { _held: held }, Self { inner, wanted })
    }
}

impl<C: ServerConnector> ServerConnector for WhileWanted<C> {
    type Stream = C::Stream;

    fn connect(
        &self,
        jid: &Jid,
        ns: &'static str,
        timeouts: Timeouts,
    ) -> impl Future<Output = Result<(PendingFeaturesRecv<Self::Stream>, ChannelBinding), Error>> + Send {
        // Not borrowed, because a connector need not be `Sync`.
        let Self { inner, mut wanted } = self.clone();
        async move {
            let given_up = async { while wanted.changed().await.is_ok() {} };
            let connecting = inner.connect(jid, ns, timeouts);
            tokio::select! {
                biased;
                () = given_up => {}
                connected = connecting => return connected,
            }
            // An error would only be the reason for another attempt.
            match pending::<Infallible>().await {}
        }
    }
}
