//! Tests of identities in memory and on the disk.

use std::{fs, path::PathBuf, sync::Barrier, thread, time::Duration};

use super::*;

const CHAIN: &str = include_str!("../../../fixtures/tls/chain-romeo.pem");
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
    assert!(file::store_new(path, text).unwrap());
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn romeo() -> BareJid {
    "romeo@montague.lit".parse().unwrap()
}

fn juliet() -> BareJid {
    "juliet@capulet.lit".parse().unwrap()
}

/// Starts the program some days from now.
fn start_in(days: u32, path: &Path) -> Result<Identity, String> {
    file::load_or_generate_for(path, &romeo(), SystemTime::now() + days * DAY)
}

fn serial_number(identity: &Identity) -> Vec<u8> {
    let der = CertificateDer::from(identity.certificate_der());
    webpki::EndEntityCert::try_from(&der).unwrap().serial().to_vec()
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
fn a_chain_survives_it_too_and_all_of_it_is_sent() {
    let identity = Identity::from_pem(CHAIN).unwrap();
    assert_eq!(identity.certified_key().cert.len(), 2);
    assert_eq!(identity.certified_key().cert[0].as_ref(), identity.certificate_der());
    assert_eq!(Identity::from_pem(&identity.to_pem()).unwrap().to_pem(), identity.to_pem());
}

#[test]
fn a_chain_has_an_end() {
    let (certificate, key) = P256.split_at(P256.find("-----BEGIN PRIVATE").unwrap());
    let most = format!("{}{key}", certificate.repeat(MAX_CHAIN));
    assert_eq!(Identity::from_pem(&most).unwrap().certified_key().cert.len(), MAX_CHAIN);
    let cause = cause(Identity::from_pem(&format!("{certificate}{most}")));
    assert!(cause.starts_with("has more than 8 certificates"), "{cause}");
}

#[test]
fn one_for_an_account_names_it_and_is_valid_for_two_years_from_yesterday() {
    let before = SystemTime::now();
    let identity = Identity::generate_for(&romeo()).unwrap();
    let content = identity.certificate().content().unwrap();
    assert!(content.names_xmpp_address(&romeo()) && !content.names_xmpp_address(&juliet()));
    assert!(content.is_self_issued() && !content.is_authority());
    assert!(content.not_before() <= before - DAY);
    let left = content.not_after().duration_since(before).unwrap();
    assert!(left > 729 * DAY && left <= 731 * DAY, "{left:?}");
}

#[test]
fn one_for_nobody_names_nobody() {
    let identity = Identity::generate().unwrap();
    assert!(!identity.certificate().content().unwrap().names_xmpp_addresses());
}

#[test]
fn a_renewed_one_has_another_certificate_and_the_same_key() {
    let old = Identity::generate_for(&romeo()).unwrap();
    let new = old.renew(&romeo()).unwrap();
    assert_eq!(new.key(), old.key());
    assert_ne!(new.fingerprint(), old.fingerprint());
    assert_ne!(serial_number(&new), serial_number(&old), "both are by one issuer");
    // Ed25519 and RSA keys of others, too.
    for name in ["ed25519", "rsa2048"] {
        let old = fixture(name);
        let new = old.renew(&romeo()).unwrap();
        assert_eq!(new.key(), old.key());
        assert!(new.certificate().content().unwrap().names_xmpp_address(&romeo()));
    }
}

#[test]
fn what_an_authority_issued_is_not_renewed_here() {
    let cause = cause(fixture("ca-romeo").renew(&romeo()));
    assert_eq!(cause, "it can't be renewed: \"CN=ca\" issued it, and has to be asked for another");
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

#[test]
fn it_is_renewed_in_the_last_third_of_its_time_and_keeps_its_key() {
    let (folder, path) = folder();
    let first = start_in(0, &path).unwrap();
    // Of 731 days.
    assert_eq!(start_in(480, &path).unwrap().to_pem(), first.to_pem());
    let renewed = start_in(490, &path).unwrap();
    assert_ne!(renewed.fingerprint(), first.fingerprint());
    assert_eq!(renewed.key(), first.key());
    assert_eq!(fs::read_to_string(&path).unwrap(), renewed.to_pem());
    assert_eq!(start_in(491, &path).unwrap().to_pem(), renewed.to_pem());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are left over");
}

#[test]
fn it_is_renewed_even_when_its_time_is_over() {
    let (_folder, path) = folder();
    let first = start_in(0, &path).unwrap();
    let renewed = start_in(4000, &path).unwrap();
    assert_eq!(renewed.key(), first.key());
    assert_ne!(renewed.fingerprint(), first.fingerprint());
}

#[test]
fn a_clock_that_is_behind_renews_nothing() {
    let (_folder, path) = folder();
    let first = start_in(1000, &path).unwrap();
    assert_eq!(start_in(0, &path).unwrap().to_pem(), first.to_pem());
}

#[cfg(unix)]
#[test]
fn a_renewed_file_keeps_its_mode_and_a_link_to_it_stays_a_link() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, path) = folder();
    start_in(0, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let link = folder.path().join("link.pem");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let renewed = start_in(700, &link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap(), renewed.to_pem());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
}

#[test]
fn programs_that_renew_it_at_the_same_time_get_the_same_one() {
    const PROGRAMS: usize = 8;
    let (folder, path) = folder();
    let first = start_in(0, &path).unwrap();
    let together = Barrier::new(PROGRAMS);
    let start = || {
        together.wait();
        start_in(700, &path).unwrap()
    };
    let renewed: Vec<_> = thread::scope(|scope| {
        let programs: Vec<_> = (0..PROGRAMS).map(|_| scope.spawn(start)).collect();
        programs.into_iter().map(|program| program.join().unwrap()).collect()
    });
    let stored = fs::read_to_string(&path).unwrap();
    assert!(renewed.iter().all(|identity| identity.to_pem() == stored && identity.key() == first.key()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are left over");
}

#[test]
fn one_that_names_nobody_stays_until_it_is_due() {
    let (_folder, path) = folder();
    let nameless = Identity::load_or_generate(&path).unwrap();
    assert_eq!(start_in(0, &path).unwrap().to_pem(), nameless.to_pem());
    let renewed = start_in(15 * 365, &path).unwrap();
    assert_eq!(renewed.key(), nameless.key());
    assert!(renewed.certificate().content().unwrap().names_xmpp_address(&romeo()));
}

#[test]
fn one_of_another_account_is_refused_and_left_alone() {
    let (_folder, path) = folder();
    let juliets = Identity::generate_for(&juliet()).unwrap();
    write(&path, &juliets.to_pem());
    for days in [0, 700] {
        let why = start_in(days, &path).unwrap_err();
        let expected =
            "it is for juliet@capulet.lit, not for romeo@montague.lit: give each account a file of its own";
        assert_eq!(why, expected);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), juliets.to_pem());
}

#[test]
fn what_others_made_is_never_touched() {
    for pem in [CHAIN, EXPIRED, P256, include_str!("../../../fixtures/tls/ca-expired.pem")] {
        let (_folder, path) = folder();
        write(&path, pem);
        for days in [0, 4000, 35_000] {
            start_in(days, &path).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), pem);
    }
}
