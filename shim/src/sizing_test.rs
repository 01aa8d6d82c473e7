//! Limits, overrides and defaults.

use super::*;
use crate::config::Overrides;
use crate::units::Bytes;

fn sized(memory: Option<u64>, cpus: Option<u64>, overrides: Overrides) -> Result<Size, SizeError> {
    let millicpus = cpus.map(|cpus| cpus * 1000);
    size(&Needs { memory, millicpus, numbered: None }, &Settings::new(overrides, None), 8)
}

#[test]
fn without_limits_the_defaults_hold() {
    let size = sized(None, None, Overrides::default()).unwrap();
    assert_eq!(size, Size { vcpus: 1, memory: MiB(256) });
}

#[test]
fn limits_get_the_overhead_on_top() {
    let size = sized(Some(512 << 20), Some(3), Overrides::default()).unwrap();
    assert_eq!(size, Size { vcpus: 3, memory: MiB(512 + 8 + 64) });
    assert_eq!(sized(Some(1), Some(100), Overrides::default()).unwrap().vcpus, 8);
}

#[test]
fn a_set_of_low_numbers_has_its_numbers() {
    let settings = Settings::new(Overrides::default(), None);
    let needs = |numbered| Needs { memory: None, millicpus: Some(2000), numbered };
    for (numbered, vcpus) in [(None, 2), (Some(1), 2), (Some(4), 4), (Some(99), 8), (Some(999), 8)]
    {
        assert_eq!(size(&needs(numbered), &settings, 8).unwrap().vcpus, vcpus, "{numbered:?}");
    }
}

#[test]
fn overrides_are_the_size_of_the_machine() {
    let overrides =
        Overrides { vcpus: Some(16), memory: Some(Bytes(100 << 20)), ..Default::default() };
    let size = sized(Some(512 << 20), Some(3), overrides).unwrap();
    assert_eq!(size, Size { vcpus: 16, memory: MiB(100) });
}

#[test]
fn impossible_sizes_are_refused() {
    let vcpus = |n| sized(None, None, Overrides { vcpus: Some(n), ..Default::default() });
    assert_eq!(vcpus(0), Err(SizeError::Vcpus(0)));
    assert_eq!(vcpus(65), Err(SizeError::Vcpus(65)));
    assert!(matches!(sized(Some(u64::MAX), None, Overrides::default()), Err(SizeError::Memory(_))));
}

#[test]
fn a_host_has_what_it_has() {
    let there = MiB(3000);
    let on_host = |memory, overrides: Overrides| {
        let settings = Settings::new(overrides.clone(), None);
        sized(memory, None, overrides).unwrap().on_host(&settings, there).map(|size| size.memory)
    };
    let set = |bytes| Overrides { memory: Some(Bytes(bytes)), ..Default::default() };
    assert_eq!(on_host(Some(64 << 30), Overrides::default()), Ok(there));
    assert_eq!(on_host(Some(1 << 30), Overrides::default()), Ok(MiB(1024 + 16 + 64)));
    assert_eq!(on_host(None, set(3000 << 20)), Ok(there));
    let refused = on_host(None, set(3001 << 20)).unwrap_err().to_string();
    assert_eq!(refused, "3001 MiB of memory; this host has 3000 MiB, its swap included");
    assert!(host_memory() > MiB(0));
}
