//! Options of a mount, as text, to flags, propagation and data (OCI runtime-spec, config#mounts).
//!
//! Invariant: total; an option that is not known is data for the file system, as `mount(8)` has it.

use libc::{
    MS_BIND, MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME, MS_MANDLOCK, MS_NOATIME, MS_NODEV,
    MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW, MS_POSIXACL, MS_PRIVATE, MS_RDONLY,
    MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SILENT, MS_SLAVE, MS_STRICTATIME,
    MS_SYNCHRONOUS, MS_UNBINDABLE,
};

/// Parsed options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// `MS_*` flags, `MS_BIND` and `MS_REC` of a bind mount among them.
    pub(crate) flags: u64,
    /// Propagation flags to set afterwards, or 0.
    pub(crate) propagation: u64,
    /// What is left for the file system, comma-separated.
    pub(crate) data: String,
    /// `tmpcopyup`.
    pub(crate) copy_up: bool,
    /// `idmap` or `ridmap`.
    pub(crate) id_mapped: bool,
}

/// What an option does to the flags.
enum Effect {
    Set(u64),
    Clear(u64),
    Propagation(u64),
}

impl MountOptions {
    /// Parses `options` in their order; a later one wins.
    pub(crate) fn parse<S: AsRef<str>>(options: &[S]) -> Self {
        let mut parsed = Self::default();
        let mut data: Vec<&str> = Vec::new();
        for option in options.iter().map(AsRef::as_ref) {
            match (option, effect(option)) {
                ("tmpcopyup", _) => parsed.copy_up = true,
                ("idmap" | "ridmap", _) => parsed.id_mapped = true,
                (_, Some(Effect::Set(flags))) => parsed.flags |= flags,
                (_, Some(Effect::Clear(flags))) => parsed.flags &= !flags,
                (_, Some(Effect::Propagation(flags))) => parsed.propagation = flags,
                ("" | "defaults", None) => {}
                (_, None) => data.push(option),
            }
        }
        parsed.data = data.join(",");
        parsed
    }
}

fn effect(option: &str) -> Option<Effect> {
    // The recursive attributes (rro, rnosuid, ...) differ only for what is mounted below a bind mount.
    let plain = match option {
        "rro" | "rrw" | "rnosuid" | "rsuid" | "rnodev" | "rdev" | "rnoexec" | "rexec"
        | "rnodiratime" | "rdiratime" | "rrelatime" | "rnorelatime" | "rnoatime" | "ratime"
        | "rstrictatime" | "rnostrictatime" | "rnosymfollow" | "rsymfollow" => &option[1..],
        _ => option,
    };
    Some(match plain {
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
        _ => return propagation(option).map(Effect::Propagation),
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
