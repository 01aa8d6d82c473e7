//! The command line, read and refused.

use clap::CommandFactory;

use super::*;
use crate::cli::files::parse_disk;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn memory_has_units() {
    assert_eq!(parse_memory("256"), Ok(256));
    assert_eq!(parse_memory("512M"), Ok(512));
    assert_eq!(parse_memory("2g"), Ok(2048));
    for wrong in ["", "M", "1T", "-1", "5000000G", "1.5G"] {
        assert!(parse_memory(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn disks_may_be_read_only() {
    assert_eq!(parse_disk("/a/b:ro"), (std::path::Path::new("/a/b"), true));
    assert_eq!(parse_disk("/a:b"), (std::path::Path::new("/a:b"), false));
}

#[test]
fn without_a_command_it_serves() {
    assert!(Cli::parse_from(["cofferdam-vmm"]).command.is_none());
    let line = ["cofferdam-vmm", "boot", "--kernel", "K", "--disk", "a", "--disk", "b:ro"];
    let Some(Command::Boot(args)) = Cli::parse_from(line).command else { panic!("no command") };
    assert_eq!((args.cpus, args.memory, args.disks.len()), (1, 256, 2));
    assert!(Cli::try_parse_from(["cofferdam-vmm", "boot"]).is_err());
}

#[test]
fn every_reason_has_its_exit_code() {
    use cofferdam_vmm_api::ExitReason;
    let mut codes = vec![exit::FAILED, 2];
    codes.extend(
        [
            ExitReason::PowerOff,
            ExitReason::Reboot,
            ExitReason::Panic,
            ExitReason::TripleFault,
            ExitReason::Stopped,
            ExitReason::Error(String::new()),
        ]
        .iter()
        .map(exit::code),
    );
    let count = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), count);
}
