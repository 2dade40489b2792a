//! Accepts streams, any number at once, and sends every message back.
//!
//! ```text
//! XMPP_PASSWORD=… cargo run --example listen -- --jid juliet@capulet.lit/balcony
//! ```

mod common;

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use common::{
    failure::Failure,
    options::Options,
    outage_options::OutageOptions,
    output::{Direction, Output},
    transport_options::TransportOptions,
    trust_options::TrustOptions,
};
use futures::{StreamExt, future::ready};
use jid::FullJid;
use jingle_xmlstream::{ApiMisuse, Config, E2eStream, Endpoint, Error, Incoming, Reason, SignallingError};
use tokio::task::JoinSet;
use xmpp_parsers::{
    iq::Iq,
    message::{Message, MessageType},
    stanza::Stanza,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

/// Accepts e2e streams and echoes messages. SIGINT and SIGTERM close all streams in good order, and end it with exit code 0.
///
/// Exit codes: 0 all went well, 1 failure (with --once, of the stream too), 2 wrong usage.
#[derive(Parser, Debug)]
struct Arguments {
    /// Decline every session
    #[arg(long)]
    decline: bool,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    transport: TransportOptions,
    #[command(flatten)]
    outage: OutageOptions,
}

impl Arguments {
    fn apply(&self, config: Config) -> Config {
        self.outage.apply(self.transport.apply(config))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arc::new(Arguments::parse());
    common::start_logging(common::WARNINGS);
    let output = arguments.options.output();
    match run(&arguments, output).await {
        Ok(code) => code,
        Err(failure) => output.finish(Err(failure)),
    }
}

async fn run(arguments: &Arc<Arguments>, output: Output) -> Result<ExitCode, Failure> {
    let endpoint = tokio::select! {
        online = common::login(&arguments.options, |config| arguments.apply(config), output) => online?,
        () = common::interrupted() => return Ok(ExitCode::SUCCESS),
    };
    let mut sessions =
        Sessions { arguments: Arc::clone(arguments), output, streams: 0, failed: 0, tasks: JoinSet::new() };
    let result = tokio::select! {
        result = sessions.serve(&endpoint, arguments.options.once) => result,
        () = common::interrupted() => Ok(()),
    };
    // What peers have sent and nobody took is theirs again; what we sent is waited for, until the deadline.
    endpoint.close().await;
    sessions.wait_for_all().await;
    result?;
    output.closed();
    output.served(sessions.streams, sessions.failed);
    // A listener that was told to stop has done its work, whatever its peers did.
    let failed = arguments.options.once && sessions.failed > 0;
    Ok(ExitCode::from(u8::from(failed)))
}

/// The sessions that were offered, each served by a task of its own.
struct Sessions {
    arguments: Arc<Arguments>,
    output: Output,
    streams: u64,
    failed: u64,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Sessions {
    async fn serve(&mut self, endpoint: &Endpoint, once: bool) -> Result<(), Failure> {
        loop {
            tokio::select! {
                incoming = endpoint.accept() => {
                    let incoming = incoming.ok_or(Error::Signalling(SignallingError::Offline))?;
                    self.take(incoming);
                }
                Some(ended) = self.tasks.join_next() => {
                    self.count(ended.unwrap_or(Err(Failure::Interrupted)));
                    if once {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn take(&mut self, incoming: Incoming) {
        let (output, peer) = (self.output, incoming.peer().clone());
        output.incoming(&peer, incoming.security());
        self.streams += 1;
        if self.arguments.decline {
            incoming.decline(Reason::Decline);
            output.terminated(&peer, &Reason::Decline);
            self.tasks.spawn(async { Ok(()) });
            return;
        }
        let arguments = Arc::clone(&self.arguments);
        self.tasks.spawn(async move {
            let served = serve(incoming, &peer, &arguments.options.trust, output).await;
            served.map_err(|error| Failure::Stream { peer, error })
        });
    }

    fn count(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.failed += 1;
            self.output.failed(&failure);
        }
    }

    async fn wait_for_all(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.count(ended.unwrap_or(Err(Failure::Interrupted)));
        }
    }
}

async fn serve(
    incoming: Incoming,
    peer: &FullJid,
    trust: &TrustOptions,
    output: Output,
) -> Result<(), Error> {
    let mut stream = incoming.accept().await?;
    output.negotiated(peer, &stream);
    output.stream_open(peer, stream.info());
    trust.show_code(&stream, output).await?;
    let changes = (stream.moves(), stream.events());
    let served = async {
        echo(&mut stream, peer, output).await?;
        stream.close().await
    };
    output.telling(peer, changes, served).await?;
    output.stream_closed(peer);
    output.terminated(peer, &Reason::Success);
    Ok(())
}

/// Answers until the peer closes the stream. To take a message is to acknowledge it: from then on it is ours to answer.
async fn echo(stream: &mut E2eStream, peer: &FullJid, output: Output) -> Result<(), Error> {
    let sender = stream.sender();
    let answers = stream.filter_map(|stanza| {
        let answer = stanza.map(|stanza| {
            output.stanza(Direction::In, peer, &stanza);
            let answer = answer(stanza)?;
            output.stanza(Direction::Out, peer, &answer);
            Some(answer)
        });
        ready(answer.transpose())
    });
    // Answers that are ready together share a write. A peer that sends faster than it reads is slowed down.
    match answers.forward(sender).await {
        // The peer closed, and did not wait for its answers.
        Err(Error::ApiMisuse(ApiMisuse::StreamClosed)) => Ok(()),
        result => result,
    }
}

/// What to say to a stanza. The stream itself answers pings.
fn answer(stanza: Stanza) -> Option<Stanza> {
    match stanza {
        Stanza::Message(message) if message.type_ != MessageType::Error && !message.bodies.is_empty() => {
            let Message { id, type_, bodies, thread, .. } = message;
            Some(Message { id, bodies, thread, ..Message::new_with_type(type_, None) }.into())
        }
        // RFC 6120 §8.2.3: every request gets an answer.
        Stanza::Iq(Iq::Get { id, .. } | Iq::Set { id, .. }) => {
            let text = "this bot only echoes messages";
            let unknown =
                StanzaError::new(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, "en", text);
            Some(Iq::from_error(id, unknown).into())
        }
        _ => None,
    }
}
