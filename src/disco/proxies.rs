//! The search for bytestreams proxies: the server's items, which of them are proxies, and where those can be reached
//! (XEP-0065 #disco).

use std::{
    mem,
    time::{Duration, Instant},
};

use jid::Jid;
use xmpp_parsers::minidom::Element;

use crate::{
    Proxies as Source,
    transport::s5b::candidate::Proxy,
    wire::{
        bytestreams::{address_query, info_query, is_proxy, items_query, parse_items, parse_streamhosts},
        jingle::Malformed,
    },
};

/// Entities that are asked in one search: a server can list thousands of items, though usual ones have a handful.
pub(crate) const MAX_PROXIES_ASKED: usize = 16;
/// Addresses that are kept. One that works is enough; each costs a peer an attempt to connect.
pub(crate) const MAX_PROXIES: usize = 4;
/// Addresses of one proxy: IPv4 and IPv6.
const MAX_ADDRESSES: usize = 2;
/// For how long the outcome of a search is good: proxies move seldom, but sessions with a server last for months.
pub(crate) const VALIDITY: Duration = Duration::from_secs(60 * 60);

/// One request, an iq of type get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// What there is at a server.
    Items(Jid),
    /// Whether this is a proxy.
    Info(Jid),
    /// Where this proxy can be reached.
    Address(Jid),
}

impl Ask {
    /// Who is asked.
    pub(crate) fn to(&self) -> &Jid {
        match self {
            Self::Items(jid) | Self::Info(jid) | Self::Address(jid) => jid,
        }
    }

    /// The payload of the request.
    pub(crate) fn query(&self) -> Element {
        match self {
            Self::Items(_) => items_query(),
            Self::Info(_) => info_query(),
            Self::Address(_) => address_query(),
        }
    }
}

/// The proxies that are known, and the search for them.
#[derive(Debug)]
pub(crate) struct Proxies {
    source: Source,
    /// What the last complete search found.
    known: Vec<Proxy>,
    search: Search,
}

#[derive(Debug)]
enum Search {
    NotBegun,
    Running {
        /// Requests without an answer, never empty.
        outstanding: Vec<Ask>,
        found: Vec<Proxy>,
    },
    Complete {
        valid_until: Instant,
    },
}

impl Proxies {
    pub(crate) fn new(source: &Source) -> Self {
        Self { source: source.clone(), known: Vec::new(), search: Search::NotBegun }
    }

    /// There is a new session with the server: what was found before is forgotten, configured proxies' addresses too, and
    /// no answer to an earlier request is expected any more.
    pub(crate) fn reset(&mut self) {
        self.known.clear();
        self.search = Search::NotBegun;
    }

    /// Starts a search and returns the requests to send; none, if one is running or the outcome of the last is still good.
    ///
    /// `server` is the domain of the bot's own account.
    pub(crate) fn look(&mut self, now: Instant, server: &Jid) -> Vec<Ask> {
        match self.search {
            Search::Running { .. } => return Vec::new(),
            Search::Complete { valid_until } if now < valid_until => return Vec::new(),
            Search::NotBegun | Search::Complete { .. } => (),
        }
        let asks = match &self.source {
            Source::Discover => vec![Ask::Items(server.clone())],
            Source::These(jids) => ask_each(jids, Ask::Address),
        };
        self.proceed(now, asks.clone(), Vec::new());
        asks
    }

    /// The payload of the answer to a request (`None`: an error, no payload or a time-out); returns further requests to send.
    ///
    /// Every request needs an answer, or the search never ends; there is no deadline here. Answers that are not expected
    /// change nothing.
    pub(crate) fn handle_answer(&mut self, now: Instant, ask: &Ask, answer: Option<&Element>) -> Vec<Ask> {
        let Search::Running { outstanding, found } = &mut self.search else { return Vec::new() };
        let Some(position) = outstanding.iter().position(|other| other == ask) else { return Vec::new() };
        outstanding.swap_remove(position);
        let (mut outstanding, mut found) = (mem::take(outstanding), mem::take(found));

        let further = answer.map_or(Ok(Vec::new()), |answer| read(ask, answer, &mut found));
        let further = further.unwrap_or_else(|error| {
            tracing::debug!(from = %ask.to(), %error, "an answer in the search for proxies is of no use");
            Vec::new()
        });
        outstanding.extend_from_slice(&further);
        self.proceed(now, outstanding, found);
        further
    }

    fn proceed(&mut self, now: Instant, outstanding: Vec<Ask>, found: Vec<Proxy>) {
        self.search = if outstanding.is_empty() {
            self.known = found;
            Search::Complete { valid_until: now + VALIDITY }
        } else {
            Search::Running { outstanding, found }
        };
    }

    /// What the last search found, in the order of the answers; `None` while there is none that is complete, or a new one is running.
    pub(crate) fn found(&self) -> Option<&[Proxy]> {
        matches!(self.search, Search::Complete { .. }).then_some(self.known.as_slice())
    }

    /// What is known at the moment: while a search runs, what the one before found, or what it has found itself if that
    /// was nothing.
    pub(crate) fn so_far(&self) -> &[Proxy] {
        match &self.search {
            Search::Running { found, .. } if self.known.is_empty() => found,
            _ => &self.known,
        }
    }
}

fn read(ask: &Ask, answer: &Element, found: &mut Vec<Proxy>) -> Result<Vec<Ask>, Malformed> {
    match ask {
        Ask::Items(_) => Ok(ask_each(&parse_items(answer)?, Ask::Info)),
        Ask::Info(jid) if is_proxy(answer) => Ok(vec![Ask::Address(jid.clone())]),
        Ask::Info(_) => Ok(Vec::new()),
        Ask::Address(jid) => {
            let (its_own, others): (Vec<_>, Vec<_>) =
                parse_streamhosts(answer)?.into_iter().partition(|streamhost| streamhost.jid == *jid);
            if let Some(other) = others.first() {
                // Whom it named would be asked to activate, and so told who the peer is.
                tracing::debug!(from = %jid, names = %other.jid, "a proxy answers for another, which is left out");
            }
            for streamhost in its_own.into_iter().take(MAX_ADDRESSES) {
                let proxy = Proxy { jid: streamhost.jid, host: streamhost.host, port: streamhost.port };
                if found.len() < MAX_PROXIES && !found.contains(&proxy) {
                    found.push(proxy);
                }
            }
            Ok(Vec::new())
        }
    }
}

/// A request to each of the first JIDs, once.
fn ask_each(jids: &[Jid], ask: impl Fn(Jid) -> Ask) -> Vec<Ask> {
    let mut distinct: Vec<&Jid> = Vec::new();
    for jid in jids {
        if distinct.len() < MAX_PROXIES_ASKED && !distinct.contains(&jid) {
            distinct.push(jid);
        }
    }
    distinct.into_iter().cloned().map(ask).collect()
}

#[cfg(test)]
mod tests;
