//! What we can offer for SOCKS5 bytestreams: the addresses of our listener, and proxies (XEP-0260 #select).

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use jid::Jid;
use xmpp_parsers::{iq::Iq, minidom::Element};

use super::{
    Effect, Output, Purpose, Sessions, random_id,
    state::{Active, Gather, Replacement, SessionId, State},
};
use crate::{
    Candidates,
    disco::Ask,
    transport::{
        S5bOffer, When,
        s5b::{
            self, S5b, Setup,
            candidate::{Gathered, Parties, Reach, candidates_of, own_candidates},
        },
    },
    wire::s5b::S5bTransport,
};

/// How long a negotiation waits for proxies that are being looked for. It takes three round trips to the own server, the
/// first time; an offer without them is still an offer.
const SEARCH: Duration = Duration::from_secs(2);

/// The same for a move, which nobody waits for: each round trip takes seconds where a server limits the rate of what is
/// said in band meanwhile, and without a proxy there may be no move.
const SEARCH_FOR_A_MOVE: Duration = Duration::from_secs(30);

/// How long the listener stays open when nobody needs it: opening it anew for every session would change its port.
const LISTENER_IDLE: Duration = Duration::from_secs(60);

impl Sessions {
    /// Begins to find out what we can offer; goes on in [`Sessions::continue_gathering`].
    pub(super) fn gather(&mut self, now: Instant, id: SessionId) -> Gather {
        let candidates = self.candidates_for(id);
        if candidates != Candidates::None {
            self.look_for_proxies(now);
        }
        let direct = match candidates {
            Candidates::All | Candidates::AfterAccept => {
                self.outputs.push_back(Output::Effect(Effect::Gather(id)));
                self.keep_listening(now);
                None
            }
            Candidates::ProxyOnly | Candidates::None => Some(Vec::new()),
        };
        let moves = self.table.get(id).is_some_and(|session| matches!(session.state, State::Active(_)));
        let deadline = now + if moves { SEARCH_FOR_A_MOVE } else { SEARCH };
        self.wake_no_later_than(deadline);
        Gather { direct, deadline }
    }

    /// The answer to [`Effect::Gather`].
    pub(crate) fn handle_gathered(&mut self, now: Instant, id: SessionId, addresses: Vec<SocketAddr>) {
        if let Some(gather) = self.table.get_mut(id).and_then(|session| session.gather_mut()) {
            gather.direct = Some(addresses);
            self.continue_gathering(now, id);
        }
    }

    /// Takes the next step if all is known, or time is up.
    pub(super) fn continue_gathering(&mut self, now: Instant, id: SessionId) {
        let span = self.span(id);
        let _entered = span.enter();
        let proxies_known = self.candidates_for(id) == Candidates::None || self.proxies.found().is_some();
        let reach = self.reach();
        let Some(session) = self.table.get_mut(id) else { return };
        let Some(gather) = session
            .gather_mut()
            .filter(|gather| now >= gather.deadline || (proxies_known && gather.direct.is_some()))
        else {
            return;
        };
        let direct = gather.direct.take().unwrap_or_default();
        // One that we would not connect to ourselves is of no use.
        let proxies = self.proxies.so_far().iter().filter(|proxy| reach.admits_host(&proxy.host));
        let gathered = Gathered {
            // Where nothing listens, a port-forward leads nowhere.
            external: if direct.is_empty() { Vec::new() } else { self.config.s5b.external.clone() },
            proxies: proxies.cloned().collect(),
            direct,
        };
        match &session.state {
            State::Gathering(_) => self.offer_s5b(now, id, &gathered),
            State::Accepting(_) => self.accept_s5b(now, id, &gathered),
            State::Active(Active { replacement: Replacement::Gathering(_), .. }) => {
                self.propose_move(now, id, &gathered);
            }
            State::Active(Active { replacement: Replacement::Answering { .. }, .. }) => {
                self.agree_to_move(now, id, &gathered);
            }
            _ => {}
        }
    }

    // ---- proxies -------------------------------------------------------------------------

    /// Looks for proxies, unless that was done.
    pub(super) fn look_for_proxies(&mut self, now: Instant) {
        let Some(own) = &self.bound else { return };
        let server = Jid::from(own.to_bare()).domain().to_owned();
        let asks = self.proxies.look(now, &Jid::from_parts(None, &server, None));
        self.ask_for_proxies(now, asks);
    }

    fn ask_for_proxies(&mut self, now: Instant, asks: Vec<Ask>) {
        let timeout = self.config.timeouts.disco;
        for ask in asks {
            let (to, payload) = (ask.to().clone(), ask.query());
            let purpose = Purpose::Proxies(ask);
            let id = self.requests.add(Some(to.clone()), purpose, Some((now + timeout, timeout)));
            self.wake_no_later_than(now + timeout);
            self.outputs.push_back(Output::Send(Iq::Get { from: None, to: Some(to), id, payload }.into()));
        }
    }

    pub(super) fn handle_proxies(&mut self, now: Instant, ask: &Ask, answer: Option<&Element>) {
        let asks = self.proxies.handle_answer(now, ask, answer);
        self.ask_for_proxies(now, asks);
        if self.proxies.found().is_some() {
            for id in self.table.ids() {
                self.continue_gathering(now, id);
            }
        }
    }

    // ---- what is made of it --------------------------------------------------------------

    /// What a negotiation of this session starts with; `None` while we are offline.
    pub(super) fn s5b_setup(&self, id: SessionId, sid: String, timeout: Duration) -> Option<Setup> {
        let session = self.table.get(id)?;
        let s5b = &self.config.s5b;
        Some(Setup {
            sid,
            parties: Parties { own: self.bound.clone()?, peer: session.peer.clone(), role: session.role },
            policy: session.candidates,
            reach: self.reach(),
            connect_timeout: s5b.connect_timeout,
            proxy_timeout: s5b.proxy_timeout,
            timeout,
        })
    }

    /// Which special addresses we connect to: those of a kind that the user lists.
    fn reach(&self) -> Reach {
        let listed = |special: fn(&IpAddr) -> bool| self.config.s5b.bind.iter().any(special);
        Reach {
            loopback: listed(IpAddr::is_loopback),
            link_local: listed(|address| match address {
                IpAddr::V4(address) => address.is_link_local(),
                IpAddr::V6(address) => address.is_unicast_link_local(),
            }),
        }
    }

    /// XEP-0260 #security-sharing: the user controls who is shown which addresses.
    pub(crate) fn show_candidates(&mut self, id: SessionId, candidates: Candidates) {
        if let Some(session) = self.table.get_mut(id) {
            session.candidates = candidates;
        }
    }

    pub(super) fn candidates_for(&self, id: SessionId) -> Candidates {
        self.table.get(id).map_or(Candidates::None, |session| session.candidates)
    }

    /// An offer with a sid of its own, whose DST.ADDRs our listener knows from now on.
    pub(super) fn s5b_offer(
        &mut self,
        id: SessionId,
        gathered: &Gathered,
        timeout: Duration,
        candidates: When,
    ) -> Option<S5bOffer> {
        let setup = self.s5b_setup(id, random_id(), timeout)?;
        let ours = own_candidates(gathered, setup.policy, &setup.parties, &[]);
        let offer = S5bOffer::new(setup, ours, candidates);
        self.expect_at_listener(id, offer.dst_addrs());
        Some(offer)
    }

    /// The negotiation that the peer proposes, and our `<transport/>` for it.
    pub(super) fn answer_s5b(
        &mut self,
        now: Instant,
        id: SessionId,
        theirs: &S5bTransport,
        gathered: &Gathered,
        timeout: Duration,
    ) -> Option<(Box<S5b>, Element)> {
        let setup = self.s5b_setup(id, theirs.sid.clone(), timeout)?;
        let offered = candidates_of(theirs);
        let ours = own_candidates(gathered, setup.policy, &setup.parties, &offered);
        let transport = s5b::transport(&setup, &ours).to_element();
        match S5b::new(now, setup, ours, theirs) {
            Ok(s5b) => {
                self.expect_at_listener(id, s5b.dst_addrs());
                Some((Box::new(s5b), transport))
            }
            Err(what) => {
                tracing::info!(what, "a SOCKS5 bytestream that can't be");
                None
            }
        }
    }

    // ---- the listener --------------------------------------------------------------------

    /// Somebody who asks our listener for one of these DST.ADDRs is the session's peer, or the session's peer told it.
    pub(super) fn expect_at_listener(&mut self, id: SessionId, dst_addrs: Vec<String>) {
        self.expect_nobody(id);
        for dst_addr in dst_addrs {
            // Nobody takes another session's: without separators, other names and sids can give the same hash.
            self.expected.entry(dst_addr).or_insert(id);
        }
    }

    pub(super) fn expect_nobody(&mut self, id: SessionId) {
        self.expected.retain(|_, expected| *expected != id);
    }

    fn keep_listening(&mut self, now: Instant) {
        let until = now + LISTENER_IDLE;
        self.listening_until = Some(until);
        self.wake_no_later_than(until);
    }

    /// Closes the listener when nobody has needed it for a while.
    pub(super) fn handle_listener_timeout(&mut self, now: Instant) {
        if self.listening_until.is_none_or(|until| now < until) {
            return;
        }
        if self.table.sessions().any(|session| session.is_connecting()) {
            self.keep_listening(now);
        } else {
            self.listening_until = None;
            self.outputs.push_back(Output::Effect(Effect::StopListening));
        }
    }
}
