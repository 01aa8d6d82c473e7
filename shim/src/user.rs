//! Users and groups by name, from a root file system's own `/etc/passwd` and `/etc/group`.
//!
//! Invariant: no symbolic link of the root file system leads out of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// Most that is read of either file.
const MAX_DATABASE: u64 = 1 << 20;

/// A user that cannot be found.
#[derive(Debug, thiserror::Error)]
#[error("user {user:?}: {problem}")]
pub(crate) struct UserError {
    user: String,
    problem: String,
}

/// Resolves `USER[:GROUP]`, each a name or a number, in the root file system at `rootfs`.
///
/// # Errors
/// [`UserError`].
pub(crate) fn resolve(rootfs: &Path, user: &str) -> Result<(u32, u32), UserError> {
    let fail = |problem: String| UserError { user: user.to_owned(), problem };
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let passwd = database(rootfs, "etc/passwd");
    let entry = passwd.as_deref().ok().and_then(|text| find(text, name));
    let (uid, own_gid) = match (name.parse(), entry) {
        (Ok(uid), entry) => (uid, entry.map_or(0, |(_, gid)| gid)),
        (Err(_), Some((uid, gid))) => (uid, gid),
        (Err(_), None) => {
            let why =
                passwd.err().map_or_else(|| "not there".to_owned(), |error| error.to_string());
            return Err(fail(format!("no such name in the container's /etc/passwd: {why}")));
        }
    };
    let gid = match group.map(|group| (group, group.parse())) {
        None => own_gid,
        Some((_, Ok(gid))) => gid,
        Some((group, Err(_))) => database(rootfs, "etc/group")
            .ok()
            .and_then(|text| find(&text, group))
            .map(|(gid, _)| gid)
            .ok_or_else(|| fail("no such group in the container's /etc/group".into()))?,
    };
    Ok((uid, gid))
}

/// The name of the user `uid` on the host; the number if it has none.
pub(crate) fn name_of(uid: u32) -> String {
    let number = uid.to_string();
    let text = database(Path::new("/"), "etc/passwd").unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    };
    text.lines().find_map(of).unwrap_or(number)
}

/// The third and fourth field, as numbers, of the line whose first field (or third) is `name`.
fn find(text: &str, name: &str) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let own = fields.next()?;
        let id = fields.nth(1)?;
        let second = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
        if own == name || id == name { Some((id.parse().ok()?, second)) } else { None }
    })
}

fn database(rootfs: &Path, path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = openat(CWD, rootfs, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    let mut bytes = Vec::new();
    File::from(file).take(MAX_DATABASE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[path = "user_test.rs"]
mod user_test;
