//! PCI addresses, and disks that come and go in a directory that stands for sysfs.

use super::*;

#[test]
fn addresses_are_written_as_sysfs_does() {
    assert_eq!(name(0x0018).unwrap(), "0000:00:03.0");
    assert_eq!(name(0xffff).unwrap(), "0000:ff:1f.7");
    assert!(name(0x1_0000).is_err());
}

/// A device as sysfs shows it. Its block device is one that every machine's /dev has.
fn plug(pci: &Path, address: u32, serial: &str) -> PathBuf {
    let device = pci.join("devices").join(name(address).unwrap());
    let block = device.join("virtio3/block/null");
    fs::create_dir_all(&block).unwrap();
    fs::write(block.join("serial"), serial).unwrap();
    fs::write(device.join("remove"), "").unwrap();
    device
}

fn expected(disks: &[(u32, &str)]) -> request::Expect {
    let disk = |(address, serial): &(u32, &str)| request::Disk {
        address: *address,
        serial: (*serial).into(),
    };
    request::Expect { disks: disks.iter().map(disk).collect() }
}

fn run(pci: &Path, disks: &[(u32, &str)], within: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(expect_on(pci, &expected(disks), within))
}

const SOON: Duration = Duration::from_millis(50);

#[test]
fn a_disk_is_found_below_its_device() {
    let pci = tempfile::tempdir().unwrap();
    let device = pci.path().join("devices/0000:00:03.0");
    assert_eq!(disk(&device), None);
    fs::create_dir_all(&device).unwrap();
    assert_eq!(disk(&device), None);
    plug(pci.path(), 0x18, "");
    assert_eq!(disk(&device).unwrap().node, Path::new("/dev/null"));
}

#[test]
fn expected_disks_must_have_their_serial_numbers() {
    let pci = tempfile::tempdir().unwrap();
    plug(pci.path(), 0x18, "one");
    plug(pci.path(), 0x19, "two\n");
    run(pci.path(), &[(0x19, "two"), (0x18, "one")], SOON).unwrap();
    let wrong = run(pci.path(), &[(0x18, "one"), (0x19, "one")], SOON).unwrap_err();
    let text = "the disk 0000:00:03.1 has the serial number \"two\", not \"one\"";
    assert_eq!(wrong.message, text);
    assert!(!pci.path().join("rescan").exists(), "all were there");
}

#[test]
fn one_scan_is_asked_for_and_what_does_not_come_is_named() {
    let pci = tempfile::tempdir().unwrap();
    plug(pci.path(), 0x18, "one");
    let missing = run(pci.path(), &[(0x18, "one"), (0x20, "two"), (0x21, "x")], SOON).unwrap_err();
    assert_eq!(missing.message, "the PCI device 0000:00:04.0 does not exist");
    assert_eq!(fs::read(pci.path().join("rescan")).unwrap(), b"1");
    fs::create_dir(pci.path().join("devices/0000:00:04.0")).unwrap();
    let bare = run(pci.path(), &[(0x20, "two")], SOON).unwrap_err();
    assert_eq!(bare.message, "the PCI device 0000:00:04.0 has no disk");
}

#[test]
fn too_many_disks_and_wrong_addresses_are_refused() {
    let many = vec![(0x18, ""); MAX_DISKS + 1];
    assert_eq!(run(Path::new("/nowhere"), &many, SOON).unwrap_err().kind, ErrorKind::Unsupported);
    let wrong = run(Path::new("/nowhere"), &[(0x1_0000, "")], SOON).unwrap_err();
    assert_eq!(wrong.kind, ErrorKind::Unsupported);
}

#[test]
fn disks_are_let_go_of_all_or_none() {
    let pci = tempfile::tempdir().unwrap();
    let (first, second) = (plug(pci.path(), 0x18, ""), plug(pci.path(), 0x19, ""));
    let removed = |device: &Path| fs::read(device.join("remove")).unwrap() == b"1";
    let busy = release_on(pci.path(), &[0x18, 0x19], |address| address == 0x19).unwrap_err();
    assert_eq!(busy, Failure::new(ErrorKind::WrongState, "the disk 0000:00:03.1 is mounted"));
    assert!(!removed(&first) && !removed(&second));
    // What is not there has gone by itself.
    release_on(pci.path(), &[0x18, 0x20], |_| false).unwrap();
    assert!(removed(&first) && !removed(&second));
}

#[test]
fn a_notice_of_the_kernel_is_heard() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ear = Uevents::listen().unwrap();
        // Asks the kernel for a notice about a device that every machine has; only root may.
        if fs::write("/sys/class/mem/null/uevent", "change").is_err() {
            eprintln!("SKIPPED: no right to ask for a notice");
            return;
        }
        tokio::time::timeout(Duration::from_secs(5), ear.next()).await.unwrap();
    });
}
