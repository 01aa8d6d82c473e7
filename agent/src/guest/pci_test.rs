//! PCI addresses, and what drivers make, in a directory that stands for sysfs.

use super::*;

#[test]
fn addresses_are_written_as_sysfs_does() {
    assert_eq!(name(0x0018).unwrap(), "0000:00:03.0");
    assert_eq!(name(0xffff).unwrap(), "0000:ff:1f.7");
    assert!(name(0x1_0000).is_err());
}

#[test]
fn what_a_driver_made_is_found_below_its_device() {
    let bus = tempfile::tempdir().unwrap();
    let device = bus.path().join("devices/0000:00:03.0");
    assert_eq!(made(&device, Class::Block), None);
    fs::create_dir_all(&device).unwrap();
    assert_eq!(made(&device, Class::Block), None);
    // A block device that every machine's /dev has under this name, and one that none has.
    let null = device.join("virtio3/block/null");
    fs::create_dir_all(&null).unwrap();
    assert_eq!(made(&device, Class::Block), Some(null.clone()));
    assert_eq!(node(&null), Path::new("/dev/null"));
    assert_eq!(made(&device, Class::Net), None);
    fs::rename(&null, device.join("virtio3/block/no such node")).unwrap();
    assert_eq!(made(&device, Class::Block), None);
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
