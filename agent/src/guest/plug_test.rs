//! Devices that come and go in a directory that stands for sysfs.

use std::path::PathBuf;

use super::*;

/// A device as sysfs shows it, with one file of what its driver made. The block device is one that every machine's
/// /dev has.
fn device(bus: &Path, address: u32, (made, file, mark): (&str, &str, &str)) -> PathBuf {
    let device = bus.join("devices").join(pci::name(address).unwrap());
    let made = device.join("virtio3").join(made);
    fs::create_dir_all(&made).unwrap();
    fs::write(made.join(file), mark).unwrap();
    fs::write(device.join("remove"), "").unwrap();
    device
}

fn disk(bus: &Path, address: u32, serial: &str) -> PathBuf {
    let made = device(bus, address, ("block/null", "serial", serial));
    fs::write(made.join("virtio3/block/null/dev"), format!("254:{address}\n")).unwrap();
    made
}

fn card(bus: &Path, address: u32, mac: &str) -> PathBuf {
    device(bus, address, ("net/eth7", "address", mac))
}

fn expected(disks: &[(u32, &str)], nets: &[(u32, &str)]) -> request::Expect {
    let disk = |(address, serial): &(u32, &str)| request::Disk {
        address: *address,
        serial: (*serial).into(),
    };
    let net = |(address, mac): &(u32, &str)| request::Net { address: *address, mac: (*mac).into() };
    request::Expect {
        disks: disks.iter().map(disk).collect(),
        nets: nets.iter().map(net).collect(),
        filesystems: Vec::new(),
    }
}

fn run(bus: &Path, expected: &request::Expect) -> Result<Found> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(expect_on(bus, expected, Duration::from_millis(50)))
}

#[test]
fn expected_disks_must_have_their_serial_numbers() {
    let bus = tempfile::tempdir().unwrap();
    disk(bus.path(), 0x18, "one");
    disk(bus.path(), 0x19, "two\n");
    let found = run(bus.path(), &expected(&[(0x19, "two"), (0x18, "one")], &[])).unwrap();
    assert_eq!(found.interfaces, [""; 0]);
    let number = |minor| DeviceNumber { major: 254, minor };
    assert_eq!(found.disks, [number(0x19), number(0x18)]);
    let wrong = run(bus.path(), &expected(&[(0x18, "one"), (0x19, "one")], &[])).unwrap_err();
    let text = "the disk 0000:00:03.1 has the serial number \"two\", not \"one\"";
    assert_eq!(wrong.message, text);
    assert!(!bus.path().join("rescan").exists(), "all were there");
}

#[test]
fn expected_cards_must_have_their_addresses_and_are_told_by_name() {
    let bus = tempfile::tempdir().unwrap();
    disk(bus.path(), 0x18, "one");
    card(bus.path(), 0x19, "02:00:00:00:00:01\n");
    let both = |mac| expected(&[(0x18, "one")], &[(0x19, mac)]);
    let found = run(bus.path(), &both("02:00:00:00:00:01")).unwrap();
    assert_eq!(found.interfaces, ["eth7"]);
    let wrong = run(bus.path(), &both("02:00:00:00:00:02")).unwrap_err();
    let text = "the network card 0000:00:03.1 has the address \"02:00:00:00:00:01\", not \
                \"02:00:00:00:00:02\"";
    assert_eq!(wrong.message, text);
    let swapped = run(bus.path(), &expected(&[], &[(0x18, "one")])).unwrap_err();
    assert_eq!(swapped.message, "the PCI device 0000:00:03.0 has no network interface");
}

#[test]
fn one_scan_is_asked_for_and_what_does_not_come_is_named() {
    let bus = tempfile::tempdir().unwrap();
    disk(bus.path(), 0x18, "one");
    let wanted = expected(&[(0x18, "one"), (0x20, "two"), (0x21, "x")], &[]);
    let missing = run(bus.path(), &wanted).unwrap_err();
    assert_eq!(missing.message, "the PCI device 0000:00:04.0 does not exist");
    assert_eq!(fs::read(bus.path().join("rescan")).unwrap(), b"1");
    fs::create_dir(bus.path().join("devices/0000:00:04.0")).unwrap();
    let bare = run(bus.path(), &expected(&[(0x20, "two")], &[])).unwrap_err();
    assert_eq!(bare.message, "the PCI device 0000:00:04.0 has no disk");
}

#[test]
fn too_many_devices_and_wrong_addresses_are_refused() {
    let nowhere = Path::new("/nowhere");
    let (disks, nets) = (vec![(0x18, ""); MAX_DEVICES], [(0x19, "")]);
    let many = run(nowhere, &expected(&disks, &nets)).unwrap_err();
    assert_eq!(many.kind, ErrorKind::Unsupported);
    let wrong = run(nowhere, &expected(&[(0x1_0000, "")], &[])).unwrap_err();
    assert_eq!(wrong.kind, ErrorKind::Unsupported);
}

#[test]
fn devices_are_let_go_of_all_or_none() {
    let bus = tempfile::tempdir().unwrap();
    let (first, second) = (disk(bus.path(), 0x18, ""), card(bus.path(), 0x19, ""));
    let removed = |device: &Path| fs::read(device.join("remove")).unwrap() == b"1";
    let busy = release_on(bus.path(), &[0x19, 0x18], |address| address == 0x18).unwrap_err();
    assert_eq!(busy, Failure::new(ErrorKind::WrongState, "the disk 0000:00:03.0 is mounted"));
    assert!(!removed(&first) && !removed(&second));
    // What is not there has gone by itself.
    release_on(bus.path(), &[0x19, 0x20], |_| false).unwrap();
    assert!(!removed(&first) && removed(&second));
}

#[test]
fn a_file_system_is_known_by_its_tag_and_found_by_a_link() {
    let sys = tempfile::tempdir().unwrap();
    let bus = sys.path().join("bus/pci");
    device(&bus, 0x48, ("nothing", "x", ""));
    let other = sys.path().join("bus/pci/devices/other/virtio4");
    fs::create_dir_all(&other).unwrap();
    let function = bus.join("devices").join(pci::name(0x48).unwrap()).join("virtio3");
    let show = |name: &str, tag: &str, device: &Path| {
        let shown = sys.path().join("fs/virtiofs").join(name);
        fs::create_dir_all(&shown).unwrap();
        fs::write(shown.join("tag"), format!("{tag}\n")).unwrap();
        std::os::unix::fs::symlink(device, shown.join("device")).unwrap();
    };
    let expected = |tag: &str| request::Expect {
        filesystems: vec![request::Fs { address: 0x48, tag: tag.to_owned() }],
        ..request::Expect::default()
    };
    show("0", "another", &other);
    assert!(run(&bus, &expected("volumes")).unwrap_err().message.contains("no file system"));
    show("1", "volumes", &function);
    assert_eq!(run(&bus, &expected("volumes")).unwrap().interfaces, Vec::<String>::new());
    assert!(run(&bus, &expected("other")).unwrap_err().message.contains("the tag \"volumes\""));
}
