//! The iq requests that wait for a reply, whoever asked.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use jid::Jid;

/// Requests by id, with what their reply is for.
#[derive(Debug)]
pub(crate) struct Requests<P> {
    /// Makes our ids unlike those of the bot and of other programs on the account.
    prefix: String,
    next: u64,
    pending: HashMap<u64, Pending<P>>,
    deadlines: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Pending<P> {
    to: Option<Jid>,
    purpose: P,
    deadline: Option<(Instant, Duration)>,
}

impl<P> Requests<P> {
    /// `prefix` is random, so that replies to an earlier process' requests find nothing here.
    pub(crate) fn new(prefix: String) -> Self {
        Self { prefix, next: 0, pending: HashMap::new(), deadlines: BTreeSet::new() }
    }

    /// Remembers a request, and gives it its id.
    pub(crate) fn add(
        &mut self,
        to: Option<Jid>,
        purpose: P,
        deadline: Option<(Instant, Duration)>,
    ) -> String {
        let number = self.next;
        self.next += 1;
        if let Some((at, _)) = deadline {
            self.deadlines.insert((at, number));
        }
        self.pending.insert(number, Pending { to, purpose, deadline });
        self.id(number)
    }

    /// An id for a request whose reply changes nothing: it is not remembered, so that a peer that makes us send
    /// such requests and never answers them costs nothing.
    pub(crate) fn id_for_unanswered(&mut self) -> String {
        let number = self.next;
        self.next += 1;
        self.id(number)
    }

    fn id(&self, number: u64) -> String {
        format!("{}{number:x}", self.prefix)
    }

    /// Whether an id is one of ours, pending or not.
    pub(crate) fn is_ours(&self, id: &str) -> bool {
        id.starts_with(&self.prefix)
    }

    /// What a request with this id is for, whoever may answer it.
    pub(crate) fn purpose(&self, id: &str) -> Option<&P> {
        Some(&self.pending.get(&self.number(id)?)?.purpose)
    }

    fn number(&self, id: &str) -> Option<u64> {
        u64::from_str_radix(id.strip_prefix(&self.prefix)?, 16).ok()
    }

    /// What a reply with this id from this address is for. `None`, and nothing forgotten, if nobody
    /// asked that address.
    pub(crate) fn take(&mut self, id: &str, from: Option<&Jid>, own: Option<&Jid>) -> Option<P> {
        let number = self.number(id)?;
        let pending = self.pending.get(&number)?;
        let from_own_account = || from.is_none_or(|from| own.is_some_and(|own| *from == own.to_bare()));
        let expected = match &pending.to {
            // COMPAT Prosody: the account leaves `from` out even if it was asked by its address.
            Some(to) if from.is_none() => own.is_some_and(|own| *to == own.to_bare()),
            Some(to) => from == Some(to),
            // RFC 6120 §8.1.2.1: a request without `to` is for the account, which may leave `from` out.
            None => from_own_account(),
        };
        if !expected {
            return None;
        }
        let pending = self.pending.remove(&number)?;
        self.forget_deadline(number, pending.deadline);
        Some(pending.purpose)
    }

    /// Forgets every request whose purpose is of this kind.
    pub(crate) fn cancel(&mut self, unwanted: impl Fn(&P) -> bool) {
        let deadlines = &mut self.deadlines;
        self.pending.retain(|number, pending| {
            let keep = !unwanted(&pending.purpose);
            if let (false, Some((at, _))) = (keep, pending.deadline) {
                deadlines.remove(&(at, *number));
            }
            keep
        });
    }

    /// The deadlines of these stand still until [`Self::renew`].
    pub(crate) fn hold(&mut self, held: impl Fn(&P) -> bool) {
        for (number, pending) in &self.pending {
            if let (true, Some((at, _))) = (held(&pending.purpose), pending.deadline) {
                self.deadlines.remove(&(at, *number));
            }
        }
    }

    /// These have all their time again, from now on.
    pub(crate) fn renew(&mut self, now: Instant, renewed: impl Fn(&P) -> bool) {
        for (number, pending) in &mut self.pending {
            if let (true, Some((at, given))) = (renewed(&pending.purpose), &mut pending.deadline) {
                self.deadlines.remove(&(*at, *number));
                *at = now + *given;
                self.deadlines.insert((*at, *number));
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A request whose deadline has passed, and how long it was given.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<(P, Duration)> {
        let (at, number) = self.deadlines.first().copied()?;
        if now < at {
            return None;
        }
        let pending = self.pending.remove(&number)?;
        self.forget_deadline(number, pending.deadline);
        let given = pending.deadline.map(|(_, given)| given).unwrap_or_default();
        Some((pending.purpose, given))
    }

    /// All of them: nothing will be answered any more.
    pub(crate) fn drain(&mut self) -> Vec<P> {
        self.deadlines.clear();
        self.pending.drain().map(|(_, pending)| pending.purpose).collect()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.deadlines.is_empty()
    }

    fn forget_deadline(&mut self, number: u64, deadline: Option<(Instant, Duration)>) {
        if let Some((at, _)) = deadline {
            self.deadlines.remove(&(at, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_one_who_was_asked_can_answer() {
        let mut requests = Requests::new("x".into());
        let id = requests.add(Some(jid("juliet@capulet.lit/balcony")), 'a', None);
        assert_eq!(requests.take(&id, Some(&jid("nurse@capulet.lit/hall")), None), None);
        assert_eq!(requests.take(&id, None, None), None);
        assert_eq!(requests.take(&id, Some(&jid("juliet@capulet.lit/balcony")), None), Some('a'));
        assert_eq!(requests.take(&id, Some(&jid("juliet@capulet.lit/balcony")), None), None, "once");
    }

    #[test]
    fn a_request_to_the_own_account_is_answered_by_it_with_or_without_from() {
        let own = jid("romeo@montague.lit/orchard");
        let mut requests = Requests::new("x".into());
        let account = Some(jid("romeo@montague.lit"));
        for (to, from) in [(&None, &None), (&None, &account), (&account, &None), (&account, &account)] {
            let id = requests.add(to.clone(), 'a', None);
            assert_eq!(requests.take(&id, Some(&jid("montague.example")), Some(&own)), None);
            assert_eq!(requests.take(&id, from.as_ref(), Some(&own)), Some('a'), "to {to:?}, from {from:?}");
        }
    }

    #[test]
    fn deadlines_pass_in_their_order_and_die_with_the_reply() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let mut requests = Requests::new("x".into());
        requests.add(None, 'b', Some((now + seconds(2), seconds(2))));
        requests.add(None, 'a', Some((now + seconds(1), seconds(1))));
        let id = requests.add(None, 'c', Some((now + seconds(3), seconds(3))));
        assert_eq!(requests.take_expired(now), None);
        assert_eq!(requests.take(&id, None, None), Some('c'));
        let later = now + seconds(9);
        assert_eq!(requests.take_expired(later), Some(('a', seconds(1))));
        assert_eq!(requests.take_expired(later), Some(('b', seconds(2))));
        assert_eq!(requests.take_expired(later), None);
        assert_eq!(requests.poll_timeout(), None);
    }
}
