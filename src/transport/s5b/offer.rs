//! What we offer (XEP-0260 #exchange): which candidates, in which order, with which priorities.

use std::{collections::HashSet, net::IpAddr};

use jid::Jid;

use super::candidate::{Candidate, CandidateType, Gathered, Parties, Place, Proxy, Reach};
use crate::session::{Role, random_id};

/// Candidates that we offer: a peer dials them one after the other, and a stanza has to hold them all.
pub(crate) const MAX_OWN: usize = 16;
/// Of these, how many are kept free for proxies, so that a machine with many addresses still offers a way that works
/// from anywhere. The same goes for what we dial.
pub(super) const MAX_RESERVED: usize = 4;

/// Local preferences (XEP-0260 #exchange) go down from here: an initiator's are odd, a responder's even. Together with
/// uncommon values (others have 0, 100 or 10000) it keeps our candidates from the priorities of a peer's, with
/// which both sides would have to agree on who chose what.
// COMPAT Dino: with equal priorities it nominates the wrong one of the two.
const HIGHEST_LOCAL: u32 = 48_610;
/// Even, so that odd stays odd; small enough for all of ours and all that a peer can be in the way with.
const LOCAL_STEP: u32 = 514;

/// Makes candidates of what the user lets us show, the most preferred first.
///
/// `offered` is what the peer offered before: no host and port of it is offered again, and no priority is the same.
pub(super) fn candidates(
    addresses: Vec<Draft>,
    proxies: Vec<Draft>,
    role: Role,
    offered: &[Candidate],
) -> Vec<Candidate> {
    let room = MAX_OWN - proxies.len().min(MAX_RESERVED);
    let mut places: HashSet<Place> = offered.iter().map(Candidate::place).collect();
    // XEP-0260 #exchange: nothing that the peer offered already; nor do we repeat ourselves.
    let mut unseen = |draft: &Draft| draft.port != 0 && places.insert(Place::new(&draft.host, draft.port));

    let mut drafts: Vec<Draft> = addresses.into_iter().filter(|draft| unseen(draft)).take(room).collect();
    drafts.extend(proxies.into_iter().filter(|draft| unseen(draft)));
    drafts.truncate(MAX_OWN);

    let mut priorities = Priorities::new(role, offered);
    drafts.into_iter().map(|draft| draft.with_priority(priorities.next(draft.kind))).collect()
}

/// What is left of our candidates, once we know what the peer offered before it learned them.
pub(super) fn without(mut ours: Vec<Candidate>, role: Role, offered: &[Candidate]) -> Vec<Candidate> {
    let places: HashSet<Place> = offered.iter().map(Candidate::place).collect();
    ours.retain(|candidate| !places.contains(&candidate.place()));
    let mut priorities = Priorities::new(role, offered);
    for candidate in &mut ours {
        candidate.priority = priorities.next(candidate.kind);
    }
    ours
}

/// A candidate without cid and priority.
pub(super) struct Draft {
    host: String,
    port: u16,
    jid: Jid,
    kind: CandidateType,
}

impl Draft {
    fn with_priority(&self, priority: u32) -> Candidate {
        Candidate {
            // Nobody but the two can name it.
            cid: random_id(),
            host: self.host.clone(),
            port: self.port,
            jid: Some(self.jid.clone()),
            priority,
            kind: self.kind,
        }
    }
}

/// Where our listener can be reached, the likeliest to work first.
pub(super) fn addresses(gathered: &Gathered, parties: &Parties) -> Vec<Draft> {
    let mut direct: Vec<_> = gathered.direct.iter().collect();
    direct.sort_by_key(|address| distance(address.ip()));
    let direct = direct.into_iter().map(|address| (address, CandidateType::Direct));
    let external = gathered.external.iter().map(|address| (address, CandidateType::Assisted));
    direct
        .chain(external)
        .filter(|(address, _)| Reach::EVERYWHERE.admits(address.ip()))
        .map(|(address, kind)| Draft {
            // Without the scope of an IPv6 address, which means nothing on another machine.
            host: address.ip().to_canonical().to_string(),
            port: address.port(),
            jid: parties.own.clone().into(),
            kind,
        })
        .collect()
}

pub(super) fn proxies(gathered: &Gathered) -> Vec<Draft> {
    let draft = |proxy: &Proxy| Draft {
        host: proxy.host.clone(),
        port: proxy.port,
        jid: proxy.jid.clone(),
        kind: CandidateType::Proxy,
    };
    gathered.proxies.iter().map(draft).collect()
}

/// How near a peer must be to reach an address; the farther, the likelier it works, so that is sorted to the front.
fn distance(address: IpAddr) -> u8 {
    match address.to_canonical() {
        address if address.is_loopback() => 3,
        IpAddr::V4(address) if address.is_link_local() => 2,
        IpAddr::V6(address) if address.is_unicast_link_local() => 2,
        // RFC 6598: shared by the customers of one provider.
        IpAddr::V4(address) if matches!(address.octets(), [100, 64..=127, ..]) => 1,
        IpAddr::V4(address) if address.is_private() => 1,
        IpAddr::V6(address) if address.is_unique_local() => 1,
        _ => 0,
    }
}

/// Gives out priorities, each lower than the last among those of one type.
struct Priorities<'a> {
    local: u32,
    offered: &'a [Candidate],
}

impl<'a> Priorities<'a> {
    fn new(role: Role, offered: &'a [Candidate]) -> Self {
        let odd = match role {
            Role::Initiator => 1,
            Role::Responder => 0,
        };
        Self { local: HIGHEST_LOCAL + odd, offered }
    }

    /// XEP-0260 #exchange: priority = (2^16)*(type preference) + (local preference).
    fn next(&mut self, kind: CandidateType) -> u32 {
        loop {
            self.local = self.local.saturating_sub(LOCAL_STEP);
            let priority = (kind.preference() << 16) + self.local;
            let taken = self.offered.iter().any(|candidate| candidate.priority == priority);
            if !taken || self.local == 0 {
                return priority;
            }
        }
    }
}
