//! What can be measured, in the order of the table.

mod direct;
mod ibb;
mod life;
mod limited;
mod proxy;
mod scale;
mod servers;
mod set_up;

use futures::future::LocalBoxFuture;

use crate::{
    plots::Plot,
    rounds::Effort,
    servers::{Brand, Skipped},
    table::Row,
};

/// What came out of a measurement.
pub(crate) struct Outcome {
    pub(crate) rows: Vec<Row>,
    pub(crate) plots: Vec<Plot>,
}

impl Outcome {
    fn of(rows: Vec<Row>) -> Self {
        Self { rows, plots: Vec::new() }
    }
}

/// One of the measurements.
pub(crate) struct Measure {
    /// What to call it on the command line.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Minutes of its own: only if it is named, or with `--slow`.
    pub(crate) slow: bool,
    pub(crate) run: fn(Effort) -> LocalBoxFuture<'static, Result<Outcome, Skipped>>,
}

/// All of them.
pub(crate) const ALL: &[Measure] = &[
    Measure {
        name: "direct",
        about: "messages a second on a direct stream, by size of body, against tokio-xmpp's XML stream",
        slow: false,
        run: |effort| Box::pin(direct::goodput(effort)),
    },
    Measure {
        name: "codec",
        about: "messages a second on a direct stream, by size of body, against the codec alone",
        slow: false,
        run: |effort| Box::pin(direct::codec(effort)),
    },
    Measure {
        name: "ping",
        about: "there and back on a direct stream, against tokio-xmpp's XML stream",
        slow: false,
        run: |effort| Box::pin(direct::ping(effort)),
    },
    Measure {
        name: "prosody",
        about: "a direct stream against the same two bots through Prosody",
        slow: false,
        run: |effort| Box::pin(servers::compare(effort, Brand::Prosody, 20.0)),
    },
    Measure {
        name: "ejabberd",
        about: "a direct stream against the same two bots through ejabberd",
        slow: false,
        run: |effort| Box::pin(servers::compare(effort, Brand::Ejabberd, 10.0)),
    },
    Measure {
        name: "setup-time",
        about: "from connect to the first stanza delivered, with 100 ms between the bots",
        slow: false,
        run: |effort| Box::pin(set_up::time(effort)),
    },
    Measure {
        name: "first-stanza",
        about: "from connect to a stanza that need not wait for the stream, with 100 ms between the bots",
        slow: false,
        run: |effort| Box::pin(set_up::first(effort)),
    },
    Measure {
        name: "setup-cpu",
        about: "processor time of a set-up, both ends, against that of the TLS handshake",
        slow: false,
        run: |effort| Box::pin(set_up::processor(effort)),
    },
    Measure {
        name: "scale",
        about: "1,000 streams in one process: memory, processor time, opened all at once",
        slow: false,
        run: |effort| Box::pin(scale::thousand(effort)),
    },
    Measure {
        name: "ibb-prosody",
        about: "in-band bytestreams through Prosody, near and far, against fixed windows",
        slow: false,
        run: |effort| Box::pin(ibb::paths(effort, Brand::Prosody)),
    },
    Measure {
        name: "ibb-ejabberd",
        about: "in-band bytestreams through ejabberd, near and far, against fixed windows",
        slow: false,
        run: |effort| Box::pin(ibb::paths(effort, Brand::Ejabberd)),
    },
    Measure {
        name: "proxy",
        about: "a stream through Prosody's SOCKS5 proxy against raw sockets through it",
        slow: false,
        run: |effort| Box::pin(proxy::compare(effort)),
    },
    Measure {
        name: "limited-prosody",
        about: "in-band bytestreams through a Prosody that limits the rate, and what else the bot says meanwhile",
        slow: true,
        run: |effort| Box::pin(limited::compare(effort, Brand::Prosody)),
    },
    Measure {
        name: "limited-ejabberd",
        about: "the same with ejabberd",
        slow: true,
        run: |effort| Box::pin(limited::compare(effort, Brand::Ejabberd)),
    },
    Measure {
        name: "life",
        about: "processor time by stanza over the 10 million stanzas of one stream",
        slow: true,
        run: |effort| Box::pin(life::constant(effort)),
    },
];
