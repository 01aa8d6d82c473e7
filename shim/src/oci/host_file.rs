//! A file or directory of the host that a bind mount names.
//!
//! Invariant: it is looked up once; nothing is opened but a regular file of an ordinary file system, and of that no more is
//! read than can be brought along.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, major, minor};

use crate::volumes::Place;

/// Largest file that is brought along (see [`cofferdam_agent_protocol::MountKind::File`]).
pub(super) const MAX_FILE: usize = 2 << 20;

/// A file of the host that a container is to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// Its content.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// It belongs to user and group 0.
    pub of_root: bool,
    /// The size in bytes, if it is no file but an empty directory in memory (tmpfs).
    pub memory: Option<u64>,
    /// As a volume.
    pub live: Live,
}

/// Whether a container can see a file or directory of the host as it is, rather than a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Live {
    /// It can.
    Can(Place),
    /// And it cannot be copied.
    Must(Place),
    /// It cannot, for this reason.
    Cannot(String),
    /// The machine has the same, at this path.
    Machines(&'static str),
}

/// Character devices that every machine has.
const NODES: [(u32, u32, &str); 6] = [
    (1, 3, "/dev/null"),
    (1, 5, "/dev/zero"),
    (1, 7, "/dev/full"),
    (1, 8, "/dev/random"),
    (1, 9, "/dev/urandom"),
    (5, 0, "/dev/tty"),
];

/// File systems whose files the kernel makes while they are read, some without an end (`linux/magic.h`): proc, sysfs,
/// tracefs, debugfs, cgroup2, bpf, securityfs.
const MADE_UP: [u64; 7] =
    [0x9fa0, 0x6265_6572, 0x7472_6163, 0x6462_6720, 0x6367_7270, 0xcafe_4a11, 0x7363_6673];

impl HostFile {
    /// Reads a regular file of moderate size, or looks at a directory or another file; `server` is the file server
    /// for volumes, or why there can be none.
    ///
    /// # Errors
    /// Anything else is an error that says so.
    pub fn read(path: &Path, server: &Result<PathBuf, String>) -> io::Result<Self> {
        let place = Place::find(path)?;
        let stat = rustix::fs::fstat(place.as_fd())?;
        let mut file = Self {
            content: Vec::new(),
            mode: stat.st_mode & 0o7777,
            of_root: (stat.st_uid, stat.st_gid) == (0, 0),
            memory: None,
            live: Live::Cannot(String::new()),
        };
        let unsupported = |text: String| io::Error::new(io::ErrorKind::Unsupported, text);
        let called = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if is_made_up(&place)? => "a file that the kernel makes up",
            FileType::RegularFile => match content(&place, stat.st_size)? {
                Some(content) => {
                    file.content = content;
                    file.live = match server {
                        Ok(_) => Live::Can(place),
                        Err(reason) => Live::Cannot(reason.clone()),
                    };
                    return Ok(file);
                }
                None => "a file of more than 2 MiB",
            },
            FileType::Directory => {
                file.memory = memory_at(path);
                "a directory"
            }
            FileType::CharacterDevice => {
                let numbers = (major(stat.st_rdev), minor(stat.st_rdev));
                let same = NODES.iter().find(|node| (node.0, node.1) == numbers);
                let none = || unsupported(NOTHING_BEHIND.to_owned());
                file.live = Live::Machines(same.ok_or_else(none)?.2);
                return Ok(file);
            }
            FileType::Socket => {
                let text = "it is a socket: no process in the machine can talk to one on the host through it";
                return Err(unsupported(text.to_owned()));
            }
            _ => return Err(unsupported(NOTHING_BEHIND.to_owned())),
        };
        file.live = match server {
            Ok(_) => Live::Must(place),
            Err(_) if file.memory.is_some() => Live::Cannot("it is memory".to_owned()),
            Err(reason) => return Err(unsupported(format!("it is {called}, and {reason}"))),
        };
        Ok(file)
    }
}

/// Why other kinds of files are refused.
const NOTHING_BEHIND: &str =
    "it is neither a directory nor a regular file, and nothing in the machine would be behind it";

/// Whether the kernel makes up the contents of the file system there.
fn is_made_up(place: &Place) -> io::Result<bool> {
    let kind = u64::try_from(rustix::fs::fstatfs(place.as_fd())?.f_type);
    Ok(kind.is_ok_and(|kind| MADE_UP.contains(&kind)))
}

/// The content of the regular file there, of `size` bytes, if it is not too long.
fn content(place: &Place, size: i64) -> io::Result<Option<Vec<u8>>> {
    if size > MAX_FILE as i64 {
        return Ok(None);
    }
    let mut content = Vec::new();
    place.open()?.take(MAX_FILE as u64 + 1).read_to_end(&mut content)?;
    Ok(Some(content).filter(|content| content.len() <= MAX_FILE))
}

/// The size of the tmpfs whose root directory is at `path`, if it is one and empty.
fn memory_at(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    /// `TMPFS_MAGIC` (`statfs(2)`).
    const TMPFS: u64 = 0x0102_1994;
    let is_root = path.metadata().ok()?.dev() != path.join("..").metadata().ok()?.dev();
    let empty = std::fs::read_dir(path).ok()?.next().is_none();
    let system = rustix::fs::statfs(path).ok()?;
    let is_memory = u64::try_from(system.f_type).ok() == Some(TMPFS);
    let size = system.f_blocks.saturating_mul(u64::try_from(system.f_bsize).unwrap_or(0));
    (is_root && empty && is_memory).then_some(size)
}

#[cfg(test)]
#[path = "host_file_test.rs"]
mod host_file_test;
