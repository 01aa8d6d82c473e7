//! Their form, and their size.

use super::*;
use crate::{FromMonitor, MAX_DISKS, MAX_MESSAGE, MAX_VCPUS};

fn counts(names: &[&str]) -> Counts {
    names.iter().map(|name| ((*name).to_owned(), u64::MAX)).collect()
}

#[test]
fn those_of_the_largest_machine_fit_in_one_message() {
    let exits = ["port_reads", "port_writes", "mmio_reads", "mmio_writes", "interruptions"];
    let device = |index: usize| DeviceStats {
        address: format!("00:{index:02x}.0"),
        kind: "block".into(),
        counts: counts(&[
            "packets_from_guest",
            "packets_to_guest",
            "bytes_from_guest",
            "bytes_to_guest",
            "errors",
            "connections",
            "dropped_from_guest",
            "dropped_to_guest",
        ]),
    };
    // More than Linux has: 64 numbers and 4 histograms of 32 each for a machine and for a vCPU.
    let kvm: BTreeMap<_, _> = (0..64)
        .map(|index| (format!("a_name_as_long_as_kvm_has_them_{index}"), KvmValue::One(1 << 48)))
        .chain((0..4).map(|index| (format!("histogram_{index}"), vec![1 << 40; 32].into())))
        .collect();
    let stats = Stats {
        at_ns: u64::MAX,
        paused: false,
        vcpus: vec![counts(&exits); MAX_VCPUS.into()],
        devices: (0..MAX_DISKS + 8).map(device).collect(),
        kvm: KvmStats { machine: kvm.clone(), vcpus: kvm },
    };
    let bytes = serde_json::to_vec(&FromMonitor::Stats(Box::new(stats))).unwrap();
    assert!(bytes.len() <= MAX_MESSAGE, "{} bytes", bytes.len());
}

#[test]
fn a_single_number_is_no_list() {
    let text = serde_json::to_string(&[KvmValue::from(vec![7]), vec![1, 2].into()]).unwrap();
    assert_eq!(text, "[7,[1,2]]");
    let back: Vec<KvmValue> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, [KvmValue::One(7), KvmValue::Many(vec![1, 2])]);
}
