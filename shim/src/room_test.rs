//! The sizes of a sandbox's machine.

use proptest::prelude::*;

use super::*;
use crate::config::Overrides;
use crate::units::Bytes;

const HOST: Host = Host { cpus: 6, memory: MiB(16 << 10) };

const BASE: Size = Size { vcpus: 1, memory: MiB(256) };

const GIB: u64 = 1 << 30;

fn annotated(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sandbox(annotations: &[(&str, &str)], overrides: Overrides) -> Room {
    let settings = Settings::new(overrides, None);
    Room::of_sandbox(BASE, &annotated(annotations), &settings, HOST).unwrap()
}

fn needs(memory: u64, millicpus: u64) -> Needs {
    let limit = |limit: u64| Some(limit).filter(|limit| *limit != 0);
    Needs { memory: limit(memory), millicpus: limit(millicpus), numbered: None }
}

#[test]
fn a_sandbox_has_room_for_what_the_host_has() {
    let room = sandbox(&[], Overrides::default());
    assert_eq!((room.base, room.boot), (BASE, BASE));
    assert_eq!(room.max, Size { vcpus: 6, memory: MiB(16 << 10) });
    let settings = Settings::new(Overrides::default(), None);
    let large = Host { cpus: 128, memory: MiB(4 << 20) };
    let room = Room::of_sandbox(BASE, &BTreeMap::new(), &settings, large).unwrap();
    assert_eq!(room.max, Size { vcpus: DEFAULT_MAX_VCPUS, memory: MOST_MEMORY });
    // What counts as soon as it is reserved is not reserved.
    let strict = Host { cpus: 1, memory: MiB(0) };
    let room = Room::of_sandbox(BASE, &BTreeMap::new(), &settings, strict).unwrap();
    assert_eq!(room, Room::none(BASE));
    assert!(!room.grows());
}

#[test]
fn the_settings_bound_the_room() {
    let bounds = |vcpus, memory| Overrides {
        max_vcpus: Some(vcpus),
        max_memory: Some(Bytes(memory)),
        ..Overrides::default()
    };
    let room = sandbox(&[], bounds(64, 3 * GIB));
    assert_eq!(room.max, Size { vcpus: 64, memory: MiB(3072) });
    assert_eq!(sandbox(&[], bounds(200, 1 << 63)).max, Size { vcpus: 64, memory: MOST_MEMORY });
    // It is never less than there is from the start.
    assert_eq!(sandbox(&[], bounds(0, 0)), Room::none(BASE));
}

#[test]
fn limits_come_on_top_of_what_an_empty_sandbox_has() {
    let room = sandbox(&[], Overrides::default());
    assert_eq!(room.size(&[]), BASE);
    // Without limits they share it.
    assert_eq!(room.size(&[needs(0, 0), needs(0, 0)]), BASE);
    let size = room.size(&[needs(2 * GIB, 2000), needs(0, 0)]);
    assert_eq!(size, Size { vcpus: 3, memory: MiB(256 + 2048 + 32) });
    // Fractions of CPUs are added before they are rounded, and bytes too, to blocks of 2 MiB.
    let size = room.size(&[needs(1, 1500), needs(1, 250), needs(0, 250)]);
    assert_eq!(size, Size { vcpus: 3, memory: MiB(258) });
    let size = room.size(&[needs(1 << 20, 1001), needs(3 << 20, 1000)]);
    assert_eq!(size, Size { vcpus: 4, memory: MiB(262) });
}

#[test]
fn sets_of_low_numbers_have_their_numbers_once() {
    let room = sandbox(&[], Overrides::default());
    let set = |count: u64, last| Needs { numbered: Some(last), ..needs(0, count * 1000) };
    assert_eq!(room.size(&[set(2, 2)]).vcpus, 3);
    assert_eq!(room.size(&[set(1, 5)]).vcpus, 5);
    assert_eq!(room.size(&[set(1, 5), set(2, 4)]).vcpus, 5);
    assert_eq!(room.size(&[set(2, 8), needs(0, 9000)]).vcpus, 6);
}

#[test]
fn no_machine_has_more_than_it_can_have() {
    let room = sandbox(&[], Overrides::default());
    for much in [needs(64 * GIB, 64_000), needs(u64::MAX, u64::MAX)] {
        assert_eq!(room.size(&[much, much]), room.max);
    }
    assert_eq!(Room::none(BASE).size(&[needs(GIB, 4000)]), BASE);
}

#[test]
fn what_a_pod_is_said_to_ask_for_is_there_from_the_start() {
    let pod = [(POD_QUOTA, "250000"), (POD_PERIOD, "100000"), (POD_MEMORY, "1073741824")];
    let room = sandbox(&pod, Overrides::default());
    assert_eq!(room.base, BASE);
    let boot = Size { vcpus: 4, memory: MiB(256 + 1024 + 16) };
    assert_eq!(room.boot, boot);
    // Its containers ask for no more than that, one after the other.
    assert_eq!(room.size(&[needs(GIB / 2, 500)]), boot);
    assert_eq!(room.size(&[needs(GIB / 2, 500), needs(GIB / 2, 2000)]), boot);
    let more = room.size(&[needs(GIB, 2500), needs(GIB, 1)]);
    assert_eq!(more, Size { vcpus: 4, memory: MiB(256 + 2048 + 32) });
    let none = [(POD_QUOTA, "-1"), (POD_PERIOD, "100000"), (POD_MEMORY, "0")];
    assert_eq!(sandbox(&none, Overrides::default()).boot, BASE);
    let no_period = [(POD_QUOTA, "100000"), ("io.kubernetes.cri.sandbox-cpu-shares", "8192")];
    assert_eq!(sandbox(&no_period, Overrides::default()).boot.vcpus, 2);
    let huge = [(POD_QUOTA, "9223372036854775807"), (POD_MEMORY, "9223372036854775807")];
    let room = sandbox(&huge, Overrides::default());
    assert_eq!((room.boot, room.grows()), (room.max, false));
}

#[test]
fn an_annotation_that_is_no_number_is_named() {
    let settings = Settings::new(Overrides::default(), None);
    for name in [POD_QUOTA, POD_PERIOD, POD_MEMORY] {
        let error = Room::of_sandbox(BASE, &annotated(&[(name, "1G")]), &settings, HOST);
        let text = error.unwrap_err().to_string();
        assert_eq!(text, format!("annotation {name}=\"1G\": not a number"));
    }
}

#[test]
fn the_host_tells_its_memory() {
    let text = "MemTotal:       24683521 kB\nMemFree:        1 kB\n";
    assert_eq!(memory_total(text), MiB(24104));
    for odd in ["", "MemTotal: many kB", "MemTotal: 1 MB"] {
        assert_eq!(memory_total(odd), MiB(0), "{odd}");
    }
    let host = Host::of_this(host_cpus());
    assert!(host.cpus > 0);
}

fn some_needs() -> impl Strategy<Value = Needs> {
    let memory = prop_oneof![Just(0), any::<u64>(), 0..4 * GIB];
    let millicpus = prop_oneof![Just(0), any::<u64>(), 0u64..9000];
    (memory, millicpus).prop_map(|(memory, millicpus)| needs(memory, millicpus))
}

proptest! {
    /// Every size is one that the machine can have, and one more container makes it no smaller.
    #[test]
    fn sizes_are_possible_and_grow(
        all in prop::collection::vec(some_needs(), 0..6),
        pod in (any::<i64>(), any::<i64>()),
        cpus in 1u8..,
        memory in 0u32..,
    ) {
        let (quota, limit) = (pod.0.to_string(), pod.1.to_string());
        let annotations = annotated(&[(POD_QUOTA, &quota), (POD_MEMORY, &limit)]);
        let settings = Settings::new(Overrides::default(), None);
        let host = Host { cpus, memory: MiB(memory) };
        let room = Room::of_sandbox(BASE, &annotations, &settings, host).unwrap();
        let mut before = room.size(&[]);
        prop_assert_eq!(before, room.boot);
        for count in 0..=all.len() {
            let size = room.size(&all[..count]);
            prop_assert!(size.vcpus >= before.vcpus && size.memory >= before.memory);
            prop_assert!(size.vcpus <= room.max.vcpus && size.memory <= room.max.memory);
            before = size;
        }
        prop_assert!(room.max.memory <= MOST_MEMORY && room.max.vcpus <= MAX_VCPUS);
    }
}
