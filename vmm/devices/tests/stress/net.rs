//! A network card whose other side sends everything back. No frame gets lost on the way: the other side waits until
//! there is room.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Instant;

use cofferdam_vmm_devices::virtio::F_VERSION_1;
use cofferdam_vmm_devices::virtio::net::{Net, NetOptions};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{read, write};
use vm_memory::{Bytes, GuestAddress};

use crate::Round;
use crate::driver::{Machine, Queue, WRITE};
use crate::random::Random;

/// `VIRTIO_NET_F_MRG_RXBUF`.
const F_MRG_RXBUF: u64 = 1 << 15;

/// Bytes of the header before each frame, and of a frame before its number.
const HEADER: usize = 12;
const ETHERNET: usize = 14;

/// Longest packet, header included.
const LONGEST: usize = HEADER + 1514;

fn ignore(_: BorrowedFd<'_>, _: u32) -> io::Result<()> {
    Ok(())
}

/// Sends back whatever comes until the card is gone.
fn echo(host: OwnedFd) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut packet = vec![0; LONGEST];
        while let Ok(len) = read(&host, &mut packet) {
            if len == 0 || write(&host, &packet[..len]).is_err() {
                break;
            }
        }
    })
}

/// A round; the frames that came back.
pub(crate) fn round(round: Round, random: &mut Random) -> u64 {
    let (card, host) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    fcntl(&card, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut net = Net::over(vec![card], ignore, NetOptions::default()).unwrap();
    let merged = random.below(2) == 0;
    let features = F_VERSION_1 | if merged { F_MRG_RXBUF } else { 0 };
    let machine = Machine::new(round.event_idx);
    let (rx, tx) = (machine.queue(0, round.size), machine.queue(1, round.size));
    let worker = machine.start(&mut net, features, &[&rx, &tx]);
    let mut driver = Driver::new(&machine, (rx, tx), merged);
    driver.settle();
    let echo = echo(host);
    let most = 1 + random.below(usize::from(round.size).min(64)) as u64;
    while Instant::now() < round.end {
        driver.send(1 + random.below(most as usize) as u64, most, random);
        driver.receive();
        if driver.sent - driver.received >= most {
            machine.rest(&mut [&mut driver.rx, &mut driver.tx]);
        }
    }
    while driver.received < driver.sent {
        machine.rest(&mut [&mut driver.rx, &mut driver.tx]);
        driver.receive();
    }
    worker.stop();
    drop(net);
    echo.join().unwrap();
    driver.received
}

struct Driver<'m> {
    machine: &'m Machine,
    rx: Queue,
    tx: Queue,
    /// A buffer for each descriptor of a queue, and its bytes.
    rx_buffers: Vec<u64>,
    rx_len: u32,
    tx_buffers: Vec<u64>,
    tx_free: Vec<u16>,
    sent: u64,
    received: u64,
}

impl<'m> Driver<'m> {
    fn new(machine: &'m Machine, (mut rx, tx): (Queue, Queue), merged: bool) -> Self {
        let size = usize::from(rx.size);
        let rx_len = if merged { (2 * LONGEST / size).max(256) } else { LONGEST };
        let buffers =
            |len: usize| -> Vec<u64> { (0..size).map(|_| machine.alloc(len as u64)).collect() };
        let (rx_buffers, tx_buffers) = (buffers(rx_len), buffers(LONGEST));
        let rx_len = rx_len as u32;
        for (index, &at) in (0u16..).zip(&rx_buffers) {
            rx.describe(index, (at, rx_len, WRITE, 0));
            rx.add(index);
        }
        rx.kick();
        let tx_free = (0..tx.size).collect();
        Self { machine, rx, tx, rx_buffers, rx_len, tx_buffers, tx_free, sent: 0, received: 0 }
    }

    /// Waits until the card is past its start, at which it throws away what has come: it then takes what is sent,
    /// here something that is no frame.
    fn settle(&mut self) {
        self.tx.describe(0, (self.tx_buffers[0], 4, 0, 0));
        self.tx.add(0);
        self.tx.kick();
        self.machine.rest(&mut [&mut self.tx]);
        assert!(self.tx.take().is_some());
    }

    /// Sends up to `count` frames, as long as fewer than `most` are on their way.
    fn send(&mut self, count: u64, most: u64, random: &mut Random) {
        while let Some((head, _)) = self.tx.take() {
            self.tx_free.push(head);
        }
        for _ in 0..count {
            if self.sent - self.received >= most {
                break;
            }
            let Some(index) = self.tx_free.pop() else { break };
            let mut packet = vec![0; HEADER];
            packet.extend([0xff; 12]);
            packet.extend([8, 0]);
            packet.extend(self.sent.to_le_bytes());
            packet.resize(64 + random.below(LONGEST - 64), self.sent as u8);
            let at = self.tx_buffers[usize::from(index)];
            self.machine.ram.write_slice(&packet, GuestAddress(at)).unwrap();
            self.tx.describe(index, (at, packet.len() as u32, 0, 0));
            self.tx.add(index);
            self.sent += 1;
            if random.below(2) == 0 {
                self.tx.kick();
            }
        }
        self.tx.kick();
    }

    /// Takes the frames that came, which come in order.
    fn receive(&mut self) {
        while let Some((head, len)) = self.rx.take() {
            let first = self.buffer(head, len);
            let count = u16::from_le_bytes([first[10], first[11]]);
            let mut heads = vec![head];
            let mut packet = first;
            for _ in 1..count {
                // All buffers of a packet are there at once.
                let (head, len) = self.rx.take().expect("a buffer of a packet is missing");
                packet.extend(self.buffer(head, len));
                heads.push(head);
            }
            let number = &packet[HEADER + ETHERNET..][..8];
            assert_eq!(number, self.received.to_le_bytes(), "a frame is lost or out of order");
            assert!(packet[HEADER + ETHERNET + 8..].iter().all(|&b| b == self.received as u8));
            self.received += 1;
            heads.into_iter().for_each(|head| self.rx.add(head));
        }
        self.rx.kick();
    }

    fn buffer(&self, head: u16, len: u32) -> Vec<u8> {
        assert!(len <= self.rx_len);
        let mut bytes = vec![0; len as usize];
        let at = self.rx_buffers[usize::from(head)];
        self.machine.ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}
