use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::super::rng::Rng;
use super::super::testing::{Buf, Machine, PlainThreads, RAM_SIZE, TestQueue};
use super::super::{
    ActivateError, Activation, DeviceId, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Interrupt,
};
use super::common::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use super::*;
use crate::bus::Bus;
use crate::pci::testing::{FakeDoorbells, FakeMsi};
use crate::pci::{ECAM_BUS_SIZE, PciBus};

const ECAM: u64 = 0xb000_0000;
const BAR: u64 = 0xc000_0000;
const SLOT: u64 = 3;
const NO_VECTOR: u16 = 0xffff;

/// Offsets in the common configuration.
const FEATURE_SELECT: u64 = 0x08;
const FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

const ISR: u64 = 0x100;
const DEVICE: u64 = 0x400;
const NOTIFY: u64 = 0x1000;
const TABLE: u64 = 0x2000;
const PENDING: u64 = 0x3000;

/// Up to and with `FEATURES_OK`.
const AGREED: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK;

/// A device with two queues that counts how often it runs and keeps its way to the driver.
#[derive(Clone, Default)]
struct Probe {
    running: Arc<AtomicUsize>,
    started: Arc<AtomicUsize>,
    interrupt: Arc<Mutex<Option<Arc<dyn Interrupt>>>>,
    config: Arc<Mutex<Vec<u8>>>,
}

struct ProbeWorker(Arc<AtomicUsize>);

impl Worker for ProbeWorker {
    fn stop(self: Box<Self>) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl VirtioDevice for Probe {
    fn id(&self) -> DeviceId {
        DeviceId::Net
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64, 16]
    }

    fn threads(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        F_EVENT_IDX | 1
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = self.config.lock().unwrap();
        data.iter_mut().zip(config.iter().skip(offset)).for_each(|(byte, value)| *byte = *value);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let mut config = self.config.lock().unwrap();
        config.iter_mut().skip(offset).zip(data).for_each(|(byte, value)| *byte = *value);
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        if activation.queues.first().is_none_or(|queue| queue.index != 0) {
            return Err(ActivateError::MissingQueue(0));
        }
        assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "two workers at once");
        self.started.fetch_add(1, Ordering::SeqCst);
        *self.interrupt.lock().unwrap() = Some(activation.interrupt);
        Ok(Box::new(ProbeWorker(Arc::clone(&self.running))))
    }
}

/// One step of a driver.
type Step = Box<dyn Fn(&Guest)>;

/// A function in a machine, as its driver sees it.
struct Guest {
    machine: Machine,
    memory: Bus,
    function: Arc<Mutex<VirtioPci>>,
    msi: Arc<FakeMsi>,
    doorbells: Arc<FakeDoorbells>,
    queue: TestQueue,
}

impl Guest {
    fn new(device: impl VirtioDevice + 'static) -> Self {
        Self::with(device, FakeDoorbells::default())
    }

    /// With memory decoding and MSI-X switched on and vectors 0 to 2 open, as any driver would begin.
    fn with(device: impl VirtioDevice + 'static, doorbells: FakeDoorbells) -> Self {
        let (machine, msi) = (Machine::new(), Arc::new(FakeMsi::default()));
        let doorbells = Arc::new(doorbells);
        let wiring = Wiring {
            ram: machine.ram.clone(),
            msi: Arc::clone(&msi) as _,
            doorbells: Arc::clone(&doorbells) as _,
            threads: Arc::new(PlainThreads),
        };
        let function = VirtioPci::new(Box::new(device), BAR, wiring).unwrap();
        let function = Arc::new(Mutex::new(function));
        let memory = Bus::new();
        let mut pci = PciBus::new();
        pci.attach((SLOT << 3).try_into().unwrap(), Arc::clone(&function) as _).unwrap();
        memory.insert(ECAM, ECAM_BUS_SIZE, Arc::new(Mutex::new(pci))).unwrap();
        memory.insert(BAR, BAR_SIZE, Arc::clone(&function) as _).unwrap();
        let queue = machine.queue(0, 16);
        let guest = Self { machine, memory, function, msi, doorbells, queue };
        guest.config_write(4, &[6, 0]);
        let msix = guest.capability(0x11, None);
        guest.config_write(msix + 3, &[0x80]);
        for vector in 0..3u32 {
            let entry = TABLE + 16 * u64::from(vector);
            guest.write(entry, &0xfee0_0000u64.to_le_bytes());
            guest.write(entry + 8, &(0x40 + vector).to_le_bytes());
            guest.write(entry + 12, &[0; 4]);
        }
        guest
    }

    fn config_read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.memory.read(ECAM + (SLOT << 15) + offset, &mut data);
        data
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        self.memory.write(ECAM + (SLOT << 15) + offset, data);
    }

    /// The capability with this id and, if it is virtio's, this type.
    fn capability(&self, id: u8, kind: Option<u8>) -> u64 {
        let [mut at] = self.config_read(0x34);
        while at != 0 {
            let [this, next, _, cfg_type] = self.config_read(at.into());
            if this == id && kind.is_none_or(|kind| kind == cfg_type) {
                return at.into();
            }
            at = next;
        }
        panic!("no capability {id:#x} {kind:?}");
    }

    fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.memory.read(BAR + offset, &mut data);
        data
    }

    fn read16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.memory.write(BAR + offset, data);
    }

    fn status(&self) -> u8 {
        self.read::<1>(STATUS)[0]
    }

    fn set_status(&self, status: u8) -> u8 {
        self.write(STATUS, &[status]);
        self.status()
    }

    fn set_features(&self, features: u64) {
        for (select, half) in [(0u32, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(FEATURE_SELECT, &select.to_le_bytes());
            self.write(FEATURE, &half.to_le_bytes()[..4]);
        }
    }

    /// Sets up queue 0 on vector 1, by halves as Linux does.
    fn set_queue(&self, size: u16, rings: [u64; 3]) {
        self.write(QUEUE_SELECT, &[0, 0]);
        self.write(QUEUE_SIZE, &size.to_le_bytes());
        for (offset, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(rings) {
            self.write(offset, &address.to_le_bytes()[..4]);
            self.write(offset + 4, &address.to_le_bytes()[4..]);
        }
        self.write(QUEUE_VECTOR, &[1, 0]);
        self.write(QUEUE_ENABLE, &[1, 0]);
    }

    fn rings(&self) -> [u64; 3] {
        [self.queue.descriptors, self.queue.avail, self.queue.used]
    }

    /// The steps of a driver's start (virtio 1.2, 3.1.1).
    fn steps(&self) -> Vec<Step> {
        let size = 16;
        vec![
            Box::new(|guest| assert_eq!(guest.set_status(0), 0)),
            Box::new(|guest| assert_eq!(guest.set_status(ACKNOWLEDGE), ACKNOWLEDGE)),
            Box::new(|guest| guest.write(STATUS, &[ACKNOWLEDGE | DRIVER])),
            Box::new(|guest| guest.set_features(F_VERSION_1)),
            Box::new(|guest| assert_eq!(guest.set_status(AGREED), AGREED)),
            Box::new(|guest| guest.write(CONFIG_VECTOR, &[0, 0])),
            Box::new(move |guest| guest.set_queue(size, guest.rings())),
            Box::new(|guest| assert_eq!(guest.set_status(AGREED | DRIVER_OK), AGREED | DRIVER_OK)),
        ]
    }

    fn start(&self) {
        self.steps().iter().for_each(|step| step(self));
    }

    fn failure(&self) -> Option<String> {
        self.function.lock().unwrap().failure().map(str::to_owned)
    }
}

#[test]
fn a_driver_finds_what_it_looks_for() {
    let guest = Guest::new(Rng::new());
    assert_eq!(guest.config_read(0), [0xf4, 0x1a, 0x44, 0x10]);
    for (kind, offset, len) in [(1, 0, 0x38), (2, NOTIFY, 4), (3, ISR, 1), (4, DEVICE, 0xc00)] {
        let at = guest.capability(0x09, Some(kind));
        let [_, _, cap_len, _, bar, ..] = guest.config_read::<8>(at);
        assert_eq!((cap_len, bar), (if kind == 2 { 20 } else { 16 }, 0));
        let offset_seen = u32::from_le_bytes(guest.config_read(at + 8));
        let len_seen = u32::from_le_bytes(guest.config_read(at + 12));
        assert_eq!((u64::from(offset_seen), len_seen), (offset, len));
    }
    let notify = guest.capability(0x09, Some(2));
    assert_eq!(guest.config_read(notify + 16), [4, 0, 0, 0]);
    // One vector for the configuration, one for the queue.
    let msix = guest.capability(0x11, None);
    assert_eq!(guest.config_read(msix + 2), [1, 0x80, 0, 0x20, 0, 0, 0, 0x30]);
}

#[test]
fn a_whole_life() {
    let mut guest = Guest::new(Rng::new());
    guest.start();
    guest.queue.add(&[Buf::room(32)]);
    assert!(guest.doorbells.ring(BAR + NOTIFY));
    guest.msi.vector_at(1).wait(1);
    assert_eq!(guest.queue.used(), Some((0, 32)));
    assert_eq!(guest.read::<1>(ISR), [1]);
    assert_eq!(guest.read::<1>(ISR), [0]);
    assert_eq!(guest.set_status(0), 0);
    assert_eq!(guest.doorbells.count(), 0);
}

#[test]
fn a_notification_also_works_without_a_doorbell() {
    let mut guest = Guest::new(Rng::new());
    guest.start();
    guest.queue.add(&[Buf::room(1)]);
    guest.write(NOTIFY, &[0; 4]);
    guest.queue.wait_used();
    // And to queues that are not there.
    guest.write(NOTIFY + 4, &[1, 0]);
    guest.write(NOTIFY + 0xffc, &[1, 0]);
}

#[test]
fn features_are_offered_by_halves_and_frozen_once_agreed() {
    let guest = Guest::new(Probe::default());
    for (select, half) in [(0u32, F_EVENT_IDX | 1), (1, 1), (2, 0), (u32::MAX, 0)] {
        guest.write(0, &select.to_le_bytes());
        assert_eq!(u64::from(u32::from_le_bytes(guest.read(4))), half);
    }
    guest.set_status(ACKNOWLEDGE | DRIVER);
    guest.set_features(F_VERSION_1 | 1);
    assert_eq!(guest.set_status(AGREED), AGREED);
    guest.set_features(F_VERSION_1);
    guest.write(FEATURE_SELECT, &[0; 4]);
    assert_eq!(guest.read(FEATURE), [1, 0, 0, 0]);
}

#[test]
fn features_that_were_not_offered_or_an_old_driver_are_refused() {
    for features in [0, 1, F_VERSION_1 | 2, F_VERSION_1 | F_INDIRECT_DESC, F_VERSION_1 | 1 << 63] {
        let guest = Guest::new(Probe::default());
        guest.set_status(ACKNOWLEDGE | DRIVER);
        guest.set_features(features);
        assert_eq!(guest.set_status(AGREED), ACKNOWLEDGE | DRIVER, "{features:#x}");
        assert_eq!(guest.set_status(AGREED | DRIVER_OK), ACKNOWLEDGE | DRIVER);
    }
}

#[test]
fn status_bits_come_in_order_and_stay() {
    let guest = Guest::new(Probe::default());
    guest.set_features(F_VERSION_1);
    for early in [DRIVER, FEATURES_OK, DRIVER_OK, DRIVER | DRIVER_OK, NEEDS_RESET, 16, 32] {
        assert_eq!(guest.set_status(early), 0, "{early}");
    }
    assert_eq!(guest.set_status(ACKNOWLEDGE), ACKNOWLEDGE);
    assert_eq!(guest.set_status(ACKNOWLEDGE | DRIVER_OK), ACKNOWLEDGE);
    assert_eq!(guest.set_status(DRIVER), ACKNOWLEDGE | DRIVER);
    assert_eq!(guest.set_status(FAILED), ACKNOWLEDGE | DRIVER | FAILED);
    assert_eq!(guest.set_status(AGREED), ACKNOWLEDGE | DRIVER | FAILED);
    assert_eq!(guest.set_status(0), 0);
}

#[test]
fn bad_queues_need_a_reset() {
    let probe = Probe::default();
    let guest = Guest::new(probe.clone());
    let [descriptors, avail, used] = guest.rings();
    let bad = [
        (0, guest.rings()),
        (3, guest.rings()),
        (128, guest.rings()),
        (0x8000, guest.rings()),
        (16, [descriptors + 8, avail, used]),
        (16, [descriptors, avail + 1, used]),
        (16, [descriptors, avail, used + 2]),
        (16, [RAM_SIZE - 16, avail, used]),
        (16, [descriptors, RAM_SIZE, used]),
        (16, [descriptors, avail, u64::MAX - 15]),
        (16, [u64::MAX - 15, avail, used]),
    ];
    for (count, (size, rings)) in bad.into_iter().enumerate() {
        guest.steps()[..6].iter().for_each(|step| step(&guest));
        guest.set_queue(size, rings);
        let status = guest.set_status(AGREED | DRIVER_OK);
        assert_eq!(status, AGREED | DRIVER_OK | NEEDS_RESET, "{size} {rings:#x?}");
        assert_eq!(guest.msi.vector_at(0).raised(), count + 1);
        assert!(guest.failure().unwrap().starts_with("queue 0 has an invalid size"));
        // Only a reset helps.
        assert_eq!(guest.set_status(AGREED | DRIVER_OK), status);
        assert_eq!(guest.doorbells.count(), 0);
    }
    assert_eq!(probe.started.load(Ordering::SeqCst), 0);
    guest.start();
    assert_eq!((guest.failure(), probe.started.load(Ordering::SeqCst)), (None, 1));
}

#[test]
fn a_device_or_doorbell_that_refuses_needs_a_reset() {
    // Queue 0 is not enabled.
    let guest = Guest::new(Probe::default());
    guest.steps()[..6].iter().for_each(|step| step(&guest));
    assert_eq!(guest.set_status(AGREED | DRIVER_OK), AGREED | DRIVER_OK | NEEDS_RESET);
    assert_eq!(guest.failure().unwrap(), "starting the device: queue 0 is not enabled");

    let refusing = FakeDoorbells { refused: Some(BAR + NOTIFY), ..FakeDoorbells::default() };
    let guest = Guest::with(Probe::default(), refusing);
    guest.steps()[..7].iter().for_each(|step| step(&guest));
    assert_eq!(guest.set_status(AGREED | DRIVER_OK), AGREED | DRIVER_OK | NEEDS_RESET);
    assert!(guest.failure().unwrap().starts_with("connecting the doorbell of queue 0"));
}

#[test]
fn a_queue_is_frozen_once_enabled_and_enabled_only_in_time() {
    let guest = Guest::new(Probe::default());
    guest.write(QUEUE_ENABLE, &[1, 0]);
    assert_eq!(guest.read16(QUEUE_ENABLE), 0);
    guest.steps()[..7].iter().for_each(|step| step(&guest));
    let before = guest.read::<8>(QUEUE_DESC);
    guest.write(QUEUE_SIZE, &[8, 0]);
    guest.write(QUEUE_DESC, &[0xff; 8]);
    guest.write(QUEUE_ENABLE, &[0, 0]);
    assert_eq!((guest.read16(QUEUE_SIZE), guest.read16(QUEUE_ENABLE)), (16, 1));
    assert_eq!(guest.read::<8>(QUEUE_DESC), before);

    // The other queue: too late once the driver is ready.
    guest.set_status(AGREED | DRIVER_OK);
    guest.write(QUEUE_SELECT, &[1, 0]);
    guest.write(QUEUE_SIZE, &[8, 0]);
    guest.write(QUEUE_ENABLE, &[1, 0]);
    assert_eq!((guest.read16(QUEUE_SIZE), guest.read16(QUEUE_ENABLE)), (16, 0));
}

#[test]
fn queues_that_are_not_there_read_as_nothing() {
    let guest = Guest::new(Probe::default());
    assert_eq!(guest.read16(0x12), 2);
    guest.write(QUEUE_SELECT, &[1, 0]);
    assert_eq!((guest.read16(QUEUE_SIZE), guest.read16(0x1e)), (16, 1));
    guest.write(QUEUE_SELECT, &[2, 0]);
    guest.write(QUEUE_DESC, &[0xff; 8]);
    guest.write(QUEUE_VECTOR, &[0, 0]);
    assert_eq!((guest.read16(QUEUE_SIZE), guest.read16(QUEUE_VECTOR)), (0, NO_VECTOR));
    assert_eq!(guest.read::<8>(QUEUE_DESC), [0; 8]);
}

#[test]
fn vectors_that_are_not_there_are_none() {
    let guest = Guest::new(Probe::default());
    for (vector, seen) in
        [(0, 0), (2, 2), (3, NO_VECTOR), (0xfffe, NO_VECTOR), (NO_VECTOR, NO_VECTOR)]
    {
        for register in [CONFIG_VECTOR, QUEUE_VECTOR] {
            guest.write(register, &u16::to_le_bytes(vector));
            assert_eq!(guest.read16(register), seen);
        }
    }
}

#[test]
fn interrupts_go_where_the_driver_wants_them() {
    let probe = Probe::default();
    let guest = Guest::new(probe.clone());
    guest.start();
    let interrupt = probe.interrupt.lock().unwrap().clone().unwrap();
    let raised = || (0..3).map(|index| guest.msi.vector_at(index).raised()).collect::<Vec<_>>();
    interrupt.queue(0);
    interrupt.queue(1);
    interrupt.queue(7);
    assert_eq!(raised(), [0, 1, 0]);
    assert_eq!(guest.read::<1>(0x15), [0]);
    interrupt.config();
    assert_eq!(raised(), [1, 1, 0]);
    assert_eq!((guest.read::<1>(0x15), guest.read::<1>(ISR)), ([1], [3]));

    // A masked vector pends.
    guest.write(TABLE + 16 + 12, &[1, 0, 0, 0]);
    interrupt.queue(0);
    assert_eq!((raised(), guest.read::<1>(PENDING)), (vec![1, 1, 0], [2]));
    guest.write(TABLE + 16 + 12, &[0; 4]);
    assert_eq!((raised(), guest.read::<1>(PENDING)), (vec![1, 2, 0], [0]));

    interrupt.needs_reset();
    assert_eq!((raised(), guest.status() & NEEDS_RESET), (vec![2, 2, 0], NEEDS_RESET));
}

#[test]
fn a_broken_ring_needs_a_reset_and_then_works() {
    let mut guest = Guest::new(Rng::new());
    guest.start();
    guest.machine.ram.write_obj(1000u16, GuestAddress(guest.queue.avail + 2)).unwrap();
    guest.doorbells.ring(BAR + NOTIFY);
    guest.msi.vector_at(0).wait(1);
    assert_eq!(guest.status(), AGREED | DRIVER_OK | NEEDS_RESET);
    guest.queue = guest.machine.queue(0, 16);
    guest.start();
    guest.queue.add(&[Buf::room(1)]);
    guest.doorbells.ring(BAR + NOTIFY);
    guest.queue.wait_used();
}

#[test]
fn a_reset_at_any_point_leads_back_to_the_start() {
    let probe = Probe::default();
    let guest = Guest::new(probe.clone());
    let initial = guest.function.lock().unwrap().state();
    for point in 0..=guest.steps().len() {
        guest.steps()[..point].iter().for_each(|step| step(&guest));
        assert_eq!(probe.running.load(Ordering::SeqCst), usize::from(point == guest.steps().len()));
        assert_eq!(guest.set_status(0), 0);
        assert_eq!(probe.running.load(Ordering::SeqCst), 0);
        assert_eq!(guest.doorbells.count(), 0);
        assert_eq!(guest.function.lock().unwrap().state(), initial, "after {point} steps");
    }
    guest.start();
    assert_eq!(probe.running.load(Ordering::SeqCst), 1);
}

#[test]
fn removal_stops_the_device() {
    let probe = Probe::default();
    let guest = Guest::new(probe.clone());
    guest.start();
    let doorbells = Arc::clone(&guest.doorbells);
    drop(guest);
    assert_eq!((probe.running.load(Ordering::SeqCst), doorbells.count()), (0, 0));
}

#[test]
fn the_bar_answers_only_while_decoding_is_on() {
    let guest = Guest::new(Probe::default());
    guest.config_write(4, &[0, 0]);
    assert_eq!(guest.read(0), [0xff; 8]);
    guest.set_status(ACKNOWLEDGE);
    guest.config_write(4, &[2, 0]);
    assert_eq!(guest.status(), 0);
    // What lies between the regions is nothing.
    assert_eq!((guest.read(0x38), guest.read(0x200)), ([0; 8], [0; 8]));
}

#[test]
fn the_device_s_configuration_can_be_read_and_written() {
    let probe = Probe::default();
    *probe.config.lock().unwrap() = vec![1, 2, 3, 4];
    let guest = Guest::new(probe);
    assert_eq!(guest.read(DEVICE + 2), [3, 4, 0, 0]);
    guest.write(DEVICE + 3, &[9, 9]);
    assert_eq!(guest.read(DEVICE), [1, 2, 3, 9]);
    guest.write(DEVICE + 0xbff, &[9]);
}

#[test]
fn the_window_reaches_the_bar_without_decoding() {
    let guest = Guest::new(Probe::default());
    guest.config_write(4, &[0, 0]);
    let window = guest.capability(0x09, Some(5));
    let target = |offset: u32, len: u32| {
        guest.config_write(window + 8, &offset.to_le_bytes());
        guest.config_write(window + 12, &len.to_le_bytes());
    };
    target(0x14, 1);
    guest.config_write(window + 16, &[ACKNOWLEDGE, 0, 0, 0]);
    target(0x12, 2);
    assert_eq!(guest.config_read::<2>(window + 16), [2, 0]);
    target(0x14, 1);
    assert_eq!(guest.config_read::<1>(window + 16), [ACKNOWLEDGE]);
    // Nonsense does nothing: bad lengths, not aligned, another BAR.
    for (offset, len) in [(0x14, 3), (0x14, 0), (0x13, 2), (0x14, 8)] {
        target(offset, len);
        guest.config_write(window + 16, &[0; 4]);
    }
    guest.config_write(window + 4, &[1]);
    target(0x14, 1);
    guest.config_write(window + 16, &[0; 4]);
    guest.config_write(4, &[2, 0]);
    assert_eq!(guest.status(), ACKNOWLEDGE);
}

#[test]
fn what_cannot_be_made_says_why() {
    let machine = Machine::new();
    let wiring = |limit| Wiring {
        ram: machine.ram.clone(),
        msi: Arc::new(FakeMsi { limit, ..FakeMsi::default() }),
        doorbells: Arc::new(FakeDoorbells::default()),
        threads: Arc::new(PlainThreads),
    };
    let new = |bar, limit| VirtioPci::new(Box::new(Probe::default()), bar, wiring(limit)).err();
    assert!(matches!(new(BAR + 0x1000, 0), Some(TransportError::Bar(_))));
    assert!(matches!(new(BAR, 2), Some(TransportError::Vectors(_))));
    assert!(new(BAR, 3).is_none());
}

/// What a hostile guest can do to a function.
#[derive(Clone, Debug)]
enum Access {
    ConfigRead(u64, usize),
    ConfigWrite(u64, Vec<u8>),
    Read(u64, usize),
    Write(u64, Vec<u8>),
    /// Does everything right from a step on, so that the random rest meets a running device.
    Steps(usize, usize),
}

fn access() -> impl Strategy<Value = Access> {
    let len = prop_oneof![Just(1usize), Just(2), Just(4), Just(8)];
    let data = prop_oneof![
        (len.clone(), any::<u64>()).prop_map(|(len, value)| value.to_le_bytes()[..len].to_vec()),
        (len.clone(), 0u64..256).prop_map(|(len, value)| value.to_le_bytes()[..len].to_vec()),
    ];
    let offset = prop_oneof![0u64..0x40, 0u64..BAR_SIZE, TABLE..TABLE + 64, NOTIFY..NOTIFY + 16];
    prop_oneof![
        (0u64..0x1000, len.clone()).prop_map(|(at, len)| Access::ConfigRead(at, len)),
        (0x10u64..0x100, data.clone()).prop_map(|(at, data)| Access::ConfigWrite(at, data)),
        (offset.clone(), len).prop_map(|(at, len)| Access::Read(at, len)),
        (offset, data).prop_map(|(at, data)| Access::Write(at, data)),
        (0usize..8, 0usize..8).prop_map(|(from, count)| Access::Steps(from, count)),
    ]
}

proptest! {
    /// No sequence of accesses makes the function panic or hang, runs two workers, or leaves a state
    /// that a reset does not lead out of.
    #[test]
    fn any_accesses_leave_it_stoppable(accesses in prop::collection::vec(access(), 1..80)) {
        let probe = Probe::default();
        let guest = Guest::new(probe.clone());
        for access in accesses {
            match access {
                Access::ConfigRead(at, len) => {
                    guest.memory.read(ECAM + (SLOT << 15) + at, &mut vec![0; len]);
                }
                Access::ConfigWrite(at, data) => guest.config_write(at, &data),
                Access::Read(at, len) => {
                    guest.memory.read(BAR + at, &mut vec![0; len]);
                }
                Access::Write(at, data) => guest.write(at, &data),
                Access::Steps(from, count) => {
                    let lenient: [&dyn Fn(); 8] = [
                        &|| guest.write(STATUS, &[0]),
                        &|| guest.write(STATUS, &[ACKNOWLEDGE]),
                        &|| guest.write(STATUS, &[ACKNOWLEDGE | DRIVER]),
                        &|| guest.set_features(F_VERSION_1),
                        &|| guest.write(STATUS, &[AGREED]),
                        &|| guest.write(CONFIG_VECTOR, &[0, 0]),
                        &|| guest.set_queue(16, guest.rings()),
                        &|| guest.write(STATUS, &[AGREED | DRIVER_OK]),
                    ];
                    lenient.iter().skip(from).take(count).for_each(|step| step());
                }
            }
            let running = probe.running.load(Ordering::SeqCst);
            let status = guest.function.lock().unwrap().status();
            prop_assert!(running == 0 || status & DRIVER_OK != 0);
            prop_assert!(running == 1 || guest.doorbells.count() == 0);
        }
        guest.function.lock().unwrap().reset();
        prop_assert_eq!(probe.running.load(Ordering::SeqCst), 0);
        // A well-behaved driver can take over.
        guest.config_write(0x10, &u64::to_le_bytes(BAR | 4));
        guest.config_write(4, &[6, 0]);
        guest.start();
        prop_assert_eq!(probe.running.load(Ordering::SeqCst), 1);
    }
}
