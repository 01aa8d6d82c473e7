//! A stream whose other side sends everything back, or sends without being asked; both sides keep to the credit that they
//! were given.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Instant;

use cofferdam_vmm_devices::virtio::F_VERSION_1;
use cofferdam_vmm_devices::virtio::vsock::Vsock;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use vm_memory::{Bytes, GuestAddress};

use crate::Round;
use crate::driver::{Machine, Queue, WRITE};
use crate::random::Random;

/// The guest's context id, and the host's.
const CID: u64 = 3;
const HOST: u64 = 2;

/// The guest's port.
const PORT: u32 = 99;

/// Bytes of a packet's header, and most bytes of data.
const HEADER: usize = 44;
const DATA: usize = 4096;

/// Bytes that the guest has room for.
const ROOM: u32 = 64 << 10;

/// Operations (virtio 1.2, 5.10.6).
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RW: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

/// Byte `at` of the stream.
fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// Sends back whatever comes until the device is gone.
fn echo(mut stream: UnixStream) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = vec![0; 20_000];
        while let Ok(len) = stream.read(&mut bytes) {
            if len == 0 || stream.write_all(&bytes[..len]).is_err() {
                break;
            }
        }
    })
}

/// Sends the pattern until the device is gone.
fn source(mut stream: UnixStream) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut at = 0;
        loop {
            let bytes: Vec<u8> = (at..at + 20_000).map(pattern).collect();
            if stream.write_all(&bytes).is_err() {
                break;
            }
            at += bytes.len() as u64;
        }
    })
}

/// Asks the device for a connection to the guest; the host's end of it.
fn connect(connections: &OwnedFd) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fds = [theirs.as_raw_fd()];
    let port = PORT.to_le_bytes();
    let rights = [ControlMessage::ScmRights(&fds)];
    let sent = sendmsg::<()>(
        connections.as_raw_fd(),
        &[IoSlice::new(&port)],
        &rights,
        MsgFlags::empty(),
        None,
    );
    assert_eq!(sent, Ok(4));
    ours
}

/// A round; the bytes that came back.
pub(crate) fn round(round: Round, random: &mut Random) -> u64 {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut vsock = Vsock::new(CID, theirs);
    let machine = Machine::new(round.event_idx);
    let (rx, tx) = (machine.queue(0, round.size), machine.queue(1, round.size));
    let worker = machine.start(&mut vsock, F_VERSION_1, &[&rx, &tx]);
    let mut driver = Driver::new(&machine, rx, tx);
    let echoes = random.below(3) != 0;
    let stream = connect(&ours);
    let peer = if echoes { echo(stream) } else { source(stream) };
    let window = 1 + random.below(128 << 10) as u64;
    let complete = |driver: &Driver<'_>| match echoes {
        true => driver.connected && driver.received == driver.sent,
        false => driver.received > 0,
    };
    while !(Instant::now() >= round.end && complete(&driver)) {
        let mut busy = driver.receive();
        if echoes && Instant::now() < round.end {
            busy |= driver.send(window, random);
        }
        busy |= driver.tell();
        if !busy {
            machine.rest(&mut [&mut driver.rx, &mut driver.tx]);
        }
    }
    worker.stop();
    drop(vsock);
    peer.join().unwrap();
    driver.received
}

struct Driver<'m> {
    machine: &'m Machine,
    rx: Queue,
    tx: Queue,
    /// A buffer for each descriptor of a queue.
    rx_buffers: Vec<u64>,
    tx_buffers: Vec<u64>,
    tx_free: Vec<u16>,
    connected: bool,
    host_port: u32,
    sent: u64,
    received: u64,
    /// What the device said of its room, and of what it has taken.
    room: u32,
    taken: u32,
    /// What is to be said, besides data: an operation; and what was said last of what was taken.
    owed: Option<u16>,
    told: u32,
}

impl<'m> Driver<'m> {
    fn new(machine: &'m Machine, mut rx: Queue, tx: Queue) -> Self {
        let buffers = || (0..rx.size).map(|_| machine.alloc((HEADER + DATA) as u64)).collect();
        let (rx_buffers, tx_buffers): (Vec<u64>, Vec<u64>) = (buffers(), buffers());
        for (index, &at) in (0u16..).zip(&rx_buffers) {
            rx.describe(index, (at, (HEADER + DATA) as u32, WRITE, 0));
            rx.add(index);
        }
        rx.kick();
        let tx_free = (0..tx.size).collect();
        Self {
            machine,
            rx,
            tx,
            rx_buffers,
            tx_buffers,
            tx_free,
            connected: false,
            host_port: 0,
            sent: 0,
            received: 0,
            room: 0,
            taken: 0,
            owed: None,
            told: 0,
        }
    }

    /// Sends a packet if there is a place for it.
    fn packet(&mut self, op: u16, data: &[u8]) -> bool {
        while let Some((head, _)) = self.tx.take() {
            self.tx_free.push(head);
        }
        let Some(index) = self.tx_free.pop() else { return false };
        let taken = self.received as u32;
        let mut bytes = [CID, HOST].map(u64::to_le_bytes).concat();
        bytes.extend([PORT, self.host_port, data.len() as u32].map(u32::to_le_bytes).concat());
        bytes.extend([1, op].map(u16::to_le_bytes).concat());
        bytes.extend([0, ROOM, taken].map(u32::to_le_bytes).concat());
        bytes.extend(data);
        self.told = taken;
        let at = self.tx_buffers[usize::from(index)];
        self.machine.ram.write_slice(&bytes, GuestAddress(at)).unwrap();
        self.tx.describe(index, (at, bytes.len() as u32, 0, 0));
        self.tx.add(index);
        true
    }

    /// Sends data as far as the other side has room and fewer than `window` bytes are on their way.
    fn send(&mut self, window: u64, random: &mut Random) -> bool {
        let mut any = false;
        while self.connected && self.sent - self.received < window {
            let credit = self.room - (self.sent as u32).wrapping_sub(self.taken);
            let len = (1 + random.below(DATA)).min(credit as usize);
            let data: Vec<u8> = (self.sent..self.sent + len as u64).map(pattern).collect();
            if len == 0 || !self.packet(RW, &data) {
                break;
            }
            self.sent += len as u64;
            any = true;
            if random.below(2) == 0 {
                self.tx.kick();
            }
        }
        self.tx.kick();
        any
    }

    /// Says what has to be said.
    fn tell(&mut self) -> bool {
        if (self.received as u32).wrapping_sub(self.told) > ROOM / 2 {
            self.owed = self.owed.or(Some(CREDIT_UPDATE));
        }
        let Some(op) = self.owed else { return false };
        if !self.packet(op, &[]) {
            return false;
        }
        self.owed = None;
        self.connected |= op == RESPONSE;
        self.tx.kick();
        true
    }

    /// Takes the packets that came; whether there were any.
    fn receive(&mut self) -> bool {
        let mut any = false;
        while let Some((head, len)) = self.rx.take() {
            any = true;
            let at = GuestAddress(self.rx_buffers[usize::from(head)]);
            let mut bytes = vec![0; len as usize];
            self.machine.ram.read_slice(&mut bytes, at).unwrap();
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            (self.room, self.taken) = (word(36), word(40));
            match u16::from_le_bytes([bytes[30], bytes[31]]) {
                REQUEST => {
                    self.host_port = word(16);
                    self.owed = Some(RESPONSE);
                }
                RW => {
                    let data = &bytes[HEADER..];
                    assert_eq!(data.len(), word(24) as usize);
                    let wrong = (self.received..).zip(data).find(|&(at, &b)| b != pattern(at));
                    assert_eq!(wrong, None, "a byte is lost or wrong");
                    self.received += data.len() as u64;
                }
                CREDIT_REQUEST => self.owed = self.owed.or(Some(CREDIT_UPDATE)),
                CREDIT_UPDATE => {}
                op => panic!("operation {op}"),
            }
            self.rx.add(head);
        }
        self.rx.kick();
        any
    }
}
