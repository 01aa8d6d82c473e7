//! Load on one device, in phases that the host measures.
//!
//! The guest says over vsock what it is about to do, how often, and what that is; it begins when the host says so, and
//! says when it is done. Before that it has done some of it, so that what happens once is not in the figures.
//!
//! Invariant: in a phase the guest does nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;

use nix::libc::O_DIRECT;

use crate::vsock::{Stream, dial};
use crate::{Outcome, netlink};

/// Ports of the host, over vsock and TCP: phases; what sends back; what takes; what gives as much as it is told.
const PHASES: u32 = 7000;
const ECHO: u16 = 7001;
const SINK: u16 = 7002;
const SOURCE: u16 = 7003;

/// The two ends of the network.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// Requests of a phase at depth 1, at [`DEPTH`], and in order.
const ALONE: u64 = 1000;
const TOGETHER: u64 = 6400;
const MIBS: u64 = 32;

/// Threads, each with a request at a time.
const DEPTH: u64 = 32;

/// The host.
struct Phases {
    out: Stream,
    answers: BufReader<Stream>,
}

impl Phases {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let out = dial(PHASES)?;
        Ok(Self { answers: BufReader::new(out.try_clone()?), out })
    }

    /// Does `count` of `unit` by `work`, called `name`.
    fn phase(
        &mut self,
        name: &str,
        (count, unit): (u64, &str),
        mut work: impl FnMut(u64) -> io::Result<()>,
    ) -> Outcome {
        work(count.min(DEPTH))?;
        for word in [format!("{name}|{unit}|{count}"), "done".to_owned()] {
            self.out.write_all(format!("{word}\n").as_bytes())?;
            self.answers.read_line(&mut String::new())?;
            if word != "done" {
                work(count)?;
            }
        }
        Ok(())
    }
}

/// Reads and writes of `/dev/vda`, past the cache.
pub(crate) fn disk() -> Outcome {
    let mut phases = Phases::new()?;
    let mut options = OpenOptions::new();
    let disk = options.read(true).write(true).custom_flags(O_DIRECT).open("/dev/vda")?;
    let pages = disk_size()? / PAGE as u64;
    for write in [false, true] {
        let verb = if write { "write" } else { "read" };
        let alone = |count| random(&disk, pages, (count, 0), write);
        phases.phase(&format!("{verb} 4 KiB, depth 1"), (ALONE, "request"), alone)?;
        let together = |count| {
            thread::scope(|threads| {
                let one = |seed| {
                    let disk = &disk;
                    threads.spawn(move || random(disk, pages, (count / DEPTH, seed), write))
                };
                let all: Vec<_> = (1..=DEPTH).map(one).collect();
                all.into_iter().try_for_each(|thread| {
                    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
                })
            })
        };
        phases.phase(&format!("{verb} 4 KiB, depth 32"), (TOGETHER, "request"), together)?;
        let in_order = |count| in_order(&disk, count, write);
        phases.phase(&format!("{verb} in order"), (MIBS, "MiB"), in_order)?;
    }
    Ok(())
}

fn disk_size() -> Result<u64, Box<dyn std::error::Error>> {
    let sectors: u64 = std::fs::read_to_string("/sys/block/vda/size")?.trim().parse()?;
    Ok(sectors * 512)
}

/// Memory that begins at a page, as reads and writes past the cache want it.
struct Aligned(Vec<u8>);

impl Aligned {
    fn new(len: usize) -> Self {
        Self(vec![0x5a; len + PAGE])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let skip = self.0.as_ptr().align_offset(PAGE);
        let len = self.0.len() - PAGE;
        &mut self.0[skip..skip + len]
    }
}

fn request(disk: &File, buffer: &mut [u8], offset: u64, write: bool) -> io::Result<()> {
    if write { disk.write_all_at(buffer, offset) } else { disk.read_exact_at(buffer, offset) }
}

/// `count` pages of a disk of `pages`, one after the other.
fn random(disk: &File, pages: u64, (count, seed): (u64, u64), write: bool) -> io::Result<()> {
    let mut buffer = Aligned::new(PAGE);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        request(disk, buffer.bytes(), state % pages * PAGE as u64, write)?;
    }
    Ok(())
}

fn in_order(disk: &File, count: u64, write: bool) -> io::Result<()> {
    let mut buffer = Aligned::new(MIB);
    (0..count).try_for_each(|at| request(disk, buffer.bytes(), at * MIB as u64, write))
}

/// TCP over the network card.
pub(crate) fn net() -> Outcome {
    let mut phases = Phases::new()?;
    netlink::set_up("eth0", OWN)?;
    streams(&mut phases, |port| {
        let stream = TcpStream::connect((HOST, port))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// Streams over vsock.
pub(crate) fn vsock() -> Outcome {
    let mut phases = Phases::new()?;
    streams(&mut phases, |port| dial(port.into()).map_err(io::Error::other))
}

/// Round trips, and much in each direction.
fn streams<S: Read + Write>(
    phases: &mut Phases,
    connect: impl Fn(u16) -> io::Result<S>,
) -> Outcome {
    let mut echo = connect(ECHO)?;
    phases.phase("one byte and back", (ALONE, "round trip"), |count| {
        (0..count).try_for_each(|_| {
            echo.write_all(&[1])?;
            echo.read_exact(&mut [0])
        })
    })?;
    let mut sink = connect(SINK)?;
    let mut chunk = vec![0x5a; MIB];
    phases.phase("to the host", (MIBS, "MiB"), |count| {
        // It answers when it has all of it.
        sink.write_all(&(count * MIB as u64).to_le_bytes())?;
        (0..count).try_for_each(|_| sink.write_all(&chunk))?;
        sink.read_exact(&mut [0])
    })?;
    let mut source = connect(SOURCE)?;
    phases.phase("from the host", (MIBS, "MiB"), |count| {
        source.write_all(&(count * MIB as u64).to_le_bytes())?;
        (0..count).try_for_each(|_| source.read_exact(&mut chunk))
    })
}
