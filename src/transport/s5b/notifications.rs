//! What the peer says in transport-infos (XEP-0260 #connect, #complete).

use std::time::Instant;

use xmpp_parsers::stanza_error::StanzaError;

use super::{
    S5b,
    candidate::{Candidate, candidates_of},
    dialling::prevails,
    dst_addr,
    failures::shortened,
    state::{Ahead, Own, PeerNotification, State},
};
use crate::{
    Candidates,
    wire::{
        errors,
        s5b::{MAX_CANDIDATES, Notification, S5bTransport},
    },
};

type Answer = Result<(), Box<StanzaError>>;

impl S5b {
    pub(super) fn receive(&mut self, now: Instant, info: &S5bTransport) -> Answer {
        if info.sid != self.setup.sid {
            return Err(not_found(format!("there is no bytestream with the sid {}", shortened(&info.sid))));
        }
        if info.unsupported {
            // XEP-0166 #session-info, which is about transport-info as well.
            return Err(Box::new(errors::unsupported_info()));
        }
        self.learn(now, info);
        let answer = match &info.notification {
            None => Ok(()),
            Some(Notification::CandidateUsed(cid)) => self.candidate_used(cid),
            Some(Notification::CandidateError) => self.heard(PeerNotification::Error),
            Some(Notification::Activated(cid)) => self.activated(cid),
            Some(Notification::ProxyError) => self.proxy_error(),
        };
        self.advance(now);
        answer
    }

    // ---- candidates ------------------------------------------------------------------------

    /// Takes candidates, as long as we have not said which one we use.
    pub(super) fn learn(&mut self, now: Instant, info: &S5bTransport) {
        let State::Choosing(choosing) = &mut self.state else { return };
        let Own::Dialling(dialling) = &mut choosing.own else { return };
        if let Some(dstaddr) = info.dstaddr.as_deref().and_then(dst_addr::readable) {
            self.dstaddr = Some(dstaddr.to_owned());
        }
        let mut news = candidates_of(info);
        news.retain(|candidate| self.theirs.iter().all(|known| known.cid != candidate.cid));
        // However many transport-infos come.
        news.truncate(MAX_CANDIDATES.saturating_sub(self.theirs.len()));
        if news.is_empty() {
            return;
        }
        dialling.renew_patience(now);
        self.theirs.extend_from_slice(&news);

        let (setup, notification) = (&self.setup, &self.peer_notification);
        news.retain(|candidate| match setup.may_dial(candidate) {
            Ok(()) => match notification {
                Some(PeerNotification::Used(chosen)) => {
                    prevails(candidate.priority, chosen.priority, setup.parties.role)
                }
                Some(PeerNotification::Error) | None => true,
            },
            Err(why) => {
                self.failures.note(candidate, why);
                false
            }
        });
        dialling.add(news);
    }

    // ---- the peer's choice ----------------------------------------------------------------

    fn candidate_used(&mut self, cid: &str) -> Answer {
        match self.ours.iter().find(|candidate| candidate.cid == cid) {
            Some(candidate) => self.heard(PeerNotification::Used(candidate.clone())),
            None => Err(not_found(format!("we offered no candidate {}", shortened(cid)))),
        }
    }

    fn heard(&mut self, notification: PeerNotification) -> Answer {
        match &self.peer_notification {
            // It is said once; a repetition changes nothing.
            Some(earlier) if *earlier == notification => return Ok(()),
            Some(_) => return Err(out_of_order()),
            None => {}
        }
        if let State::Choosing(choosing) = &mut self.state
            && let Own::Dialling(dialling) = &mut choosing.own
        {
            dialling.stop_waiting();
            if let PeerNotification::Used(candidate) = &notification {
                let pruned = dialling.prune(candidate.priority, self.setup.parties.role);
                self.abandon_all(pruned);
            }
        }
        self.peer_notification = Some(notification);
        Ok(())
    }

    // ---- about proxies ---------------------------------------------------------------------

    fn activated(&mut self, cid: &str) -> Answer {
        let Some(candidate) = self.theirs.iter().find(|candidate| candidate.cid == cid) else {
            return Err(not_found(format!("you offered no candidate {}", shortened(cid))));
        };
        let is_proxy = candidate.is_proxy();
        if self.peer_activated(cid) {
            return Ok(());
        }
        match &mut self.state {
            State::Choosing(choosing) if is_proxy => {
                // Nothing undoes a proxy-error.
                choosing.ahead.get_or_insert_with(|| Ahead::Activated(cid.to_owned()));
                Ok(())
            }
            State::Open(chosen) if chosen.candidate.cid == cid && is_proxy => Ok(()),
            // It crossed what ended the negotiation.
            State::Over => Ok(()),
            _ => Err(out_of_order()),
        }
    }

    fn proxy_error(&mut self) -> Answer {
        match &mut self.state {
            State::Choosing(choosing) => {
                if !self.ours.iter().chain(&self.theirs).any(Candidate::is_proxy) {
                    return Err(out_of_order());
                }
                // XEP-0260 #complete is about the nominated proxy, so if it comes early, it waits for the nomination.
                choosing.ahead = Some(Ahead::ProxyError);
                Ok(())
            }
            State::AwaitingActivation(_) | State::DiallingProxy { .. } | State::Activating(_) => {
                self.fail_by_proxy_error();
                Ok(())
            }
            // The connection is not ours any more; its end tells its user.
            State::Open(chosen) if chosen.candidate.is_proxy() => Ok(()),
            State::Open(_) => Err(out_of_order()),
            State::Over => Ok(()),
        }
    }
}

impl super::Setup {
    /// Whether a candidate of the peer's may be dialled, as far as it can be seen before a name is resolved.
    fn may_dial(&self, candidate: &Candidate) -> Result<(), &'static str> {
        if self.policy == Candidates::ProxyOnly && !candidate.is_proxy() {
            return Err("not dialled: it is no proxy");
        }
        match candidate.address() {
            Some(address) if !self.reach.admits(address) => Err("not dialled: a special address"),
            _ => Ok(()),
        }
    }
}

fn not_found(text: String) -> Box<StanzaError> {
    Box::new(errors::item_not_found(text))
}

fn out_of_order() -> Box<StanzaError> {
    Box::new(errors::out_of_order())
}
