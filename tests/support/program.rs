//! The example programs, as child processes.
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
};

use crate::support::within;

/// Where `cargo test` puts them; `None` if they are not there, except in CI.
pub fn folder() -> Option<PathBuf> {
    // The test is in `target/debug/deps`.
    let test = std::env::current_exe().unwrap();
    let programs = test.ancestors().nth(2).unwrap().join("examples");
    for program in ["listen", "connect"] {
        if !programs.join(program).is_file() {
            skipped(&format!("{program}` in `{}", programs.display()));
            return None;
        }
    }
    Some(programs)
}

/// Says that something is missing.
pub fn skipped(what: &str) -> bool {
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "there is no `{what}`, and CI=true");
    println!("SKIPPED: there is no `{what}`, so this was not tested");
    true
}

/// Asks a program to end, as service managers do. The shell's own `kill` is there wherever a shell is.
pub fn terminate(process: u32) {
    let status = std::process::Command::new("sh").arg("-c").arg(format!("kill -TERM {process}")).status();
    assert!(status.unwrap().success(), "there is no process {process}");
}

/// A program that runs. It is killed when dropped.
pub struct Program {
    name: String,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    /// Read all the time: a program that can't say what it has to say stands still.
    stderr: JoinHandle<String>,
    /// What it said, without the stanzas.
    pub events: Vec<Value>,
    /// The ids of the stanzas that it received.
    received: Vec<String>,
}

impl Program {
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut errors = child.stderr.take().unwrap();
        let stderr = tokio::spawn(async move {
            let mut stderr = String::new();
            errors.read_to_string(&mut stderr).await.unwrap();
            stderr
        });
        Self { name: name.to_owned(), child, output, stderr, events: Vec::new(), received: Vec::new() }
    }

    /// The next line that it says, on the terminal as well.
    pub async fn line(&mut self) -> Option<String> {
        let line = within(self.output.next_line()).await.unwrap()?;
        // A terminal shows what the program asks before it.
        let json = line.find('{').and_then(|start| serde_json::from_str(line.get(start..)?.trim()).ok());
        if let Some(event) = json {
            self.note(event);
        }
        Some(line)
    }

    fn note(&mut self, event: Value) {
        let text = |name| event.get(name).and_then(Value::as_str);
        match text("event") {
            Some("stanza_in") => self.received.extend(text("id").map(str::to_owned)),
            Some("stanza_out") => {}
            _ => self.events.push(event),
        }
    }

    /// Its number; a program that ended has none.
    pub fn process(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub async fn wait_for(&mut self, event: &str) {
        while !self.events.iter().any(|it| it["event"] == event) {
            let line = self.line().await;
            assert!(line.is_some(), "{} ended before {event:?}: {:?}", self.name, self.events);
        }
    }

    /// Waits until it has received something.
    pub async fn wait_for_stanza(&mut self) {
        while self.received.is_empty() {
            let line = self.line().await;
            assert!(line.is_some(), "{} ended before anything came: {:?}", self.name, self.events);
        }
    }

    /// Waits until it says this for people, and gives the line.
    pub async fn wait_for_text(&mut self, text: &str) -> String {
        loop {
            match self.line().await {
                Some(line) if line.contains(text) => return line,
                Some(_) => {}
                None => panic!("{} ended before {text:?}: {:?}", self.name, self.events),
            }
        }
    }

    /// Types this on its terminal.
    pub async fn keys(&mut self, keys: &str) {
        let keyboard = self.child.stdin.as_mut().unwrap();
        keyboard.write_all(keys.as_bytes()).await.unwrap();
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Ended {
        while self.line().await.is_some() {}
        let stderr = within(self.stderr).await.unwrap();
        let status = within(self.child.wait()).await.unwrap();
        let (events, received) = (self.events, self.received);
        Ended { name: self.name, events, received, stderr, code: status.code() }
    }
}

/// What became of a program.
#[derive(Debug)]
pub struct Ended {
    pub name: String,
    pub events: Vec<Value>,
    /// The ids of the stanzas that it received.
    pub received: Vec<String>,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Ended {
    /// How often it said this.
    pub fn count(&self, name: &str) -> usize {
        self.events.iter().filter(|event| event["event"] == name).count()
    }

    #[track_caller]
    pub fn event(&self, name: &str) -> &Value {
        self.events
            .iter()
            .find(|event| event["event"] == name)
            .unwrap_or_else(|| panic!("no {name}: {self:#?}"))
    }

    #[track_caller]
    pub fn assert_met(&self, level: &str, verification: &str) {
        let peer = self.event("peer");
        assert_eq!(
            (&peer["level"], &peer["verification"]),
            (&level.into(), &verification.into()),
            "{self:#?}"
        );
        assert_eq!(self.code, Some(0), "{self:#?}");
    }

    /// It failed, for a reason of this kind, which it explains in these words.
    #[track_caller]
    pub fn assert_failed(&self, kind: &str, words: &[&str]) {
        let error = self.event("error");
        assert_eq!((self.code, &error["kind"]), (Some(1), &kind.into()), "{self:#?}");
        let text = error["text"].as_str().unwrap();
        for part in words {
            assert!(text.contains(part), "{} says {text:?}, not {part:?}", self.name);
        }
    }

    /// It was told by the peer that it is not believed, by TLS or by Jingle.
    #[track_caller]
    pub fn assert_was_refused(&self) {
        let kind = self.event("error")["kind"].as_str().unwrap();
        assert!(["security", "terminated", "stream"].contains(&kind), "{self:#?}");
        assert_eq!(self.code, Some(1), "{self:#?}");
    }

    pub fn fingerprint(&self) -> &Value {
        &self.event("online")["own_fingerprint"]
    }
}
