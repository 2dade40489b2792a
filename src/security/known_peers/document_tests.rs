use std::{fs, path::PathBuf};

use super::*;
use crate::security::{certificate::Certificate, dice::Dice, identity::fixture};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/known-peers")
}

fn by_hand() -> String {
    fs::read_to_string(folder().join("by-hand.toml")).unwrap()
}

fn at(text: &str) -> Option<SystemTime> {
    let seconds = text.parse::<DateTime>().unwrap();
    Some(seconds.to_system_time())
}

#[test]
fn what_people_write_is_understood() {
    let document = Document::parse(by_hand()).unwrap();
    let known: Vec<_> = document.list().all().collect();
    let [juliet, romeo] = known[..] else { panic!("{known:?}") };
    assert_eq!(juliet.peer.as_str(), "juliet@capulet.lit");
    assert_eq!(juliet.fingerprint.algo(), HashAlgo::Sha256);
    assert_eq!((juliet.verification, &juliet.key), (Verification::Compared, &None));
    assert_eq!((juliet.label.as_deref(), juliet.revoked), (Some("balcony"), None));
    assert_eq!((juliet.first_seen, juliet.last_seen), (at("2026-11-22T03:40:00Z"), None));

    assert_eq!(romeo.fingerprint.algo(), HashAlgo::Sha512);
    assert_eq!(romeo.key.as_ref().unwrap().to_string(), juliet.fingerprint.to_string());
    assert_eq!((romeo.verification, romeo.label.as_deref()), (Verification::FirstUse, None));
    assert_eq!((romeo.last_seen, romeo.revoked), (at("2026-11-24T00:00:00Z"), Some(SystemTime::UNIX_EPOCH)));
    let [first] = &romeo.renewed_from[..] else { panic!("{romeo:?}") };
    assert!(first.to_string().ends_with(":F8:10") && juliet.renewed_from.is_empty(), "{first}");
}

#[test]
fn without_a_change_not_a_letter_changes() {
    let document = Document::parse(by_hand()).unwrap();
    let list = document.list().clone();
    assert_eq!(document.updated(&list), by_hand());
}

#[test]
fn a_change_touches_only_its_own_words() {
    let document = Document::parse(by_hand()).unwrap();
    let mut list = document.list().clone();
    let known: Vec<_> = list.all().cloned().collect();
    list.label(&known[0].peer, &known[0].fingerprint, "garden").unwrap();
    let expected = by_hand().replace("'balcony'", "\"garden\"");
    assert_eq!(document.updated(&list), expected);
}

#[test]
fn comments_behind_a_word_stay_when_it_changes() {
    let document = Document::parse(by_hand().replace("\"compared\"", "\"code\"")).unwrap();
    let mut list = document.list().clone();
    let juliet = list.all().next().unwrap().clone();
    list.add(&juliet.peer, juliet.fingerprint, None).unwrap();
    assert_eq!(document.updated(&list), by_hand());
}

#[test]
fn a_new_certificate_comes_behind_the_others() {
    let document = Document::parse(by_hand()).unwrap();
    let mut list = document.list().clone();
    let tybalt = "tybalt@capulet.lit".parse().unwrap();
    let certificate = Certificate::from_der(b"a certificate");
    let now = at("2026-11-22T05:06:07Z").unwrap();
    let plan = list.plan(&tybalt, &certificate, Some(Verification::Secret), now).unwrap();
    list.carry_out(&plan);
    list.label(&tybalt, certificate.fingerprint(), "a \"label\"\n[[certificate]]").unwrap();
    let text = document.updated(&list);
    let added = format!(
        "[[certificate]]\npeer = \"tybalt@capulet.lit\"\nfingerprint = \"sha-256:{}\"\nverified = \"secret\"\n\
         first-seen = 2026-11-22T05:06:00Z\nlast-seen = 2026-11-22T05:06:00Z\nlabel = ",
        certificate.fingerprint(),
    );
    let (before, _) = text.split_once(&added).unwrap_or_else(|| panic!("{text}"));
    let unchanged = by_hand();
    let (unchanged, _) = unchanged.split_once("\n# The end.").unwrap();
    assert_eq!(before.trim_end(), unchanged.trim_end());

    let again = Document::parse(text).unwrap();
    let (known, expected): (Vec<_>, Vec<_>) = (again.list().all().collect(), list.all().collect());
    assert_eq!(known, expected);
}

#[test]
fn who_is_forgotten_leaves_the_others_as_they_are() {
    let document = Document::parse(by_hand()).unwrap();
    let mut list = document.list().clone();
    list.forget(&"juliet@capulet.lit".parse().unwrap());
    let text = document.updated(&list);
    assert!(!text.contains("balcony"), "{text}");
    for kept in
        ["# Whom the bot knows", "owner = \"friar", "[keep]", "revoked=true # lost in Mantua", "# The end."]
    {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    assert_eq!(Document::parse(text).unwrap().list().all().count(), 1);
}

#[test]
fn a_revocation_is_written_with_its_date() {
    let document = Document::parse(by_hand()).unwrap();
    let mut list = document.list().clone();
    let juliet = list.all().next().unwrap().clone();
    list.revoke(&juliet.peer, &juliet.fingerprint, at("2026-11-22T05:06:07Z").unwrap()).unwrap();
    let text = document.updated(&list);
    assert!(text.contains("revoked = 2026-11-22T05:06:00Z\n"), "{text}");
    assert!(text.contains("revoked=true # lost in Mantua"), "{text}");
}

#[test]
fn what_was_renewed_is_written_behind_what_was_renewed_before() {
    let document = Document::parse(by_hand()).unwrap();
    let mut list = List::default();
    for (row, fresh) in document.list().rows().iter().zip([&b"one"[..], b"two"]) {
        let mut row = row.clone();
        row.known.key = Some(KeyPin::of(b"a public key"));
        row.known.renewed_from.push(Fingerprint::of(fresh));
        row.known.renewed_from.push(Fingerprint::of_with(HashAlgo::Sha384, fresh));
        list.push(row);
    }
    let text = document.updated(&list);
    let lines = |fresh: &[u8]| {
        let (old, new) = (Fingerprint::of(fresh), Fingerprint::of_with(HashAlgo::Sha384, fresh));
        format!("\n    \"sha-256:{old}\",\n    \"sha-384:{new}\",")
    };
    assert!(text.contains(&format!("\nrenewed-from = [{}\n]\n", lines(b"one"))), "{text}");
    assert!(text.contains(&format!("F810',{} # the first\n] # two years\n", lines(b"two"))), "{text}");
    let again = Document::parse(text).unwrap();
    assert_eq!(again.list().all().collect::<Vec<_>>(), list.all().collect::<Vec<_>>());
}

#[test]
fn a_key_is_written_with_its_hash_and_read_again() {
    let mut list = Document::new().list().clone();
    let key = KeyPin::of(b"a public key");
    let known = KnownCertificate {
        peer: "juliet@capulet.lit".parse().unwrap(),
        fingerprint: Fingerprint::of_with(HashAlgo::Sha384, b"a certificate"),
        key: Some(key.clone()),
        verification: Verification::Accepted,
        first_seen: None,
        last_seen: None,
        label: None,
        revoked: None,
        renewed_from: Vec::new(),
    };
    list.push(Row { known, origin: None });
    let text = Document::new().updated(&list);
    assert!(text.starts_with(HEADER), "{text}");
    assert!(text.contains(&format!("public-key = \"sha-256:{key}\"\n")), "{text}");
    let again = Document::parse(text).unwrap();
    assert_eq!(again.list().all().collect::<Vec<_>>(), list.all().collect::<Vec<_>>());
}

#[test]
fn what_is_damaged_is_refused_with_its_line() {
    let mut seen = 0;
    for file in fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let Some(name) = name.strip_prefix("bad--line-") else { continue };
        let line: usize = name.split_once("--").unwrap().0.parse().unwrap();
        let damage = Document::parse(fs::read_to_string(&path).unwrap()).expect_err(name);
        assert_eq!(damage.line, line, "{name}: {}", damage.cause);
        assert!(!damage.cause.is_empty() && !damage.cause.contains('\n'), "{name}: {}", damage.cause);
        seen += 1;
    }
    assert_eq!(seen, 30);
}

#[test]
fn the_causes_say_what_was_expected_and_what_came() {
    let cause = |name: &str| {
        let text = fs::read_to_string(folder().join(format!("bad--line-{name}.toml"))).unwrap();
        Document::parse(text).unwrap_err().cause
    };
    for (name, says) in [
        ("1--version-2", "expected version 1, found 2: a newer program may have written it"),
        ("1--empty", "expected `version = 1`, found none; remove the file to start anew"),
        (
            "5--sha-1",
            "`fingerprint`: a SHA-1 fingerprint is too weak to be listed: expected one of sha-256, sha-384, sha-512",
        ),
        (
            "6--unknown-word",
            "`verified`: expected one of first-use, accepted, secret, code, compared, authority, found \"sure\"",
        ),
        ("3--no-peer", "this [[certificate]] has no `peer`"),
        ("7--revoked-yes", "`revoked`: expected a date such as 2026-11-22T03:40:00Z, found string"),
        ("7--renewed-from-text", "`renewed-from`: expected fingerprints in [ ], found string"),
        ("7--renewed-from-number", "`renewed-from`: expected texts in quotes, found integer"),
        ("7--renewed-from-17", "`renewed-from`: expected at most 16 fingerprints, found 17"),
        (
            "7--renewed-from-without-key",
            "`renewed-from`: expected with the `public-key` that they share, found without: remove this, too, to put \
             another certificate in the place of one",
        ),
        ("7--public-key-sha-512", "`public-key`: expected a sha-256 hash, found sha-512"),
    ] {
        assert_eq!(cause(name), says, "{name}");
    }
}

#[test]
fn strangers_can_not_fill_the_file_so_that_the_user_can_revoke_nothing() {
    use super::super::{
        disk::MAX_FILE_BYTES,
        list::{MAX_FIRST_USE_ADDRESS, MAX_MET, MAX_RENEWALS},
    };

    let certificate = fixture("p256").certificate().clone();
    let now = SystemTime::now();
    let meet = |list: &List, peer: &str| {
        list.plan(&peer.parse().unwrap(), &certificate, Some(Verification::FirstUse), now)
    };
    let domain = "@capulet.lit";
    let longest = "\\".repeat(MAX_FIRST_USE_ADDRESS - domain.len()) + domain;
    let mut list = List::default();
    let plan = meet(&list, &longest).unwrap();
    list.carry_out(&plan);
    let mut renewed = list.all().next().unwrap().clone();
    renewed.renewed_from = (0..MAX_RENEWALS).map(|number| Fingerprint::of(&number.to_be_bytes())).collect();
    let mut worst = List::default();
    worst.push(Row { known: renewed, origin: None });
    let row = Document::new().updated(&worst).len() - HEADER.len();
    let left = MAX_FILE_BYTES.saturating_sub((row * MAX_MET) as u64);
    // For thousands that the user adds or revokes.
    assert!(left >= 2 * 1024 * 1024, "{row} bytes each, so {left} are left");

    let longer = format!("j{longest}");
    let refused = meet(&list, &longer);
    assert!(matches!(refused, Err(crate::SecurityError::Implausible { .. })), "{refused:?}");
}

#[test]
fn whatever_people_make_of_the_file_it_is_read_or_refused_and_written_so_that_it_can_be_read() {
    let words = [
        "\"",
        "'",
        "\n",
        "\n[[certificate]]\n",
        "[certificate]\n",
        "[[certificate.peer]]\n",
        "= [",
        "{",
        "}",
        "#",
        "peer",
        "revoked = true\n",
        "label.x = 1\n",
        "1979-05-27T07:32:00-23:59",
        "-",
        "\u{0}",
        "é",
        "\\u0000",
    ];
    let certificate = fixture("p256").certificate().clone();
    let (stranger, now) = ("nurse@capulet.lit".parse().unwrap(), SystemTime::now());
    let mut read = 0;
    for seed in 0..6000 {
        println!("seed {seed}");
        let damaged = Dice::new(seed).damaged(by_hand().as_bytes(), &words);
        let Some(document) = String::from_utf8(damaged).ok().and_then(|text| Document::parse(text).ok())
        else {
            continue;
        };
        read += 1;
        let mut list = document.list().clone();
        let plan = list.plan(&stranger, &certificate, Some(Verification::FirstUse), now).unwrap();
        list.carry_out(&plan);
        for known in list.all().cloned().collect::<Vec<_>>() {
            list.revoke(&known.peer, &known.fingerprint, now).unwrap();
            list.label(&known.peer, &known.fingerprint, "a\n\"label'").unwrap();
        }
        let written = document.updated(&list);
        let again = Document::parse(written.clone()).unwrap_or_else(|why| panic!("{why:?} in {written}"));
        let [wanted, got] = [&list, again.list()].map(|list| list.all().cloned().collect::<Vec<_>>());
        assert_eq!(wanted, got, "{written}");
    }
    assert!(read > 500, "only {read} could be read");
}

#[test]
fn no_address_is_written_down_that_is_read_as_another() {
    let certificate = fixture("p256").certificate().clone();
    let letters = (0x80..0x2200).filter_map(char::from_u32);
    let spelled = letters.flat_map(|letter| [format!("a{letter}b@capulet.lit"), format!("a@b{letter}c.lit")]);
    let mut refused = Vec::new();
    for peer in spelled.filter_map(|text| text.parse::<jid::BareJid>().ok()) {
        let mut list = List::default();
        let plan = list.plan(&peer, &certificate, Some(Verification::FirstUse), SystemTime::now());
        let Ok(plan) = plan else {
            refused.push(peer);
            continue;
        };
        list.carry_out(&plan);
        let again = Document::parse(Document::new().updated(&list)).unwrap();
        assert_eq!(again.list().all().next().unwrap().peer, peer);
    }
    assert!(!refused.is_empty(), "then the check is not needed any more");
}
