//! Tiny guests on this machine's own KVM. They are skipped, loudly, where there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::*;

/// A guest gets this long; the emulated KVM of a test machine is slow.
const PATIENCE: Duration = Duration::from_secs(30);

const CODE: u64 = 0x1000;
const DESCRIPTORS: u64 = 0x2000;
const GDT_POINTER: u64 = 0x2100;
const IDT_POINTER: u64 = 0x2110;
const IDT: u64 = 0x3000;
const HANDLER_A: u64 = 0x1100;
const HANDLER_B: u64 = 0x1200;
const AP_CODE: u64 = 0x8000;

/// A guest writes here to say that it has done its work.
const DONE: u16 = 0xf4;

/// A guest that waits writes here: an emulated KVM may look for interrupts at exits only.
const IDLE: u16 = 0xf3;

fn open() -> Option<Hypervisor> {
    match Hypervisor::open() {
        Ok(hypervisor) => Some(hypervisor),
        Err(error) => {
            eprintln!("SKIPPED: no KVM here: {error}");
            None
        }
    }
}

type OnPort = Box<dyn Fn(u16) + Send + Sync>;

/// Writes accesses down; ends the guest when it writes to [`DONE`].
struct Recorder {
    log: Mutex<Vec<String>>,
    stop: AtomicBool,
    on_port: OnPort,
}

impl Recorder {
    fn new(on_port: OnPort) -> Arc<Self> {
        Arc::new(Self { log: Mutex::default(), stop: AtomicBool::new(false), on_port })
    }

    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }
}

impl AddressSpace for Recorder {
    fn port_in(&self, port: u16, data: &mut [u8]) {
        self.note(format!("in {port:x} {}", data.len()));
        data.fill(0x41);
    }
    fn port_out(&self, port: u16, data: &[u8]) {
        if port == DONE {
            self.stop.store(true, Ordering::Release);
            return;
        }
        if port == IDLE {
            return;
        }
        self.note(format!("out {port:x} {data:x?}"));
        (self.on_port)(port);
    }
    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.note(format!("read {address:x} {}", data.len()));
        data.copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8][..data.len()]);
    }
    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.note(format!("write {address:x} {data:x?}"));
    }
}

struct Guest {
    vm: Vm,
    ram: GuestRam,
    vcpus: Vec<Vcpu>,
}

impl Guest {
    fn new(hypervisor: &Hypervisor, vcpus: u8, code: &[u8], entry: EntryState) -> Self {
        let ram = allocate_ram(&[(0, 0x10_0000)], false).unwrap();
        ram.write_slice(code, GuestAddress(CODE)).unwrap();
        let vm = hypervisor.create_vm(&ram).unwrap();
        let cpuid = hypervisor.cpuid().unwrap();
        let topology = Topology { vcpus };
        let vcpus: Vec<_> =
            (0..vcpus).map(|index| vm.create_vcpu(index, topology, &cpuid).unwrap()).collect();
        vcpus[0].set_entry(entry).unwrap();
        Self { vm, ram, vcpus }
    }

    /// Runs until the guest is done or the first vCPU ends; what each vCPU ended with.
    fn run(self, recorder: &Arc<Recorder>) -> Vec<End> {
        install_kick_handler().unwrap();
        let (ended, ends) = mpsc::channel();
        let vcpus: Vec<_> = self
            .vcpus
            .into_iter()
            .map(|mut vcpu| {
                let (recorder, ended) = (Arc::clone(recorder), ended.clone());
                let kicker = vcpu.kicker().unwrap();
                let body = move || {
                    let counts = ExitCounts::default();
                    let end = run_vcpu(&mut vcpu, &*recorder, &recorder.stop, &counts);
                    ended.send(()).unwrap();
                    end
                };
                (kicker, thread::spawn(body))
            })
            .collect();
        let in_time = ends.recv_timeout(PATIENCE).is_ok();
        recorder.stop.store(true, Ordering::Release);
        let ends = vcpus.into_iter().map(|(mut kicker, thread)| {
            kicker.kick(&thread);
            thread.join().unwrap()
        });
        let ends = ends.collect();
        assert!(in_time, "the guest hangs: {ends:?}, {:?}", recorder.log.lock().unwrap());
        ends
    }
}

fn protected() -> EntryState {
    EntryState::Protected { entry: 0x1000, ebx: 0x1234 }
}

fn real() -> EntryState {
    EntryState::Real { entry: 0x1000 }
}

fn quiet() -> Arc<Recorder> {
    Recorder::new(Box::new(|_| {}))
}

fn log(recorder: &Recorder) -> Vec<String> {
    recorder.log.lock().unwrap().clone()
}

#[test]
fn kvm_a_real_mode_guest_uses_ports() {
    let Some(hypervisor) = open() else { return };
    let code = [
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, 0x78, // mov al, 'x'
        0xee, // out dx, al
        0xec, // in al, dx
        0xee, // out dx, al
        0xe6, 0xf4, // out DONE, al
        0xeb, 0xfe, // jmp $
    ];
    let recorder = quiet();
    let ends = Guest::new(&hypervisor, 1, &code, real()).run(&recorder);
    assert_eq!(ends, [End::Stopped]);
    assert_eq!(log(&recorder), ["out 3f8 [78]", "in 3f8 1", "out 3f8 [41]"]);
}

#[test]
fn kvm_a_flat_guest_starts_with_the_registers_of_pvh_and_reaches_devices() {
    let Some(hypervisor) = open() else { return };
    let code = [
        0x89, 0x1d, 0x08, 0x00, 0x00, 0xd0, // mov [0xd0000008], ebx
        0xa1, 0x00, 0x00, 0x00, 0xd0, // mov eax, [0xd0000000]
        0xa3, 0x04, 0x00, 0x00, 0xd0, // mov [0xd0000004], eax
        0xe6, 0xf4, // out DONE, al
        0xeb, 0xfe, // jmp $
    ];
    let recorder = quiet();
    Guest::new(&hypervisor, 1, &code, protected()).run(&recorder);
    assert_eq!(
        log(&recorder),
        ["write d0000008 [34, 12, 0, 0]", "read d0000000 4", "write d0000004 [1, 2, 3, 4]"]
    );
}

#[test]
fn kvm_a_doorbell_rings_without_an_exit() {
    let Some(hypervisor) = open() else { return };
    let code = [
        0x66, 0xc7, 0x05, 0x00, 0x00, 0x00, 0xd0, 0x07, 0x00, // mov word [0xd0000000], 7
        0x66, 0xc7, 0x05, 0x04, 0x00, 0x00, 0xd0, 0x07, 0x00, // mov word [0xd0000004], 7
        0xe6, 0xf4, // out DONE, al
        0xeb, 0xfe, // jmp $
    ];
    let guest = Guest::new(&hypervisor, 1, &code, protected());
    let (bell, gone) = (EventFd::new(EFD_NONBLOCK).unwrap(), EventFd::new(EFD_NONBLOCK).unwrap());
    guest.vm.connect_doorbell(0xd000_0000, &bell).unwrap();
    guest.vm.connect_doorbell(0xd000_0004, &gone).unwrap();
    assert!(guest.vm.connect_doorbell(0xd000_0000, &bell).is_err());
    guest.vm.disconnect_doorbell(0xd000_0004, &gone).unwrap();
    let recorder = quiet();
    guest.run(&recorder);
    assert_eq!(bell.read().unwrap(), 1);
    assert!(gone.read().is_err());
    assert_eq!(log(&recorder), ["write d0000004 [7, 0]"]);
}

/// A descriptor table, and an interrupt table with two handlers at vectors 0x40 and 0x51.
fn write_tables(ram: &GuestRam) {
    for (index, descriptor) in
        [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff_u64].iter().enumerate()
    {
        ram.write_obj(*descriptor, GuestAddress(DESCRIPTORS + 8 * index as u64)).unwrap();
    }
    let pointer = |limit: u16, base: u64| {
        let mut bytes = limit.to_le_bytes().to_vec();
        bytes.extend_from_slice(&base.to_le_bytes()[..4]);
        bytes
    };
    ram.write_slice(&pointer(31, DESCRIPTORS), GuestAddress(GDT_POINTER)).unwrap();
    ram.write_slice(&pointer(0x7ff, IDT), GuestAddress(IDT_POINTER)).unwrap();
    for (vector, handler) in [(0x40, HANDLER_A), (0x51, HANDLER_B)] {
        let gate = handler | 0x10 << 16 | 0x8e00 << 32;
        ram.write_obj(gate, GuestAddress(IDT + 8 * vector)).unwrap();
    }
    let handler = |port: u8| {
        [
            0xe6, port, // out port, al
            0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0,    // mov dword [EOI], 0
            0xcf, // iret
        ]
    };
    ram.write_slice(&handler(0xf1), GuestAddress(HANDLER_A)).unwrap();
    ram.write_slice(&handler(0xf2), GuestAddress(HANDLER_B)).unwrap();
}

/// Loads the tables, enables the local APIC and interrupts, says so at port 0xf0, and waits.
const WAIT_FOR_INTERRUPTS: [u8; 36] = [
    0x0f, 0x01, 0x15, 0x00, 0x21, 0x00, 0x00, // lgdt [GDT_POINTER]
    0x0f, 0x01, 0x1d, 0x10, 0x21, 0x00, 0x00, // lidt [IDT_POINTER]
    0xbc, 0x00, 0x70, 0x00, 0x00, // mov esp, 0x7000
    0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00, // mov dword [SVR], 0x1ff
    0xfb, // sti
    0xe6, 0xf0, // out 0xf0, al
    0xe6, 0xf3, // out IDLE, al
    0xeb, 0xfc, // jmp back
];

fn target(data: u32) -> Option<MsiTarget> {
    Some(MsiTarget { address: 0xfee0_0000, data })
}

/// A guest that waits for interrupts, what it does, and the ports it writes, as it writes them.
fn waiting(hypervisor: &Hypervisor) -> (Guest, Arc<Recorder>, mpsc::Receiver<u16>) {
    let guest = Guest::new(hypervisor, 1, &WAIT_FOR_INTERRUPTS, protected());
    write_tables(&guest.ram);
    let (said, says) = mpsc::channel();
    (guest, Recorder::new(Box::new(move |port| said.send(port).unwrap())), says)
}

fn ports(recorder: &Recorder) -> Vec<String> {
    log(recorder).iter().map(|line| line[..6].to_owned()).collect()
}

#[test]
fn kvm_a_message_arrives_once_it_is_connected() {
    let Some(hypervisor) = open() else { return };
    let (guest, recorder, says) = waiting(&hypervisor);
    let vector = guest.vm.irqs().vector().unwrap();
    let watcher = thread::spawn(move || {
        let ready = says.recv_timeout(PATIENCE) == Ok(0xf0);
        vector.raise(); // disconnected yet
        vector.connect(target(0x51));
        vector.connect(target(0x40));
        vector.raise();
        ready && says.recv_timeout(PATIENCE) == Ok(0xf1)
    });
    guest.run_until(&recorder, watcher);
    assert_eq!(ports(&recorder), ["out f0", "out f1"]);
}

#[test]
fn kvm_messages_are_masked_and_rerouted() {
    let Some(hypervisor) = open() else { return };
    let (guest, recorder, says) = waiting(&hypervisor);
    let (vector, other) = (guest.vm.irqs().vector().unwrap(), guest.vm.irqs().vector().unwrap());
    let (skipped, skip) = mpsc::channel();
    let watcher = thread::spawn(move || {
        let guest_says = |port, patience| says.recv_timeout(patience) == Ok(port);
        vector.connect(target(0x40));
        if !guest_says(0xf0, PATIENCE) {
            return false;
        }
        vector.raise();
        if !guest_says(0xf1, PATIENCE) {
            return false;
        }
        vector.raise();
        if !guest_says(0xf1, Duration::from_secs(3)) {
            skipped.send(()).unwrap();
            return true;
        }
        vector.connect(None);
        vector.raise(); // masked
        vector.connect(target(0x51));
        other.connect(target(0x40));
        vector.raise();
        guest_says(0xf2, PATIENCE)
    });
    guest.run_until(&recorder, watcher);
    if skip.try_recv().is_ok() {
        eprintln!("SKIPPED: this KVM delivers no second interrupt");
        return;
    }
    assert_eq!(ports(&recorder), ["out f0", "out f1", "out f1", "out f2"]);
}

#[test]
fn kvm_the_number_of_a_vector_that_is_gone_is_given_out_again() {
    let Some(hypervisor) = open() else { return };
    let (guest, recorder, says) = waiting(&hypervisor);
    let irqs = guest.vm.irqs().clone();
    let watcher = thread::spawn(move || {
        let ready = says.recv_timeout(PATIENCE) == Ok(0xf0);
        // More in all than there can be at once, and each in use.
        for _ in 0..10 {
            let vectors: Vec<_> = (0..200).map(|_| irqs.vector().unwrap()).collect();
            vectors.iter().for_each(|vector| vector.connect(target(0x51)));
            drop(vectors);
        }
        let used = irqs.vector().unwrap();
        used.connect(target(0x51));
        used.raise();
        let heard = says.recv_timeout(PATIENCE) == Ok(0xf2);
        drop(used);
        // The next one with its number goes elsewhere.
        let next = irqs.vector().unwrap();
        next.raise();
        ready && heard && says.recv_timeout(Duration::from_millis(200)).is_err()
    });
    guest.run_until(&recorder, watcher);
    assert_eq!(ports(&recorder), ["out f0", "out f2"]);
}

impl Guest {
    /// As [`Guest::run`], but `watcher` says when the guest is done.
    fn run_until(self, recorder: &Arc<Recorder>, watcher: thread::JoinHandle<bool>) -> Vec<End> {
        install_kick_handler().unwrap();
        let vcpus: Vec<_> = self
            .vcpus
            .into_iter()
            .map(|mut vcpu| {
                let recorder = Arc::clone(recorder);
                let kicker = vcpu.kicker().unwrap();
                (
                    kicker,
                    thread::spawn(move || {
                        run_vcpu(&mut vcpu, &*recorder, &recorder.stop, &ExitCounts::default())
                    }),
                )
            })
            .collect();
        assert!(watcher.join().unwrap(), "the guest hangs: {:?}", log(recorder));
        recorder.stop.store(true, Ordering::Release);
        let stop = |(mut kicker, thread): (Kicker, thread::JoinHandle<End>)| {
            kicker.kick(&thread);
            thread.join().unwrap()
        };
        vcpus.into_iter().map(stop).collect()
    }
}

#[test]
fn kvm_a_triple_fault_is_a_shutdown() {
    let Some(hypervisor) = open() else { return };
    let code = [
        0x0f, 0x01, 0x1d, 0x00, 0x50, 0x00, 0x00, // lidt [0x5000]: limit 0
        0x0f, 0x0b, // ud2
    ];
    let recorder = quiet();
    let ends = Guest::new(&hypervisor, 1, &code, protected()).run(&recorder);
    assert_eq!(ends, [End::Shutdown]);
}

#[test]
fn kvm_a_kick_stops_vcpus_that_spin_sleep_or_were_never_started() {
    let Some(hypervisor) = open() else { return };
    for code in [&[0xeb, 0xfe][..], &[0xfa, 0xf4, 0xeb, 0xfc]] {
        let guest = Guest::new(&hypervisor, 2, code, real());
        let watcher = thread::spawn(|| {
            thread::sleep(Duration::from_millis(100));
            true
        });
        let start = Instant::now();
        let ends = guest.run_until(&quiet(), watcher);
        assert_eq!(ends, [End::Stopped, End::Stopped]);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn kvm_a_kick_before_the_first_entry_is_not_lost() {
    let Some(hypervisor) = open() else { return };
    install_kick_handler().unwrap();
    let mut guest = Guest::new(&hypervisor, 1, &[0xeb, 0xfe], real());
    let mut vcpu = guest.vcpus.remove(0);
    let mut kicker = vcpu.kicker().unwrap();
    let (entered, enter) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        enter.recv().unwrap();
        matches!(vcpu.enter(), Exit::Interrupted)
    });
    kicker.kick(&thread);
    entered.send(()).unwrap();
    assert!(thread.join().unwrap());
}

#[test]
fn kvm_the_second_vcpu_waits_until_it_is_started() {
    let Some(hypervisor) = open() else { return };
    let code = [
        0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00, // mov dword [SVR], 0x1ff
        0xc7, 0x05, 0x10, 0x03, 0xe0, 0xfe, 0x00, 0x00, 0x00,
        0x01, // mov dword [ICR high], 1 << 24
        0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x00, 0x00, // mov dword [ICR], INIT
        0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x00,
        0x00, // mov dword [ICR], SIPI 0x8000
        0xeb, 0xfe, // jmp $
    ];
    let second = [
        0xe6, 0xf2, // out 0xf2, al
        0xe6, 0xf4, // out DONE, al
        0xeb, 0xfe, // jmp $
    ];
    let guest = Guest::new(&hypervisor, 2, &code, protected());
    guest.ram.write_slice(&second, GuestAddress(AP_CODE)).unwrap();
    let recorder = quiet();
    let ends = guest.run(&recorder);
    assert_eq!(ends, [End::Stopped, End::Stopped]);
    assert!(log(&recorder)[0].starts_with("out f2"));
}

#[test]
fn kvm_the_host_can_do_what_a_machine_needs() {
    let Some(hypervisor) = open() else { return };
    assert!(hypervisor.max_vcpus() >= 2);
    let ram = allocate_ram(&[(0, 0x10_0000)], false).unwrap();
    let vm = hypervisor.create_vm(&ram).unwrap();
    let cpuid = hypervisor.cpuid().unwrap();
    vm.create_vcpu(0, Topology { vcpus: 1 }, &cpuid).unwrap();
    let again = vm.create_vcpu(0, Topology { vcpus: 1 }, &cpuid).unwrap_err();
    assert!(again.to_string().contains("create a vCPU"));
    vm.irqs().pin(4).unwrap();
}

#[test]
fn kvm_a_kicked_vcpu_enters_again_once_it_is_rearmed() {
    let Some(hypervisor) = open() else { return };
    install_kick_handler().unwrap();
    // Writes port 0x10 for ever.
    let mut guest = Guest::new(&hypervisor, 1, &[0xe6, 0x10, 0xeb, 0xfc], real());
    let mut vcpu = guest.vcpus.remove(0);
    let mut kicker = vcpu.kicker().unwrap();
    let thread = thread::spawn(move || {
        while !matches!(vcpu.enter(), Exit::Interrupted) {}
        assert!(matches!(vcpu.enter(), Exit::Interrupted), "it enters before it is rearmed");
        vcpu.rearm();
        matches!(vcpu.enter(), Exit::PortOut { port: 0x10, .. })
    });
    kicker.kick(&thread);
    assert!(thread.join().unwrap());
}

#[test]
fn kvm_statistics_tell_of_the_exits() {
    let Some(hypervisor) = open() else { return };
    // Writes port 0x10 for ever.
    let mut guest = Guest::new(&hypervisor, 1, &[0xe6, 0x10, 0xeb, 0xfc], real());
    let mut vcpu = guest.vcpus.remove(0);
    let (Some(machine), Some(statistics)) = (guest.vm.statistics(), vcpu.statistics()) else {
        eprintln!("SKIPPED: this host's KVM has no binary statistics");
        return;
    };
    let exits = |all: Vec<Statistic>| {
        all.iter().find(|statistic| statistic.name == "exits").map_or(0, |exits| exits.values[0])
    };
    let before = exits(statistics.read().unwrap());
    for _ in 0..100 {
        assert!(matches!(vcpu.enter(), Exit::PortOut { .. }));
    }
    assert!(exits(statistics.read().unwrap()) >= before + 100);
    assert!(!machine.read().unwrap().is_empty());
}

#[test]
fn kvm_a_page_that_is_only_read_is_left_for_writes_alone() {
    let Some(hypervisor) = open() else { return };
    let code = [
        0xa1, 0x00, 0x00, 0x00, 0xd0, // mov eax, [0xd0000000]
        0xa3, 0x04, 0x00, 0x00, 0xd0, // mov [0xd0000004], eax
        0xa1, 0x08, 0x00, 0x00, 0xd0, // mov eax, [0xd0000008]
        0xa3, 0x00, 0x80, 0x00, 0x00, // mov [0x8000], eax
        0xe6, 0xf4, // out DONE, al
        0xeb, 0xfe, // jmp $
    ];
    let guest = Guest::new(&hypervisor, 1, &code, protected());
    let (vm, ram) = (guest.vm.clone(), guest.ram.clone());
    let Ok(page) = vm.read_only_page(0xd000_0000) else {
        eprintln!("SKIPPED: this KVM has no memory that is only read");
        return;
    };
    page.show(&[1, 2, 3, 4]);
    let recorder = quiet();
    guest.run(&recorder);
    assert_eq!(log(&recorder), ["write d0000004 [1, 2, 3, 4]"]);
    assert_eq!(ram.read_obj::<u32>(GuestAddress(0x8000)).unwrap(), u32::MAX);

    drop(page);
    let page = vm.read_only_page(0xd000_0000).unwrap();
    assert!(vm.read_only_page(0xd000_0000).is_err(), "the address is taken");
    drop(page);
}

#[test]
fn kvm_a_chunk_of_memory_comes_and_goes() {
    let Some(hypervisor) = open() else { return };
    let code = [
        0xa1, 0x00, 0x00, 0x00, 0x40, // mov eax, [0x40000000]
        0xa3, 0x04, 0x00, 0x00, 0x40, // mov [0x40000004], eax
        0xa1, 0x00, 0x00, 0x20, 0x40, // mov eax, [0x40200000]
        0xe6, 0xf4, // out DONE, al
        0xeb, 0xfe, // jmp $
    ];
    let size = 2 << 20;
    let memory = allocate_ram(&[(0x4000_0000, 2 * size)], false).unwrap();
    memory.write_obj(7u32, GuestAddress(0x4000_0000)).unwrap();
    for there in [true, false] {
        let guest = Guest::new(&hypervisor, 1, &code, protected());
        let chunks = guest.vm.memory_chunks(&memory, 2, size);
        chunks.unmap(0).unwrap();
        chunks.map(0).unwrap();
        chunks.map(0).unwrap();
        assert!(chunks.map(2).is_err(), "there are two");
        if !there {
            chunks.unmap(0).unwrap();
        }
        let recorder = quiet();
        guest.run(&recorder);
        let elsewhere = "read 40200000 4".to_owned();
        let copied = memory.read_obj::<u32>(GuestAddress(0x4000_0004)).unwrap();
        if there {
            assert_eq!((log(&recorder), copied), (vec![elsewhere], 7));
            memory.write_obj(0u32, GuestAddress(0x4000_0004)).unwrap();
        } else {
            let first = ["read 40000000 4", "write 40000004 [1, 2, 3, 4]"].map(str::to_owned);
            assert_eq!((log(&recorder), copied), ([&first[..], &[elsewhere]].concat(), 0));
        }
    }
}
