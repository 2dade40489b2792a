//! The example programs, as a user starts them: whom they believe, what they say of it, and how they end.
//!
//! `cargo test` builds them. If they are not there, nothing is tested, and says so; with CI=true that is a failure. So it
//! is with `script` and `setsid` of util-linux, where a terminal is to be there, or to be missing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "support/program.rs"]
mod program;
mod support;

use std::path::{Path, PathBuf};

use futures::{SinkExt, StreamExt};
use jingle_xmlstream::{
    Error, KnownPeers, StreamReceiver,
    security::{KnownCertificate, Verification},
};
use program::{Ended, Program, skipped};
use serde_json::Value;
use support::{JULIET, ROMEO, World, jid, within};
use tempfile::TempDir;
use tokio::process::Command;
use xmpp_parsers::{
    message::{Id, Message},
    stanza::Stanza,
};

const SECRET: &str = "clumsy walnut orbit seventy lantern mischief";
const ANOTHER: &str = "velvet onion harbor puzzle cricket thunder";

/// The variable in which the programs find their secret.
const VARIABLE: &str = "VERONA_SECRET";

// ---- starting programs -----------------------------------------------------------------------

/// A server, the programs, and a folder for their files.
struct Stage {
    world: World,
    programs: PathBuf,
    folder: TempDir,
}

/// How a program is to be started.
#[derive(Clone, Copy, Default)]
struct Start<'a> {
    options: &'a [&'a str],
    secret: Option<&'a str>,
    /// A program that starts it.
    through: Through,
    says: Says,
}

/// How a program is to say what it does.
#[derive(Clone, Copy, Default, PartialEq)]
enum Says {
    #[default]
    Json,
    Sentences,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Through {
    #[default]
    Nothing,
    /// `setsid`: it has no terminal.
    NoTerminal,
    /// `script`: it has one of its own.
    Terminal,
}

impl Through {
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::NoTerminal => Some("setsid"),
            Self::Terminal => Some("script"),
        }
    }

    fn is_missing(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there = |program| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        self.program().is_some_and(|program| !is_there(program) && skipped(program))
    }
}

impl Stage {
    async fn set() -> Option<Self> {
        let programs = program::folder()?;
        Some(Self { world: World::start().await, programs, folder: tempfile::tempdir().unwrap() })
    }

    /// `listen`, which is online as juliet, for one stream.
    async fn listen(&self, start: Start<'_>) -> Program {
        let mut program = self.start("listen", &["--jid", JULIET, "--once"], start);
        program.wait_for("online").await;
        program
    }

    /// `connect` as romeo, who sends one message to juliet.
    fn connect(&self, start: Start<'_>) -> Program {
        self.start("connect", &["--jid", ROMEO, "--send", "1", JULIET], start)
    }

    fn start(&self, name: &str, own: &[&str], start: Start<'_>) -> Program {
        let server = self.world.server.addr().to_string();
        let common = ["--server", &server, "--server-tls", "plaintext", "--transport", "ibb"];
        let mut words = vec![self.programs.join(name).into_os_string().into_string().unwrap()];
        words.extend(own.iter().chain(&common).chain(start.options).map(|&word| word.to_owned()));
        if start.says == Says::Json {
            words.push("--json".to_owned());
        }
        let mut command = match start.through {
            Through::Nothing => Command::new(words.remove(0)),
            Through::NoTerminal => Command::new("setsid"),
            Through::Terminal => {
                // It wants one line for the shell, which may not stay in between: some shells would
                // take Ctrl-C as well, and answer it with a status of their own.
                let line: Vec<_> = words.drain(..).map(|word| format!("'{word}'")).collect();
                let line = format!("exec {}", line.join(" "));
                words = ["-qec", &line, "/dev/null"].map(str::to_owned).to_vec();
                Command::new("script")
            }
        };
        let command = command
            .args(words)
            .current_dir(self.folder.path())
            .env("XMPP_PASSWORD", mock_server::PASSWORD)
            .env("TERM", "xterm");
        match start.secret {
            Some(secret) => command.env(VARIABLE, secret),
            None => command.env_remove(VARIABLE),
        };
        Program::spawn(name, command.env_remove("RUST_LOG"))
    }

    /// Both programs from the start to the end, first romeo's `connect`.
    async fn meet(&self, connect: Start<'_>, listen: Start<'_>) -> (Ended, Ended) {
        let listening = self.listen(listen).await;
        let connected = self.connect(connect).end().await;
        (connected, listening.end().await)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn listed(&self, name: &str) -> Vec<KnownCertificate> {
        listed(&self.file(name))
    }
}

fn listed(file: &Path) -> Vec<KnownCertificate> {
    assert!(file.is_file(), "{} was not written", file.display());
    KnownPeers::open(file).unwrap().certificates().unwrap()
}

/// With these options and nothing else.
fn options<'a>(options: &'a [&'a str]) -> Start<'a> {
    Start { options, ..Start::default() }
}

// ---- first and second contact ----------------------------------------------------------------

#[tokio::test]
async fn who_was_met_once_is_known_the_second_time() {
    let Some(stage) = Stage::set().await else { return };
    let romeos = ["--identity", "romeo.pem", "--known-peers", "romeo.toml"];
    let juliets = ["--identity", "juliet.pem", "--known-peers", "juliet.toml"];
    let (romeo, juliet) = stage.meet(options(&romeos), options(&juliets)).await;
    for (one, other) in [(&romeo, &juliet), (&juliet, &romeo)] {
        one.assert_met("first-use", "first-use");
        assert_eq!(one.event("peer")["fingerprint"], *other.fingerprint());
        assert_eq!(one.event("known_peer")["what"], "first_use");
    }
    for (file, peer, theirs) in
        [("romeo.toml", "juliet@capulet.lit", &juliet), ("juliet.toml", "romeo@montague.lit", &romeo)]
    {
        let listed = stage.listed(file);
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].peer.to_string(), peer);
        assert_eq!(listed[0].fingerprint.to_string(), theirs.fingerprint().as_str().unwrap());
    }

    let (again, _) = stage.meet(options(&romeos), options(&juliets)).await;
    again.assert_met("known", "known");
    assert_eq!(again.fingerprint(), romeo.fingerprint());
}

#[tokio::test]
async fn another_certificate_is_refused_and_the_old_one_stays() {
    let Some(stage) = Stage::set().await else { return };
    let romeos = ["--known-peers", "romeo.toml"];
    stage.meet(options(&romeos), options(&[])).await;
    let before = stage.listed("romeo.toml");

    let (romeo, juliet) = stage.meet(options(&romeos), options(&[])).await;
    romeo.assert_failed("security", &["juliet@capulet.lit changed", "compare it over another way"]);
    assert_eq!(romeo.event("known_peer")["what"], "refused");
    juliet.assert_was_refused();
    assert_eq!(stage.listed("romeo.toml"), before);
}

#[tokio::test]
async fn a_strict_program_refuses_strangers_and_says_what_can_be_done() {
    let Some(stage) = Stage::set().await else { return };
    let (romeo, juliet) = stage.meet(options(&["--policy", "strict"]), options(&[])).await;
    let theirs = juliet.fingerprint().as_str().unwrap();
    romeo.assert_failed(
        "security",
        &["juliet@capulet.lit", theirs, "nothing is known of", "add it to the known peers", "shared secret"],
    );
    juliet.assert_was_refused();
}

// ---- secrets and codes -----------------------------------------------------------------------

#[tokio::test]
async fn a_secret_verifies_both_and_is_needed_once() {
    let Some(stage) = Stage::set().await else { return };
    let romeos = ["--identity", "romeo.pem", "--known-peers", "romeo.toml", "--policy", "strict"];
    let juliets = ["--identity", "juliet.pem", "--known-peers", "juliet.toml", "--policy", "strict"];
    let with = ["--secret-env", VARIABLE];
    let (with_romeos, with_juliets) = ([&romeos[..], &with].concat(), [&juliets[..], &with].concat());
    let sharing = |words| Start { secret: Some(SECRET), ..options(words) };
    let (romeo, juliet) = stage.meet(sharing(&with_romeos), sharing(&with_juliets)).await;
    for met in [&romeo, &juliet] {
        met.assert_met("verified", "secret");
        assert_eq!(met.event("known_peer")["what"], "verified");
    }

    let (romeo, juliet) = stage.meet(options(&romeos), options(&juliets)).await;
    romeo.assert_met("verified", "secret");
    juliet.assert_met("verified", "secret");
}

#[tokio::test]
async fn who_has_another_secret_or_none_is_refused() {
    let Some(stage) = Stage::set().await else { return };
    let with = ["--secret-env", VARIABLE];
    let romeos = Start { secret: Some(SECRET), ..options(&with) };
    let (romeo, juliet) = stage.meet(romeos, Start { secret: Some(ANOTHER), ..options(&with) }).await;
    for refused in [&romeo, &juliet] {
        refused.assert_was_refused();
    }
    let told = [&romeo, &juliet].map(|it| it.event("error")["text"].to_string());
    assert!(told.iter().any(|text| text.contains("set the same at both ends")), "{told:?}");

    let (romeo, juliet) = stage.meet(romeos, options(&[])).await;
    romeo.assert_failed("security", &["expected to prove the shared secret", "give it the same secret"]);
    juliet.assert_was_refused();
}

#[tokio::test]
async fn a_secret_that_can_be_guessed_or_is_missing_is_wrong_usage() {
    let Some(stage) = Stage::set().await else { return };
    for (secret, said) in [(Some("password"), "could be guessed"), (None, "has to hold the secret")] {
        let start = Start { secret, ..options(&["--secret-env", VARIABLE]) };
        for program in [stage.connect(start), stage.start("listen", &["--jid", JULIET], start)] {
            let ended = program.end().await;
            let error = ended.event("error");
            assert_eq!((ended.code, &error["kind"]), (Some(2), &"usage".into()), "{ended:#?}");
            let text = error["text"].as_str().unwrap();
            assert!(text.contains(VARIABLE) && text.contains(said), "{text}");
            assert!(secret.is_none_or(|secret| !text.contains(secret)), "{text}");
        }
    }
}

#[tokio::test]
async fn both_show_the_same_code() {
    let Some(stage) = Stage::set().await else { return };
    let show = options(&["--show-code"]);
    let (romeo, juliet) = stage.meet(show, show).await;
    let codes = [&romeo, &juliet].map(|it| it.event("code")["code"].as_str().unwrap());
    assert_eq!(codes[0], codes[1]);
    assert_eq!(codes[0].len(), "1234 5678 9012".len());
    // Nobody has said yet that they are the same.
    romeo.assert_met("first-use", "first-use");
}

// ---- STARTTLS --------------------------------------------------------------------------------

#[tokio::test]
async fn starttls_encrypts_and_authenticates_as_xtls_does() {
    let Some(stage) = Stage::set().await else { return };
    let with = Start { secret: Some(SECRET), ..options(&["--starttls", "--secret-env", VARIABLE]) };
    let (romeo, juliet) = stage.meet(with, with).await;
    assert_eq!(juliet.event("incoming")["fingerprints"], Value::Array(vec![]), "it was XTLS");
    for (one, other) in [(&romeo, &juliet), (&juliet, &romeo)] {
        one.assert_met("verified", "secret");
        assert_eq!(one.event("negotiated")["tls_version"], "TLSv1.3");
        assert_eq!(one.event("peer")["fingerprint"], *other.fingerprint());
    }
}

#[tokio::test]
async fn starttls_is_for_those_who_said_so() {
    let Some(stage) = Stage::set().await else { return };
    let _juliet = stage.listen(options(&[])).await;
    let romeo = stage.connect(options(&["--starttls"])).end().await;
    romeo.assert_failed("terminated", &["security-error"]);
}

// ---- asking ----------------------------------------------------------------------------------

#[tokio::test]
async fn without_a_terminal_nobody_is_asked_and_the_peer_is_refused() {
    let Some(stage) = Stage::set().await else { return };
    if Through::NoTerminal.is_missing() {
        return;
    }
    let asking = Start { through: Through::NoTerminal, ..options(&["--policy", "ask"]) };
    let (romeo, juliet) = stage.meet(asking, options(&[])).await;
    assert!(romeo.stderr.contains("nobody can be asked about the peer"), "{romeo:#?}");
    romeo.assert_failed("security", &["the user was asked about juliet@capulet.lit", "did not accept it"]);
    juliet.assert_was_refused();
}

/// `connect` on a terminal of its own, which has asked its user about juliet.
async fn asking(stage: &Stage, juliet: &Program) -> Program {
    let asking = ["--policy", "ask", "--known-peers", "romeo.toml", "--show-code"];
    let mut romeo = stage.connect(Start { through: Through::Terminal, ..options(&asking) });
    romeo.wait_for_text("juliet@capulet.lit presents a certificate that is not known").await;
    let theirs = juliet.events.iter().find_map(|event| event["own_fingerprint"].as_str());
    romeo.wait_for_text(theirs.unwrap()).await;
    romeo
}

/// What becomes of `connect` whose user types this.
async fn answered(stage: &Stage, typed: &str) -> Ended {
    let juliet = stage.listen(options(&["--show-code"])).await;
    let mut romeo = asking(stage, &juliet).await;
    romeo.keys(&format!("{typed}\n")).await;
    let (romeo, juliet) = tokio::join!(romeo.end(), juliet.end());
    if romeo.code == Some(0) {
        assert_eq!(romeo.event("code")["code"], juliet.event("code")["code"]);
    }
    romeo
}

#[tokio::test]
async fn what_the_user_types_at_the_terminal_is_done() {
    if Through::Terminal.is_missing() {
        return;
    }
    for (typed, level, verification) in
        [("v", "verified", Verification::Code), ("r", "known", Verification::Accepted)]
    {
        let Some(stage) = Stage::set().await else { return };
        answered(&stage, typed).await.assert_met(level, verification.name());
        let listed = stage.listed("romeo.toml");
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].verification, verification);
    }
}

#[tokio::test]
async fn who_is_let_in_once_or_refused_is_not_remembered() {
    if Through::Terminal.is_missing() {
        return;
    }
    for (typed, code) in [("o", 0), ("no", 1)] {
        let Some(stage) = Stage::set().await else { return };
        let romeo = answered(&stage, typed).await;
        assert_eq!(romeo.code, Some(code), "{romeo:#?}");
        assert!(!stage.file("romeo.toml").exists(), "{typed}");
    }
}

/// The usual way to compare: both users are asked, and both see the code before they answer.
#[tokio::test]
async fn both_users_are_asked_at_the_same_time_and_see_the_same_code() {
    if Through::Terminal.is_missing() {
        return;
    }
    let Some(stage) = Stage::set().await else { return };
    let asking = |known| Start { through: Through::Terminal, ..options(known) };
    let mut juliet = stage.listen(asking(&["--policy", "ask", "--known-peers", "juliet.toml"])).await;
    let mut romeo = stage.connect(asking(&["--policy", "ask", "--known-peers", "romeo.toml"]));
    let (romeos, juliets) = tokio::join!(romeo.wait_for_text("code  "), juliet.wait_for_text("code  "));
    assert!(romeos.split_whitespace().count() == 4 && romeos == juliets, "{romeos:?} {juliets:?}");

    tokio::join!(romeo.keys("v\n"), juliet.keys("v\n"));
    let (romeo, juliet) = tokio::join!(romeo.end(), juliet.end());
    for met in [romeo, juliet] {
        met.assert_met("verified", "code");
    }
    for file in ["romeo.toml", "juliet.toml"] {
        let listed = stage.listed(file);
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].verification, Verification::Code);
    }
}

#[tokio::test]
async fn ctrl_c_is_an_answer_too() {
    if Through::Terminal.is_missing() {
        return;
    }
    let Some(stage) = Stage::set().await else { return };
    let juliet = stage.listen(options(&[])).await;
    let mut romeo = asking(&stage, &juliet).await;
    romeo.keys("\x03").await;
    let romeo = romeo.end().await;
    romeo.assert_failed("interrupted", &[]);
    assert!(!stage.file("romeo.toml").exists());
    juliet.end().await.assert_was_refused();
}

// ---- how far it is ---------------------------------------------------------------------------

#[tokio::test]
async fn on_a_terminal_a_long_sending_shows_how_far_it_is() {
    if Through::Terminal.is_missing() {
        return;
    }
    let Some(stage) = Stage::set().await else { return };
    let juliet = stage.listen(options(&[])).await;
    let sending = Start { through: Through::Terminal, says: Says::Sentences, ..options(&[]) };
    let mut romeo =
        stage.start("connect", &["--jid", ROMEO, "--send", "3000", "--size", "700", JULIET], sending);
    // A bar is drawn over the one before, so that all of them are one line.
    let (bars, juliet) = tokio::join!(romeo.wait_for_text("/3000 messages"), juliet.end());
    for part in ["% ", "/s  ", "B/s  ", " left"] {
        assert!(bars.contains(part), "{part:?} is not in {bars:?}");
    }
    let romeo = romeo.end().await;
    assert_eq!((romeo.code, juliet.code), (Some(0), Some(0)), "{romeo:#?}");
}

// ---- ending ----------------------------------------------------------------------------------

/// What the listener took it has acknowledged, and what it left the sender gets back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_is_told_to_end_closes_in_order_and_loses_nothing() {
    const BEFORE: usize = 200;
    let Some(stage) = Stage::set().await else { return };
    let mut listening = stage.start("listen", &["--jid", JULIET], options(&[]));
    listening.wait_for("online").await;
    let romeo = stage.world.bot(ROMEO, support::config()).await;
    let stream = within(romeo.connect(&jid(JULIET))).await.unwrap();
    let (mut sender, mut receiver) = stream.split();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while sender.feed(numbered(sent)).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let process = listening.process();
    let hearing = tokio::spawn(async move {
        for number in 0..BEFORE {
            assert_eq!(id(&within(receiver.next()).await.unwrap().unwrap()), number.to_string());
        }
        program::terminate(process);
        how_it_ends(receiver).await
    });
    let juliet = listening.end().await;
    let undelivered = within(hearing).await.unwrap();
    let sent = within(sending).await.unwrap();

    assert_eq!(juliet.code, Some(0), "{juliet:#?}");
    assert_eq!((juliet.count("error"), juliet.count("stream_closed")), (0, 1), "{juliet:#?}");
    juliet.event("closed");
    let (taken, returned) = (&juliet.received, &undelivered);
    let arrived: Vec<_> = taken.iter().chain(returned).cloned().collect();
    let expected: Vec<_> = (0..sent).map(|number: usize| number.to_string()).collect();
    assert!(
        arrived == expected,
        "{sent} were sent, {} arrived up to {:?}, {} came back from {:?} to {:?}",
        taken.len(),
        taken.last(),
        returned.len(),
        returned.first(),
        returned.last()
    );
}

fn numbered(number: usize) -> Stanza {
    let id = Some(Id(number.to_string()));
    Message { id, ..Message::chat(None) }.with_body("".into(), "rose ".repeat(50)).into()
}

fn id(stanza: &Stanza) -> String {
    let Stanza::Message(Message { id: Some(id), .. }) = stanza else { panic!("{stanza:?}") };
    id.0.clone()
}

/// Receives until the peer has closed in good order, and gives the ids of what it did not acknowledge.
async fn how_it_ends(mut receiver: StreamReceiver) -> Vec<String> {
    loop {
        match within(receiver.next()).await {
            Some(Ok(_)) => {}
            Some(Err(Error::Undelivered(undelivered))) if undelivered.cause().is_none() => {
                return undelivered.stanzas().iter().map(id).collect();
            }
            None => return Vec::new(),
            Some(Err(error)) => panic!("{error}"),
        }
    }
}
