//! A request on its way through the host: which steps it takes, and how it ends.
//!
//! ```text
//! chain ──begin──► Job ──steps, one after the other──► finish ──► status byte, used length
//!            │                                            ▲
//!            └── refused, or nothing for the host to do ──┘
//! ```
//!
//! Invariant: each request gets a status byte, unless it has no place for one; a host's error is the
//! guest's I/O error and never the device's end.

use std::io;
use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::super::mem::Segment;
use super::Counts;
use super::backend::Backend;
use super::request::{
    EXTENT_LEN, Erase, Extent, HEADER_LEN, Layout, Limits, MAX_EXTENTS, Request, Status, total,
};
use crate::ports::Ram;

/// One thing that the host does; the next one follows when it has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Fills the job's segments from this offset on.
    Read(u64),
    /// Writes the job's segments from this offset on.
    Write(u64),
    /// Makes all finished writes stable.
    Sync,
    /// Makes an extent read as zero.
    Erase(Extent),
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Job {
    /// The head of its chain.
    pub(super) head: u16,
    /// Guest memory to read from or to write to, in its first step.
    pub(super) data: Vec<Segment>,
    status_at: GuestAddress,
    /// Data bytes written into the chain if all goes well.
    written: u64,
    /// Room for data in the chain.
    room: u64,
    /// Still to do, the last one first.
    steps: Vec<Step>,
    /// What it was asked for; none until that is known.
    request: Option<Request>,
    /// Bytes that came with it.
    sent: u64,
}

impl Job {
    /// What to do next; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Step> {
        self.steps.pop()
    }

    /// Whether there is something to do next.
    pub(super) fn has_next(&self) -> bool {
        !self.steps.is_empty()
    }
}

/// What the guest is told of a host's error. Linux then does without discards, and writes zeroes itself.
fn status_of(error: &io::Error) -> Status {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => Status::Unsupported,
        _ => Status::IoError,
    }
}

fn finish(ram: &Ram, status: Status, at: GuestAddress, (written, room): (u64, u64)) -> u32 {
    if ram.write_obj(status as u8, at).is_err() {
        return 0;
    }
    // The length counts bytes without a gap only: the status is part of it if all before it is.
    used(if written == room { written + 1 } else { written })
}

/// A length for the used ring; chains are shorter than 4 GiB, or it does not matter.
fn used(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Takes requests up.
pub(super) struct Intake {
    backend: Arc<Backend>,
    counts: Arc<Counts>,
    write_through: bool,
    layout: Layout,
}

impl Intake {
    /// `write_through`: a write is stable before it is reported done.
    pub(super) fn new(backend: Arc<Backend>, counts: Arc<Counts>, write_through: bool) -> Self {
        Self { backend, counts, write_through, layout: Layout::default() }
    }

    /// The work that a chain asks for, or the length for the used ring if it is over already.
    pub(super) fn begin(
        &mut self,
        ram: &Ram,
        head: u16,
        chain: impl Iterator<Item = Descriptor>,
    ) -> Result<Job, u32> {
        let Ok(status_at) = self.layout.fill(chain) else {
            self.counts.errors.add(1);
            return Err(0);
        };
        let mut job = Job {
            head,
            data: Vec::new(),
            status_at,
            written: 0,
            room: total(&self.layout.input),
            steps: Vec::new(),
            request: None,
            sent: total(&self.layout.output),
        };
        match self.plan(ram, &mut job) {
            Ok(()) if !job.steps.is_empty() => Ok(job),
            Ok(()) => Err(self.finish(ram, &job, Status::Ok)),
            Err(status) => Err(self.finish(ram, &job, status)),
        }
    }

    /// Tells the driver how a job ended; the length for the used ring.
    pub(super) fn end(&self, ram: &Ram, job: &Job, result: io::Result<()>) -> u32 {
        self.finish(ram, job, result.map_or_else(|error| status_of(&error), |()| Status::Ok))
    }

    fn finish(&self, ram: &Ram, job: &Job, status: Status) -> u32 {
        let written = if status == Status::Ok { job.written } else { 0 };
        self.count(job, status);
        finish(ram, status, job.status_at, (written, job.room))
    }

    fn count(&self, job: &Job, status: Status) {
        match (status, job.request) {
            (Status::Ok, Some(Request::Read { .. })) => {
                self.counts.reads.add(1);
                self.counts.bytes_read.add(job.room);
            }
            (Status::Ok, Some(Request::Write { .. })) => {
                self.counts.writes.add(1);
                self.counts.bytes_written.add(job.sent);
            }
            (Status::Ok, Some(Request::Flush)) => self.counts.flushes.add(1),
            (Status::Ok, Some(Request::Erase(_))) => self.counts.erasures.add(1),
            (Status::Ok, _) => {}
            _ => self.counts.errors.add(1),
        }
    }

    /// Fills in the steps.
    fn plan(&mut self, ram: &Ram, job: &mut Job) -> Result<(), Status> {
        let Layout { header, output, input } = &mut self.layout;
        let header = gather::<{ HEADER_LEN as usize }>(ram, header).ok_or(Status::IoError)?;
        let limits = Limits { sectors: self.backend.sectors(), readonly: self.backend.readonly() };
        let sync = self.write_through.then_some(Step::Sync);
        let request = Request::parse(header, job.sent, job.room, limits)?;
        job.request = Some(request);
        match request {
            Request::Read { offset } => {
                job.data = std::mem::take(input);
                job.written = job.room;
                job.steps.push(Step::Read(offset));
            }
            Request::Write { offset } => {
                job.data = std::mem::take(output);
                job.steps.extend(sync);
                job.steps.push(Step::Write(offset));
            }
            Request::Flush => job.steps.push(Step::Sync),
            Request::GetId => {
                let serial = self.backend.serial();
                job.written = scatter(ram, input, serial).ok_or(Status::IoError)?;
            }
            Request::Erase(erase) => {
                job.steps.extend(sync);
                job.steps.extend(extents(ram, output, erase, limits)?.into_iter().rev());
            }
        }
        Ok(())
    }
}

/// The extents of a list, all of them judged before any of them is touched.
fn extents(ram: &Ram, list: &[Segment], erase: Erase, limits: Limits) -> Result<Vec<Step>, Status> {
    let mut bytes = [0; EXTENT_LEN * MAX_EXTENTS as usize];
    let len = read(ram, list, &mut bytes).ok_or(Status::IoError)?;
    let (list, _) = bytes[..len].as_chunks::<EXTENT_LEN>();
    list.iter().map(|extent| Extent::parse(*extent, erase, limits).map(Step::Erase)).collect()
}

/// The bytes in `segments`, which are `N`.
fn gather<const N: usize>(ram: &Ram, segments: &[Segment]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (read(ram, segments, &mut bytes)? == N).then_some(bytes)
}

/// Reads all of `segments` into the start of `bytes`; how many there were. None if they do not fit.
fn read(ram: &Ram, segments: &[Segment], bytes: &mut [u8]) -> Option<usize> {
    let mut done = 0;
    for segment in segments {
        let len = usize::try_from(segment.len).ok()?;
        let part = bytes.get_mut(done..)?.get_mut(..len)?;
        ram.read_slice(part, segment.address).ok()?;
        done += len;
    }
    Some(done)
}

/// Scatters `bytes` as far as there is room; how many fitted.
fn scatter(ram: &Ram, segments: &[Segment], bytes: &[u8]) -> Option<u64> {
    let mut rest = bytes;
    for &Segment { address, len } in segments {
        let (part, after) = rest.split_at(rest.len().min(usize::try_from(len).ok()?));
        ram.write_slice(part, address).ok()?;
        rest = after;
    }
    Some((bytes.len() - rest.len()) as u64)
}
