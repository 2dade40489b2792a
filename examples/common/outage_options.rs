//! The options about streams whose way to the peer is lost.

use std::time::Duration;

use clap::Args;
use jingle_xmlstream::{Config, SmConfig, Timeouts};

#[derive(Args, Debug)]
#[command(next_help_heading = "When the way to the peer is lost")]
pub(crate) struct OutageOptions {
    /// How long a stream waits for another way, in seconds; with 0, losing it ends the stream. The shorter time of both sides
    /// counts; without it, five minutes
    #[arg(long, value_name = "SECONDS")]
    sm_time: Option<u64>,
    /// Neither acknowledge stanzas nor ask for acknowledgements: what is lost with the way is lost
    #[arg(long, conflicts_with = "sm_time")]
    no_sm: bool,
    /// Seconds of silence of our own after which the peer is shown that we are there; 0 for never
    #[arg(long, value_name = "SECONDS")]
    keep_alive: Option<u64>,
    /// Seconds of silence of the peer after which it is asked whether it is there; 0 for never
    #[arg(long, value_name = "SECONDS")]
    probe: Option<u64>,
    /// Seconds that it has to answer
    #[arg(long, value_name = "SECONDS")]
    silence: Option<u64>,
}

impl OutageOptions {
    pub(crate) fn apply(&self, config: Config) -> Config {
        config.sm(self.management()).timeouts(self.timeouts())
    }

    fn management(&self) -> SmConfig {
        let mut sm = SmConfig::default();
        sm.enabled = !self.no_sm;
        sm.resumption = self.sm_time.map_or(sm.resumption, Duration::from_secs);
        sm
    }

    fn timeouts(&self) -> Timeouts {
        let mut timeouts = Timeouts::default();
        timeouts.keep_alive = self.keep_alive.map_or(timeouts.keep_alive, Duration::from_secs);
        timeouts.probe = self.probe.map_or(timeouts.probe, Duration::from_secs);
        timeouts.silence = self.silence.map_or(timeouts.silence, Duration::from_secs);
        timeouts
    }
}

/// The options of a program that initiates.
#[derive(Args, Debug)]
#[command(next_help_heading = "When the way to the peer is lost")]
pub(crate) struct InitiatorOutageOptions {
    #[command(flatten)]
    outage: OutageOptions,
    /// Go on with a new stream if the peer has forgotten this one; what it did not acknowledge is named, and not sent again
    #[arg(long, conflicts_with = "no_sm")]
    renew: bool,
}

impl InitiatorOutageOptions {
    pub(crate) fn apply(&self, config: Config) -> Config {
        let mut sm = self.outage.management();
        sm.renew = self.renew;
        self.outage.apply(config).sm(sm)
    }
}
