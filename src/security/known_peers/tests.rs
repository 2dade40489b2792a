use std::{
    fs::{self, File},
    path::PathBuf,
    sync::Barrier,
    thread,
};

use futures::{FutureExt, StreamExt};
use tempfile::TempDir;

use super::*;

fn juliet() -> BareJid {
    "juliet@capulet.lit".parse().unwrap()
}

fn romeo() -> BareJid {
    "romeo@montague.lit".parse().unwrap()
}

fn old() -> Certificate {
    Certificate::from_der(b"the old certificate")
}

fn new() -> Certificate {
    Certificate::from_der(b"the new certificate")
}

/// A folder, and the file in it that is not there yet.
fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known-peers.toml");
    (folder, path)
}

/// A new file that only its owner may write, whatever the umask is.
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    set_mode(path, 0o644);
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn text_of<T: std::fmt::Debug, E: ToString>(refused: Result<T, E>) -> String {
    refused.unwrap_err().to_string()
}

#[test]
fn what_is_remembered_outlives_the_store() {
    let (_folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    assert!(!path.exists(), "nothing to write yet");
    assert_eq!(known.find(&juliet(), &old()), Ok(None));
    assert!(!known.knows(&juliet()));
    assert_eq!(known.remember(&juliet(), &old(), Verification::FirstUse), Ok(Verification::FirstUse));
    drop(known);

    let known = KnownPeers::open(&path).unwrap();
    assert!(known.knows(&juliet()));
    assert_eq!(known.find(&juliet(), &old()), Ok(Some(Verification::Known)));
    assert!(matches!(known.find(&juliet(), &new()), Err(SecurityError::KeyChanged { .. })));
    assert_eq!(known.remember(&juliet(), &old(), Verification::Code), Ok(Verification::Code));
    assert_eq!(KnownPeers::open(&path).unwrap().find(&juliet(), &old()), Ok(Some(Verification::Code)));
}

#[test]
fn clones_and_other_stores_see_each_others_changes_at_once() {
    let (_folder, path) = file();
    let (one, other) = (KnownPeers::open(&path).unwrap(), KnownPeers::open(&path).unwrap());
    let clone = one.clone();
    one.remember(&juliet(), &old(), Verification::FirstUse).unwrap();
    for store in [&clone, &other] {
        assert_eq!(store.find(&juliet(), &old()), Ok(Some(Verification::Known)));
        assert!(store.remember(&juliet(), &new(), Verification::FirstUse).is_err());
    }
    other.forget(&juliet()).unwrap();
    assert_eq!(one.find(&juliet(), &new()), Ok(None));

    let memory = KnownPeers::in_memory();
    memory.clone().remember(&juliet(), &old(), Verification::FirstUse).unwrap();
    assert_eq!(memory.find(&juliet(), &old()), Ok(Some(Verification::Known)));
}

#[test]
fn of_simultaneous_first_uses_with_different_keys_one_wins() {
    let (_folder, path) = file();
    for stores in [
        (0..8).map(|_| KnownPeers::open(&path).unwrap()).collect::<Vec<_>>(),
        vec![KnownPeers::in_memory(); 8],
    ] {
        let start = Barrier::new(stores.len());
        let won = thread::scope(|scope| {
            let tries: Vec<_> = (0..8_u8)
                .zip(&stores)
                .map(|(key, store)| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        store
                            .remember(&juliet(), &Certificate::from_der(&[key]), Verification::FirstUse)
                            .is_ok()
                    })
                })
                .collect();
            tries.into_iter().map(|one| one.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
        assert_eq!(stores[0].certificates_of(&juliet()).unwrap().len(), 1);
    }
}

#[test]
fn a_damaged_file_believes_nobody_and_is_never_overwritten() {
    let (_folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    known.remember(&juliet(), &old(), Verification::Code).unwrap();
    let damaged = fs::read_to_string(&path).unwrap().replace("\"code\"", "\"cod\"");
    fs::write(&path, &damaged).unwrap();

    let line = damaged.lines().position(|line| line.contains("\"cod\"")).unwrap() + 1;
    let expected = format!(
        "known peers: {}, line {line}: `verified`: expected one of first-use, accepted, secret, code, compared, authority, found \
         \"cod\"",
        path.display()
    );
    assert_eq!(text_of(known.find(&juliet(), &old())), expected);
    assert_eq!(text_of(known.find(&romeo(), &old())), expected);
    assert_eq!(text_of(known.remember(&romeo(), &old(), Verification::FirstUse)), expected);
    assert_eq!(
        text_of(known.add(&romeo(), old().fingerprint().clone(), None)),
        format!("security: {expected}")
    );
    assert_eq!(text_of(KnownPeers::open(&path)), format!("security: {expected}"));
    assert!(known.knows(&romeo()), "nobody can be said to be a stranger");
    assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let (_folder, path) = file();
    write(&path, "");
    File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(text_of(KnownPeers::open(&path)).ends_with("longer than 16777216 bytes"));
}

#[test]
fn a_file_does_not_grow_until_it_can_not_be_read() {
    let (_folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    known.add(&juliet(), old().fingerprint().clone(), None).unwrap();
    let before = fs::read_to_string(&path).unwrap();
    let label = "x".repeat(16 * 1024 * 1024);
    let refused = text_of(known.label(&juliet(), old().fingerprint(), &label));
    assert!(refused.ends_with("longer than 16777216 bytes"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    assert!(known.knows(&juliet()));
}

#[test]
fn a_place_where_nothing_can_be_is_named_at_once() {
    let (folder, _) = file();
    let missing = folder.path().join("missing").join("known-peers.toml");
    let refused = text_of(KnownPeers::open(&missing));
    assert!(refused.contains("there is no folder") && refused.contains("missing"), "{refused}");
    let refused = text_of(KnownPeers::open(folder.path()));
    assert!(refused.ends_with("is not a regular file"), "{refused}");
}

#[test]
fn what_can_not_be_written_is_not_believed() {
    let (_folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    // Where the new file would come there is something that can't be removed.
    fs::create_dir(path.with_file_name("known-peers.toml.new")).unwrap();
    let refused = text_of(known.remember(&juliet(), &old(), Verification::FirstUse));
    assert!(refused.contains("known-peers.toml: can't be written"), "{refused}");
    assert_eq!(known.find(&juliet(), &old()), Ok(None));
}

#[test]
fn a_listed_peer_is_met_again_also_where_that_can_not_be_written() {
    let (_folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    known.remember(&juliet(), &old(), Verification::Code).unwrap();
    let long_ago = fs::read_to_string(&path).unwrap().replace("last-seen = 2", "last-seen = 1970-01-01 #");
    fs::write(&path, &long_ago).unwrap();
    fs::create_dir(path.with_file_name("known-peers.toml.new")).unwrap();
    assert_eq!(known.meet_again(&juliet(), &old()), Ok(Verification::Code));
    assert_eq!(fs::read_to_string(&path).unwrap(), long_ago);

    fs::remove_dir(path.with_file_name("known-peers.toml.new")).unwrap();
    assert_eq!(known.meet_again(&juliet(), &old()), Ok(Verification::Code));
    let seen = known.certificates_of(&juliet()).unwrap()[0].last_seen.unwrap();
    assert!(seen.elapsed().unwrap().as_secs() < 3600);
}

#[test]
fn who_holds_the_lock_for_too_long_is_named() {
    let (_folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    let other = File::create(path.with_file_name("known-peers.toml.lock")).unwrap();
    other.lock().unwrap();
    let disk = known.0.disk.as_ref().unwrap();
    let Err(refused) = disk.lock(Instant::now()) else { panic!("it is locked") };
    assert!(text_of::<(), _>(Err(refused)).ends_with("another process has held it for 5s"));
    // Nobody waits for that who only looks.
    assert_eq!(known.find(&juliet(), &old()), Ok(None));
    drop(other);
    assert!(disk.lock(Instant::now()).is_ok());
}

#[test]
fn what_a_crash_left_behind_is_no_obstacle() {
    let (_folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    fs::write(path.with_file_name("known-peers.toml.new"), "half a fi").unwrap();
    fs::write(path.with_file_name("known-peers.toml.lock"), "").unwrap();
    known.remember(&juliet(), &old(), Verification::FirstUse).unwrap();
    assert!(!path.with_file_name("known-peers.toml.new").exists());
    assert!(KnownPeers::open(&path).unwrap().knows(&juliet()));
}

#[cfg(unix)]
#[test]
fn a_new_file_is_its_owners_and_an_existing_one_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;

    let (_folder, path) = file();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let known = KnownPeers::open(&path).unwrap();
    known.remember(&juliet(), &old(), Verification::FirstUse).unwrap();
    assert_eq!(mode(), 0o600);
    set_mode(&path, 0o644);
    known.remember(&romeo(), &old(), Verification::FirstUse).unwrap();
    assert_eq!(mode(), 0o644);
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_write_is_refused_also_behind_a_link_and_while_the_program_runs() {
    let (folder, path) = file();
    let link = folder.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    write(&path, "version = 1\n");
    let known = KnownPeers::open(&link).unwrap();
    known.remember(&juliet(), &old(), Verification::Code).unwrap();
    for mode in [0o620, 0o602, 0o666] {
        set_mode(&path, mode);
        let expected = format!(
            "known peers: {}: says whom the program believes: expected a mode by which only its owner may write it, such \
             as 600 or 644, found {mode:o} (`chmod go-w` helps)",
            link.display()
        );
        assert_eq!(text_of(KnownPeers::open(&link)), format!("security: {expected}"));
        assert_eq!(text_of(known.find(&juliet(), &old())), expected);
        assert_eq!(text_of(known.remember(&romeo(), &old(), Verification::Code)), expected);
        assert!(known.knows(&romeo()), "nobody can be said to be a stranger");
    }
    set_mode(&path, 0o444);
    assert_eq!(known.find(&juliet(), &old()), Ok(Some(Verification::Code)));
    assert!(KnownPeers::open(&link).is_ok());
}

#[test]
fn nobody_becomes_a_stranger_because_the_file_is_gone() {
    let (folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    known.remember(&juliet(), &old(), Verification::Code).unwrap();
    let aside = folder.path().join("aside.toml");
    fs::rename(&path, &aside).unwrap();
    let expected = format!(
        "known peers: {}: was there and is gone: put it back, or restart the program to begin anew with nobody known",
        path.display()
    );
    for _ in 0..2 {
        assert_eq!(text_of(known.find(&juliet(), &new())), expected);
        assert_eq!(text_of(known.remember(&juliet(), &new(), Verification::FirstUse)), expected);
        assert_eq!(
            text_of(known.add(&romeo(), old().fingerprint().clone(), None)),
            format!("security: {expected}")
        );
        assert!(known.knows(&romeo()) && !path.exists());
    }
    let restarted = KnownPeers::open(&path).unwrap();
    assert_eq!(restarted.find(&juliet(), &new()), Ok(None));
    fs::rename(&aside, &path).unwrap();
    assert_eq!(known.find(&juliet(), &old()), Ok(Some(Verification::Code)));
}

#[cfg(unix)]
#[test]
fn of_a_symbolic_link_the_target_is_written() {
    use std::os::unix::fs::symlink;

    let (folder, path) = file();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let target = elsewhere.join("peers.toml");
    symlink(&target, &path).unwrap();
    assert!(text_of(KnownPeers::open(&path)).contains("can't be read"), "it leads nowhere");

    write(&target, "version = 1\n");
    let known = KnownPeers::open(&path).unwrap();
    known.remember(&juliet(), &old(), Verification::FirstUse).unwrap();
    assert!(path.is_symlink());
    assert!(fs::read_to_string(&target).unwrap().contains("juliet@capulet.lit"));
}

#[test]
fn the_user_is_told_what_happens_and_nothing_twice() {
    let known = KnownPeers::in_memory();
    let mut events = known.events();
    let mut next = || events.next().now_or_never().map(Option::unwrap);

    known.remember(&juliet(), &old(), Verification::FirstUse).unwrap();
    assert!(
        matches!(next(), Some(PeerEvent::FirstUse { peer, certificate }) if peer == juliet() && certificate == old())
    );
    known.remember(&juliet(), &old(), Verification::Secret).unwrap();
    let verified = next();
    assert!(
        matches!(verified, Some(PeerEvent::Verified { verification: Verification::Secret, .. })),
        "{verified:?}"
    );

    known.find(&juliet(), &old()).unwrap();
    known.meet_again(&juliet(), &old()).unwrap();
    assert!(next().is_none(), "all is well");

    let changed = known.find(&juliet(), &new()).unwrap_err();
    assert!(
        matches!(next(), Some(PeerEvent::Refused { peer, error }) if peer == juliet() && error == changed)
    );
    known.revoke(&juliet(), old().fingerprint()).unwrap();
    known.remember(&juliet(), &old(), Verification::Secret).unwrap_err();
    assert!(matches!(next(), Some(PeerEvent::Refused { error: SecurityError::Revoked { .. }, .. })));
    assert!(next().is_none());

    drop(known);
    assert!(events.next().now_or_never().unwrap().is_none());
}

#[test]
fn the_user_can_list_name_revoke_and_forget() {
    let (_folder, path) = file();
    for known in [KnownPeers::open(&path).unwrap(), KnownPeers::in_memory()] {
        known.add(&juliet(), old().fingerprint().clone(), Some("balcony")).unwrap();
        known.add(&juliet(), new().fingerprint().clone(), None).unwrap();
        known.add(&romeo(), new().fingerprint().clone(), None).unwrap();
        known.label(&juliet(), new().fingerprint(), "garden").unwrap();
        let labels: Vec<_> =
            known.certificates_of(&juliet()).unwrap().into_iter().map(|one| one.label.unwrap()).collect();
        assert_eq!(labels, ["balcony", "garden"]);
        assert_eq!(known.find(&juliet(), &new()), Ok(Some(Verification::Compared)));

        known.revoke(&juliet(), new().fingerprint()).unwrap();
        assert!(matches!(known.find(&juliet(), &new()), Err(SecurityError::Revoked { .. })));
        assert_eq!(known.find(&romeo(), &new()), Ok(Some(Verification::Compared)));
        assert!(known.certificates().unwrap()[1].revoked.unwrap().elapsed().unwrap().as_secs() < 3600);

        known.forget(&juliet()).unwrap();
        let left: Vec<_> = known.certificates().unwrap().into_iter().map(|one| one.peer).collect();
        assert_eq!(left, [romeo()]);
    }
}

#[test]
fn nobody_is_taken_for_another_after_a_restart_by_an_odd_spelling() {
    let (_folder, path) = file();
    let known = KnownPeers::open(&path).unwrap();
    known.remember(&romeo(), &old(), Verification::Code).unwrap();
    // Prepared once, the letters become a capital M, and prepared again, a small one.
    for odd in ["ro\u{1d39}eo@montague.lit", "romeo@\u{1d39}ontague.lit"] {
        let odd: BareJid = odd.parse().unwrap();
        assert_ne!(odd, romeo());
        for shown in [Verification::FirstUse, Verification::Secret, Verification::Accepted] {
            let refused = known.remember(&odd, &new(), shown);
            assert!(matches!(refused, Err(SecurityError::Implausible { .. })), "{refused:?}");
        }
        assert!(text_of(known.add(&odd, new().fingerprint().clone(), None)).contains("read as another"));
    }
    let restarted = KnownPeers::open(&path).unwrap();
    assert!(matches!(restarted.find(&romeo(), &new()), Err(SecurityError::KeyChanged { .. })));
}

#[cfg(unix)]
#[test]
fn a_lock_that_somebody_planted_is_not_used() {
    let (folder, path) = file();
    let (lock, elsewhere) = (folder.path().join("known-peers.toml.lock"), folder.path().join("elsewhere"));
    std::os::unix::fs::symlink(&elsewhere, &lock).unwrap();
    let known = KnownPeers::open(&path).unwrap();
    let refused = text_of(known.remember(&juliet(), &old(), Verification::FirstUse));
    assert!(refused.contains("it is not a regular file"), "{refused}");
    assert!(!elsewhere.exists());

    fs::remove_file(&lock).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
    let refused = text_of(known.remember(&juliet(), &old(), Verification::FirstUse));
    assert!(refused.contains("it is not a regular file"), "{refused}");
}
