//! The table that KVM gets.

use super::*;

fn route(target: Option<MsiTarget>) -> Route {
    let line = Line { event: EventFd::new(0).unwrap(), state: AtomicU8::new(DISCONNECTED) };
    Route { target, installed: None, line: Arc::new(line) }
}

#[test]
fn pins_come_first_and_vectors_keep_their_number() {
    let target = MsiTarget { address: 0x1_fee0_1000, data: 0x4041 };
    let table = entries(&[Some(route(None)), Some(route(Some(target))), None]);
    assert_eq!(table.len(), 25);
    assert!(table[..24].iter().zip(0..).all(|(entry, pin)| entry.gsi == pin));
    let entry = table[24];
    assert_eq!((entry.gsi, entry.type_), (25, KVM_IRQ_ROUTING_MSI));
    // SAFETY: the entry is a message, as its type says.
    let message = unsafe { entry.u.msi };
    assert_eq!((message.address_lo, message.address_hi, message.data), (0xfee0_1000, 1, 0x4041));
}
