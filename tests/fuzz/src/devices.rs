//! The devices: how to make each, and what it must still be able to do after anything.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use cofferdam_vmm_api::Channel;
use cofferdam_vmm_devices::virtio::VirtioDevice;
use cofferdam_vmm_devices::virtio::block::{Block, BlockOptions};
use cofferdam_vmm_devices::virtio::rng::Rng;
use cofferdam_vmm_devices::virtio::vsock::Vsock;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::driver::{Buf, Driver};
use crate::input::Input;

/// The host's side of a device.
pub trait Host {
    /// Something that happens on the host, as `input` chooses.
    fn act(&mut self, input: &mut Input<'_>);

    /// A request that succeeds on a device at its start.
    fn probe(&mut self, driver: &mut Driver<'_>);
}

/// A device with the host's side of it.
pub type Made = (Box<dyn VirtioDevice>, Box<dyn Host>);

/// How to make a device.
pub struct Subject {
    /// Makes it; one byte may choose among its options.
    pub make: fn(u8) -> Made,
}

/// The disk, also read-only.
pub const BLOCK: Subject = Subject { make: block };
/// The entropy device.
pub const RNG: Subject = Subject { make: |_| (Box::new(Rng::new()), Box::new(Entropy)) };
/// The socket device.
pub const VSOCK: Subject = Subject { make: vsock };

/// Bytes of the disk.
const DISK: usize = 0x1_0000;

/// A disk's file.
struct Disk(File);

fn block(options: u8) -> Made {
    let file = File::from(memfd_create(c"disk", MFdFlags::MFD_CLOEXEC).unwrap());
    let bytes: Vec<u8> = (0..DISK).map(|at| (at / 512 + at) as u8).collect();
    file.write_all_at(&bytes, 0).unwrap();
    let seen = file.try_clone().unwrap();
    let options = BlockOptions { readonly: options & 1 != 0, ..BlockOptions::default() };
    (Box::new(Block::new(file, options).unwrap()), Box::new(Disk(seen)))
}

impl Host for Disk {
    /// The file gets shorter or longer behind the device's back.
    fn act(&mut self, input: &mut Input<'_>) {
        self.0.set_len(u64::from(input.byte()) * 512).unwrap();
    }

    fn probe(&mut self, driver: &mut Driver<'_>) {
        self.0.set_len(DISK as u64).unwrap();
        let mut header = vec![0; 16];
        header[8] = 3;
        let answer = driver.request(0, &[Buf::Out(header), Buf::Room(512), Buf::Room(1)]);
        let mut expected = [0; 512];
        self.0.read_exact_at(&mut expected, 3 * 512).unwrap();
        assert_eq!(answer[512], 0, "a read failed");
        assert_eq!(answer[..512], expected);
    }
}

/// The entropy device has nothing on the host.
struct Entropy;

impl Host for Entropy {
    fn act(&mut self, _input: &mut Input<'_>) {}

    fn probe(&mut self, driver: &mut Driver<'_>) {
        let answer = driver.request(0, &[Buf::Room(64)]);
        assert!(answer.len() == 64 && answer.iter().any(|byte| *byte != 0), "{answer:?}");
    }
}

/// The guest's context id.
pub const CID: u64 = 3;

/// The socket of connections, and the streams that came and went through it.
pub struct Sockets {
    connections: Channel,
    /// Connected streams.
    pub streams: Vec<UnixStream>,
}

/// Streams that the host keeps at once.
const MAX_STREAMS: usize = 64;

fn vsock(_options: u8) -> Made {
    let (device, host) = sockets();
    (device, Box::new(host))
}

/// The socket device.
#[must_use]
pub fn sockets() -> (Box<dyn VirtioDevice>, Sockets) {
    let (connections, theirs) = Channel::pair().unwrap();
    fcntl(&connections, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let device = Vsock::new(CID, theirs.into_inner());
    (Box::new(device), Sockets { connections, streams: Vec::new() })
}

impl Sockets {
    /// Takes what the device offers: the ports of the new streams, which come to the end of the list.
    pub fn accept(&mut self) -> Vec<u32> {
        let mut ports = Vec::new();
        let mut bytes = [0; 4];
        while let Ok((4, fds)) = self.connections.receive_bytes(&mut bytes) {
            for stream in fds.into_iter().map(UnixStream::from) {
                if self.streams.len() < MAX_STREAMS {
                    stream.set_nonblocking(true).unwrap();
                    self.streams.push(stream);
                    ports.push(u32::from_le_bytes(bytes));
                }
            }
        }
        ports
    }

    /// Asks for a connection to `port` of the guest.
    pub fn connect(&mut self, port: u32) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sent = self.connections.send_bytes(&port.to_le_bytes(), &[theirs.as_fd()]);
        ours.set_nonblocking(true).unwrap();
        if sent.is_ok() && self.streams.len() < MAX_STREAMS {
            self.streams.push(ours);
        }
    }
}

impl Host for Sockets {
    fn act(&mut self, input: &mut Input<'_>) {
        match input.below(6) {
            0 => drop(self.accept()),
            1 => self.connect(u32::from(input.below(4))),
            2 => {
                // A message that is no connection.
                let _full = self.connections.send_bytes(input.bytes(9), &[]);
            }
            action => {
                let Some(index) = usize::from(input.byte()).checked_rem(self.streams.len()) else {
                    return;
                };
                stream_act(&mut self.streams, index, (action, input));
            }
        }
    }

    fn probe(&mut self, driver: &mut Driver<'_>) {
        self.accept();
        self.streams.clear();
        for _ in 0..4 {
            driver.add(0, &[Buf::Room(64)]);
        }
        driver.request(1, &[Buf::Out(header(1, (1111, 7), 0))]);
        // What the host asked for while there was no device comes first.
        loop {
            let (_, answer) = driver.wait(0);
            if answer[16..24] == [7, 1111].map(u32::to_le_bytes).concat() {
                assert_eq!(answer[30], 2, "no response: {answer:?}");
                break;
            }
            assert_eq!(answer[30], 1, "neither request nor response: {answer:?}");
            driver.add(0, &[Buf::Room(64)]);
        }
        assert_eq!(self.accept(), [7], "the host was offered something else");
        let mut data = header(5, (1111, 7), 5);
        data.extend(b"alive");
        driver.request(1, &[Buf::Out(data)]);
        let mut said = [0; 5];
        self.streams[0].read_exact(&mut said).expect("data that was sent is not there");
        assert_eq!(&said, b"alive");
    }
}

/// Something happens on the host's end of a connection.
fn stream_act(streams: &mut Vec<UnixStream>, index: usize, (action, input): (u8, &mut Input<'_>)) {
    let stream = &mut streams[index];
    match action {
        3 => {
            let _full = stream.write(&vec![0x55; usize::from(input.short())]);
        }
        4 => {
            let _empty = stream.read(&mut vec![0; usize::from(input.short())]);
        }
        _ => match input.below(3) {
            0 => drop(streams.swap_remove(index)),
            1 => drop(stream.shutdown(Shutdown::Write)),
            _ => drop(stream.shutdown(Shutdown::Read)),
        },
    }
}

/// The header of a packet from the guest (virtio 1.2, 5.10.6): operation, ports of source and
/// destination, length of the data.
#[must_use]
pub fn header(op: u16, (from, to): (u32, u32), len: u32) -> Vec<u8> {
    let mut bytes = [CID, 2].map(u64::to_le_bytes).concat();
    bytes.extend([from, to, len].map(u32::to_le_bytes).concat());
    bytes.extend([1, op].map(u16::to_le_bytes).concat());
    bytes.extend([0, 4096, 0].map(u32::to_le_bytes).concat());
    bytes
}
