//! PCI addresses.

use super::*;

#[test]
fn addresses_are_written_as_sysfs_does() {
    assert_eq!(name(0x0018).unwrap(), "0000:00:03.0");
    assert_eq!(name(0xffff).unwrap(), "0000:ff:1f.7");
    assert!(name(0x1_0000).is_err());
}

#[test]
fn a_disk_is_found_below_its_device() {
    let pci = tempfile::tempdir().unwrap();
    assert_eq!(block_device(pci.path()), None);
    // A block device that every machine's /dev has under this name.
    fs::create_dir_all(pci.path().join("virtio3/block/null")).unwrap();
    assert_eq!(block_device(pci.path()), Some("/dev/null".into()));
}
