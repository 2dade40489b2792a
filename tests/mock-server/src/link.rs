//! Slow links: a delay and a rate limit per client and direction, changeable while it is online.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use xmpp_parsers::jid::{BareJid, FullJid, Jid};

/// The most bytes that pass a link at once.
pub(crate) const MAX_CHUNK: usize = 8 * 1024;

/// A slow link passes this part of a second's bytes at once, so that it flows rather than hiccups …
const CHUNKS_PER_SECOND: u64 = 20;

/// … but not less than this.
const MIN_CHUNK: u64 = 64;

/// Whose link a setting is for. A full JID's own setting wins over its account's, and that over everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every client.
    All,
    /// One resource, or all resources of an account.
    Jid(Jid),
}

impl From<&Jid> for Target {
    fn from(jid: &Jid) -> Self {
        Self::Jid(jid.clone())
    }
}

impl From<&FullJid> for Target {
    fn from(jid: &FullJid) -> Self {
        Self::Jid(jid.clone().into())
    }
}

impl From<&BareJid> for Target {
    fn from(jid: &BareJid) -> Self {
        Self::Jid(jid.clone().into())
    }
}

/// One value for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Directions<T> {
    to_client: T,
    from_client: T,
}

impl<T> Directions<T> {
    fn of(self, direction: Direction) -> T {
        match direction {
            Direction::ToClient => self.to_client,
            Direction::FromClient => self.from_client,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    ToClient,
    FromClient,
}

#[derive(Clone, Debug)]
struct Settings<T> {
    all: Directions<T>,
    by_jid: HashMap<Jid, Directions<T>>,
}

impl<T: Default> Default for Settings<T> {
    fn default() -> Self {
        Self { all: Directions::default(), by_jid: HashMap::new() }
    }
}

impl<T: Copy> Settings<T> {
    fn set(&mut self, target: Target, value: Directions<T>) {
        match target {
            Target::All => self.all = value,
            Target::Jid(jid) => {
                self.by_jid.insert(jid, value);
            }
        }
    }

    fn of(&self, jid: &FullJid) -> Directions<T> {
        let full: &Jid = jid;
        self.by_jid
            .get(full)
            .or_else(|| self.by_jid.get(&Jid::from(jid.to_bare())))
            .copied()
            .unwrap_or(self.all)
    }
}

#[derive(Clone, Debug, Default)]
struct Shaping {
    delay: Settings<Duration>,
    /// Bytes per second.
    rate: Settings<Option<u64>>,
    black_hole: Settings<bool>,
}

/// All settings; the server's side.
#[derive(Debug)]
pub(crate) struct Links(watch::Sender<Arc<Shaping>>);

impl Links {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Arc::default()))
    }

    pub(crate) fn set_delay(&self, target: Target, to_client: Duration, from_client: Duration) {
        self.0.send_modify(|shaping| {
            Arc::make_mut(shaping).delay.set(target, Directions { to_client, from_client });
        });
    }

    pub(crate) fn set_rate(&self, target: Target, to_client: Option<u64>, from_client: Option<u64>) {
        self.0.send_modify(|shaping| {
            Arc::make_mut(shaping).rate.set(target, Directions { to_client, from_client });
        });
    }

    pub(crate) fn set_black_hole(&self, target: Target, swallows: bool) {
        self.0.send_modify(|shaping| {
            let both = Directions { to_client: swallows, from_client: swallows };
            Arc::make_mut(shaping).black_hole.set(target, both);
        });
    }

    /// One direction of one client's link.
    pub(crate) fn link(&self, jid: &FullJid, direction: Direction) -> Link {
        let mut settings = self.0.subscribe();
        settings.mark_changed();
        Link {
            settings,
            jid: jid.clone(),
            direction,
            delay: Duration::ZERO,
            rate: None,
            is_black_hole: false,
            free_at: Instant::now(),
        }
    }
}

/// One direction of one client's link; follows the settings.
#[derive(Debug)]
pub(crate) struct Link {
    settings: watch::Receiver<Arc<Shaping>>,
    jid: FullJid,
    direction: Direction,
    delay: Duration,
    rate: Option<u64>,
    is_black_hole: bool,
    /// When all bytes let through so far have passed at the set rate.
    free_at: Instant,
}

impl Link {
    fn refresh(&mut self) {
        // An error means that the server is gone; this link ends with it.
        if self.settings.has_changed().unwrap_or(false) {
            let shaping = self.settings.borrow_and_update();
            self.delay = shaping.delay.of(&self.jid).of(self.direction);
            self.rate = shaping.rate.of(&self.jid).of(self.direction);
            self.is_black_hole = shaping.black_hole.of(&self.jid).of(self.direction);
        }
    }

    /// When a stanza that entered the link at `entered` leaves it.
    pub(crate) fn due(&mut self, entered: Instant) -> Instant {
        self.refresh();
        entered + self.delay
    }

    /// Waits while nothing passes at all. Cancel safe.
    pub(crate) async fn open(&mut self) {
        self.refresh();
        while self.is_black_hole {
            if self.settings.changed().await.is_err() {
                return;
            }
            self.settings.mark_changed();
            self.refresh();
        }
    }

    /// Waits until the link is free; the number of bytes that may pass then. Cancel safe.
    pub(crate) fn ready(&mut self) -> impl Future<Output = usize> + Send {
        self.refresh();
        let chunk = match self.rate {
            None => MAX_CHUNK,
            Some(rate) => {
                let chunk = (rate / CHUNKS_PER_SECOND).max(MIN_CHUNK);
                usize::try_from(chunk).unwrap_or(MAX_CHUNK).min(MAX_CHUNK)
            }
        };
        let free_at = self.rate.is_some().then_some(self.free_at);
        async move {
            if let Some(free_at) = free_at {
                tokio::time::sleep_until(free_at).await;
            }
            chunk
        }
    }

    /// Accounts for bytes that have passed. A read that waited may have begun under an older setting.
    pub(crate) fn passed(&mut self, bytes: usize) {
        self.refresh();
        if let Some(rate) = self.rate {
            let seconds = bytes as f64 / rate.max(1) as f64;
            self.free_at = self.free_at.max(Instant::now()) + Duration::from_secs_f64(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn romeo() -> FullJid {
        "romeo@montague.lit/orchard".parse().unwrap()
    }

    #[test]
    fn the_narrowest_setting_wins_and_each_direction_has_its_own() {
        let second = Duration::from_secs(1);
        let links = Links::new();
        let mut down = links.link(&romeo(), Direction::ToClient);
        let mut up = links.link(&romeo(), Direction::FromClient);
        let now = Instant::now();

        links.set_delay(Target::All, second, Duration::ZERO);
        assert_eq!((down.due(now), up.due(now)), (now + second, now));
        links.set_delay((&romeo().to_bare()).into(), 2 * second, second);
        assert_eq!((down.due(now), up.due(now)), (now + 2 * second, now + second));
        links.set_delay((&romeo()).into(), Duration::ZERO, Duration::ZERO);
        assert_eq!((down.due(now), up.due(now)), (now, now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_spreads_the_bytes_over_time() {
        let links = Links::new();
        links.set_rate(Target::All, Some(1000), None);
        let mut down = links.link(&romeo(), Direction::ToClient);
        let start = Instant::now();
        let mut passed = 0;
        while passed < 3000 {
            let chunk = down.ready().await;
            down.passed(chunk);
            passed += chunk;
        }
        down.ready().await;
        let taken = start.elapsed().as_secs_f64();
        assert!((2.9..3.2).contains(&taken), "{taken} s");
    }
}
