use std::collections::BTreeMap;

use super::super::HostBridge;
use super::*;

/// Remembers where it was accessed. A write of 1 makes its reads do something.
#[derive(Default)]
struct Probe(Vec<u16>, [u8; 1]);

impl PciFunction for Probe {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.0.push(offset);
        data[0] = 0x5a;
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.0.push(offset);
        self.1[0] = data[0];
    }

    fn snapshot(&self) -> Option<&[u8]> {
        (self.1[0] != 1).then_some(&self.1)
    }
}

fn read(bus: &mut PciBus, offset: u64) -> [u8; 4] {
    let mut data = [0xff; 4];
    bus.read(offset, &mut data);
    data
}

#[test]
fn device_numbers_are_at_their_offsets() {
    let mut bus = PciBus::new();
    let probe = Arc::new(Mutex::new(Probe::default()));
    bus.attach(0, Arc::new(Mutex::new(HostBridge::new()))).unwrap();
    bus.attach(31 << 3, probe.clone()).unwrap();
    assert_eq!(read(&mut bus, 0), [0x36, 0x1b, 0x08, 0x00]);
    assert_eq!(read(&mut bus, (31 << 15) + 0x123)[0], 0x5a);
    bus.write((31 << 15) + 0xfff, &[0]);
    assert_eq!(probe.lock().unwrap().0, [0x123, 0xfff]);
}

#[test]
fn what_is_absent_reads_as_all_ones() {
    let mut bus = PciBus::new();
    bus.attach(0, Arc::new(Mutex::new(HostBridge::new()))).unwrap();
    // Another device, other functions, another bus, nowhere.
    for offset in [1 << 15, 1 << 12, 7 << 12, 1 << 20, u64::MAX - 3] {
        assert_eq!(read(&mut bus, offset), [0xff; 4], "{offset:#x}");
        bus.write(offset, &[0; 4]);
    }
}

#[test]
fn a_device_comes_and_goes() {
    let mut bus = PciBus::new();
    let bridge = || Arc::new(Mutex::new(HostBridge::new()));
    bus.attach(5 << 3, bridge()).unwrap();
    assert_eq!(bus.attach(5 << 3, bridge()), Err(Taken(5 << 3)));
    assert!(bus.detach(5 << 3).is_some() && bus.detach(5 << 3).is_none());
    assert_eq!(read(&mut bus, 5 << 15), [0xff; 4]);
    bus.attach(5 << 3, bridge()).unwrap();
}

#[test]
fn a_device_has_eight_functions() {
    let mut bus = PciBus::new();
    let probe = Arc::new(Mutex::new(Probe::default()));
    bus.attach(5 << 3 | 7, probe.clone()).unwrap();
    assert_eq!(read(&mut bus, (5 << 15) + (7 << 12) + 4)[0], 0x5a);
    assert_eq!(read(&mut bus, (5 << 15) + (6 << 12)), [0xff; 4]);
    assert_eq!(probe.lock().unwrap().0, [4]);
    assert_eq!(Taken(5 << 3 | 7).to_string(), "PCI function 05.7 is taken");
}

/// What the page of each place shows; a page that is gone shows nothing.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<BTreeMap<u8, Vec<u8>>>>);

struct Page(Pages, u8);

impl ConfigPages for Pages {
    fn page(&self, place: u8) -> Option<Box<dyn ConfigPage>> {
        (place != 9).then(|| -> Box<dyn ConfigPage> { Box::new(Page(self.clone(), place)) })
    }
}

impl ConfigPage for Page {
    fn show(&self, bytes: &[u8]) {
        self.0.0.lock().unwrap().insert(self.1, bytes.to_vec());
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().remove(&self.1);
    }
}

#[test]
fn pages_show_what_a_read_would_give_until_reads_do_something() {
    let pages = Pages::default();
    let shown = |place| pages.0.lock().unwrap().get(&place).cloned();
    let mut bus = PciBus::with_pages(Box::new(pages.clone()));
    for place in [3, 4, 9] {
        bus.attach(place, Arc::new(Mutex::new(Probe::default()))).unwrap();
    }
    assert_eq!((shown(3), shown(9)), (Some(vec![0]), None));
    bus.write(3 << 12, &[7]);
    bus.write(9 << 12, &[7]);
    assert_eq!((shown(3), shown(4)), (Some(vec![7]), Some(vec![0])));
    bus.write(3 << 12, &[1]);
    bus.write(3 << 12, &[2]);
    assert_eq!(shown(3), None);
    bus.detach(4);
    assert_eq!(shown(4), None);
}

#[test]
fn what_is_plugged_in_later_has_no_page() {
    let pages = Pages::default();
    let mut bus = PciBus::with_pages(Box::new(pages.clone()));
    bus.plug(5, Arc::new(Mutex::new(Probe::default()))).unwrap();
    assert_eq!(bus.attach(5, Arc::new(Mutex::new(Probe::default()))), Err(Taken(5)));
    bus.write(5 << 12, &[7]);
    assert!(pages.0.lock().unwrap().is_empty());
    assert_eq!(read(&mut bus, 5 << 12)[0], 0x5a);
}
