//! What an init needs before anything else works.

use std::fs::{OpenOptions, create_dir_all};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{dup2_stderr, dup2_stdout};

use crate::Outcome;

/// Mounts the kernel's file systems, takes the console, allows many descriptors.
pub(crate) fn prepare() -> Outcome {
    for (kind, path) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        create_dir_all(path).map_err(|error| format!("cannot make {path}: {error}"))?;
        match mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>) {
            // The kernel may have mounted it itself.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(format!("cannot mount {path}: {errno}").into()),
        }
    }
    // A machine without a serial port has no console; the test then looks at how it ends only.
    if let Ok(console) = OpenOptions::new().read(true).write(true).open("/dev/console") {
        dup2_stdout(&console)?;
        dup2_stderr(&console)?;
    }
    setrlimit(Resource::RLIMIT_NOFILE, 10_000, 10_000)?;
    Ok(())
}
