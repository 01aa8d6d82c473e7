//! What the tests that others wrote need in the test host: their sources, and the programs and root file systems that
//! they run.
//!
//! Invariant: nothing of it is committed; it comes from Debian, is made once, and is kept in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cofferdam_test_harness::host::stage::Stage;
use cofferdam_test_harness::tools::archive::{Archive, Wanted};
use cofferdam_test_harness::tools::{apt, cache, debian, step};

use crate::artefacts;

/// Where it is in the test host.
pub(crate) const PLACE: &str = "/usr/lib/cofferdam-test/conformance";

/// The runtime that shows what the tests expect.
pub(crate) const BASELINE: &str = "/usr/lib/cofferdam-test/conformance/runc/runc";

/// The source packages.
const RUNC: Wanted<'_> = Wanted { package: "runc", suite: "sid", version: "1.3.6+" };
const CRUN: Wanted<'_> = Wanted { package: "crun", suite: "bookworm", version: "1.8.1-" };
const PODMAN: Wanted<'_> = Wanted { package: "libpod", suite: "bookworm", version: "4.3.1+" };

/// Binary packages of the test host's release that it does not have; some files of each are used.
const PROGRAMS: [&str; 7] =
    ["bats", "gawk", "libgmp10", "libmpfr6", "libreadline8t64", "libsigsegv2", "busybox-static"];

/// Libraries of gawk.
const LIBRARIES: [&str; 4] =
    ["libgmp.so.10", "libmpfr.so.6", "libreadline.so.8", "libsigsegv.so.2"];

/// The helpers of runc's tests, which its binary package has.
const HELPERS: [&str; 6] =
    ["fs-idmap", "pidfd-kill", "recvtty", "remap-rootfs", "sd-helper", "seccompagent"];

/// What runc's tests compile.
const COMPILED: [&str; 3] = ["dev_access_test", "seccomp_syscall_test1", "seccomp_syscall_test2"];

/// Programs of ours that run in the test host: file and place.
const OURS: [(&str, &str); 7] = [
    ("run-suite", "run-suite"),
    ("crun-as-runc", "bin/crun-as-runc"),
    ("gawk", "bin/gawk"),
    ("gawk", "bin/awk"),
    ("gcc", "bin/gcc"),
    ("go", "bin/go"),
    ("libmount.py", "crun/libmount.py"),
];

/// Changes whenever this file makes something else of the same inputs.
const RECIPE: &str = "1";

/// The payload without our own programs, made if the cache lacks it (a minute or two).
///
/// # Errors
/// Without root, or if a package cannot be fetched or something cannot be built.
pub(crate) fn get() -> Result<PathBuf> {
    let versions = [RUNC, CRUN, PODMAN].map(|wanted| wanted.version);
    let scripts = ["debian-tar", "busybox-tar"].map(|name| fs::read_to_string(ours(name)));
    let mut parts = vec![RECIPE.to_owned(), debian::SUITE.to_owned()];
    parts.extend(versions.map(str::to_owned));
    for script in scripts {
        parts.push(script.context("reading the scripts of tests/conformance")?);
    }
    cache::entry("conformance", &cache::key(&parts), |out| {
        let work = tempfile::tempdir().context("creating a directory for packages")?;
        Making { work: work.path().to_owned(), out: out.to_owned() }.make()
    })
}

/// Adds the payload at `entry` and our programs to `stage`.
///
/// # Errors
/// If they cannot be copied.
pub(crate) fn add(stage: &Stage, entry: &Path) -> Result<()> {
    stage.add_tree(entry, PLACE)?;
    for (file, place) in OURS {
        stage.add(&ours(file), &format!("{PLACE}/{place}"))?;
    }
    Ok(())
}

/// The file `name` of `tests/conformance`.
pub(crate) fn ours(name: &str) -> PathBuf {
    artefacts::root().join("tests/conformance").join(name)
}

/// A payload that is being made.
struct Making {
    /// A directory for what it is made of.
    work: PathBuf,
    out: PathBuf,
}

impl Making {
    fn make(&self) -> Result<()> {
        apt::require(&["gcc", "libc6-dev", "tar"])?;
        let archive = Archive::open(
            &["bookworm", debian::SUITE, "sid"],
            &self.work.join("apt"),
            &log("lists"),
        )?;
        for wanted in [RUNC, CRUN, PODMAN] {
            archive.source(wanted, &self.source(wanted))?;
        }
        archive.binary(RUNC, &self.work.join("runc-binary"))?;
        for package in PROGRAMS {
            let wanted = Wanted { package, suite: debian::SUITE, version: "" };
            archive.binary(wanted, &self.work.join("programs"))?;
        }
        self.programs()?;
        self.runc()?;
        self.crun()?;
        self.podman()
    }

    /// Where the source of `wanted` is unpacked.
    fn source(&self, wanted: Wanted<'_>) -> PathBuf {
        self.work.join(format!("{}-source", wanted.package))
    }

    /// bats and gawk.
    fn programs(&self) -> Result<()> {
        let usr = self.work.join("programs/usr");
        for part in ["bin/bats", "lib/bats-core", "libexec/bats-core"] {
            self.copy(&usr.join(part), &format!("bats/{part}"))?;
        }
        self.copy(&usr.join("bin/gawk"), "lib/gawk")?;
        for library in LIBRARIES {
            let real = usr.join("lib/x86_64-linux-gnu").join(library);
            let real =
                real.canonicalize().with_context(|| format!("finding {}", real.display()))?;
            self.copy(&real, &format!("lib/{library}"))?;
        }
        Ok(())
    }

    fn runc(&self) -> Result<()> {
        let sbin = self.work.join("runc-binary/usr/sbin");
        self.copy(&sbin.join("runc"), "runc/runc")?;
        for helper in HELPERS {
            self.copy(&sbin.join(helper), &format!("runc/tests/cmd/_bin/{helper}"))?;
        }
        let tests = self.source(RUNC).join("tests/integration");
        self.copy(&tests, "runc/tests/integration")?;
        for name in COMPILED {
            let source = tests.join("testdata").join(format!("{name}.c"));
            self.compile(&source, &format!("prebuilt/{name}"))?;
        }
        // The tests look for these names; tar looks at the contents.
        let data = self.out.join("runc/tests/integration/testdata");
        self.busybox(&data.join("busybox-amd64.tar.xz"))?;
        let tar = data.join("debian-amd64.tar.xz");
        debian::build(
            "building a Debian root file system for runc's tests",
            &[],
            &[&ours("debian-tar"), &tar],
            &log("debian"),
        )
    }

    fn crun(&self) -> Result<()> {
        let tests = self.source(CRUN).join("tests");
        for entry in fs::read_dir(&tests).with_context(|| format!("reading {}", tests.display()))? {
            let name = entry.context("reading crun's tests")?.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".py") {
                self.copy(&tests.join(name.as_ref()), &format!("crun/{name}"))?;
            }
        }
        // What its configure script would write.
        fs::write(self.work.join("config.h"), "#define HAVE_ERROR_H 1\n")
            .context("writing config.h")?;
        self.compile(&tests.join("init.c"), "crun/init")
    }

    fn podman(&self) -> Result<()> {
        self.copy(&self.source(PODMAN).join("test/system"), "podman/system")?;
        self.busybox(&self.out.join("podman/testimage.tar"))
    }

    /// Makes `tar`, a root file system of busybox.
    fn busybox(&self, tar: &Path) -> Result<()> {
        let mut command = Command::new(ours("busybox-tar"));
        command.arg(self.work.join("programs/usr/bin/busybox")).arg(tar);
        step::run("packing a root file system of busybox", &log("busybox"), &mut command)
    }

    /// Compiles `source` as the static program `place`.
    fn compile(&self, source: &Path, place: &str) -> Result<()> {
        let target = self.place(place)?;
        let mut command = Command::new("gcc");
        command.args(["-O1", "-static", "-w", "-I"]).arg(&self.work);
        command.arg("-o").arg(target).arg(source);
        let title =
            format!("compiling {}", source.file_name().unwrap_or_default().to_string_lossy());
        step::run(&title, &log("compile"), &mut command)
    }

    /// Copies a file or a directory to `place`.
    fn copy(&self, from: &Path, place: &str) -> Result<()> {
        let target = self.place(place)?;
        let status = Command::new("cp")
            .args(["--archive", "--no-target-directory"])
            .arg(from)
            .arg(&target)
            .status()
            .context("starting cp")?;
        if !status.success() {
            bail!("copying {} to {}: {status}", from.display(), target.display());
        }
        Ok(())
    }

    /// The path of `place`, in a directory that exists.
    fn place(&self, place: &str) -> Result<PathBuf> {
        let path = self.out.join(place);
        let parent = path.parent().unwrap_or(&self.out);
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        Ok(path)
    }
}

/// The log of one step.
fn log(step: &str) -> PathBuf {
    cache::root().join(format!("logs/conformance-{step}.log"))
}
