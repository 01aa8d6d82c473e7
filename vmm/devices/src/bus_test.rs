use super::*;

/// Answers reads with the offset, remembers the last write.
#[derive(Default)]
struct Probe {
    last: Option<(u64, Vec<u8>)>,
}

impl BusDevice for Probe {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data[0] = u8::try_from(offset).unwrap();
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.last = Some((offset, data.to_vec()));
    }
}

fn probe() -> Arc<Mutex<Probe>> {
    Arc::default()
}

#[test]
fn finds_the_device_and_the_offset() {
    let bus = Bus::new();
    let (low, high) = (probe(), probe());
    bus.insert(0x1000, 0x10, low.clone()).unwrap();
    bus.insert(0x1010, 0x10, high.clone()).unwrap();

    let mut data = [0; 2];
    assert!(bus.read(0x100e, &mut data));
    assert_eq!(data, [0x0e, 0xff]);
    assert!(bus.write(0x1010, &[1, 2, 3, 4]));
    assert_eq!(high.lock().unwrap().last, Some((0, vec![1, 2, 3, 4])));
    assert_eq!(low.lock().unwrap().last, None);
}

#[test]
fn what_nobody_claims_reads_as_all_ones() {
    let bus = Bus::new();
    bus.insert(0x1000, 0x10, probe()).unwrap();
    for (address, len) in [(0xfff, 1), (0x1010, 1), (0x100f, 2), (0x1000, 3), (u64::MAX, 8)] {
        let mut data = vec![0; len];
        assert!(!bus.read(address, &mut data), "{address:#x}+{len}");
        assert!(data.iter().all(|&b| b == 0xff));
        assert!(!bus.write(address, &data));
    }
}

#[test]
fn ranges_cannot_overlap() {
    let bus = Bus::new();
    bus.insert(0x1000, 0x10, probe()).unwrap();
    for (base, len) in [(0x1000, 0x10), (0xfff, 2), (0x100f, 1), (0, 0x1001), (0x1004, 4)] {
        let error = bus.insert(base, len, probe()).unwrap_err();
        assert_eq!(error, BusError::Overlap { base, len, other: 0x1000 });
    }
    for (base, len) in [(0, 0), (u64::MAX, 2)] {
        assert_eq!(bus.insert(base, len, probe()), Err(BusError::Invalid { base, len }));
    }
    bus.insert(u64::MAX, 1, probe()).unwrap();
    assert!(bus.remove(0x1000) && !bus.remove(0x1000));
    bus.insert(0x0ff8, 0x10, probe()).unwrap();
}
