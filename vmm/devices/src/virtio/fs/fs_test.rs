//! The device between a driver and a server, both simulated.

use std::io::{PipeWriter, Read, pipe};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use vm_memory::Bytes;

use super::request::{IN_HEADER, OUT_HEADER};
use super::*;
use crate::virtio::F_VERSION_1;
use crate::virtio::testing::{Buf, Machine, PATIENCE, RAM_SIZE, TestQueue};

const GETATTR: u32 = 3;
const FORGET: u32 = 2;
const WRITE: u32 = 16;
const READ: u32 = 15;

/// What the driver gets for a request that failed.
const EIO: i32 = -5;

/// The server's side of the memory.
struct Peer {
    memory: SharedMemory,
    kick: File,
    call: File,
    alive: Option<PipeWriter>,
    seen: u16,
    used: u16,
}

/// A request as the server finds it.
struct Asked {
    head: u16,
    bytes: Vec<u8>,
    /// Where the reply goes, and how much of it.
    reply: (usize, usize),
}

/// A device and its server.
fn pair() -> (Fs, Peer) {
    let memory = tempfile::tempfile().unwrap();
    memory.set_len(MEMORY.try_into().unwrap()).unwrap();
    let map = SharedMemory::map(memory.as_fd(), MEMORY).unwrap();
    let event = || OwnedFd::from(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
    let (kick, call) = (event(), event());
    let (end, alive) = pipe().unwrap();
    let peer = Peer {
        memory: map,
        kick: kick.try_clone().unwrap().into(),
        call: call.try_clone().unwrap().into(),
        alive: Some(alive),
        seen: 0,
        used: 0,
    };
    let server = Server { memory: memory.into(), kick: kick.into(), call, end: end.into() };
    (Fs::new("volumes", server).unwrap(), peer)
}

impl Peer {
    /// The next request, if there is one.
    fn look(&mut self) -> Option<Asked> {
        let index: u16 =
            self.memory.slice(AVAILABLE + 2, 2).unwrap().load(0, Ordering::Acquire).unwrap();
        if index == self.seen {
            return None;
        }
        let entry = AVAILABLE + 4 + 2 * usize::from(self.seen % QUEUE_SIZE);
        let head: u16 = self.memory.slice(entry, 2).unwrap().read_obj(0).unwrap();
        self.seen = self.seen.wrapping_add(1);
        let part = |index: u16| {
            let at = DESCRIPTORS + 16 * usize::from(index);
            let slice = self.memory.slice(at, 16).unwrap();
            let (start, len): (u64, u32) = (slice.read_obj(0).unwrap(), slice.read_obj(8).unwrap());
            let flags: u16 = slice.read_obj(12).unwrap();
            (usize::try_from(start).unwrap(), usize::try_from(len).unwrap(), flags)
        };
        let (start, len, flags) = part(head);
        let mut bytes = vec![0; len];
        self.memory.slice(start, len).unwrap().read_slice(&mut bytes, 0).unwrap();
        let reply = if flags & 1 == 0 { (0, 0) } else { (part(head + 1).0, part(head + 1).1) };
        Some(Asked { head, bytes, reply })
    }

    /// The next request; the device has told of it.
    fn take(&mut self) -> Asked {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(asked) = self.look() {
                return asked;
            }
            assert!(Instant::now() < deadline, "no request in time");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Uses a chain, with this length.
    fn use_up(&mut self, head: u16, len: usize) {
        let entry = USED + 4 + 8 * usize::from(self.used % QUEUE_SIZE);
        let element = [u32::from(head), u32::try_from(len).unwrap()];
        self.memory.slice(entry, 8).unwrap().write_obj(element, 0).unwrap();
        self.used = self.used.wrapping_add(1);
        self.memory.slice(USED + 2, 2).unwrap().store(self.used, 0, Ordering::Release).unwrap();
        std::io::Write::write_all(&mut self.call, &1u64.to_ne_bytes()).unwrap();
    }

    /// Replies with these bytes behind a header.
    fn reply(&mut self, asked: &Asked, error: i32, body: &[u8]) {
        let unique = &asked.bytes[8..16];
        let len = OUT_HEADER + body.len();
        let mut bytes = u32::try_from(len).unwrap().to_le_bytes().to_vec();
        bytes.extend(error.to_le_bytes());
        bytes.extend(unique);
        bytes.extend(body);
        self.reply_with(asked, &bytes);
    }

    fn reply_with(&mut self, asked: &Asked, bytes: &[u8]) {
        self.memory.slice(asked.reply.0, bytes.len()).unwrap().write_slice(bytes, 0).unwrap();
        self.use_up(asked.head, bytes.len());
    }
}

/// A driver, its device at work, and the server.
struct Setup {
    machine: Machine,
    device: Fs,
    peer: Peer,
    queues: [TestQueue; 2],
    worker: Option<Box<dyn crate::virtio::Worker>>,
}

impl Setup {
    fn new() -> Self {
        let (device, peer) = pair();
        let machine = Machine::new();
        let queues = [machine.queue(0, 64), machine.queue(1, 64)];
        let mut setup = Self { machine, device, peer, queues, worker: None };
        setup.activate();
        setup
    }

    fn activate(&mut self) {
        let [first, second] = &mut self.queues;
        let features = F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC;
        let queues = &mut [first, second];
        self.worker = Some(self.machine.activate(&mut self.device, features, queues));
    }

    /// Makes a request available.
    fn ask(&mut self, request: Vec<u8>, room: u32) -> u16 {
        let mut bufs = vec![Buf::Out(request)];
        if room > 0 {
            bufs.push(Buf::room(room));
        }
        let head = self.queues[1].add(&bufs);
        self.queues[1].kick();
        head
    }

    /// The reply to the chain, with the length it was given back with.
    fn answer(&mut self, head: u16) -> Vec<u8> {
        let (used, len) = self.queues[1].wait_used();
        assert_eq!(used, head);
        let mut bytes = self.queues[1].read(head);
        bytes.truncate(len.try_into().unwrap());
        bytes
    }

    fn count(&self, name: &str) -> u64 {
        let counts = self.device.counters().read();
        counts.iter().find(|(called, _)| *called == name).unwrap().1
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
    }
}

fn request(opcode: u32, unique: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(IN_HEADER + body.len()).unwrap();
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes.resize(IN_HEADER, 0);
    bytes.extend(body);
    bytes
}

fn header(len: u32, error: i32, unique: u64) -> Vec<u8> {
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend(error.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes
}

#[test]
fn the_tag_is_told() {
    let (device, _peer) = pair();
    let mut config = [0xff; CONFIG_LEN];
    device.read_config(0, &mut config);
    assert_eq!(&config[..8], b"volumes\0");
    assert_eq!(config[MAX_TAG..], [1, 0, 0, 0]);
    let too_long = "x".repeat(MAX_TAG + 1);
    for tag in ["", &too_long] {
        let (_, peer) = pair();
        let copy = |file: &File| OwnedFd::from(file.try_clone().unwrap());
        let (memory, call, end) = (copy(&peer.kick), copy(&peer.kick), copy(&peer.kick));
        let server = Server { memory, kick: peer.kick.try_clone().unwrap(), call, end };
        assert!(matches!(Fs::new(tag, server), Err(FsError::Tag(_))));
    }
}

#[test]
fn requests_and_replies_pass_as_they_are() {
    let mut setup = Setup::new();
    for unique in 1..200 {
        let body: Vec<u8> = (0..unique).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
        let sent = request(WRITE, unique, &body);
        let head = setup.ask(sent.clone(), 300);
        let asked = setup.peer.take();
        assert_eq!(asked.bytes, sent);
        assert_eq!(asked.reply.1, 300);
        setup.peer.reply(&asked, 0, &body);
        let mut expected = header(16 + u32::try_from(body.len()).unwrap(), 0, unique);
        expected.extend(&body);
        assert_eq!(setup.answer(head), expected);
    }
    assert_eq!(setup.count("errors"), 0);
    assert_eq!(setup.count("requests"), 199);
}

#[test]
fn the_server_is_told_of_a_request_and_the_driver_of_its_reply() {
    let mut setup = Setup::new();
    let head = setup.ask(request(GETATTR, 1, &[]), 16);
    let asked = setup.peer.take();
    let deadline = Instant::now() + PATIENCE;
    while (&setup.peer.kick).read(&mut [0; 8]).is_err() {
        assert!(Instant::now() < deadline, "the server was not told");
    }
    setup.peer.reply(&asked, -2, &[]);
    setup.machine.interrupt.wait_queue(1, 1);
    assert_eq!(setup.answer(head), header(16, -2, 1));
}

#[test]
fn a_chain_in_many_pieces_is_one_request_and_one_reply() {
    let mut setup = Setup::new();
    let data: Vec<u8> = (0..3000u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
    let sent = request(WRITE, 7, &data);
    let mut bufs: Vec<Buf> = sent.chunks(60).map(Buf::out).collect();
    bufs.extend([Buf::room(8), Buf::room(20), Buf::room(0), Buf::room(4000)]);
    let head = setup.queues[1].add_indirect(&bufs);
    setup.queues[1].kick();
    let asked = setup.peer.take();
    assert_eq!(asked.bytes, sent);
    setup.peer.reply(&asked, 0, &data);
    let reply = setup.answer(head);
    assert_eq!(reply[..16], header(3016, 0, 7));
    assert_eq!(reply[16..], data);
}

#[test]
fn a_request_of_the_largest_size_passes() {
    let mut setup = Setup::new();
    let data = vec![0xa5; 1 << 20];
    let head = setup.ask(request(WRITE, 1, &[&[0; 40][..], &data].concat()), 24);
    let asked = setup.peer.take();
    assert_eq!(asked.bytes[80..], data);
    setup.peer.reply(&asked, 0, &[0; 8]);
    assert_eq!(setup.answer(head).len(), 24);
    let head = setup.ask(request(READ, 2, &[0; 40]), 16 + (1 << 20));
    let asked = setup.peer.take();
    setup.peer.reply(&asked, 0, &data);
    assert_eq!(setup.answer(head)[16..], data);
}

#[test]
fn what_needs_no_reply_goes_by_the_other_queue() {
    let mut setup = Setup::new();
    let sent = request(FORGET, 3, &[0; 8]);
    let head = setup.queues[0].add(&[Buf::Out(sent.clone())]);
    setup.queues[0].kick();
    let asked = setup.peer.take();
    assert_eq!((asked.bytes, asked.reply.1), (sent, 0));
    setup.peer.use_up(asked.head, 0);
    assert_eq!(setup.queues[0].wait_used(), (head, 0));
}

#[test]
fn more_requests_than_slots_wait_for_their_turn() {
    let mut setup = Setup::new();
    let count = 3 * u64::from(SLOTS);
    let heads: Vec<u16> = (0..count).map(|i| setup.ask(request(GETATTR, i, &[]), 16)).collect();
    let mut asked: Vec<Asked> = (0..SLOTS).map(|_| setup.peer.take()).collect();
    std::thread::sleep(Duration::from_millis(20));
    assert!(setup.peer.look().is_none(), "there is no slot for it");
    // The last that came is the first to be done.
    for _ in 0..count {
        let last = asked.pop().unwrap_or_else(|| setup.peer.take());
        setup.peer.reply(&last, 0, &[]);
    }
    let mut used: Vec<u16> = (0..count).map(|_| setup.queues[1].wait_used().0).collect();
    used.sort_unstable();
    let mut expected = heads;
    expected.sort_unstable();
    assert_eq!(used, expected);
}

#[test]
fn what_a_server_left_when_it_ended_fails_and_so_does_all_that_follows() {
    let mut setup = Setup::new();
    let first = setup.ask(request(GETATTR, 1, &[]), 100);
    let _asked = setup.peer.take();
    drop(setup.peer.alive.take());
    assert_eq!(setup.answer(first), header(16, EIO, 1));
    for unique in 2..200 {
        let head = setup.ask(request(GETATTR, unique, &[]), 100);
        assert_eq!(setup.answer(head), header(16, EIO, unique));
    }
    let forgotten = setup.queues[0].add(&[Buf::Out(request(FORGET, 5, &[0; 8]))]);
    setup.queues[0].kick();
    assert_eq!(setup.queues[0].wait_used(), (forgotten, 0));
    assert_eq!(setup.count("errors"), 200);
}

#[test]
fn a_reply_from_before_the_end_counts() {
    let mut setup = Setup::new();
    let head = setup.ask(request(GETATTR, 1, &[]), 100);
    let asked = setup.peer.take();
    setup.peer.reply(&asked, 0, b"attr");
    drop(setup.peer.alive.take());
    let mut expected = header(20, 0, 1);
    expected.extend(b"attr");
    assert_eq!(setup.answer(head), expected);
}

#[test]
fn a_reply_that_is_none_becomes_an_error() {
    let mut setup = Setup::new();
    let lies = [
        header(16, 0, 2),       // another request's
        header(17, 0, 1),       // of another length
        header(u32::MAX, 0, 1), // longer than all of it
        header(16, 5, 1),       // an error of no kind
        header(16, -512, 1),    // an error of the kernel's own
        [header(20, -5, 1), b"more".to_vec()].concat(),
        vec![16, 0, 0, 0], // no header
        vec![],
    ];
    for lie in lies {
        let head = setup.ask(request(GETATTR, 1, &[]), 100);
        let asked = setup.peer.take();
        setup.peer.reply_with(&asked, &lie);
        assert_eq!(setup.answer(head), header(16, EIO, 1), "{lie:?}");
    }
    // It is still there.
    let head = setup.ask(request(GETATTR, 1, &[]), 16);
    let asked = setup.peer.take();
    setup.peer.reply(&asked, 0, &[]);
    assert_eq!(setup.answer(head), header(16, 0, 1));
}

#[test]
fn a_server_that_breaks_its_ring_is_gone() {
    for (head, len) in [(0, 101), (1, 16), (4, 16), (u16::MAX, 0)] {
        let mut setup = Setup::new();
        let first = setup.ask(request(GETATTR, 1, &[]), 100);
        assert_eq!(setup.peer.take().head, 0);
        setup.peer.use_up(head, len);
        assert_eq!(setup.answer(first), header(16, EIO, 1));
        let next = setup.ask(request(GETATTR, 2, &[]), 100);
        assert_eq!(setup.answer(next), header(16, EIO, 2));
        assert!(setup.peer.look().is_none());
    }
}

#[test]
fn a_chain_that_is_no_request_is_refused_and_does_not_reach_the_server() {
    let mut setup = Setup::new();
    let mut short = request(GETATTR, 3, &[]);
    short.truncate(39);
    let mut another_length = request(GETATTR, 3, &[]);
    another_length[0] = 41;
    for wrong in [short, another_length] {
        let head = setup.ask(wrong, 100);
        assert_eq!(setup.answer(head), header(16, EIO, 3));
    }
    // Room for less than a header, and none at all.
    for room in [15, 0] {
        let head = setup.ask(request(GETATTR, 3, &[])[..39].to_vec(), room);
        assert_eq!(setup.answer(head), []);
    }
    // A reply to where there is no memory: the server does it, and the driver learns of nothing.
    let bufs = [Buf::Out(request(GETATTR, 4, &[])), Buf::At(RAM_SIZE - 8, 100)];
    let head = setup.queues[1].add(&bufs);
    setup.queues[1].kick();
    let asked = setup.peer.take();
    setup.peer.reply(&asked, 0, &[1; 50]);
    assert_eq!(setup.queues[1].wait_used(), (head, 0));
    assert!(setup.peer.look().is_none());
    assert_eq!(setup.machine.interrupt.needs_reset_count(), 0);
}

#[test]
fn a_reply_never_reaches_the_driver_that_comes_after() {
    let mut setup = Setup::new();
    let _lost = setup.ask(request(GETATTR, 1, &[]), 100);
    let asked = setup.peer.take();
    setup.worker.take().unwrap().stop();
    setup.queues = [setup.machine.queue(0, 64), setup.machine.queue(1, 64)];
    setup.activate();
    let head = setup.ask(request(GETATTR, 2, &[]), 100);
    let next = setup.peer.take();
    setup.peer.reply(&asked, 0, b"late");
    setup.peer.reply(&next, 0, b"new");
    let mut expected = header(19, 0, 2);
    expected.extend(b"new");
    assert_eq!(setup.answer(head), expected);
    assert!(setup.queues[1].used().is_none());
}

#[test]
fn a_driver_that_does_not_set_up_both_queues_gets_no_device() {
    let (mut device, _peer) = pair();
    let machine = Machine::new();
    for (index, missing) in [(0, 1), (1, 0)] {
        let queue = machine.queue(index, 64);
        let activation = Activation {
            ram: machine.ram.clone(),
            features: F_VERSION_1,
            queues: vec![queue.active(F_VERSION_1)],
            interrupt: Arc::clone(&machine.interrupt) as _,
            threads: crate::virtio::testing::threads(1),
        };
        let refused = device.activate(activation).err();
        assert!(matches!(refused, Some(ActivateError::MissingQueue(queue)) if queue == missing));
    }
}
