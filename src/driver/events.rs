//! Everything from the server that is not ours.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_xmpp::Event;

use super::Handle;

/// What the bot had from its `Client`: every event of the session with the server that is not part of an
/// e2e stream, in order.
///
/// It ends when the endpoint was closed, or its session with the server ended for good. As long as it is held, the
/// session with the server stays up. A bot that does not take its events for a while holds up nothing, until
/// [`Limits::events`](crate::Limits::events) of them wait; from then on, nothing more is read from the server until it
/// does. A bot that drops it gets none; iq requests to it are then answered `service-unavailable` for it.
#[derive(Debug)]
pub struct Events {
    pub(super) receiver: mpsc::Receiver<Event>,
    pub(super) _handle: Handle,
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver.poll_recv(cx)
    }
}
