//! The initiator connects again.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use jid::FullJid;
use tokio::io::{AsyncBufRead, AsyncWrite};

use super::Whereabouts;
use crate::{
    Error, NotResumed, Reason, SignallingError, Step, Terminated,
    endpoint::{
        Endpoint,
        carried::Carried,
        secure::{self, Opened, Purpose},
    },
    session::Role,
    stream::{self, Goal, Reconnect, Reconnected, Revival, StreamOptions},
};

/// How often one attempt begins anew because the peer showed up elsewhere. More is somebody's game; the next attempt
/// begins where the peer is then.
const SIGHTINGS: usize = 4;

/// Gets another bytestream for one stream.
#[derive(Clone)]
pub(crate) struct Initiator {
    endpoint: Endpoint,
    whereabouts: Arc<Whereabouts>,
}

impl Initiator {
    pub(in super::super) fn new(endpoint: &Endpoint, whereabouts: &Arc<Whereabouts>) -> Self {
        Self { endpoint: endpoint.clone(), whereabouts: Arc::clone(whereabouts) }
    }
}

impl Reconnect for Initiator {
    fn reconnect(&self, goal: Goal) -> BoxFuture<'static, Result<Reconnected, Error>> {
        let this = self.clone();
        async move { this.search(goal).await.map_err(no_way_back) }.boxed()
    }
}

/// What became of a look at the places where the peer may be.
enum Search {
    Done(Result<Reconnected, Error>),
    /// It showed up elsewhere.
    Sighted,
}

impl Initiator {
    async fn search(self, goal: Goal) -> Result<Reconnected, Error> {
        self.whereabouts.lost();
        let mut tried = Vec::new();
        for _ in 0..SIGHTINGS {
            self.wait_for_server().await?;
            if let Search::Done(result) = self.look_around(&goal, &mut tried).await {
                return result;
            }
        }
        Err(Error::Signalling(SignallingError::Rebound))
    }

    async fn wait_for_server(&self) -> Result<(), Error> {
        let handle = &self.endpoint.handle;
        let online = handle.with(|sessions, _| sessions.config().timeouts.online);
        let reachable = tokio::time::timeout(online, handle.reachable()).await;
        reachable.unwrap_or(Err(Error::Timeout(Step::Online, online)))
    }

    /// Tries the places in turn, those first that were not tried yet.
    async fn look_around(&self, goal: &Goal, tried: &mut Vec<FullJid>) -> Search {
        let peer = self.whereabouts.peer();
        let known = self.endpoint.handle.with(|sessions, _| sessions.whereabouts(&peer));
        let mut places = known.clone();
        places.sort_by_key(|place| tried.contains(place));
        let mut failure = None;
        for place in places {
            tried.push(place.clone());
            let session = match self.connect(place, goal) {
                Ok(session) => Arc::new(session),
                Err(error) => return Search::Done(Err(error)),
            };
            let opened = tokio::select! {
                biased;
                opened = session.opened() => opened,
                () = self.endpoint.handle.elsewhere(&peer, &known) => return Search::Sighted,
            };
            let result = match opened {
                Ok(()) => secure::open(session, Again { initiator: self.clone(), goal: goal.clone() }).await,
                Err(error) => Err(error),
            };
            match result {
                // Said by the peer itself, which has proved who it is.
                done @ (Ok(_) | Err(Error::NotResumed(_))) => return Search::Done(done),
                Err(error) => {
                    tracing::debug!(%error, "this was no way to carry the stream on");
                    failure = Some(more_hopeful(failure, error));
                }
            }
        }
        Search::Done(Err(failure.unwrap_or(Error::Signalling(SignallingError::Offline))))
    }

    fn connect(&self, place: FullJid, goal: &Goal) -> Result<crate::driver::SessionHandle, Error> {
        let candidates = self.whereabouts.candidates();
        match goal {
            Goal::Resume(..) => self.endpoint.handle.connect_to_resume(place, candidates),
            Goal::Renew(_) => self.endpoint.handle.connect(place, candidates),
        }
    }
}

/// An endpoint that was closed opens no session any more, so that nobody need try again.
fn no_way_back(error: Error) -> Error {
    match error {
        Error::ApiMisuse(_) => {
            let why = Arc::new(error);
            Error::NotResumed(NotResumed { lost: Arc::clone(&why), why })
        }
        error => error,
    }
}

/// Where one of the peer's resources knows nothing of the stream, the one that does may only be away.
fn more_hopeful(one: Option<Error>, other: Error) -> Error {
    let is_final =
        |error: &Error| matches!(error, Error::Terminated(Terminated { reason: Reason::Expired, .. }));
    match one {
        Some(one) if !is_final(&one) => one,
        _ => other,
    }
}

/// A stream of ours that goes on, or its successor.
struct Again {
    initiator: Initiator,
    goal: Goal,
}

impl Purpose for Again {
    type Outcome = Reconnected;

    // The stream was encrypted, so it stays encrypted.
    const PLAINTEXT: bool = false;

    fn revival(&self, _opened: &Opened) -> (Revival, Option<Arc<Whereabouts>>) {
        (Revival::Initiator(Arc::new(self.initiator.clone())), None)
    }

    async fn open<IO>(
        self,
        role: Role,
        io: IO,
        options: StreamOptions,
        carried: &Carried,
    ) -> Result<Reconnected, Error>
    where
        IO: AsyncBufRead + AsyncWrite + Send + Unpin + 'static,
    {
        let reconnected = match (self.goal, role) {
            (Goal::Resume(resume, certificate), Role::Initiator) => {
                stream::resume(io, options, resume, certificate).await?
            }
            (Goal::Renew(certificate), Role::Initiator) => stream::renew(io, options, certificate).await?,
            // Both offered a new session at the same time, and the peer's won (XEP-0166 #def-action-ties). It is for a
            // stream of its own.
            (_, Role::Responder) => {
                return Err(Error::Terminated(Terminated {
                    reason: Reason::AlternativeSession(None),
                    text: None,
                }));
            }
        };
        carried.carries(&self.initiator.whereabouts);
        Ok(reconnected)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ApiMisuse;

    fn expired() -> Error {
        Error::Terminated(Terminated { reason: Reason::Expired, text: None })
    }

    fn silent() -> Error {
        Error::Timeout(Step::JingleAck, Duration::from_secs(30))
    }

    #[test]
    fn a_resource_that_knows_nothing_does_not_speak_for_one_that_is_away() {
        for answers in [[silent(), expired()], [expired(), silent()]] {
            let failure = answers.into_iter().fold(None, |failure, error| Some(more_hopeful(failure, error)));
            assert!(matches!(failure, Some(Error::Timeout(..))), "{failure:?}");
        }
        let failure = more_hopeful(Some(expired()), expired());
        assert!(matches!(failure, Error::Terminated(_)), "{failure:?}");
    }

    #[test]
    fn a_closed_endpoint_is_no_reason_to_try_again() {
        assert!(matches!(no_way_back(ApiMisuse::EndpointClosed.into()), Error::NotResumed(_)));
        assert!(matches!(no_way_back(silent()), Error::Timeout(..)));
    }
}
