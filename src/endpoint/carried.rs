//! The session under a bytestream, as the XML stream on it knows it.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt as _};

use super::resuming::Whereabouts;
use crate::{
    Error, Reason, TransportInfo,
    disco::EarlyData,
    driver::SessionHandle,
    session::Progress,
    stream::{Carrier, Flow},
};

/// A session, and the stream that it carries.
pub(super) struct Carried {
    session: Arc<SessionHandle>,
    load: Mutex<Load>,
}

/// What a session carries.
enum Load {
    /// A stream that ends with it, or it is not known yet which.
    Anything,
    /// A stream that can be carried on, with the peer that is there.
    Stream(Arc<Whereabouts>),
    /// Nothing more, because its bytestream was lost.
    Lost,
    /// Nothing more, because its stream was ended.
    Ended,
}

impl Carried {
    pub(super) fn new(session: Arc<SessionHandle>, whereabouts: Option<Arc<Whereabouts>>) -> Self {
        let load = whereabouts.map_or(Load::Anything, Load::Stream);
        Self { session, load: Mutex::new(load) }
    }

    /// Whether the peer takes stanzas before it has answered.
    pub(super) fn early_data(&self) -> EarlyData {
        self.session.with(|sessions, id, _| sessions.early_data(id))
    }

    /// From now on it carries the stream with this peer, which is found by that.
    pub(super) fn carries(&self, whereabouts: &Arc<Whereabouts>) {
        if let Some(peer) = self.session.with(|sessions, id, _| sessions.peer(id).cloned()) {
            whereabouts.found(peer);
        }
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        match *load {
            Load::Anything | Load::Stream(_) => *load = Load::Stream(Arc::clone(whereabouts)),
            // That was quick.
            Load::Lost => whereabouts.lost(),
            Load::Ended => {}
        }
    }
}

impl Carrier for Carried {
    fn terminate(&self, reason: Reason, text: Option<String>) {
        // What a stream says that looks for another bytestream.
        let lost = matches!(reason, Reason::ConnectivityError);
        self.session.with(|sessions, id, now| sessions.terminate(now, id, reason, text.as_deref()));
        let left = if lost { Load::Lost } else { Load::Ended };
        let load = mem::replace(&mut *self.load.lock().unwrap_or_else(PoisonError::into_inner), left);
        if let (true, Load::Stream(whereabouts)) = (lost, load) {
            whereabouts.lost();
        }
    }

    fn error(&self) -> Option<Error> {
        self.session.error()
    }

    fn transport(&self) -> Option<TransportInfo> {
        self.session.transport()
    }

    fn is_relayed(&self) -> bool {
        self.session.is_relayed()
    }

    fn poll_moved(&self, cx: &Context<'_>, before: Option<&TransportInfo>) -> Poll<Option<TransportInfo>> {
        self.session.poll(cx, |sessions, id, _| match (sessions.progress(id), sessions.transport_info(id)) {
            (Progress::Ended(_), _) => Poll::Ready(None),
            (_, Some(info)) if before != Some(&info) => Poll::Ready(Some(info)),
            _ if sessions.may_move(id) => Poll::Pending,
            _ => Poll::Ready(None),
        })
    }

    fn poll_flow(&self, cx: &Context<'_>, known: Flow) -> Poll<Flow> {
        self.session.poll(cx, |sessions, id, _| match (sessions.progress(id), sessions.flow(id)) {
            // What has ended does not stand still any more, but does not go on either.
            (Progress::Ended(_), _) => Poll::Pending,
            (_, flow) if flow == known => Poll::Pending,
            (_, flow) => Poll::Ready(flow),
        })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        let session = Arc::clone(&self.session);
        async move { session.over().await }.boxed()
    }
}
