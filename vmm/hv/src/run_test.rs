//! The loop on scripted exits, without KVM.

use std::sync::Mutex;

use super::*;

/// One entry of a script.
enum Step {
    In(u16, usize, Vec<u8>),
    Out(u16, usize, Vec<u8>),
    Read(u64, Vec<u8>),
    Write(u64, Vec<u8>),
    Interrupted,
    Shutdown,
    Failed,
}

#[derive(Default)]
struct Script {
    steps: Vec<Step>,
    done: usize,
}

impl Enter for Script {
    fn enter(&mut self) -> Exit<'_> {
        let step = &mut self.steps[self.done];
        self.done += 1;
        match step {
            Step::In(port, size, data) => Exit::PortIn { port: *port, size: *size, data },
            Step::Out(port, size, data) => Exit::PortOut { port: *port, size: *size, data },
            Step::Read(address, data) => Exit::MmioRead { address: *address, data },
            Step::Write(address, data) => Exit::MmioWrite { address: *address, data },
            Step::Interrupted => Exit::Interrupted,
            Step::Shutdown => Exit::Shutdown,
            Step::Failed => Exit::Failed("broken".into()),
        }
    }
}

/// Writes accesses down; answers only reads of 0x1000 and of port 0x10.
#[derive(Default)]
struct Log(Mutex<Vec<String>>, AtomicBool);

impl AddressSpace for Log {
    fn port_in(&self, port: u16, data: &mut [u8]) {
        self.0.lock().unwrap().push(format!("in {port:x} {}", data.len()));
        if port == 0x10 {
            data.fill(7);
        }
    }
    fn port_out(&self, port: u16, data: &[u8]) {
        self.0.lock().unwrap().push(format!("out {port:x} {data:x?}"));
        if port == 0xf4 {
            self.1.store(true, Ordering::Release);
        }
    }
    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if address == 0x1000 {
            data.fill(9);
        }
    }
    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.0.lock().unwrap().push(format!("write {address:x} {data:x?}"));
    }
}

fn run(steps: Vec<Step>) -> (End, Script, Vec<String>) {
    let mut script = Script { steps, done: 0 };
    let log = Log::default();
    let end = run_vcpu(&mut script, &log, &log.1, &ExitCounts::default());
    (end, script, log.0.into_inner().unwrap())
}

#[test]
fn strings_are_taken_apart() {
    let steps =
        vec![Step::Out(0x3f8, 2, vec![1, 2, 3, 4]), Step::In(0x10, 1, vec![0; 2]), Step::Shutdown];
    let (end, script, log) = run(steps);
    assert_eq!(end, End::Shutdown);
    assert_eq!(log, ["out 3f8 [1, 2]", "out 3f8 [3, 4]", "in 10 1", "in 10 1"]);
    assert!(matches!(&script.steps[1], Step::In(_, _, data) if data == &[7, 7]));
}

#[test]
fn what_nobody_answers_reads_as_all_ones() {
    let (_, script, _) = run(vec![
        Step::In(0x99, 4, vec![0; 4]),
        Step::Read(0x2000, vec![0; 8]),
        Step::Read(0x1000, vec![0; 8]),
        Step::Shutdown,
    ]);
    assert!(matches!(&script.steps[0], Step::In(_, _, data) if data == &[0xff; 4]));
    assert!(matches!(&script.steps[1], Step::Read(_, data) if data == &[0xff; 8]));
    assert!(matches!(&script.steps[2], Step::Read(_, data) if data == &[9; 8]));
}

#[test]
fn it_stops_when_told_and_not_before() {
    let (end, script, log) = run(vec![
        Step::Interrupted,
        Step::Write(0xd000_0000, vec![1]),
        Step::Out(0xf4, 1, vec![0]),
        Step::Failed,
    ]);
    assert_eq!(end, End::Stopped);
    assert_eq!(script.done, 3);
    assert_eq!(log[0], "write d0000000 [1]");
}

#[test]
fn a_failure_ends_it() {
    assert_eq!(run(vec![Step::Failed]).0, End::Failed("broken".into()));
}
