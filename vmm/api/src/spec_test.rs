//! Each limit of a specification is enforced, and named in the error.

use crate::*;

fn spec() -> MachineSpec {
    MachineSpec {
        version: API_VERSION,
        vcpus: 1,
        max_vcpus: None,
        memory: MiB(256),
        max_memory: None,
        huge_pages: false,
        boot: BootSpec { kernel: FdSlot(0), initrd: Some(FdSlot(1)), cmdline: "quiet".into() },
        disks: vec![DiskSpec { file: FdSlot(2), readonly: true, serial: "layer0".into() }],
        vsock: Some(VsockSpec { cid: Cid(3), connections: FdSlot(3) }),
        nets: vec![NetSpec {
            taps: vec![FdSlot(5), FdSlot(6)],
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            mtu: Some(1500),
        }],
        rng: true,
        balloon: true,
        spare_queues: 0,
        console: Some(ConsoleSpec { log: FdSlot(4), limit: 65536 }),
    }
}

#[test]
fn a_sound_specification_passes() {
    assert_eq!(spec().check(7), Ok(()));
}

#[test]
fn it_survives_json() {
    let text = serde_json::to_string(&spec()).unwrap();
    assert_eq!(serde_json::from_str::<MachineSpec>(&text).unwrap(), spec());
}

#[test]
fn an_unknown_field_is_named() {
    let text = serde_json::to_string(&spec()).unwrap().replacen("\"rng\"", "\"rgn\"", 1);
    assert!(serde_json::from_str::<MachineSpec>(&text).unwrap_err().to_string().contains("rgn"));
}

#[test]
fn each_limit_is_enforced() {
    let broken = |change: fn(&mut MachineSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec.check(7).unwrap_err()
    };
    assert_eq!(broken(|s| s.version = 99), SpecError::Version(99));
    assert_eq!(broken(|s| s.vcpus = 0), SpecError::Vcpus(0));
    assert_eq!(broken(|s| s.vcpus = 65), SpecError::Vcpus(65));
    assert_eq!(broken(|s| s.max_vcpus = Some(0)), SpecError::MaxVcpus { boot: 1, max: 0 });
    assert_eq!(broken(|s| s.max_vcpus = Some(65)), SpecError::MaxVcpus { boot: 1, max: 65 });
    assert_eq!(broken(|s| s.memory = MiB(16)), SpecError::Memory(MiB(16)));
    assert_eq!(broken(|s| s.memory = MiB(u32::MAX)), SpecError::Memory(MiB(u32::MAX)));
    let (boot, max) = (MiB(256), MiB(255));
    assert_eq!(broken(|s| s.max_memory = Some(MiB(255))), SpecError::MaxMemory { boot, max });
    let max = MiB((1 << 20) + 1);
    assert!(
        broken(|s| s.max_memory = Some(MiB((1 << 20) + 1))) == SpecError::MaxMemory { boot, max }
    );
    assert_eq!(broken(|s| s.boot.cmdline = "x".repeat(2048)), SpecError::Cmdline(2048));
    assert_eq!(broken(|s| s.boot.cmdline = "a\0b".into()), SpecError::Cmdline(3));
    assert_eq!(broken(|s| s.disks[0].serial = "x".repeat(21)), SpecError::Serial("x".repeat(21)));
    assert!(matches!(broken(|s| s.disks = vec![s.disks[0].clone(); 25]), SpecError::Disks(25)));
    assert!(matches!(broken(|s| s.nets = vec![s.nets[0].clone(); 5]), SpecError::Nets(5)));
    assert_eq!(broken(|s| s.spare_queues = 65), SpecError::SpareQueues(65));
    assert_eq!(broken(|s| s.nets[0].taps.clear()), SpecError::QueuePairs(0));
    assert_eq!(broken(|s| s.nets[0].taps = vec![FdSlot(5); 9]), SpecError::QueuePairs(9));
    assert_eq!(broken(|s| s.nets[0].mtu = Some(67)), SpecError::Mtu(67));
    for wrong in ["00:00:00:00:00:00", "01:00:5e:00:00:01"] {
        let mac: Mac = wrong.parse().unwrap();
        let mut spec = spec();
        spec.nets[0].mac = Some(mac);
        assert_eq!(spec.check(7), Err(SpecError::Mac(mac)));
    }
    assert!(matches!(
        broken(|s| s.vsock = Some(VsockSpec { cid: Cid(2), connections: FdSlot(3) })),
        SpecError::Cid(Cid(2))
    ));
}

#[test]
fn vcpus_can_be_parked() {
    let mut parked = spec();
    (parked.vcpus, parked.max_vcpus) = (2, Some(MAX_VCPUS));
    assert_eq!((parked.check(7), parked.all_vcpus()), (Ok(()), MAX_VCPUS));
    parked.max_vcpus = Some(1);
    assert_eq!(parked.check(7), Err(SpecError::MaxVcpus { boot: 2, max: 1 }));
    assert_eq!(spec().all_vcpus(), 1);
}

#[test]
fn a_descriptor_must_be_there_and_be_used_once() {
    assert_eq!(spec().check(6), Err(SpecError::Descriptor { slot: FdSlot(6), sent: 6 }));
    let mut twice = spec();
    twice.disks[0].file = FdSlot(0);
    assert_eq!(twice.check(7), Err(SpecError::Descriptor { slot: FdSlot(0), sent: 7 }));
}

#[test]
fn mac_addresses_are_read_as_they_are_written() {
    for text in ["02:00:00:00:00:01", "fe:dc:ba:98:76:54"] {
        assert_eq!(text.parse::<Mac>().unwrap().to_string(), text);
    }
    for wrong in ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "+2:00:00:00:00:01"]
    {
        assert_eq!(wrong.parse::<Mac>(), Err(NotAMac), "{wrong}");
    }
}
