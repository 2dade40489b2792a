//! The options about what carries the bytes of a stream.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

use clap::{Args, ValueEnum};
use jid::Jid;
use jingle_xmlstream::{Candidates, Config, Proxies, S5bConfig, Start, Transports};

#[derive(Args, Debug)]
#[command(next_help_heading = "What carries the bytes")]
pub(crate) struct TransportOptions {
    /// Which transports may be used
    #[arg(long, value_enum, default_value = "auto")]
    transport: TransportChoice,
    /// Which addresses the peer is offered; whoever is connected to sees where the connection comes from
    #[arg(long, value_enum, default_value = "all")]
    candidates: CandidatesChoice,
    /// Listen on this address and offer it (repeatable); without it, on all of this machine's, but not loopback and link-local
    /// ones, which have to be given here if they, or a peer's, are to be used
    #[arg(long, value_name = "ADDR")]
    bind: Vec<IpAddr>,
    /// Listen on this port, or on the first free one of a range; without it, the system chooses
    #[arg(long, value_name = "N or N-M")]
    port: Option<Ports>,
    /// Also offer this address, from which a port-forward leads to ours (repeatable)
    #[arg(long, value_name = "ADDR:PORT", requires = "port", value_parser = reachable)]
    external: Vec<SocketAddr>,
    /// Offer this SOCKS5 proxy (repeatable); without it, those that the server lists
    #[arg(long, value_name = "JID")]
    proxy: Vec<Jid>,
}

impl TransportOptions {
    pub(crate) fn apply(&self, config: Config) -> Config {
        let mut s5b = S5bConfig::default();
        s5b.candidates = self.candidates.into();
        s5b.bind.clone_from(&self.bind);
        s5b.external.clone_from(&self.external);
        if let Some(Ports(ports)) = &self.port {
            s5b.ports = ports.clone();
        }
        if !self.proxy.is_empty() {
            s5b.proxies = Proxies::These(self.proxy.clone());
        }
        config.transports(self.transport.into()).s5b(s5b)
    }
}

/// The options of a program that initiates.
#[derive(Args, Debug)]
#[command(next_help_heading = "What carries the bytes")]
pub(crate) struct InitiatorOptions {
    #[command(flatten)]
    transport: TransportOptions,
    /// What a stream begins on, with --transport auto
    #[arg(long, value_enum, default_value = "best")]
    start: StartChoice,
}

impl InitiatorOptions {
    pub(crate) fn apply(&self, config: Config) -> Config {
        self.transport.apply(config.start(self.start.into()))
    }

    /// Whether a stream is to begin in band and then move.
    pub(crate) fn starts_fast(&self) -> bool {
        matches!((self.transport.transport, self.start), (TransportChoice::Auto, StartChoice::Fast))
    }

    /// Has it use this address, if no option says which.
    pub(crate) fn bind_by_default(&mut self, address: IpAddr) {
        if self.transport.bind.is_empty() {
            self.transport.bind.push(address);
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransportChoice {
    /// SOCKS5 bytestreams where there is a way, in-band bytestreams where there is none
    Auto,
    /// In-band bytestreams alone, through the servers: no address is shown
    Ibb,
    /// SOCKS5 bytestreams alone: where there is no way, there is no stream
    S5b,
}

impl From<TransportChoice> for Transports {
    fn from(choice: TransportChoice) -> Self {
        match choice {
            TransportChoice::Auto => Self::Auto,
            TransportChoice::Ibb => Self::Ibb,
            TransportChoice::S5b => Self::S5b,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StartChoice {
    /// In-band bytestreams, at once; the live stream moves to SOCKS5 bytestreams when they are connected
    Fast,
    /// The best transport that there is, once it is connected
    Best,
}

impl From<StartChoice> for Start {
    fn from(choice: StartChoice) -> Self {
        match choice {
            StartChoice::Fast => Self::Fast,
            StartChoice::Best => Self::Best,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CandidatesChoice {
    /// Ours, those of --external, and proxies
    All,
    /// The same, but not before the peer has accepted
    AfterAccept,
    /// Proxies alone, and nothing else is connected to: the peer sees our address only if it runs the proxy
    ProxyOnly,
    /// None; but whatever the peer offers is connected to, and then the peer sees our address
    None,
}

impl From<CandidatesChoice> for Candidates {
    fn from(choice: CandidatesChoice) -> Self {
        match choice {
            CandidatesChoice::All => Self::All,
            CandidatesChoice::AfterAccept => Self::AfterAccept,
            CandidatesChoice::ProxyOnly => Self::ProxyOnly,
            CandidatesChoice::None => Self::None,
        }
    }
}

/// `5000`, `5000-5009`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ports(RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("the range is empty: {first} is more than {last}"));
        }
        Ok(Self(first..=last))
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is no port: those are 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

fn reachable(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "it takes an IP address and a port: 203.0.113.7:5000, [2001:db8::7]:5000".to_owned())?;
    match (address.port(), address.ip().is_unspecified()) {
        (0, _) => Err("nothing can be reached at port 0".to_owned()),
        (_, true) => Err(format!("nothing can be reached at {}", address.ip())),
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_a_range() {
        assert_eq!("5000".parse(), Ok(Ports(5000..=5000)));
        assert_eq!("5000-5009".parse(), Ok(Ports(5000..=5009)));
        for wrong in ["", "0", "65536", "5009-5000", "5000-", "-5000", "1-2-3"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_can_be_reached_is_external() {
        assert!(reachable("203.0.113.7:5000").is_ok());
        assert!(reachable("[2001:db8::7]:5000").is_ok());
        for wrong in ["203.0.113.7", "203.0.113.7:0", "0.0.0.0:5000", "[::]:5000", "example.org:5000"] {
            assert!(reachable(wrong).is_err(), "{wrong}");
        }
    }
}
