//! The DST.ADDR of the SOCKS5 requests (XEP-0065 #mediated-proto-establish, XEP-0260 #exchange): the name under which the
//! two ends of a bytestream find each other.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use jid::FullJid;

use super::candidate::{Candidate, CandidateType, Parties};
use crate::session::Role;

/// DST.ADDRs that are asked for at one candidate: what the peer says, and the two readings of XEP-0260.
pub(super) const MAX_DST_ADDRS: usize = 3;

impl Parties {
    /// For our proxies, which we shall activate (XEP-0260 #exchange): it is the `dstaddr` of our `<transport/>`.
    pub(crate) fn own_dst_addr(&self, sid: &str) -> String {
        dst_addr(sid, &self.own, &self.peer)
    }

    /// What those who connect to our listener may ask for, in lower case.
    // COMPAT Psi, Gajim: XEP-0260 #exchange says whose JID is first for proxies alone. Most have the JID of the one who
    // offered the candidate first for direct ones too; these two always have the initiator's.
    pub(crate) fn dst_addrs(&self, sid: &str) -> Vec<String> {
        deduplicated([self.own_dst_addr(sid), self.initiators_dst_addr(sid)])
    }

    /// What to ask for at a candidate of the peer's, in this order.
    pub(super) fn dst_addrs_at(&self, theirs: &Candidate, sid: &str, dstaddr: Option<&str>) -> Vec<String> {
        let owner_first = || dst_addr(sid, &self.peer, &self.own);
        let said = dstaddr.map(ToOwned::to_owned).unwrap_or_else(owner_first);
        match theirs.kind {
            CandidateType::Proxy => vec![said],
            // COMPAT Smack: its listener takes the `dstaddr` that it announced.
            CandidateType::Direct | CandidateType::Assisted | CandidateType::Tunnel => {
                deduplicated::<MAX_DST_ADDRS>([said, owner_first(), self.initiators_dst_addr(sid)])
            }
        }
    }

    fn initiators_dst_addr(&self, sid: &str) -> String {
        match self.role {
            Role::Initiator => dst_addr(sid, &self.own, &self.peer),
            Role::Responder => dst_addr(sid, &self.peer, &self.own),
        }
    }
}

/// A peer's `dstaddr`, if it is a SHA-1 in hexadecimal. Anything else would have us send bytes of the peer's choice to a
/// host of its choice, and no proxy takes it.
pub(super) fn readable(dstaddr: &str) -> Option<&str> {
    let hexadecimal = dstaddr.len() == 40 && dstaddr.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then_some(dstaddr)
}

fn dst_addr(sid: &str, first: &FullJid, second: &FullJid) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{sid}{first}{second}").as_bytes());
    let mut hexadecimal = String::with_capacity(40);
    for byte in hash.as_ref() {
        // Writing to a String never fails.
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    hexadecimal
}

fn deduplicated<const N: usize>(addresses: [String; N]) -> Vec<String> {
    let mut unique = Vec::with_capacity(N);
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    unique
}
