//! The file of the known peers: read whole, replaced whole, by one process at a time.
//!
//! A writer holds the lock on a file beside it (`….lock`), reads what is there, writes what shall be there to a new file
//! (`….new`), and gives that the name of the old one. Readers need no lock: they see the old or the new one. A crash
//! leaves one of them, and perhaps a `….new` that the next writer throws away.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    super::folder::{folder_of, sync_folder},
    document::Document,
    list::refused,
};
use crate::error::SecurityError;

/// More than all peers that strangers can make us remember, each renewed as often as can be, and ten times as many devices
/// as people compare in a life; a larger file is something else.
pub(super) const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// How long to wait for other processes. One needs some milliseconds for its turn; a peer waits for us meanwhile.
pub(super) const LOCK_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait until the lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
}

/// By which a file is recognised that has not changed. Every writer of ours makes a new inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    #[cfg(unix)]
    inode: (u64, u64),
}

/// Whether there has to be a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nobody may be known yet.
    Optional,
    /// There was one. Without it everybody would be a stranger again, and be believed.
    Required,
}

/// The right to change the file, until it is dropped.
pub(super) struct Locked<'a> {
    disk: &'a Disk,
    target: PathBuf,
    /// Closing it unlocks it.
    _lock: File,
}

impl Disk {
    pub(super) fn new(path: &Path) -> Result<Self, SecurityError> {
        let disk = Self { path: path.to_owned() };
        let folder = folder_of(path);
        if !folder.is_dir() {
            return Err(disk.refuse(&format!("there is no folder {} to put it in", folder.display())));
        }
        Ok(disk)
    }

    /// `None` if there is no such file.
    pub(super) fn stamp(&self) -> Result<Option<Stamp>, SecurityError> {
        match fs::metadata(&self.path) {
            // Not even opened: a named pipe would keep us waiting.
            Ok(metadata) if !metadata.is_file() => Err(self.refuse("is not a regular file")),
            Ok(metadata) => self.stamp_of(&metadata).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.path.is_symlink() => Ok(None),
            Err(error) => Err(self.refuse(&format!("can't be read: {error}"))),
        }
    }

    fn stamp_of(&self, metadata: &Metadata) -> Result<Stamp, SecurityError> {
        refuse_shared(metadata).map_err(|cause| self.refuse(&cause))?;
        Ok(Stamp::of(metadata))
    }

    /// What is in the file, and its stamp; an empty list and `None` if there is no such file, and need not be.
    pub(super) fn read(&self, presence: Presence) -> Result<(Document, Option<Stamp>), SecurityError> {
        match (self.stamp()?, presence) {
            (Some(_), _) => {}
            (None, Presence::Optional) => return Ok((Document::new(), None)),
            (None, Presence::Required) => {
                return Err(self.refuse(
                    "was there and is gone: put it back, or restart the program to begin anew with nobody known",
                ));
            }
        }
        let unreadable = |error: io::Error| self.refuse(&format!("can't be read: {error}"));
        let file = File::open(&self.path).map_err(unreadable)?;
        // Of before the reading: a change in its middle will show.
        let stamp = self.stamp_of(&file.metadata().map_err(unreadable)?)?;
        let mut text = String::new();
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(self.too_long());
        }
        let document = Document::parse(text).map_err(|damage| {
            refused(format!("{}, line {}: {}", self.path.display(), damage.line, damage.cause))
        })?;
        Ok((document, Some(stamp)))
    }

    /// Waits for its turn. The lock is tried at least once, whatever the time.
    pub(super) fn lock(&self, deadline: Instant) -> Result<Locked<'_>, SecurityError> {
        // Through a symbolic link to its target; the link stays.
        let target = match self.stamp()? {
            Some(_) => fs::canonicalize(&self.path)
                .map_err(|error| self.refuse(&format!("can't be found: {error}")))?,
            None => self.path.clone(),
        };
        let path = beside(&target, ".lock");
        let unusable = |error: io::Error| {
            refused(format!("{}: the lock {} can't be had: {error}", self.path.display(), path.display()))
        };
        // Whoever else may write in the folder could have put a link there, or a pipe that keeps us waiting for ever.
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(unusable(io::Error::other("it is not a regular file")));
        }
        let lock = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&path)
            .map_err(unusable)?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Locked { disk: self, target, _lock: lock }),
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    let waited = format!("another process has held it for {LOCK_DEADLINE:?}");
                    return Err(unusable(io::Error::new(io::ErrorKind::TimedOut, waited)));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            }
        }
    }

    fn refuse(&self, cause: &str) -> SecurityError {
        refused(format!("{}: {cause}", self.path.display()))
    }

    fn too_long(&self) -> SecurityError {
        self.refuse(&format!("is, or would be, longer than {MAX_FILE_BYTES} bytes"))
    }
}

impl Locked<'_> {
    pub(super) fn read(&self, presence: Presence) -> Result<Document, SecurityError> {
        self.disk.read(presence).map(|(document, _)| document)
    }

    /// When this returns, the new text survives a power failure; until then, the old one does.
    pub(super) fn write(&self, text: &str) -> Result<Stamp, SecurityError> {
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(self.disk.too_long());
        }
        let fresh = beside(&self.target, ".new");
        self.replace(&fresh, text).map_err(|error| {
            // What can't be removed either is in nobody's way.
            let _ = fs::remove_file(&fresh);
            self.disk.refuse(&format!("can't be written: {error}"))
        })
    }

    fn replace(&self, fresh: &Path, text: &str) -> io::Result<Stamp> {
        match fs::remove_file(fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(fresh)?;
        file.write_all(text.as_bytes())?;
        match fs::metadata(&self.target) {
            Ok(old) => file.set_permissions(old.permissions())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        file.sync_all()?;
        fs::rename(fresh, &self.target)?;
        sync_folder(folder_of(&self.target))?;
        Ok(Stamp::of(&file.metadata()?))
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt;
                (metadata.dev(), metadata.ino())
            },
        }
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or(OsStr::new("known-peers")).to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Whoever may write it says whom we believe.
#[cfg(unix)]
fn refuse_shared(metadata: &Metadata) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 == 0 {
        return Ok(());
    }
    Err(format!(
        "says whom the program believes: expected a mode by which only its owner may write it, such as 600 or 644, found \
         {mode:03o} (`chmod go-w` helps)"
    ))
}

#[cfg(not(unix))]
fn refuse_shared(_: &Metadata) -> Result<(), String> {
    Ok(())
}

/// Whom we talk to is nobody else's business.
#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}
