//! What the example programs share: options, output, logging in.
#![allow(dead_code, reason = "each program uses a part of it")]

pub(crate) mod failure;
pub(crate) mod options;
pub(crate) mod outage_options;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod transport_options;
pub(crate) mod trust_options;

use std::{env, time::Duration};

use futures::StreamExt;
use jid::{FullJid, Jid};
use jingle_xmlstream::{Config, Connector, Endpoint, Events};
use tokio::signal::unix::{SignalKind, signal};
use tokio_xmpp::Event;
use tracing_subscriber::EnvFilter;
use xmpp_parsers::{message::Message, presence::Presence, stanza::Stanza};

use self::{failure::Failure, options::Options, output::Output};

/// tokio-xmpp tries a wrong password, or a server that is not there, again and again.
pub(crate) const LOGIN: Duration = Duration::from_secs(30);

/// What is logged by default.
pub(crate) const WARNINGS: &str = "warn";

/// Logs go to stderr; `RUST_LOG` says what is logged, in place of the default.
pub(crate) fn start_logging(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| progress::Stderr).init();
}

/// Logs in as the options say; `more` adds those about streams.
pub(crate) async fn login(
    options: &Options,
    more: impl FnOnce(Config) -> Config,
    output: Output,
) -> Result<Endpoint, Failure> {
    let password = environment("XMPP_PASSWORD", "the password")?;
    let config = more(options.trust.config(&options.jid.to_bare(), output)?);
    let fingerprint = config.identity().fingerprint().clone();
    let (endpoint, jid) = online(&options.jid, password, options.server.connector(), config).await?;
    output.online(&jid, &fingerprint);
    Ok(endpoint)
}

/// Logs in, or says after [`LOGIN`] that it can't.
pub(crate) async fn online(
    jid: &Jid,
    password: String,
    connector: Connector,
    config: Config,
) -> Result<(Endpoint, FullJid), Failure> {
    let (endpoint, events) = Endpoint::login(jid.clone(), password, connector, config);
    tokio::spawn(attend(endpoint.clone(), events));
    match tokio::time::timeout(LOGIN, endpoint.online()).await {
        Ok(online) => Ok((endpoint, online?)),
        Err(_) => Err(Failure::Login(jid.clone())),
    }
}

/// Says with every new session that we are there: so a peer whose stream lost its way finds us again. A session that was
/// resumed has its presence still.
async fn attend(endpoint: Endpoint, mut events: Events) {
    while let Some(event) = events.next().await {
        // A real bot handles its messages, presence and so on here.
        tracing::debug!(?event);
        if let Event::Online { resumed: false, .. } = event
            && let Err(error) = endpoint.send_presence(Presence::available()).await
        {
            tracing::debug!(%error, "the next session will have presence");
        }
    }
}

/// What is in this environment variable: as an argument, other users of the machine could see it.
pub(crate) fn environment(variable: &str, what: &str) -> Result<String, Failure> {
    env::var(variable)
        .map_err(|_| Failure::Usage(format!("the environment variable {variable} has to hold {what}")))
}

/// Resolves at SIGINT (Ctrl-C) or SIGTERM.
pub(crate) async fn interrupted() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

/// A chat message for a stream, which knows its addresses.
pub(crate) fn chat(id: impl Into<String>, body: String) -> Stanza {
    let message = Message { id: Some(xmpp_parsers::message::Id(id.into())), ..Message::chat(None) };
    message.with_body("".into(), body).into()
}

/// The body of a message, if it has one.
pub(crate) fn body(message: &Message) -> Option<&str> {
    message.get_best_body(vec![]).map(|(_, body)| body.as_str())
}
