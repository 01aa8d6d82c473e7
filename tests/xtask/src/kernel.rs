//! `cargo xtask kernel`: the guest kernel, from Debian's source package or any other tree.
//!
//! Invariant: a kernel in the cache has every option that the fragments ask for, as they ask for it; an
//! option that the configuration dropped stops the build before anything is compiled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use cofferdam_test_harness::tools::{apt, cache, step};
use serde::Serialize;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

pub(crate) mod options;

use options::Wanted;

/// The Debian package that holds the kernel's source.
const SOURCE_PACKAGE: &str = "linux-source-6.12";

/// Where that package puts it.
const SOURCE_ARCHIVE: &str = "/usr/src/linux-source-6.12.tar.xz";

/// What building a kernel needs besides its source.
const BUILD_PACKAGES: &[&str] =
    &["make", "gcc", "binutils", "flex", "bison", "bc", "libelf-dev", "lz4", "xz-utils", "perl"];

/// Changes whenever this file builds something else from the same inputs.
const RECIPE: &str = "1";

/// Arguments of `cargo xtask kernel`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which kernel: `trusted` is without CPU mitigations, for pods whose containers trust each other.
    #[arg(long, value_enum, default_value_t)]
    variant: Variant,
    /// Build this unpacked, unbuilt source tree instead of Debian's; it is not written to.
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
}

/// A set of options on top of the fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// The fragments alone.
    #[default]
    Default,
    /// With `trusted.config`.
    Trusted,
}

impl Variant {
    /// The name on the command line and in the manifest.
    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Trusted => "trusted",
        }
    }
}

/// What `manifest.json` says about a kernel.
#[derive(Serialize)]
struct Manifest {
    /// As `uname -r` prints it.
    version: String,
    variant: &'static str,
    /// The Debian package and its version, or the directory it was built from.
    source: String,
    compiler: String,
    /// SHA-256 of `vmlinux`.
    sha256: String,
    /// SHA-256 of `bzImage`.
    bzimage_sha256: String,
    /// SHA-256 of `config`.
    config_sha256: String,
}

/// Runs `cargo xtask kernel`.
pub(crate) fn run(args: &Args) -> Result<()> {
    println!("{}", build(args.variant, args.source.as_deref())?.display());
    Ok(())
}

/// The cache entry of the guest kernel (`vmlinux`, `bzImage`, `config`, `manifest.json`), built if it is not
/// there yet.
pub(crate) fn build(variant: Variant, source: Option<&Path>) -> Result<PathBuf> {
    let wanted = options::wanted(&options::directory(), variant)?;
    let uncovered = options::uncovered_devices(&options::directory(), &wanted)?;
    if !uncovered.is_empty() {
        bail!("devices without their driver in the guest kernel:\n  {}", uncovered.join("\n  "));
    }
    apt::require(BUILD_PACKAGES)?;
    let source = Source::find(source)?;
    let compiler = first_line(Command::new("gcc").arg("--version"))?;
    let config = options::merged(&wanted);
    let key = cache::key(&[RECIPE, variant.name(), &config, &source.version, &compiler]);
    cache::entry("kernel", &key, |entry| {
        let tree = source.unpacked()?;
        let build = Build { tree, output: entry.join("build") };
        build.configure(&config, &wanted)?;
        build.compile()?;
        build.install(entry, |build, entry| {
            Ok(Manifest {
                version: build.release()?,
                variant: variant.name(),
                source: source.version.clone(),
                compiler: compiler.clone(),
                sha256: sha256(&entry.join("vmlinux"))?,
                bzimage_sha256: sha256(&entry.join("bzImage"))?,
                config_sha256: sha256(&entry.join("config"))?,
            })
        })?;
        fs::remove_dir_all(&build.output).context("removing the kernel's build directory")
    })
}

/// Where the source comes from.
struct Source {
    /// An unpacked tree of the user's, or `None` for Debian's package.
    tree: Option<PathBuf>,
    /// Names exactly what is built; part of the cache key.
    version: String,
}

impl Source {
    /// The tree at `dir`, or Debian's package, installed if it is not.
    fn find(dir: Option<&Path>) -> Result<Self> {
        if let Some(dir) = dir {
            let tree = dir.canonicalize().with_context(|| format!("source {}", dir.display()))?;
            if !tree.join("Kconfig").is_file() {
                bail!("{} is not an unpacked kernel source tree", tree.display());
            }
            let version = format!("{} {}", tree.display(), fingerprint(&tree)?);
            return Ok(Self { tree: Some(tree), version });
        }
        if let Err(error) = apt::require(&[SOURCE_PACKAGE]) {
            // Debian 12 has it in its security or its backports suite, as the machine is set up.
            if !nix::unistd::Uid::effective().is_root() {
                return Err(error);
            }
            let suite = format!("{}-backports", apt::codename()?);
            apt::require_from(Some(&suite), &[SOURCE_PACKAGE])?;
        }
        let version = apt::version(SOURCE_PACKAGE)
            .with_context(|| format!("{SOURCE_PACKAGE} is not installed after its installation"))?;
        Ok(Self { tree: None, version: format!("{SOURCE_PACKAGE} {version}") })
    }

    /// The directory of the sources; Debian's archive is unpacked once per version.
    fn unpacked(&self) -> Result<PathBuf> {
        if let Some(tree) = &self.tree {
            return Ok(tree.clone());
        }
        cache::entry("kernel-source", &cache::key(&[&self.version]), |entry| {
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--strip-components=1", "--file", SOURCE_ARCHIVE]);
            tar.arg("--directory").arg(entry);
            step::run("unpacking the kernel source", &log("kernel-source"), &mut tar)
        })
    }
}

/// A hash over names, sizes and times of all files of `tree`, so that a changed tree is another kernel.
fn fingerprint(tree: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for entry in WalkDir::new(tree).sort_by_file_name() {
        let entry = entry.with_context(|| format!("reading {}", tree.display()))?;
        if entry.file_type().is_file() {
            let metadata = entry.metadata()?;
            let time = metadata.modified()?.duration_since(UNIX_EPOCH)?;
            let line = format!("{:?} {} {time:?}\n", entry.path(), metadata.len());
            hash.update(line);
        }
    }
    Ok(hex(&hash.finalize()))
}

/// One build: a source tree that is only read, and a directory for all that `make` writes.
struct Build {
    tree: PathBuf,
    output: PathBuf,
}

impl Build {
    /// Writes `.config` from nothing but `config`, and checks that it holds all of `wanted`.
    fn configure(&self, config: &str, wanted: &[Wanted]) -> Result<()> {
        fs::create_dir_all(&self.output)?;
        let fragments = self.output.join("fragments.config");
        fs::write(&fragments, config)?;
        let mut make = self.make()?;
        make.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &fragments);
        step::run("configuring the guest kernel", &log("kernel-config"), &mut make)?;
        let result = fs::read_to_string(self.output.join(".config"))?;
        let refused = options::refused(wanted, &result);
        if !refused.is_empty() {
            bail!(
                "the kernel did not take these options as asked (a dependency is missing, or the name is \
                 another one in this version):\n  {}",
                refused.join("\n  ")
            );
        }
        Ok(())
    }

    /// Compiles both forms of the kernel.
    fn compile(&self) -> Result<()> {
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut make = self.make()?;
        make.arg(format!("-j{jobs}")).args(["vmlinux", "bzImage"]);
        step::run("building the guest kernel (10 to 15 minutes)", &log("kernel-build"), &mut make)
    }

    /// Puts what was built into `entry`, described by what `manifest` returns.
    fn install(
        &self,
        entry: &Path,
        manifest: impl FnOnce(&Self, &Path) -> Result<Manifest>,
    ) -> Result<()> {
        let vmlinux = self.output.join("vmlinux");
        let mut strip = Command::new("strip");
        strip.arg("--strip-all").arg("-o").arg(entry.join("vmlinux")).arg(&vmlinux);
        step::run("stripping the guest kernel", &log("kernel-strip"), &mut strip)?;
        let files = [("arch/x86/boot/bzImage", "bzImage"), (".config", "config")];
        for (from, to) in files {
            fs::copy(self.output.join(from), entry.join(to))
                .with_context(|| format!("copying {from} of the kernel's build"))?;
        }
        let manifest = serde_json::to_string_pretty(&manifest(self, entry)?)?;
        fs::write(entry.join("manifest.json"), manifest + "\n")?;
        Ok(())
    }

    /// The kernel's own name for what was built, for example `6.12.95-cofferdam`.
    fn release(&self) -> Result<String> {
        let path = self.output.join("include/config/kernel.release");
        let release =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(release.trim().to_owned())
    }

    /// `make` in the tree, writing to the output directory, with an environment that the kernel's bytes do
    /// not depend on.
    fn make(&self) -> Result<Command> {
        let mut make = Command::new("make");
        make.arg("-C").arg(&self.tree).arg(format!("O={}", self.output.display()));
        for name in ["MAKEFLAGS", "ARCH", "CROSS_COMPILE", "KCONFIG_CONFIG", "LOCALVERSION"] {
            make.env_remove(name);
        }
        let time = fs::metadata(self.tree.join("Makefile"))?.modified()?;
        let seconds = time.duration_since(UNIX_EPOCH)?.as_secs();
        let date = first_line(Command::new("date").args(["-u", "-d"]).arg(format!("@{seconds}")))?;
        make.env("LC_ALL", "C");
        make.env("KBUILD_BUILD_TIMESTAMP", date);
        make.env("KBUILD_BUILD_USER", "cofferdam").env("KBUILD_BUILD_HOST", "cofferdam");
        Ok(make)
    }
}

/// The log file of one step.
fn log(step: &str) -> PathBuf {
    cache::root().join("logs").join(format!("{step}.log"))
}

/// The first line that `command` prints.
fn first_line(command: &mut Command) -> Result<String> {
    let output = command
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .next()
        .filter(|_| output.status.success())
        .map(str::to_owned)
        .with_context(|| format!("{command:?}: {}", output.status))
}

/// SHA-256 of the file at `path`, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

/// `bytes` in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
