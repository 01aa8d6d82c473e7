//! Every file of every corpus, and some inputs that need no file.

use std::collections::BTreeSet;
use std::fs;

use super::*;

/// Replays the corpus of `name` in the order of its files' names.
fn replay(name: &str) {
    let target = target(name);
    run(target, &[]);
    let directory = corpus().join(name);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{name}: {error}"));
    let files: BTreeSet<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{name} has no corpus");
    for file in files {
        let data = fs::read(&file).unwrap();
        let replayed = std::panic::catch_unwind(|| run(target, &data));
        assert!(replayed.is_ok(), "it was {}", file.display());
    }
}

macro_rules! replayed {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })+

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),+];
            assert_eq!(replayed.to_vec(), TARGETS.iter().map(|t| t.name).collect::<Vec<_>>());
        }
    };
}

replayed! {
    pci_config virtio_block virtio_mem virtio_rng virtio_vsock virtio_net virtio_balloon virtio_fs
    vsock_packets control_messages agent_frames boot_images oci_plan
}

#[test]
fn a_panic_on_a_device_s_thread_is_noticed() {
    let panics = Target {
        name: "panics",
        run: |_| assert!(std::thread::spawn(|| panic!("on purpose")).join().is_err()),
    };
    assert!(std::panic::catch_unwind(|| run(panics, &[])).is_err());
}

#[test]
fn a_sleeping_thread_is_quiet_and_a_busy_one_is_not() {
    use std::sync::atomic::AtomicBool;
    static BUSY: AtomicBool = AtomicBool::new(true);
    let quiet = quiet::Quiet::now();
    let thread = std::thread::Builder::new().name("device".into()).spawn(|| {
        while BUSY.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        std::thread::park();
    });
    let thread = thread.unwrap();
    let waiting = std::thread::Builder::new().name("replay_test".into()).spawn(move || {
        quiet.wait();
        quiet
    });
    let waiting = waiting.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!waiting.is_finished());
    BUSY.store(false, Ordering::SeqCst);
    let quiet = waiting.join().unwrap();
    thread.thread().unpark();
    thread.join().unwrap();
    quiet.wait();
}
