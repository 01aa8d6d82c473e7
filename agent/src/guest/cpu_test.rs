//! CPUs of a made-up sysfs.

use cofferdam_agent_protocol::ErrorKind;

use super::*;

/// A machine whose CPUs are as `states` says; the first has no switch.
fn sysfs(states: &[bool]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["cpufreq", "cpuidle", "power"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    for (number, state) in states.iter().enumerate() {
        let cpu = directory.path().join(format!("cpu{number}"));
        fs::create_dir(&cpu).unwrap();
        if number > 0 {
            fs::write(cpu.join("online"), if *state { "1\n" } else { "0\n" }).unwrap();
        }
    }
    directory
}

fn states(directory: &Path) -> Vec<bool> {
    list(directory).unwrap().iter().map(Cpu::is_online).collect()
}

#[test]
fn the_lowest_numbers_are_online() {
    let mut twelve = [false; 12];
    twelve[0] = true;
    let sysfs = sysfs(&twelve);
    for wanted in [1, 12, 3, 11, 1] {
        let cpus = set_online(sysfs.path(), wanted).unwrap();
        assert_eq!(cpus, Cpus { online: wanted, present: 12 });
        let expected: Vec<_> = (0..12).map(|number| number < wanted).collect();
        assert_eq!(states(sysfs.path()), expected);
    }
}

#[test]
fn no_cpu_and_more_than_there_are_is_refused() {
    let sysfs = sysfs(&[true, false]);
    for wanted in [0, 3, u32::MAX] {
        let failure = set_online(sysfs.path(), wanted).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Unsupported);
        assert!(failure.message.contains("has 1 to 2"), "{failure}");
    }
    assert_eq!(states(sysfs.path()), [true, false]);
}

#[test]
fn a_change_that_fails_is_named_and_undone() {
    let sysfs = sysfs(&[true, false, false, false]);
    // A file that cannot be written, not even by root, and does not read as 1.
    let broken = sysfs.path().join("cpu3/online");
    fs::remove_file(&broken).unwrap();
    std::os::unix::fs::symlink("/proc/self/cmdline", &broken).unwrap();
    let failure = set_online(sysfs.path(), 4).unwrap_err();
    assert!(failure.message.starts_with("bringing CPU 3 online: "), "{failure}");
    assert_eq!(states(sysfs.path()), [true, false, false, false]);
}

#[test]
fn a_machine_without_sysfs_is_an_error() {
    let failure = set_online(Path::new("/nowhere"), 1).unwrap_err();
    assert!(failure.message.contains("listing the CPUs in /nowhere"), "{failure}");
}

#[test]
fn a_set_of_cpus_is_fitted_to_the_machine() {
    let two = [0, 1];
    for (wanted, fitted) in [
        ("0", "0"),
        ("1", "1"),
        ("0-1", "0-1"),
        (" 0,1 ", "0,1"),
        ("4", "0"),
        ("4-5", "0,1"),
        ("1,3", "0,1"),
        ("0-63", "0,1"),
        ("0-4294967295", "0,1"),
    ] {
        assert_eq!(fit_to(&two, wanted).as_deref(), Some(fitted), "{wanted}");
    }
    // What is parked is not there.
    let sysfs = sysfs(&[true, true, false, true]);
    for (wanted, fitted) in [("1,3", "1,3"), ("2-3", "0,1"), ("0-3", "0,1,3")] {
        assert_eq!(fit(sysfs.path(), wanted).unwrap(), fitted, "{wanted}");
    }
    for odd in ["", "x", "1-0", "1-", "0,,1", "-1"] {
        assert_eq!(fit_to(&two, odd), None, "{odd}");
    }
}
