//! The command line that containerd gives a shim: flags as Go programs have them, then one word.
//!
//! Invariant: an unknown flag is an error that names it.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a resident process, or find the pod's.
    Start,
    /// Clean up after a resident process that was killed.
    Delete,
    /// Tell about the runtime.
    Info,
    /// Tell the version.
    Version,
    /// Be the resident process.
    #[default]
    Serve,
}

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) action: Action,
    /// containerd's namespace.
    pub(super) namespace: String,
    /// The container.
    pub(super) id: String,
    /// The socket of containerd's gRPC services.
    pub(super) address: String,
    /// The container's bundle, if it is not the working directory.
    pub(super) bundle: Option<PathBuf>,
    /// The socket to serve, if none was inherited.
    pub(super) socket: Option<PathBuf>,
    /// The configuration file for machines of sandboxes, if it is not the usual one.
    pub(super) config: Option<PathBuf>,
    /// Log more.
    pub(super) debug: bool,
}

impl Flags {
    /// Parses a command line without the program's name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let text = |argument: OsString| {
            argument.into_string().map_err(|bad| anyhow::anyhow!("{bad:?} is not UTF-8"))
        };
        let mut arguments = arguments.map(text);
        let mut flags = Self::default();
        while let Some(argument) = arguments.next().transpose()? {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))
            else {
                flags.action = action(&argument)?;
                // What comes after it is none of ours, as with Go's flags.
                return flags.complete();
            };
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            };
            match name.as_str() {
                "debug" => flags.debug = is_set(&name, given.as_deref())?,
                "v" if is_set(&name, given.as_deref())? => flags.action = Action::Version,
                "info" if is_set(&name, given.as_deref())? => flags.action = Action::Info,
                "v" | "info" => {}
                _ => {
                    let value = given.map_or_else(|| arguments.next().transpose(), |v| Ok(Some(v)));
                    let value = value?.with_context(|| format!("-{name} needs a value"))?;
                    flags.set(&name, value)?;
                }
            }
        }
        flags.complete()
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => self.bundle = Some(value).filter(|v| !v.is_empty()).map(PathBuf::from),
            "socket" => self.socket = Some(value).filter(|v| !v.is_empty()).map(PathBuf::from),
            "config" => self.config = Some(value).filter(|v| !v.is_empty()).map(PathBuf::from),
            // Events go to the socket that the environment names; nothing of ours needs a program for it.
            "publish-binary" | "debug-socket" => {}
            _ => bail!("unknown flag -{name}"),
        }
        Ok(())
    }

    fn complete(self) -> Result<Self> {
        let about_one = matches!(self.action, Action::Start | Action::Delete | Action::Serve);
        if about_one && (self.namespace.is_empty() || self.id.is_empty()) {
            bail!("-namespace and -id are needed: this program is started by containerd");
        }
        Ok(self)
    }
}

fn action(word: &str) -> Result<Action> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        other => bail!("unknown command {other:?}: start or delete"),
    }
}

fn is_set(name: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
        Some(other) => bail!("-{name}={other}: true or false"),
    }
}

#[cfg(test)]
#[path = "flags_test.rs"]
mod flags_test;
