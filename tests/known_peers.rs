//! The file of the known peers among processes that share it, crashes, and people who edit it.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::{
    collections::HashSet,
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use jid::BareJid;
use jingle_xmlstream::{
    Fingerprint, KnownPeers,
    security::{KnownCertificate, Verification},
};

/// What the process is to do that a test starts: the file, and how its peers are called.
const FILE: &str = "KNOWN_PEERS_FILE";
const NAMES: &str = "KNOWN_PEERS_NAMES";

/// How many peers each of the two processes that share a file adds.
const PEERS_EACH: usize = 200;

/// After how many of them the file is looked at; to read it all takes longer than to write one.
const LOOK_AFTER: usize = 8;

/// How often a writer is killed.
const KILLS: u32 = 30;

/// Before each line by which a writer says that a peer is safe.
const ACKNOWLEDGED: &str = "acknowledged ";

/// The other process: this very program, and in it one test. Kills it when dropped.
struct Writer(Child);

impl Writer {
    fn start(test: &str, file: &Path, names: &str) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(FILE, file)
            .env(NAMES, names)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// The peers that it says are safe, as it says so.
    fn acknowledged(&mut self) -> impl Iterator<Item = BareJid> + use<> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        // Behind a newline only, as a line that is cut off may lack some letters.
        lines.filter_map(|line| Some(line.strip_prefix(ACKNOWLEDGED)?.strip_suffix('.')?.parse().unwrap()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have come to its end.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// In the other process: adds peers and says so; elsewhere, does nothing.
fn add_peers(count: usize) {
    let (Some(file), Ok(names)) = (env::var_os(FILE), env::var(NAMES)) else { return };
    let known = KnownPeers::open(file).unwrap();
    // The harness has begun a line of its own.
    println!();
    for number in 0..count {
        let peer: BareJid = format!("{names}{number}@capulet.lit").parse().unwrap();
        known.add(&peer, Fingerprint::of(peer.as_str().as_bytes()), None).unwrap();
        println!("{ACKNOWLEDGED}{peer}.");
    }
}

fn peers(known: &[KnownCertificate]) -> HashSet<BareJid> {
    known.iter().map(|known| known.peer.clone()).collect()
}

#[test]
#[ignore = "run in a process of its own by `two_processes_that_share_a_file_lose_nothing`"]
fn writer_of_some() {
    add_peers(PEERS_EACH);
}

#[test]
#[ignore = "run in a process of its own by `a_kill_in_the_middle_loses_nothing_that_was_acknowledged`"]
fn writer_without_end() {
    add_peers(usize::MAX);
}

#[test]
fn two_processes_that_share_a_file_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known-peers.toml");
    let mut writers = ["juliet", "romeo"].map(|names| Writer::start("writer_of_some", &file, names));
    let mut acknowledged = 0;
    // Whoever reads meanwhile finds a whole file at every moment, with all that is acknowledged.
    for peer in writers.each_mut().into_iter().flat_map(Writer::acknowledged) {
        acknowledged += 1;
        if acknowledged % LOOK_AFTER == 0 {
            let known = KnownPeers::open(&file).unwrap();
            assert_eq!(known.certificates_of(&peer).unwrap().len(), 1, "{peer}");
        }
    }
    assert_eq!(acknowledged, 2 * PEERS_EACH);
    for writer in &mut writers {
        assert!(writer.0.wait().unwrap().success());
    }
    let known = KnownPeers::open(&file).unwrap().certificates().unwrap();
    assert_eq!((known.len(), peers(&known).len()), (2 * PEERS_EACH, 2 * PEERS_EACH));
    for one in known {
        assert_eq!(one.fingerprint, Fingerprint::of(one.peer.as_str().as_bytes()));
        assert_eq!(one.verification, Verification::Compared);
    }
}

#[test]
fn a_kill_in_the_middle_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known-peers.toml");
    let mut acknowledged = HashSet::new();
    for round in 0..KILLS {
        let mut writer = Writer::start("writer_without_end", &file, &format!("round{round}bot"));
        let mut safe = writer.acknowledged();
        acknowledged.insert(safe.next().expect("the writer writes"));
        // At another moment of its work each time.
        thread::sleep(Duration::from_micros(u64::from(round) * 997 % 7919));
        drop(writer);
        acknowledged.extend(safe);

        let known = KnownPeers::open(&file).unwrap().certificates().unwrap();
        let lost: Vec<_> = acknowledged.difference(&peers(&known)).cloned().collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        // What each writer was at when it was killed may be there, or not.
        assert!(known.len() <= acknowledged.len() + round as usize + 1);
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() <= 3, "no litter: {left:?}");
}

#[test]
fn what_a_person_wrote_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known-peers.toml");
    let written = include_str!("../fixtures/known-peers/by-hand.toml");
    fs::write(&file, written).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();

    let known = KnownPeers::open(&file).unwrap();
    let tybalt: BareJid = "tybalt@capulet.lit".parse().unwrap();
    known.add(&tybalt, Fingerprint::of(b"a certificate"), Some("Tybalt's rapier")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let unchanged = written.strip_suffix("\n# The end.\n").unwrap();
    assert!(text.starts_with(unchanged), "{text}");
    assert!(text.ends_with("\n# The end.\n"), "{text}");

    known.forget(&tybalt).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
}

#[test]
fn an_edit_is_seen_by_a_program_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known-peers.toml");
    let known = KnownPeers::open(&file).unwrap();
    let juliet: BareJid = "juliet@capulet.lit".parse().unwrap();
    known.add(&juliet, Fingerprint::of(b"a certificate"), None).unwrap();

    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("revoked = true\n");
    fs::write(&file, &text).unwrap();
    assert!(known.certificates_of(&juliet).unwrap()[0].revoked.is_some());

    fs::write(&file, text.replace("version = 1", "version = 7")).unwrap();
    let refused = known.certificates().unwrap_err().to_string();
    assert!(refused.contains("known-peers.toml, line 10: expected version 1, found 7"), "{refused}");

    fs::remove_file(&file).unwrap();
    let refused = known.certificates().unwrap_err().to_string();
    assert!(
        refused.contains("known-peers.toml: was there and is gone: put it back, or restart"),
        "{refused}"
    );
    assert!(KnownPeers::open(&file).unwrap().certificates().unwrap().is_empty(), "that is a start");
}
