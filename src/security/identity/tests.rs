//! Tests of identities in memory and on the disk.

use std::{fs, path::PathBuf, sync::Barrier, thread};

use super::*;

const P256: &str = include_str!("../../../fixtures/tls/p256.pem");
const ED25519: &str = include_str!("../../../fixtures/tls/ed25519.pem");
const RSA2048: &str = include_str!("../../../fixtures/tls/rsa2048.pem");
const EXPIRED: &str = include_str!("../../../fixtures/tls/expired.pem");

/// A folder that is gone at the end of the test, and the path of an identity in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bot.identity.pem");
    (folder, path)
}

/// Writes it as an identity is written: for its owner only.
fn write(path: &Path, text: &str) {
    assert!(store_new(path, text).unwrap());
}

fn cause(result: Result<Identity, Error>) -> String {
    let Err(Error::Security(SecurityError::Identity(cause))) = result else { panic!("{result:?}") };
    cause
}

#[test]
fn it_survives_the_way_through_pem() {
    let identity = Identity::generate().unwrap();
    let again = Identity::from_pem(&identity.to_pem()).unwrap();
    assert_eq!(again.fingerprint(), identity.fingerprint());
    assert_eq!(again.to_pem(), identity.to_pem());
    assert!(identity.fingerprint().matches_der(identity.certificate_der()));
}

#[test]
fn each_new_one_is_another() {
    assert_ne!(Identity::generate().unwrap().fingerprint(), Identity::generate().unwrap().fingerprint());
}

#[test]
fn debug_shows_the_fingerprint_and_not_the_key() {
    let identity = Identity::generate().unwrap();
    assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.fingerprint()));
}

#[test]
fn what_openssl_made_is_read_with_openssls_fingerprint() {
    let readme = include_str!("../../../fixtures/tls/README.md");
    for (file, pem) in
        [("p256.pem", P256), ("ed25519.pem", ED25519), ("rsa2048.pem", RSA2048), ("expired.pem", EXPIRED)]
    {
        let fingerprint = Identity::from_pem(pem).unwrap().fingerprint().to_string();
        let row = readme.lines().find(|line| line.contains(&format!("| `{file}`"))).unwrap();
        assert!(row.contains(&fingerprint), "{row}: {fingerprint}");
    }
}

#[test]
fn pem_text_that_is_no_identity_is_refused_with_the_reason() {
    let (certificate, key) = P256.split_at(P256.find("-----BEGIN PRIVATE").unwrap());
    let strangers_key = ED25519.split_at(ED25519.find("-----BEGIN PRIVATE").unwrap()).1;
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, expected) in [
        (String::new(), "has no certificate (BEGIN CERTIFICATE)"),
        (key.to_owned(), "has no certificate (BEGIN CERTIFICATE)"),
        (certificate.to_owned(), "has no unencrypted PKCS#8 private key (BEGIN PRIVATE KEY)"),
        (format!("{certificate}{encrypted}"), "has no unencrypted PKCS#8 private key (BEGIN PRIVATE KEY)"),
        (format!("{certificate}{strangers_key}"), "certificate and private key do not fit"),
        (format!("{no_certificate}{key}"), "certificate and private key do not fit"),
    ] {
        let cause = cause(Identity::from_pem(&pem));
        assert!(cause.starts_with(expected), "{cause}");
    }
}

#[test]
fn the_first_start_makes_it_and_the_next_ones_find_it() {
    let (_folder, path) = folder();
    let first = Identity::load_or_generate(&path).unwrap();
    let second = Identity::load_or_generate(&path).unwrap();
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(fs::read_to_string(&path).unwrap(), first.to_pem());
}

#[test]
fn programs_that_start_at_the_same_time_get_the_same_one() {
    const PROGRAMS: usize = 8;
    let (folder, path) = folder();
    let together = Barrier::new(PROGRAMS);
    let start = || {
        together.wait();
        Identity::load_or_generate(&path).unwrap().fingerprint().clone()
    };
    let fingerprints: Vec<_> = thread::scope(|scope| {
        let programs: Vec<_> = (0..PROGRAMS).map(|_| scope.spawn(start)).collect();
        programs.into_iter().map(|program| program.join().unwrap()).collect()
    });
    let stored = Identity::load_or_generate(&path).unwrap();
    assert!(fingerprints.iter().all(|fingerprint| fingerprint == stored.fingerprint()), "{fingerprints:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are left over");
}

#[cfg(unix)]
#[test]
fn only_its_owner_can_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt;

    let (_folder, path) = folder();
    Identity::load_or_generate(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let (_folder, path) = folder();
    Identity::load_or_generate(&path).unwrap();
    for mode in [0o640, 0o604, 0o644, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let cause = cause(Identity::load_or_generate(&path));
        assert!(
            cause.contains(&format!("bot.identity.pem: holds a private key, and its mode {mode:o}")),
            "{cause}"
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    Identity::load_or_generate(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_refused() {
    let (folder, path) = folder();
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &path).unwrap();
    assert!(cause(Identity::load_or_generate(&path)).contains("dangling symbolic link"));
}

#[test]
fn a_file_that_is_no_identity_is_refused_and_left_alone() {
    for (text, expected) in [
        ("garbage", "bot.identity.pem: has no certificate"),
        (P256.split_at(P256.len() - 40).0, "bot.identity.pem: is cut off in the middle"),
        (P256.split_at(100).0, "bot.identity.pem: is cut off in the middle"),
        (&"x".repeat(70_000), "bot.identity.pem: is longer than 65536 bytes"),
    ] {
        let (_folder, path) = folder();
        write(&path, text);
        let cause = cause(Identity::load_or_generate(&path));
        assert!(cause.contains(expected), "{cause}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let (_folder, path) = folder();
    let cause = cause(Identity::load_or_generate(path.join("deeper").join("bot.pem")));
    assert!(cause.contains("bot.pem: can't be written"), "{cause}");
}
