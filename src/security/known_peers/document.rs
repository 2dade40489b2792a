//! The text of the file: TOML that people may edit. What we do not know, comments and the order stay as they are.

use std::{
    collections::HashSet,
    fmt::Display,
    ops::Range,
    time::{Duration, SystemTime},
};

use toml_edit::{Array, ArrayOfTables, Date, Datetime, DocumentMut, Item, Offset, Table, Time, Value};
use x509_cert::der::DateTime;

use super::{
    super::{
        certificate::KeyPin,
        fingerprint::{Fingerprint, HashAlgo},
        peer::Verification,
    },
    KnownCertificate,
    list::{List, MAX_RENEWALS, Row, SHA1_REFUSED},
};

/// The only version there is.
const VERSION: i64 = 1;

/// A new file.
const HEADER: &str = "\
# The peers that are known, and the certificates that they presented: one [[certificate]] for each device.
#
# It may be edited by hand, also while the program runs. `verified` is one of
#   first-use  nobody checked it       accepted  the user said yes without a check
#   secret     a shared secret         code      people compared the verification code
#   compared   people compared the fingerprint
#   authority  a trusted authority issued it, and has to have issued whatever the peer presents
# To put another certificate in the place of one, change its `fingerprint`, and remove `public-key` and `renewed-from`.
# `revoked = true` refuses a certificate, and its key, from then on. What is removed is unknown again.
version = 1
";

/// The words for `verified`.
const RECORDED: [Verification; 6] = [
    Verification::FirstUse,
    Verification::Accepted,
    Verification::Secret,
    Verification::Code,
    Verification::Compared,
    Verification::Authority,
];

/// The fingerprints that renewals have replaced.
const RENEWED_FROM: &str = "renewed-from";

/// A file's text, and what it says.
#[derive(Debug)]
pub(super) struct Document {
    toml: DocumentMut,
    list: List,
}

/// Why a text can't be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) line: usize,
    pub(super) cause: String,
}

impl Document {
    pub(super) fn new() -> Self {
        #[expect(clippy::expect_used, reason = "a constant, which every test of a new file reads")]
        Self::parse(HEADER.to_owned()).expect("the header is TOML")
    }

    pub(super) fn parse(text: String) -> Result<Self, Damage> {
        let toml = toml_edit::Document::parse(text.as_str())
            .map_err(|error| damage(&text, error.span(), error.message()))?;
        check_version(&text, toml.get("version"))?;
        let mut list = List::default();
        for (number, table) in certificates(&text, toml.get("certificate"))?.into_iter().flatten().enumerate()
        {
            let known = Fields { text: &text, table }.read()?;
            list.push(Row { known, origin: Some(number) });
        }
        Ok(Self { toml: toml.into_mut(), list })
    }

    pub(super) fn list(&self) -> &List {
        &self.list
    }

    /// The text for another list, of which this one's was the origin.
    pub(super) fn updated(mut self, list: &List) -> String {
        let tables = self.toml.entry("certificate").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        // `parse` has refused everything else.
        if let Some(tables) = tables.as_array_of_tables_mut() {
            update(tables, self.list.rows(), list.rows());
        }
        self.toml.to_string()
    }
}

fn update(tables: &mut ArrayOfTables, before: &[Row], after: &[Row]) {
    let kept: HashSet<usize> = after.iter().filter_map(|row| row.origin).collect();
    for row in after {
        let origin = row.origin.and_then(|number| Some((before.get(number)?, tables.get_mut(number)?)));
        if let Some((before, table)) = origin {
            write(table, Some(&before.known), &row.known);
        }
    }
    let mut numbers = 0..;
    tables.retain(|_| numbers.next().is_some_and(|number| kept.contains(&number)));
    for row in after.iter().filter(|row| row.origin.is_none()) {
        let mut table = Table::new();
        write(&mut table, None, &row.known);
        tables.push(table);
    }
}

/// Only what changed, so that what people wrote stays as they wrote it.
fn write(table: &mut Table, before: Option<&KnownCertificate>, after: &KnownCertificate) {
    let was = |same: fn(&KnownCertificate, &KnownCertificate) -> bool| {
        before.is_some_and(|before| same(before, after))
    };
    if !was(|before, after| before.peer == after.peer) {
        set(table, "peer", Some(after.peer.as_str().into()));
    }
    if !was(|before, after| before.fingerprint == after.fingerprint) {
        set(table, "fingerprint", Some(in_words(&after.fingerprint)));
    }
    if !was(|before, after| before.key == after.key) {
        let text = after.key.as_ref().map(|key| format!("{}:{key}", HashAlgo::Sha256));
        set(table, "public-key", text.map(Value::from));
    }
    if !was(|before, after| before.verification == after.verification) {
        set(table, "verified", Some(after.verification.name().into()));
    }
    if !was(|before, after| before.first_seen == after.first_seen) {
        set(table, "first-seen", after.first_seen.and_then(to_toml));
    }
    if !was(|before, after| before.last_seen == after.last_seen) {
        set(table, "last-seen", after.last_seen.and_then(to_toml));
    }
    if !was(|before, after| before.label == after.label) {
        set(table, "label", after.label.as_deref().map(Value::from));
    }
    if !was(|before, after| before.revoked == after.revoked) {
        // A revocation without a date is one all the same.
        set(table, "revoked", after.revoked.map(|when| to_toml(when).unwrap_or(Value::from(true))));
    }
    let written = before.map_or(0, |before| before.renewed_from.len());
    append(table, RENEWED_FROM, after.renewed_from.get(written..).unwrap_or_default());
}

/// To an array that only grows. Each gets a line.
fn append(table: &mut Table, key: &str, fingerprints: &[Fingerprint]) {
    if fingerprints.is_empty() {
        return;
    }
    let mut fresh = Array::new();
    fresh.set_trailing("\n");
    fresh.set_trailing_comma(true);
    let item = table.entry(key).or_insert(Item::Value(fresh.into()));
    // `parse` has refused everything else.
    let Some(array) = item.as_array_mut() else { return };
    for fingerprint in fingerprints {
        array.push_formatted(in_words(fingerprint).decorated("\n    ", ""));
    }
}

fn in_words(fingerprint: &Fingerprint) -> Value {
    Value::from(format!("{}:{fingerprint}", fingerprint.algo()))
}

/// A comment behind the value stays.
fn set(table: &mut Table, key: &str, value: Option<Value>) {
    match (value, table.get_mut(key)) {
        (None, _) => drop(table.remove(key)),
        (Some(mut value), Some(Item::Value(old))) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        (Some(value), _) => drop(table.insert(key, Item::Value(value))),
    }
}

fn check_version(text: &str, version: Option<&Item>) -> Result<(), Damage> {
    let Some(version) = version else {
        let cause = format!("expected `version = {VERSION}`, found none; remove the file to start anew");
        return Err(damage(text, None, cause));
    };
    if version.as_integer() == Some(VERSION) {
        return Ok(());
    }
    let found = version.to_string();
    let cause =
        format!("expected version {VERSION}, found {}: a newer program may have written it", found.trim());
    Err(damage(text, version.span(), cause))
}

fn certificates<'a>(text: &str, item: Option<&'a Item>) -> Result<Option<&'a ArrayOfTables>, Damage> {
    match item {
        None => Ok(None),
        Some(Item::ArrayOfTables(tables)) => Ok(Some(tables)),
        Some(other) => {
            let cause = format!("expected [[certificate]], found `certificate` as {}", other.type_name());
            Err(damage(text, other.span(), cause))
        }
    }
}

/// One `[[certificate]]`.
struct Fields<'a> {
    text: &'a str,
    table: &'a Table,
}

impl Fields<'_> {
    fn read(&self) -> Result<KnownCertificate, Damage> {
        let peer = self.required("peer")?;
        let fingerprint = self.required("fingerprint")?;
        Ok(KnownCertificate {
            peer: peer
                .parse()
                .map_err(|error| self.bad("peer", &format!("{peer:?} is no bare JID: {error}")))?,
            fingerprint: self.fingerprint("fingerprint", fingerprint)?,
            key: self.key()?,
            verification: self.verification()?,
            first_seen: self.time("first-seen")?,
            last_seen: self.time("last-seen")?,
            label: self.string("label")?.map(str::to_owned),
            revoked: self.revoked()?,
            renewed_from: self.renewed_from()?,
        })
    }

    fn renewed_from(&self) -> Result<Vec<Fingerprint>, Damage> {
        let Some(item) = self.table.get(RENEWED_FROM) else { return Ok(Vec::new()) };
        let Some(array) = item.as_array() else {
            let found = item.type_name();
            return Err(self.bad(RENEWED_FROM, &format!("expected fingerprints in [ ], found {found}")));
        };
        if array.len() > MAX_RENEWALS {
            let found = array.len();
            return Err(self
                .bad(RENEWED_FROM, &format!("expected at most {MAX_RENEWALS} fingerprints, found {found}")));
        }
        // They would be taken for those of the key that comes next.
        if self.table.get("public-key").is_none() && !array.is_empty() {
            return Err(self.bad(
                RENEWED_FROM,
                &"expected with the `public-key` that they share, found without: remove this, too, to put another \
                  certificate in the place of one",
            ));
        }
        let read = |value: &Value| {
            let found = value.type_name();
            let text = value
                .as_str()
                .ok_or_else(|| self.bad(RENEWED_FROM, &format!("expected texts in quotes, found {found}")))?;
            self.fingerprint(RENEWED_FROM, text)
        };
        array.iter().map(read).collect()
    }

    fn fingerprint(&self, key: &str, text: &str) -> Result<Fingerprint, Damage> {
        let fingerprint: Fingerprint = text.parse().map_err(|error| self.bad(key, &error))?;
        if fingerprint.algo() == HashAlgo::Sha1 {
            return Err(self.bad(key, &SHA1_REFUSED));
        }
        Ok(fingerprint)
    }

    fn key(&self) -> Result<Option<KeyPin>, Damage> {
        const KEY: &str = "public-key";
        let Some(text) = self.string(KEY)? else { return Ok(None) };
        // With another hash it would fit nothing, and revoke nothing.
        let algo = self.fingerprint(KEY, text)?.algo();
        if algo != HashAlgo::Sha256 {
            return Err(self.bad(KEY, &format!("expected a sha-256 hash, found {algo}")));
        }
        text.parse().map(Some).map_err(|error| self.bad(KEY, &error))
    }

    fn verification(&self) -> Result<Verification, Damage> {
        const KEY: &str = "verified";
        let word = self.required(KEY)?;
        RECORDED.into_iter().find(|known| known.name() == word).ok_or_else(|| {
            let words: Vec<_> = RECORDED.iter().map(|known| known.name()).collect();
            self.bad(KEY, &format!("expected one of {}, found {word:?}", words.join(", ")))
        })
    }

    /// A date, or `true`; everything else is a mistake that must not let a revoked certificate in.
    fn revoked(&self) -> Result<Option<SystemTime>, Damage> {
        match self.table.get("revoked").and_then(Item::as_bool) {
            Some(true) => Ok(Some(SystemTime::UNIX_EPOCH)),
            Some(false) => Ok(None),
            None => self.time("revoked"),
        }
    }

    fn time(&self, key: &str) -> Result<Option<SystemTime>, Damage> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        let Some(datetime) = item.as_datetime() else {
            let found = item.type_name();
            return Err(
                self.bad(key, &format!("expected a date such as 2026-11-22T03:40:00Z, found {found}"))
            );
        };
        let time = from_toml(datetime);
        time.map(Some).ok_or_else(|| self.bad(key, &format!("{datetime} is no point in time after 1970")))
    }

    fn required(&self, key: &str) -> Result<&str, Damage> {
        self.string(key)?.ok_or_else(|| {
            damage(self.text, self.table.span(), format!("this [[certificate]] has no `{key}`"))
        })
    }

    fn string(&self, key: &str) -> Result<Option<&str>, Damage> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        let text = item
            .as_str()
            .ok_or_else(|| self.bad(key, &format!("expected a text in quotes, found {}", item.type_name())));
        text.map(Some)
    }

    fn bad(&self, key: &str, cause: &dyn Display) -> Damage {
        let span = self.table.get(key).and_then(Item::span);
        damage(self.text, span.or_else(|| self.table.span()), format!("`{key}`: {cause}"))
    }
}

fn damage(text: &str, span: Option<Range<usize>>, cause: impl Into<String>) -> Damage {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    Damage { line: 1 + before.matches('\n').count(), cause: cause.into() }
}

/// Without an offset it is UTC; a date alone is its first moment.
fn from_toml(datetime: &Datetime) -> Option<SystemTime> {
    let date = datetime.date?;
    let midnight = Time { hour: 0, minute: 0, second: None, nanosecond: None };
    let time = datetime.time.unwrap_or(midnight);
    let local =
        DateTime::new(date.year, date.month, date.day, time.hour, time.minute, time.second.unwrap_or(0));
    let local = local.ok()?.to_system_time();
    let minutes = match datetime.offset {
        None | Some(Offset::Z) => 0,
        Some(Offset::Custom { minutes }) => minutes,
    };
    let offset = Duration::from_secs(60 * u64::from(minutes.unsigned_abs()));
    if minutes < 0 { local.checked_add(offset) } else { local.checked_sub(offset) }
}

/// `None` after the year 9999.
fn to_toml(time: SystemTime) -> Option<Value> {
    let time = DateTime::from_system_time(time).ok()?;
    let date = Date { year: time.year(), month: time.month(), day: time.day() };
    let second = Some(time.seconds());
    let time = Time { hour: time.hour(), minute: time.minutes(), second, nanosecond: None };
    Some(Value::from(Datetime { date: Some(date), time: Some(time), offset: Some(Offset::Z) }))
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
