//! What a release consists of, and where it goes.
//!
//! Invariant: every path here is absolute and as the host sees it; only [`Prefix::on_host`] knows where the host's root
//! is mounted.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::config::{self, IMAGE, KERNEL, Overrides, Settings};
use crate::run::default_monitor;

/// The configuration file of a new installation.
pub(crate) const CONFIGURATION: &str = include_str!("config.toml");

/// Where everything goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    path: PathBuf,
    root: PathBuf,
}

impl Prefix {
    /// The prefix `path` of the host whose root directory is `root` here.
    ///
    /// # Errors
    /// `path` is not absolute, or not plain.
    pub(crate) fn new(path: &Path, root: &Path) -> Result<Self> {
        let plain = !path.components().any(|part| part == std::path::Component::ParentDir);
        ensure!(
            path.is_absolute() && plain,
            "--prefix {}: an absolute path without ..",
            path.display()
        );
        Ok(Self { path: path.components().collect(), root: root.to_owned() })
    }

    /// As the host calls it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where we find what the host calls `path`.
    pub(crate) fn on_host(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The manifest.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.path.join("lib/cofferdam/installed.json")
    }

    /// containerd's shim.
    pub(crate) fn shim(&self) -> PathBuf {
        self.path.join("bin/containerd-shim-cofferdam-v2")
    }

    /// The configuration: what belongs to the system has it in /etc.
    pub(crate) fn configuration(&self) -> PathBuf {
        let of_the_system =
            ["/usr", "/usr/local", "/"].map(Path::new).contains(&self.path.as_path());
        if of_the_system {
            config::CONFIG.into()
        } else {
            self.path.join("etc/cofferdam/config.toml")
        }
    }
}

/// The files to be placed.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// This program.
    pub(crate) program: PathBuf,
    /// The monitor.
    pub(crate) monitor: PathBuf,
    /// The guest kernel, with its manifest beside it.
    pub(crate) kernel: PathBuf,
    /// The guest image, with its manifest beside it.
    pub(crate) image: PathBuf,
}

impl Sources {
    /// What this program would use if there were no configuration.
    ///
    /// # Errors
    /// It does not know where it is.
    pub(crate) fn own() -> Result<Self> {
        let settings = Settings::from_environment(Overrides::default());
        let program = std::env::current_exe().context("looking for the own program")?;
        let monitor = default_monitor();
        // What is found by its name alone may be anybody's.
        if !monitor.is_absolute() {
            bail!("there is no {} beside {}", monitor.display(), program.display());
        }
        Ok(Self { program, monitor, kernel: settings.kernel, image: settings.image })
    }
}

/// What a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A copy of a file, with this mode.
    Copy(PathBuf, u32),
    /// The configuration: a person may change it.
    Configuration,
    /// A symbolic link.
    Link(&'static str),
}

/// A thing to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// Everything, in the order of placing: what starts the others comes last.
pub(super) fn items(prefix: &Prefix, sources: &Sources) -> Vec<Item> {
    let beside = |path: &Path| {
        let mut manifest = path.as_os_str().to_owned();
        manifest.push(".json");
        PathBuf::from(manifest)
    };
    let (lib, bin) = (prefix.path.join("lib/cofferdam"), prefix.path.join("bin"));
    let mut items = vec![Item { path: prefix.configuration(), kind: Kind::Configuration }];
    for (name, source) in [(KERNEL, &sources.kernel), (IMAGE, &sources.image)] {
        let path = lib.join(name);
        items.push(Item { path: beside(&path), kind: Kind::Copy(beside(source), 0o644) });
        items.push(Item { path, kind: Kind::Copy(source.clone(), 0o644) });
    }
    for (name, source) in [("cofferdam-vmm", &sources.monitor), ("cofferdam", &sources.program)] {
        items.push(Item { path: bin.join(name), kind: Kind::Copy(source.clone(), 0o755) });
    }
    items.push(Item { path: prefix.shim(), kind: Kind::Link("cofferdam") });
    items
}
