//! The network card: the tap is one end of a pair of sockets, the fuzzer has the other.
//!
//! Invariant: what leaves the card asks the host's kernel for nothing that lies outside of the frame.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use cofferdam_vmm_devices::virtio::net::{Net, NetOptions};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{read, write};

use crate::devices::{Host, Made, Subject};
use crate::driver::{Buf, Driver};
use crate::input::Input;

/// The card, with an address and an MTU or without, with one queue pair or two.
pub const NET: Subject = Subject { make: net };

/// Bytes of the header before each frame, and least of a frame.
const HEADER: usize = 12;
const ETHERNET: usize = 14;

/// Longest frame that may leave, and most packets that it may ask to be cut into.
const MAX_FRAME: usize = ETHERNET + 4 + 65535;
const MAX_SEGMENTS: usize = 2048;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;

/// Bits of `TUNSETOFFLOAD` that there are: checksums, segmentation of TCP and UDP.
const OFFLOADS: u32 = 0x7f;

fn net(options: u8) -> Made {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let count = 1 + usize::from(options >> 2 & 1);
    let (card, host): (Vec<OwnedFd>, Vec<OwnedFd>) = (0..count).map(|_| pair()).unzip();
    let options = NetOptions {
        mac: (options & 1 != 0).then_some([2, 0, 0, 0, 0, 1]),
        mtu: (options & 2 != 0).then_some(1280),
    };
    (Box::new(Net::over(card, set_offloads, options).unwrap()), Box::new(Tap(host)))
}

fn set_offloads(_: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
    assert_eq!(offloads & !OFFLOADS, 0, "a tap knows no such offload");
    Ok(())
}

/// The host's ends.
struct Tap(Vec<OwnedFd>);

impl Tap {
    /// The next packet that the card sent on queue `index`.
    fn sent(&self, index: usize) -> Option<Vec<u8>> {
        let mut packet = vec![0; HEADER + MAX_FRAME + 1];
        let len = read(&self.0[index], &mut packet).ok().filter(|len| *len > 0)?;
        packet.truncate(len);
        check(&packet);
        Some(packet)
    }
}

/// What holds for every packet that leaves the card.
fn check(packet: &[u8]) {
    let (header, frame) = packet.split_at(HEADER);
    assert!((ETHERNET..=MAX_FRAME).contains(&frame.len()), "a frame of {} bytes", frame.len());
    let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let [hdr_len, gso_size, csum_start, csum_offset] = [2, 4, 6, 8].map(word);
    match header[0] {
        0 => assert_eq!(header[1..], [0; 11], "fields that have no meaning"),
        NEEDS_CSUM => assert!(csum_start + csum_offset + 2 <= frame.len(), "{header:?}"),
        flags => panic!("flags {flags:#x}"),
    }
    if header[1] == 0 {
        assert_eq!(header[2..6], [0; 4], "fields that have no meaning");
    } else {
        assert!(matches!(header[1] & 0x7f, 1 | 4 | 5), "{header:?}");
        assert!(gso_size > 0 && frame.len().div_ceil(gso_size) <= MAX_SEGMENTS, "{header:?}");
        assert!(hdr_len <= frame.len(), "{header:?}");
    }
    assert_eq!(header[10..], [0; 2]);
}

/// A frame for everybody.
fn frame() -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend([8, 0]);
    frame.extend(0..50);
    frame
}

impl Host for Tap {
    fn act(&mut self, input: &mut Input<'_>) {
        let index = usize::from(input.byte()) % self.0.len();
        match input.below(4) {
            0 => drop(self.sent(index)),
            1 => while self.sent(index).is_some() {},
            2 => {
                // Whatever the kernel says of a packet.
                let bytes = input.bytes(80);
                let _full = write(&self.0[index], bytes);
            }
            _ => {
                let mut packet = vec![0; HEADER];
                packet.extend(frame());
                packet.resize(HEADER + ETHERNET + usize::from(input.short()), 0x55);
                let _full = write(&self.0[index], &packet);
            }
        }
    }

    fn probe(&mut self, driver: &mut Driver<'_>) {
        for index in 0..self.0.len() {
            while self.sent(index).is_some() {}
        }
        // What it is given at its start it throws away; once it has sent something it is past that.
        driver.request(1, &[Buf::Out([&[0; HEADER][..], &frame()].concat())]);
        assert_eq!(self.sent(0).expect("nothing was sent")[HEADER..], frame());
        for _ in 0..8 {
            driver.add(0, &[Buf::Room(2048)]);
        }
        let packet = [&[0; HEADER][..], &frame()].concat();
        write(&self.0[0], &packet).expect("no room for a packet");
        let (_, received) = driver.wait(0);
        assert_eq!(received[HEADER..], frame());
        assert_eq!(received[10..HEADER], [1, 0]);
    }
}
