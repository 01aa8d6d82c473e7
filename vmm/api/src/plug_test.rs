//! What can be plugged in, and what it is called.

use crate::*;

fn disk(serial: &str) -> NewDevice {
    let disk = DiskSpec { file: FdSlot(0), readonly: true, serial: serial.into() };
    NewDevice::Disk { disk, bytes: 512 }
}

fn net(taps: u16, mac: Option<&str>) -> NewDevice {
    let mac = mac.map(|mac| mac.parse().unwrap());
    NewDevice::Net(NetSpec { taps: (0..taps).map(FdSlot).collect(), mac, mtu: None })
}

#[test]
fn the_limits_are_those_at_boot() {
    assert_eq!(disk("a").check(1), Ok(()));
    assert_eq!(disk(&"x".repeat(21)).check(1), Err(SpecError::Serial("x".repeat(21))));
    assert_eq!(disk("a").check(0), Err(SpecError::Descriptor { slot: FdSlot(0), sent: 0 }));
    assert_eq!(net(2, None).check(2), Ok(()));
    assert_eq!(net(9, None).check(9), Err(SpecError::QueuePairs(9)));
    assert_eq!(net(2, None).check(1), Err(SpecError::Descriptor { slot: FdSlot(1), sent: 1 }));
    let group = net(1, Some("01:00:5e:00:00:01"));
    assert!(matches!(group.check(1), Err(SpecError::Mac(_))));
}

#[test]
fn it_is_called_by_what_tells_it_from_others() {
    assert_eq!(disk("a").name().unwrap(), "the disk a");
    assert_eq!(disk("").name(), None);
    let card = net(1, Some("02:00:00:00:00:01"));
    assert_eq!(card.name().unwrap(), "the network card 02:00:00:00:00:01");
    assert_eq!(net(1, None).name(), None);
}

#[test]
fn it_survives_json() {
    for device in [disk("a"), net(2, Some("02:00:00:00:00:01"))] {
        let message = ToMonitor::Attach(device);
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<ToMonitor>(&text).unwrap(), message);
    }
}
