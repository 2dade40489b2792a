//! Two bots open an encrypted stream to each other, talk, and close it.
//!
//! ```text
//! cargo run --example demo
//! ```
//!
//! Without arguments they do it over a server inside this program, and every stanza that the server sees between them is
//! shown. With `--romeo` and `--juliet` they use two real accounts.

#[path = "../common/mod.rs"]
mod common;
mod ladder;

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use common::{failure::Failure, options::ServerOptions, output, transport_options::InitiatorOptions};
use futures::{SinkExt, StreamExt};
use jid::{FullJid, Jid};
use jingle_xmlstream::{
    Config, Connector, E2eStream, Endpoint, Error, Identity, KnownPeers, Secret, SignallingError,
};
use ladder::Ladder;
use mock_server::MockServer;
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{
    iq::Iq,
    stanza::Stanza,
    version::{VersionQuery, VersionResult},
};

/// It takes well under a second on one machine; rate-limited servers need longer.
const IN_ALL: Duration = Duration::from_secs(120);

/// What is logged: all warnings but that the server, which is in the same program, is talked to in plaintext.
const WITHIN_ONE_PROGRAM: &str = "warn,jingle_xmlstream::driver::connector=error";

/// For a stream to move. To connect on one machine takes milliseconds; a server that is slow to name its proxies adds 2 s.
const MOVE: Duration = Duration::from_secs(10);

/// Two bots open an encrypted stream to each other, talk, and close it.
///
/// Without accounts they use a server inside this program. With two, the passwords come from ROMEO_PASSWORD and
/// JULIET_PASSWORD. Both bots are on this machine, so without --bind they use 127.0.0.1. Exit codes: 0 all went well, 1 failure, 2 wrong usage.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    server: ServerOptions,
    /// The account of one bot
    #[arg(long, value_name = "JID", requires = "juliet")]
    romeo: Option<Jid>,
    /// The account of the other bot
    #[arg(long, value_name = "JID", requires = "romeo")]
    juliet: Option<Jid>,
    #[command(flatten)]
    transport: InitiatorOptions,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    arguments.transport.bind_by_default(IpAddr::V4(Ipv4Addr::LOCALHOST));
    common::start_logging(match &arguments.romeo {
        Some(_) => common::WARNINGS,
        None => WITHIN_ONE_PROGRAM,
    });
    let started = Instant::now();
    let demo = async {
        match (&arguments.romeo, &arguments.juliet) {
            (Some(romeo), Some(juliet)) => over_real_server(&arguments, romeo, juliet).await,
            _ if arguments.server.server.is_some() => {
                Err(Failure::Usage("--server needs --romeo and --juliet: two accounts on it".to_owned()))
            }
            _ => over_own_server(&arguments.transport).await,
        }
    };
    match tokio::time::timeout(IN_ALL, demo).await {
        Ok(Ok(())) => {
            println!("\nAll done, in {:.2} s.", started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Ok(Err(failure)) => {
            eprintln!("error ({}): {failure}", failure.kind());
            failure.exit_code()
        }
        Err(_) => {
            eprintln!("error (timeout): not done after {IN_ALL:?}");
            ExitCode::FAILURE
        }
    }
}

async fn over_own_server(transport: &InitiatorOptions) -> Result<(), Failure> {
    let server = MockServer::start().await;
    let address = server.addr();
    println!("A server of our own on {address}, for montague.lit and capulet.lit. What it sees:\n");
    let connector = || {
        // On loopback, to a server in the same process.
        let mut connector = Connector::default().server(address.ip().to_string(), address.port());
        connector.dangerous().plaintext();
        connector
    };
    let (password, secret) = (mock_server::PASSWORD, Secret::generate()?);
    let (romeos, juliets) = (jid("romeo@montague.lit/orchard")?, jid("juliet@capulet.lit/balcony")?);
    let romeo = Bot::login("Romeo", &romeos, password, connector(), transport, &secret).await?;
    let juliet = Bot::login("Juliet", &juliets, password, connector(), transport, &secret).await?;
    let ladder = Ladder::start(&server, romeo.jid.clone(), juliet.jid.clone());
    play(&romeo, &juliet, transport, Some(&ladder)).await
}

async fn over_real_server(arguments: &Arguments, romeo: &Jid, juliet: &Jid) -> Result<(), Failure> {
    let Arguments { server, transport, .. } = arguments;
    let romeos = common::environment("ROMEO_PASSWORD", "Romeo's password")?;
    let juliets = common::environment("JULIET_PASSWORD", "Juliet's password")?;
    let secret = Secret::generate()?;
    let romeo = Bot::login("Romeo", romeo, &romeos, server.connector(), transport, &secret).await?;
    let juliet = Bot::login("Juliet", juliet, &juliets, server.connector(), transport, &secret).await?;
    play(&romeo, &juliet, transport, None).await
}

fn jid(text: &str) -> Result<Jid, Failure> {
    text.parse().map_err(|error| Failure::Usage(format!("{text}: {error}")))
}

struct Bot {
    name: &'static str,
    jid: FullJid,
    endpoint: Endpoint,
}

impl Bot {
    async fn login(
        name: &'static str,
        jid: &Jid,
        password: &str,
        connector: Connector,
        transport: &InitiatorOptions,
        secret: &Secret,
    ) -> Result<Self, Failure> {
        let identity = Identity::generate_for(&jid.to_bare())?;
        let config = Config::new(identity, KnownPeers::in_memory()).secret(secret.clone());
        let config = transport.apply(config);
        let (endpoint, jid) = common::online(jid, password.to_owned(), connector, config).await?;
        Ok(Self { name, jid, endpoint })
    }
}

/// What happens, for the reader. Everything that the server saw before comes first.
fn tell(ladder: Option<&Ladder>, text: &str) {
    if let Some(ladder) = ladder {
        ladder.catch_up();
    }
    println!("{text}");
}

async fn play(
    romeo: &Bot,
    juliet: &Bot,
    transport: &InitiatorOptions,
    ladder: Option<&Ladder>,
) -> Result<(), Failure> {
    let tell = |text: &str| tell(ladder, text);
    tell(&format!("\n{} connects to {}.", romeo.jid, juliet.jid));
    let (mut romeos, mut juliets) =
        tokio::try_join!(romeo.endpoint.connect(&juliet.jid), accept(juliet, ladder))?;

    let negotiated = output::describe(&romeos);
    tell(&format!("\nThe stream is open, as {} sees it:\n{negotiated}\n", romeo.name));

    let (romeos_code, juliets_code) =
        tokio::try_join!(romeos.verification_code(), juliets.verification_code())?;
    tell(&format!(
        "The code that {} is shown: {romeos_code}, and {}: {juliets_code}.",
        romeo.name, juliet.name
    ));

    // XEP-0247's own first words.
    say(&mut romeos, "M'lady, I would be pleased to make your acquaintance.").await?;
    tell(&format!("{} hears: {}", juliet.name, hear(&mut juliets).await?));
    if transport.starts_fast() {
        tell(&moved(&romeos, &juliets).await);
    }
    say(&mut juliets, "Art thou not Romeo, and a Montague?").await?;
    tell(&format!("{} hears: {}", romeo.name, hear(&mut romeos).await?));

    let version = IqRequest::Get(VersionQuery.into());
    let (reply, ()) = tokio::try_join!(romeos.send_iq(version), answer(&mut juliets))?;
    tell(&format!("{} asks for {}'s software, and learns: {}", romeo.name, juliet.name, describe(reply)));

    tell(&format!("{} closes the stream.", romeo.name));
    let (end, closed) = tokio::join!(juliets.next(), romeos.close());
    closed?;
    match end {
        None => juliets.close().await?,
        Some(unexpected) => return Err(Failure::Echo(format!("not the end of the stream: {unexpected:?}"))),
    }
    tokio::join!(romeo.endpoint.close(), juliet.endpoint.close());
    tell("The stream, its session and both logins are closed, in good order.");
    Ok(())
}

async fn accept(bot: &Bot, ladder: Option<&Ladder>) -> Result<E2eStream, Error> {
    let incoming = bot.endpoint.accept().await.ok_or(Error::Signalling(SignallingError::Offline))?;
    let announced = incoming.security().unwrap_or_default();
    let announced: Vec<_> = announced.iter().map(ToString::to_string).collect();
    tell(
        ladder,
        &format!("\n{} accepts {}, who announces {}\n", bot.name, incoming.peer(), announced.join(", ")),
    );
    incoming.accept().await
}

/// Waits for both ends to move, and says to where. Messages could be sent all the while.
async fn moved(one: &E2eStream, other: &E2eStream) -> String {
    let (mut one, mut other) = (one.moves(), other.moves());
    let both = async {
        // The initiator knows when there will be no move.
        let transport = one.next().await?;
        other.next().await.map(|_| transport)
    };
    match tokio::time::timeout(MOVE, both).await {
        Ok(Some(transport)) => format!("\nThe stream moved to {transport}.\n"),
        Ok(None) => "\nThe stream can't move: it goes on where it is.\n".to_owned(),
        Err(_) => format!("\nThe stream has not moved in {MOVE:?}: it goes on where it is.\n"),
    }
}

async fn say(stream: &mut E2eStream, text: &str) -> Result<(), Error> {
    stream.send(common::chat("", text.to_owned())).await
}

async fn hear(stream: &mut E2eStream) -> Result<String, Failure> {
    match stream.next().await.transpose()? {
        Some(Stanza::Message(message)) => Ok(common::body(&message).unwrap_or("(nothing)").to_owned()),
        other => Err(Failure::Echo(format!("a message was to come, not {other:?}"))),
    }
}

/// Answers one request (XEP-0092). Pings the stream would answer by itself.
async fn answer(stream: &mut E2eStream) -> Result<(), Error> {
    while let Some(stanza) = stream.next().await {
        if let Stanza::Iq(Iq::Get { id, payload, .. }) = stanza?
            && VersionQuery::try_from(payload).is_ok()
        {
            let us = VersionResult {
                name: env!("CARGO_PKG_NAME").to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                os: None,
            };
            return stream.send(Iq::from_result(id, Some(us)).into()).await;
        }
    }
    Ok(())
}

fn describe(reply: IqResponse) -> String {
    match reply {
        IqResponse::Result(payload) => match payload.map(VersionResult::try_from) {
            Some(Ok(VersionResult { name, version, .. })) => format!("{name} {version}"),
            other => format!("nothing ({other:?})"),
        },
        IqResponse::Error(error) => format!("an error ({:?})", error.defined_condition),
    }
}
