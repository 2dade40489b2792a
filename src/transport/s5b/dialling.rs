//! Connecting to the peer's candidates (XEP-0260 #rules): which one when.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    Attempt,
    candidate::{Candidate, Place},
    offer::{MAX_OWN, MAX_RESERVED},
};
use crate::session::Role;

/// Between one attempt and the next (XEP-0260 #rules, 2).
pub(super) const STAGGER: Duration = Duration::from_millis(200);
/// What the last attempt that needs no proxy is given before the first one to a proxy begins (XEP-0260 #rules, 3).
pub(super) const PROXY_DELAY: Duration = Duration::from_millis(600);
/// How long the peer may take to send its first candidate in a transport-info (XEP-0260 #exchange), when there was none
/// before. It is a stanza's way there and back, and the time to find a proxy.
pub(super) const EMPTY_OFFER_WAIT: Duration = Duration::from_secs(10);
/// How long the next one may take after each of those, within [`EMPTY_OFFER_WAIT`]. A peer that sends what it has as it
/// finds it sends its addresses at once, and a proxy after it has asked its server.
pub(super) const TRICKLE_WAIT: Duration = Duration::from_secs(2);
/// Hosts and ports that a peer can have us connect to: as many as we offer ourselves. At each there are two addresses at
/// most, if it is a name, and at each of these a connection for every DST.ADDR that it refuses (up to
/// [`MAX_DST_ADDRS`](super::dst_addr::MAX_DST_ADDRS)).
pub(super) const MAX_DIALLED: usize = MAX_OWN;

/// Attempts made and to be made.
#[derive(Debug)]
pub(super) struct Dialling {
    /// The most preferred last.
    waiting: Vec<Candidate>,
    in_flight: Vec<Flight>,
    /// All that were or are to be dialled, at most [`MAX_DIALLED`].
    places: HashSet<Place>,
    /// When the last attempt began; before the first, when it all did.
    last: Instant,
    /// The same for those that need no proxy.
    last_unproxied: Instant,
    /// Until when we wait for a candidate even if there is nothing else to do.
    patience: Option<Instant>,
    /// If the peer sends its candidates one by one: until when each of them renews our patience.
    trickle_end: Option<Instant>,
}

#[derive(Debug)]
struct Flight {
    attempt: Attempt,
    candidate: Candidate,
}

impl Dialling {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: Vec::new(),
            in_flight: Vec::new(),
            places: HashSet::new(),
            last: now,
            last_unproxied: now,
            patience: None,
            trickle_end: None,
        }
    }

    /// The peer began with nothing: candidates may come for a while.
    pub(super) fn be_patient(&mut self, now: Instant) {
        self.trickle_end = Some(now + EMPTY_OFFER_WAIT);
        self.patience = self.trickle_end;
    }

    /// A candidate came; if the peer sends one by one, the next may take as long again.
    pub(super) fn renew_patience(&mut self, now: Instant) {
        self.patience = self.trickle_end.map(|end| end.min(now + TRICKLE_WAIT));
    }

    /// Candidates that don't come now don't come any more.
    pub(super) fn stop_waiting(&mut self) {
        self.patience = None;
        self.trickle_end = None;
    }

    /// Takes as many of them as there is room for, the highest first. Nobody is dialled twice, and proxies, which are
    /// the lowest, are not crowded out.
    pub(super) fn add(&mut self, mut candidates: Vec<Candidate>) {
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.priority));
        let mut fresh = HashSet::new();
        candidates
            .retain(|candidate| !self.places.contains(&candidate.place()) && fresh.insert(candidate.place()));
        let mut room = MAX_DIALLED - self.places.len();
        let proxies = candidates.iter().filter(|candidate| candidate.is_proxy()).count();
        let mut reserved = proxies.min(MAX_RESERVED).min(room);
        candidates.retain(|candidate| {
            if candidate.is_proxy() {
                reserved = reserved.saturating_sub(1);
            }
            let fits = reserved < room;
            room -= usize::from(fits);
            fits
        });
        self.places.extend(candidates.iter().map(Candidate::place));
        for candidate in candidates {
            // Of equals, the one that was offered first goes first.
            let index = self.waiting.partition_point(|waiting| waiting.priority < candidate.priority);
            self.waiting.insert(index, candidate);
        }
    }

    /// The peer chose a candidate of ours with this priority: what can't be nominated any more is not tried
    /// (XEP-0260 #connect). Returns the attempts to abandon.
    pub(super) fn prune(&mut self, chosen: u32, role: Role) -> Vec<Attempt> {
        let can_win = |candidate: &Candidate| prevails(candidate.priority, chosen, role);
        self.waiting.retain(can_win);
        let pruned = self.in_flight.extract_if(.., |flight| !can_win(&flight.candidate));
        pruned.map(|flight| flight.attempt).collect()
    }

    /// The next candidate, if its time has come.
    pub(super) fn start(&mut self, now: Instant, attempt: Attempt) -> Option<Candidate> {
        if self.next_start()? > now {
            return None;
        }
        let candidate = self.waiting.pop()?;
        self.last = now;
        if !candidate.is_proxy() {
            self.last_unproxied = now;
        }
        self.in_flight.push(Flight { attempt, candidate: candidate.clone() });
        Some(candidate)
    }

    /// An attempt is over; gives its candidate, unless it is none of ours.
    pub(super) fn landed(&mut self, attempt: Attempt) -> Option<Candidate> {
        let index = self.in_flight.iter().position(|flight| flight.attempt == attempt)?;
        Some(self.in_flight.swap_remove(index).candidate)
    }

    pub(super) fn in_flight(&self) -> impl Iterator<Item = Attempt> {
        self.in_flight.iter().map(|flight| flight.attempt)
    }

    /// Whether nothing can come of it any more.
    pub(super) fn is_exhausted(&mut self, now: Instant) -> bool {
        // Or else its timer would stay due as long as an attempt goes on.
        self.patience.take_if(|patience| *patience <= now);
        self.waiting.is_empty() && self.in_flight.is_empty() && self.patience.is_none()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_start().into_iter().chain(self.patience).min()
    }

    /// When the next attempt is due: never later than it would be good for the ones before it.
    fn next_start(&self) -> Option<Instant> {
        let next = self.waiting.last()?;
        if self.in_flight.is_empty() {
            return Some(self.last);
        }
        let staggered = self.last + STAGGER;
        let unproxied_in_flight = self.in_flight.iter().any(|flight| !flight.candidate.is_proxy());
        if next.is_proxy() && unproxied_in_flight {
            return Some(staggered.max(self.last_unproxied + PROXY_DELAY));
        }
        Some(staggered)
    }
}

/// Whether a candidate that we choose is nominated against one that the peer chose (XEP-0260 #complete, 3 and 4).
pub(super) fn prevails(ours_to_choose: u32, chosen_by_peer: u32, role: Role) -> bool {
    match role {
        Role::Initiator => ours_to_choose >= chosen_by_peer,
        Role::Responder => ours_to_choose > chosen_by_peer,
    }
}
