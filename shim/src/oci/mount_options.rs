//! Options of a mount, as text, to flags, propagation and data (OCI runtime-spec, config#mounts).
//!
//! Invariant: total; an option that is not known is data for the file system, as `mount(8)` has it.

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME, MS_BIND, MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME,
    MS_MANDLOCK, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW,
    MS_POSIXACL, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SILENT,
    MS_SLAVE, MS_STRICTATIME, MS_SYNCHRONOUS, MS_UNBINDABLE,
};

/// All options that are not just passed on to the file system, in the order of the alphabet.
pub(crate) const MOUNT_OPTIONS: [&str; 63] = [
    "acl",
    "async",
    "atime",
    "bind",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// Whether `option` is one of them.
#[cfg(test)]
pub(crate) fn takes_mount_option(option: &str) -> bool {
    MountOptions::parse(&[option]).data.is_empty()
}

/// Parsed options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// `MS_*` flags, `MS_BIND` and `MS_REC` of a bind mount among them.
    pub(crate) flags: u64,
    /// Propagation flags to set afterwards, or 0.
    pub(crate) propagation: u64,
    /// What is left for the file system, comma-separated.
    pub(crate) data: String,
    /// `MOUNT_ATTR_*` to set on the whole tree of mounts.
    pub(crate) recursive_set: u64,
    /// `MOUNT_ATTR_*` to clear likewise, before those are set.
    pub(crate) recursive_clear: u64,
    /// `tmpcopyup`.
    pub(crate) copy_up: bool,
    /// `idmap` or `ridmap`; the latter is for the whole tree.
    pub(crate) id_map: Option<IdMapped>,
}

/// How far an id map reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdMapped {
    /// The mount.
    Here,
    /// The mount and all below it.
    Recursively,
}

/// What an option does to the flags.
enum Effect {
    Set(u64),
    Clear(u64),
    Propagation(u64),
    SetAll(u64),
    ClearAll(u64),
}

impl MountOptions {
    /// Parses `options` in their order; a later one wins.
    pub(crate) fn parse<S: AsRef<str>>(options: &[S]) -> Self {
        let mut parsed = Self::default();
        let mut data: Vec<&str> = Vec::new();
        for option in options.iter().map(AsRef::as_ref) {
            match (option, effect(option)) {
                ("tmpcopyup", _) => parsed.copy_up = true,
                ("idmap", _) => parsed.id_map = Some(IdMapped::Here),
                ("ridmap", _) => parsed.id_map = Some(IdMapped::Recursively),
                (_, Some(Effect::Set(flags))) => parsed.flags |= flags,
                (_, Some(Effect::Clear(flags))) => parsed.flags &= !flags,
                (_, Some(Effect::Propagation(flags))) => parsed.propagation = flags,
                (_, Some(Effect::SetAll(attribute))) => parsed.recursive(attribute, true),
                (_, Some(Effect::ClearAll(attribute))) => parsed.recursive(attribute, false),
                ("" | "defaults", None) => {}
                (_, None) => data.push(option),
            }
        }
        parsed.data = data.join(",");
        parsed
    }

    /// Sets or clears an attribute of the whole tree. The kinds of access time are one number to the kernel: it
    /// takes a new one only where the old is cleared (`mount_setattr(2)`).
    fn recursive(&mut self, attribute: u64, on: bool) {
        if on {
            self.recursive_set |= attribute;
            self.recursive_clear &= !attribute;
        } else {
            self.recursive_clear |= attribute;
            self.recursive_set &= !attribute;
        }
        if attribute & MOUNT_ATTR__ATIME == attribute {
            self.recursive_clear |= MOUNT_ATTR__ATIME;
        }
    }
}

/// What an attribute of the whole tree does.
fn recursive(option: &str) -> Option<Effect> {
    Some(match option {
        "rro" => Effect::SetAll(MOUNT_ATTR_RDONLY),
        "rrw" => Effect::ClearAll(MOUNT_ATTR_RDONLY),
        "rnosuid" => Effect::SetAll(MOUNT_ATTR_NOSUID),
        "rsuid" => Effect::ClearAll(MOUNT_ATTR_NOSUID),
        "rnodev" => Effect::SetAll(MOUNT_ATTR_NODEV),
        "rdev" => Effect::ClearAll(MOUNT_ATTR_NODEV),
        "rnoexec" => Effect::SetAll(MOUNT_ATTR_NOEXEC),
        "rexec" => Effect::ClearAll(MOUNT_ATTR_NOEXEC),
        "rnodiratime" => Effect::SetAll(MOUNT_ATTR_NODIRATIME),
        "rdiratime" => Effect::ClearAll(MOUNT_ATTR_NODIRATIME),
        "rrelatime" => Effect::SetAll(MOUNT_ATTR_RELATIME),
        "rnorelatime" => Effect::ClearAll(MOUNT_ATTR_RELATIME),
        "rnoatime" => Effect::SetAll(MOUNT_ATTR_NOATIME),
        "ratime" => Effect::ClearAll(MOUNT_ATTR_NOATIME),
        "rstrictatime" => Effect::SetAll(MOUNT_ATTR_STRICTATIME),
        "rnostrictatime" => Effect::ClearAll(MOUNT_ATTR_STRICTATIME),
        "rnosymfollow" => Effect::SetAll(MOUNT_ATTR_NOSYMFOLLOW),
        "rsymfollow" => Effect::ClearAll(MOUNT_ATTR_NOSYMFOLLOW),
        _ => return None,
    })
}

fn effect(option: &str) -> Option<Effect> {
    Some(match option {
        "acl" => Effect::Set(MS_POSIXACL),
        "bind" => Effect::Set(MS_BIND),
        "dirsync" => Effect::Set(MS_DIRSYNC),
        "iversion" => Effect::Set(MS_I_VERSION),
        "lazytime" => Effect::Set(MS_LAZYTIME),
        "mand" => Effect::Set(MS_MANDLOCK),
        "noatime" => Effect::Set(MS_NOATIME),
        "nodev" => Effect::Set(MS_NODEV),
        "nodiratime" => Effect::Set(MS_NODIRATIME),
        "noexec" => Effect::Set(MS_NOEXEC),
        "nosuid" => Effect::Set(MS_NOSUID),
        "nosymfollow" => Effect::Set(MS_NOSYMFOLLOW),
        "rbind" => Effect::Set(MS_BIND | MS_REC),
        "relatime" => Effect::Set(MS_RELATIME),
        "remount" => Effect::Set(MS_REMOUNT),
        "ro" => Effect::Set(MS_RDONLY),
        "silent" => Effect::Set(MS_SILENT),
        "strictatime" => Effect::Set(MS_STRICTATIME),
        "sync" => Effect::Set(MS_SYNCHRONOUS),
        "async" => Effect::Clear(MS_SYNCHRONOUS),
        "atime" => Effect::Clear(MS_NOATIME),
        "dev" => Effect::Clear(MS_NODEV),
        "diratime" => Effect::Clear(MS_NODIRATIME),
        "exec" => Effect::Clear(MS_NOEXEC),
        "loud" => Effect::Clear(MS_SILENT),
        "noacl" => Effect::Clear(MS_POSIXACL),
        "noiversion" => Effect::Clear(MS_I_VERSION),
        "nolazytime" => Effect::Clear(MS_LAZYTIME),
        "nomand" => Effect::Clear(MS_MANDLOCK),
        "norelatime" => Effect::Clear(MS_RELATIME),
        "nostrictatime" => Effect::Clear(MS_STRICTATIME),
        "rw" => Effect::Clear(MS_RDONLY),
        "suid" => Effect::Clear(MS_NOSUID),
        "symfollow" => Effect::Clear(MS_NOSYMFOLLOW),
        _ => return propagation(option).map(Effect::Propagation).or_else(|| recursive(option)),
    })
}

/// The flags of `private`, `rshared` and the like.
pub(crate) fn propagation(name: &str) -> Option<u64> {
    Some(match name {
        "private" => MS_PRIVATE,
        "shared" => MS_SHARED,
        "slave" => MS_SLAVE,
        "unbindable" => MS_UNBINDABLE,
        "rprivate" => MS_PRIVATE | MS_REC,
        "rshared" => MS_SHARED | MS_REC,
        "rslave" => MS_SLAVE | MS_REC,
        "runbindable" => MS_UNBINDABLE | MS_REC,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "mount_options_test.rs"]
mod mount_options_test;
