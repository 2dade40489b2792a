//! The options about whom we are talking to.

use std::{
    fs::OpenOptions,
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    thread,
};

use clap::{Args, ValueEnum};
use futures::{StreamExt, channel::oneshot, future::ready};
use jingle_xmlstream::{
    Config, E2eStream, Encryption, Error, Fingerprint, Identity, KnownPeers, Secret, Trust,
    security::{Question, Questions},
};

use super::{failure::Failure, output::Output};

#[derive(Args, Debug)]
#[command(next_help_heading = "Whom are we talking to?")]
pub(crate) struct TrustOptions {
    /// File with our certificate and key, made if it is not there; without it, a new one each time, which a peer that
    /// remembers the last one refuses
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// File with the certificates of the peers that we know, made if it is not there; without it, they are forgotten at the
    /// end
    #[arg(long, value_name = "FILE")]
    known_peers: Option<PathBuf>,
    /// What becomes of peers that we don't know
    #[arg(long, value_enum, default_value = "first-use")]
    policy: Policy,
    /// Only accept a peer with this certificate (repeatable)
    #[arg(long, value_name = "FINGERPRINT", conflicts_with_all = ["policy", "known_peers"])]
    pin: Vec<Fingerprint>,
    /// The environment variable with a secret that the peer has to know, too (`cargo run --example secret` makes one); it is
    /// needed once, if both sides keep their known peers
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// Show the code that both sides can compare, once a stream is open; to have a peer verified by it, use --policy ask at
    /// the first contact, or write `verified = "code"` into the file of --known-peers
    #[arg(long)]
    show_code: bool,
    /// Encrypt by STARTTLS on the XML stream instead of XTLS; as responder, with peers that do no XTLS
    #[arg(long)]
    starttls: bool,
    /// DANGEROUS: go on without encryption if the peer does not offer it
    #[arg(long, conflicts_with = "starttls")]
    allow_plaintext: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    /// Refuse them, unless they know the secret; the known ones are in --known-peers
    Strict,
    /// Believe them, and nobody else under their address from then on
    FirstUse,
    /// Ask on the terminal, and refuse them if there is none
    Ask,
}

impl TrustOptions {
    /// Starts telling what happens to peers' certificates, and asking about them if that is wanted.
    pub(crate) fn config(&self, jid: &jid::BareJid, output: Output) -> Result<Config, Failure> {
        let identity = match &self.identity {
            Some(file) => Identity::load_or_generate_for(file, jid)?,
            None => Identity::generate_for(jid)?,
        };
        let mut config = Config::new(identity, self.trust(output)?);
        if let Some(variable) = &self.secret_env {
            let text = super::environment(variable, "the secret")?;
            let secret = Secret::new(&text).map_err(|weak| Failure::Usage(format!("{variable}: {weak}")))?;
            config = config.secret(secret);
        }
        if self.starttls {
            config = config.encryption(Encryption::Starttls);
        }
        if self.allow_plaintext {
            config.dangerous().allow_plaintext();
        }
        Ok(config)
    }

    fn trust(&self, output: Output) -> Result<Trust, Failure> {
        if !self.pin.is_empty() {
            return Ok(Trust::pinned(self.pin.iter().cloned()));
        }
        let known = match &self.known_peers {
            Some(file) => KnownPeers::open(file)?,
            None => KnownPeers::in_memory(),
        };
        tokio::spawn(known.events().for_each(move |event| {
            output.peer_event(&event);
            ready(())
        }));
        Ok(match self.policy {
            Policy::Strict => Trust::strict(known),
            Policy::FirstUse => known.into(),
            Policy::Ask => {
                let (trust, questions) = Trust::ask(known);
                tokio::spawn(answer(questions, output));
                trust
            }
        })
    }

    /// Shows the code, if that is wanted.
    pub(crate) async fn show_code(&self, stream: &E2eStream, output: Output) -> Result<(), Error> {
        if self.show_code {
            output.code(&stream.peer(), &stream.verification_code().await?);
        }
        Ok(())
    }
}

/// Asks one question after the other.
async fn answer(mut questions: Questions, output: Output) {
    while let Some(question) = questions.next().await {
        let code = question.code().await;
        let code = code.map_or_else(|error| format!("none ({error})"), |code| code.to_string());
        let text = format!(
            "{} presents a certificate that is not known.\n  fingerprint  {}\n  code         {code}\n\
             Ask its user what it shows, on another way than this. Then type\n  \
             v  the fingerprint or the code is the same: verified, remember it\n  \
             r  nothing was compared, but remember it\n  o  nothing was compared, only this once\n\
             and anything else to refuse: ",
            question.peer(),
            question.fingerprint(),
        );
        let (typing, typed) = oneshot::channel();
        // A thread of its own: one of the runtime's would keep the program alive after Ctrl-C until somebody types a line.
        thread::spawn(move || typing.send(ask(&text)));
        match typed.await {
            Ok(Ok(typed)) => decide(question, &typed),
            Ok(Err(error)) => output.no_terminal(&error),
            // The thread is gone without an answer: the question is dropped, which refuses.
            Err(oneshot::Canceled) => {}
        }
    }
}

fn decide(question: Question, typed: &str) {
    match typed.trim() {
        "v" => question.verified(),
        "r" => question.remember(),
        "o" => question.once(),
        _ => question.refuse(),
    }
}

/// Asks on the terminal itself, because stdin may have other things to say.
fn ask(text: &str) -> io::Result<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(text.as_bytes())?;
    let mut line = String::new();
    BufReader::new(terminal).read_line(&mut line)?;
    Ok(line)
}
