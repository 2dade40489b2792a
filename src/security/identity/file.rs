//! Identities on the disk.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    time::SystemTime,
};

use jid::BareJid;
use tempfile::NamedTempFile;
use zeroize::Zeroize;

use super::{
    super::folder::{folder_of, sync_folder},
    Identity, issue, parse,
};

/// More than any certificates with their key take; a larger file is something else.
const MAX_PEM_BYTES: u64 = 64 * 1024;

pub(super) fn load_or_generate(path: &Path) -> Result<Identity, String> {
    load_or(path, issue::nameless)
}

pub(super) fn load_or_generate_for(path: &Path, jid: &BareJid, now: SystemTime) -> Result<Identity, String> {
    let identity = load_or(path, || issue::new_for(jid, now))?;
    if is_due(&identity, jid, now)? { renew(path, jid, now) } else { Ok(identity) }
}

/// Reads it, or makes one and stores it there.
fn load_or(path: &Path, new: impl FnOnce() -> Result<Identity, String>) -> Result<Identity, String> {
    if let Some(identity) = load(path)? {
        return Ok(identity);
    }
    let fresh = new().map_err(|cause| format!("a new one can't be made: {cause}"))?;
    if store_new(path, &fresh.to_pem()).map_err(|error| format!("can't be written: {error}"))? {
        return Ok(fresh);
    }
    // Somebody else was quicker.
    load(path)?.ok_or_else(|| "is there, but leads to no file (a dangling symbolic link?)".to_owned())
}

/// Whether it is ours to renew, and time to; an error if it is ours and for somebody else.
fn is_due(identity: &Identity, jid: &BareJid, now: SystemTime) -> Result<bool, String> {
    let certificate = identity.certificate();
    let ours = certificate.content().ok().filter(|content| issue::is_ours(content));
    let Some(content) = ours else {
        if let Err(why) = certificate.check_first_use(jid, now) {
            tracing::warn!("the certificate of {jid} will not be believed by strangers: {why}");
        }
        return Ok(false);
    };
    if content.names_xmpp_addresses() && !content.names_xmpp_address(jid) {
        return Err(format!("{}: give each account a file of its own", content.not_for(jid)));
    }
    Ok(issue::is_due(content, now))
}

fn renew(path: &Path, jid: &BareJid, now: SystemTime) -> Result<Identity, String> {
    // A link to it stays one.
    let path = fs::canonicalize(path).map_err(|error| format!("can't be found: {error}"))?;
    // Of several programs one gets the lock on what is to be replaced. The others wait, and then find the new one
    // there.
    let lock = File::open(&path).and_then(|file| file.lock().map(|()| file));
    if let Err(error) = &lock {
        tracing::debug!("{} can't be locked: {error}", path.display());
    }
    let current = load(&path)?.ok_or("was there, and is gone")?;
    if !is_due(&current, jid, now)? {
        return Ok(current);
    }
    let renewed = issue::renewed(&current, jid, now)?;
    let Err(error) = replace(&path, &renewed.to_pem()) else { return Ok(renewed) };
    match current.certificate().check_first_use(jid, now) {
        Ok(()) => {
            tracing::warn!("the renewed certificate can't be stored in {}: {error}", path.display());
            Ok(current)
        }
        Err(why) => Err(format!("can't be renewed, since it can't be written: {error}; {why}")),
    }
}

/// `None` if there is no such file.
fn load(path: &Path) -> Result<Option<Identity>, String> {
    let unreadable = |error: io::Error| format!("can't be read: {error}");
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    refuse_shared(&file)?;
    let mut text = String::new();
    file.take(MAX_PEM_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_PEM_BYTES {
        return Err(format!("is longer than {MAX_PEM_BYTES} bytes, so it is no identity"));
    }
    let identity = parse(&text);
    text.zeroize();
    identity.map(Some)
}

/// A key that others could read may be theirs already.
#[cfg(unix)]
fn refuse_shared(file: &File) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;

    let mode = file.metadata().map_err(|error| format!("can't be read: {error}"))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let mode = mode & 0o777;
    Err(format!("holds a private key, and its mode {mode:03o} gives others access to it (`chmod 600` helps)"))
}

#[cfg(not(unix))]
fn refuse_shared(_: &File) -> Result<(), String> {
    Ok(())
}

/// False if there is a file by that name already.
pub(super) fn store_new(path: &Path, text: &str) -> io::Result<bool> {
    let folder = folder_of(path);
    match written(folder, text)?.persist_noclobber(path) {
        Ok(_) => sync_folder(folder).map(|()| true),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(refused) => Err(refused.error),
    }
}

/// In one step: whoever reads it gets the old text or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = folder_of(path);
    let temporary = written(folder, text)?;
    // No more than its owner's: a file that others may read was refused.
    temporary.as_file().set_permissions(fs::metadata(path)?.permissions())?;
    temporary.persist(path).map_err(|refused| refused.error)?;
    sync_folder(folder)
}

/// Mode 0600 from the start; the name of the real file comes only when all of it is on the disk.
fn written(folder: &Path, text: &str) -> io::Result<NamedTempFile> {
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}
