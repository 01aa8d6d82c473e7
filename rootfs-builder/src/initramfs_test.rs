//! Tests of the initramfs: an independent reader, and cpio(1) where it is installed.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// One entry, read back.
#[derive(Debug, PartialEq)]
struct Entry {
    name: String,
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

/// Reads an archive as the format describes it.
fn parse(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        let header = std::str::from_utf8(&bytes[at..at + 110]).unwrap();
        assert_eq!(&header[..6], "070701");
        let field = |i: usize| u32::from_str_radix(&header[6 + 8 * i..14 + 8 * i], 16).unwrap();
        let (size, name_size) = (field(6) as usize, field(11) as usize);
        let name = &bytes[at + 110..at + 110 + name_size];
        assert_eq!(name[name_size - 1], 0);
        let data = (at + 110 + name_size).next_multiple_of(4);
        at = (data + size).next_multiple_of(4);
        let name = String::from_utf8(name[..name_size - 1].to_vec()).unwrap();
        if name == TRAILER {
            assert!(bytes[at..].iter().all(|byte| *byte == 0));
            return entries;
        }
        let data = bytes[data..data + size].to_vec();
        entries.push(Entry { name, mode: field(1), device: (field(9), field(10)), data });
    }
}

#[test]
fn holds_the_agent_the_mount_points_and_the_console() {
    let entries = parse(&build(b"agent").unwrap());

    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["dev", "proc", "sys", "run", "tmp", "dev/console", "init"]);
    assert_eq!(entries[4].mode, 0o041_777);
    assert_eq!((entries[5].mode, entries[5].device), (0o020_600, (5, 1)));
    assert_eq!((entries[6].mode, entries[6].data.as_slice()), (0o100_755, b"agent".as_slice()));
}

#[test]
fn equal_agents_give_equal_bytes_in_whole_blocks() {
    let first = build(&[7; 1000]).unwrap();

    assert_eq!(first, build(&[7; 1000]).unwrap());
    assert_eq!(first.len() % BLOCK, 0);
}

#[test]
fn cpio_reads_it() {
    let archive = build(&[1; 333]).unwrap();
    let Ok(mut cpio) = Command::new("cpio")
        .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    else {
        return;
    };

    cpio.stdin.take().unwrap().write_all(&archive).unwrap();
    let output = cpio.wait_with_output().unwrap();

    let listing = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        listing.lines().any(|line| line.starts_with("crw-------") && line.ends_with("console"))
    );
    assert!(listing.lines().any(|line| line.starts_with("-rwxr-xr-x") && line.contains(" 333 ")));
}

proptest! {
    #[test]
    fn any_agent_comes_back(agent in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let entries = parse(&build(&agent).unwrap());

        prop_assert_eq!(&entries.last().unwrap().data, &agent);
    }
}
