//! Devices that are there, are not, or are something else, in directories that stand for sysfs and /dev.

use super::*;

fn disk(number: (u32, u32)) -> HostDisk {
    HostDisk { field: "linux.devices (/dev/mine)".into(), number, writable: true }
}

/// A host that shows the block device 7:1 as `loop1`.
fn host() -> tempfile::TempDir {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir_all(host.path().join("sys/7:1")).unwrap();
    let text = "MAJOR=7\nMINOR=1\nDEVNAME=loop1\nDEVTYPE=disk\n";
    fs::write(host.path().join("sys/7:1/uevent"), text).unwrap();
    fs::create_dir(host.path().join("dev")).unwrap();
    host
}

fn found(host: &tempfile::TempDir, number: (u32, u32)) -> Result<usize, String> {
    let (shown, nodes) = (host.path().join("sys"), host.path().join("dev"));
    let given = given_of(&shown, &nodes, &[disk(number)]);
    given.map(|given| given.len()).map_err(|error| error.to_string())
}

#[test]
fn a_device_that_the_host_does_not_have_is_left_out() {
    assert_eq!(found(&host(), (7, 2)), Ok(0));
}

#[test]
fn a_device_without_its_node_is_named() {
    let error = found(&host(), (7, 1)).unwrap_err();
    let start = "linux.devices (/dev/mine): opening the host's block device 7:1 at ";
    assert!(error.starts_with(start) && error.ends_with("dev/loop1"), "{error}");
}

#[test]
fn another_file_in_the_place_of_the_node_is_not_given() {
    let host = host();
    fs::write(host.path().join("dev/loop1"), [0; 512]).unwrap();
    let error = found(&host, (7, 1)).unwrap_err();
    assert!(error.ends_with("dev/loop1 is not the host's block device 7:1"), "{error}");
}
