//! A connector that goes on until it has connected, at a bearable pace, and stops when nobody wants the connection any more.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use jid::Jid;
use sasl::common::ChannelBinding;
use tokio::sync::watch;
use tokio_xmpp::{
    Error,
    connect::ServerConnector,
    xmlstream::{PendingFeaturesRecv, Timeouts},
};

use super::now;
use crate::pauses::Pauses;

/// As long as this is held, the connector that came with it connects.
#[derive(Debug)]
pub(super) struct Wanted {
    _held: watch::Sender<()>,
}

/// tokio-xmpp tries to connect until it succeeds, even if its stream was dropped long ago: it would log in behind the
/// bot's back, and end the session of a bot that came back under the same full JID.
///
/// It also pauses for up to 30 s between attempts, as long as some restarts of a server take together, and all its users at
/// the same times; after a login that was lost at once it does not pause at all. So the attempts are made here, by [`Pace`].
/// What goes wrong after the connection, such as a wrong password, still has the pauses of tokio-xmpp.
#[derive(Clone, Debug)]
pub(super) struct WhileWanted<C> {
    inner: C,
    wanted: watch::Receiver<()>,
    pace: Pace,
}

impl<C> WhileWanted<C> {
    pub(super) fn new(inner: C, pace: Pace) -> (Wanted, Self) {
        let (held, wanted) = watch::channel(());
        (Wanted { _held: held }, Self { inner, wanted, pace })
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
        let Self { inner, mut wanted, pace } = self.clone();
        async move {
            let given_up = async { while wanted.changed().await.is_ok() {} };
            let connecting = connect(inner, jid, ns, timeouts, pace);
            tokio::select! {
                biased;
                () = given_up => {}
                connected = connecting => return Ok(connected),
            }
            // An error would only be the reason for another attempt.
            match pending::<Infallible>().await {}
        }
    }
}

async fn connect<C: ServerConnector>(
    connector: C,
    jid: &Jid,
    ns: &'static str,
    timeouts: Timeouts,
    pace: Pace,
) -> (PendingFeaturesRecv<C::Stream>, ChannelBinding) {
    loop {
        tokio::time::sleep_until(pace.next(now(), dice()).into()).await;
        match connector.connect(jid, ns, timeouts).await {
            Ok(connected) => return connected,
            Err(error) => tracing::warn!(%error, "the server can't be reached; trying again"),
        }
    }
}

/// When to connect next. Clones are the same: it outlives a session with the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    last: Option<Attempt>,
    /// When the session with the server began that came of it, if one did.
    session: Option<Instant>,
}

/// The last attempt.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    at: Instant,
    /// What the next ones wait for after this one began.
    pauses: Pauses,
}

/// The first pause: a server that restarts is back in less than a second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest. Streams in-band stand still meanwhile; and one attempt in so many seconds is no burden for a server.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A session that held for so long makes up for the attempts before it. One that somebody else under the same full JID ends, or
/// a server that throws everybody out, does so at once.
const HELD: Duration = Duration::from_secs(1);

impl Pace {
    /// When the next attempt is to be made, which counts as made. What chance does, see [`Pauses::take`].
    fn next(&self, now: Instant, chance: u8) -> Instant {
        let Progress { last, session } = &mut *self.lock();
        let held = session.take().is_some_and(|since| now.saturating_duration_since(since) >= HELD);
        let next = match last.filter(|_| !held) {
            None => Attempt { at: now, pauses: Pauses::new(FIRST_PAUSE, LONGEST_PAUSE) },
            Some(Attempt { at, mut pauses }) => {
                let wait = pauses.take(chance);
                Attempt { at: now.max(at + wait), pauses }
            }
        };
        *last = Some(next);
        next.at
    }

    /// The last attempt led to a session with the server.
    pub(super) fn succeeded(&self, now: Instant) {
        self.lock().session = Some(now);
    }

    /// The next attempt need not wait: the last one failed in a way that this one can't.
    pub(super) fn hurry(&self) {
        if let Some(Attempt { at, pauses }) = &mut self.lock().last
            && let Some(earlier) = at.checked_sub(pauses.peek())
        {
            *at = earlier;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No dice at all only means that all bots of this machine are equally late.
fn dice() -> u8 {
    let mut chance = [u8::MAX];
    let _ = rand::fill(&mut chance);
    let [chance] = chance;
    chance
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When attempts are made that fail at once.
    fn attempts(pace: &Pace, begin: Instant, count: usize, chance: u8) -> Vec<Duration> {
        let mut now = begin;
        let mut next = || {
            now = pace.next(now, chance);
            now - begin
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_first_attempt_is_at_once_and_the_pauses_double_up_to_the_longest() {
        let made = attempts(&Pace::default(), Instant::now(), 9, u8::MAX);
        let pauses: Vec<_> = made.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
        assert_eq!(made[0], Duration::ZERO);
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10000, 10000]);
    }

    #[test]
    fn chance_takes_up_to_half_of_a_pause_off() {
        let made = attempts(&Pace::default(), Instant::now(), 3, 0);
        assert_eq!(made, [0, 125, 375].map(Duration::from_millis));
    }

    #[test]
    fn a_session_that_held_is_replaced_at_once() {
        let (pace, begin) = (Pace::default(), Instant::now());
        attempts(&pace, begin, 8, u8::MAX);
        let online = begin + Duration::from_secs(60);
        pace.succeeded(online);
        let lost = online + HELD;
        assert_eq!(pace.next(lost, u8::MAX), lost);
        assert_eq!(pace.next(lost, u8::MAX), lost + FIRST_PAUSE);
    }

    #[test]
    fn what_is_tried_in_another_way_is_tried_at_once_and_the_pauses_grow_all_the_same() {
        let (pace, begin) = (Pace::default(), Instant::now());
        attempts(&pace, begin, 3, u8::MAX);
        let now = begin + Duration::from_secs(1);
        pace.hurry();
        assert_eq!(pace.next(now, u8::MAX), now);
        assert_eq!(pace.next(now, u8::MAX), now + FIRST_PAUSE * 8);
    }

    #[test]
    fn a_server_that_throws_everybody_out_again_is_not_hammered() {
        let (pace, begin) = (Pace::default(), Instant::now());
        let mut now = begin;
        let mut logins = 0;
        while now < begin + Duration::from_secs(60) {
            // It lets the bot in, and drops it a moment later.
            let online = pace.next(now, 0);
            pace.succeeded(online);
            now = online + Duration::from_millis(5);
            logins += 1;
        }
        assert!(logins <= 20, "{logins} in a minute");
    }
}
