//! Operations on one file that the host does while the thread goes on (`io_uring(7)`), each with whatever
//! its owner wants back at its end.
//!
//! One system call hands over what was started and waits: for an operation to end, or for an eventfd that
//! is watched. Asks for Linux 6.1 (`DEFER_TASKRUN`), where completions run on the thread that waits for
//! them; older kernels refuse and the caller does without.
//!
//! Invariant: the buffers of an operation stay mapped until it has ended: the ring holds guest memory, and
//! dropping it waits for what is under way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, types};
use vm_memory::Permissions;
use vmm_sys_util::eventfd::EventFd;

use super::mem::{Iovecs, Segment};
use crate::ports::Ram;

/// Entries of the submission queue; a full one is handed over on the way.
const ENTRIES: u32 = 64;

/// Entries of the completion queue. The kernel keeps what does not fit.
const COMPLETIONS: u32 = 512;

/// User data of watched events: these and above.
const WATCHED: u64 = 1 << 63;

/// What is to be done to the file.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// Fills the segments from the offset on.
    Read(&'a [Segment], u64),
    /// Writes the segments from the offset on.
    Write(&'a [Segment], u64),
    /// `fdatasync(2)`.
    Sync,
    /// `fallocate(2)` with this mode, offset and length.
    Allocate(i32, u64, u64),
}

/// Something happened.
#[derive(Debug)]
pub enum Event<T> {
    /// The event of this number was signalled at least once.
    Watched(usize),
    /// An operation ended.
    Done(T, io::Result<()>),
}

/// An operation under way.
struct Active<T> {
    kind: Kind,
    payload: T,
}

enum Kind {
    Read(Iovecs, u64),
    Write(Iovecs, u64),
    Other(Entry),
}

/// A ring for one file. It belongs to the thread that made it.
pub struct Uring<T> {
    ring: IoUring,
    file: Arc<File>,
    ram: Ram,
    watched: Vec<EventFd>,
    active: Vec<Option<Active<T>>>,
    free: Vec<usize>,
    ended: Vec<(T, io::Result<()>)>,
    /// Operations that the kernel has, or will be given by the next call.
    under_way: usize,
}

/// A ring that can do nothing yet, and never more than operations on files and polls: whoever takes over the
/// thread that uses it cannot open a file or make a socket with it.
pub struct Prepared(IoUring);

impl Prepared {
    /// Such a ring.
    ///
    /// # Errors
    /// If the kernel has none for us.
    pub fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        let ring = builder.setup_r_disabled().setup_cqsize(COMPLETIONS).build(ENTRIES)?;
        // What the kernel cannot do at once it does on threads of ours, whose number is limited: a few for files, and
        // one for what may take for ever. An older kernel sets limits of its own.
        let _older = ring.submitter().register_iowq_max_workers(&mut [4, 1]);
        let mut allowed = [
            opcode::Readv::CODE,
            opcode::Writev::CODE,
            opcode::Fsync::CODE,
            opcode::Fallocate::CODE,
            opcode::PollAdd::CODE,
        ]
        .map(Restriction::sqe_op);
        ring.submitter().register_restrictions(&mut allowed)?;
        Ok(Self(ring))
    }
}

impl<T> Uring<T> {
    /// Puts a ring to work on `file` with buffers in `ram`, for the calling thread alone.
    ///
    /// # Errors
    /// If the kernel does not let it.
    pub fn new(Prepared(ring): Prepared, file: Arc<File>, ram: Ram) -> io::Result<Self> {
        ring.submitter().register_enable_rings()?;
        let (active, free) = (Vec::new(), Vec::new());
        let (watched, ended) = (Vec::new(), Vec::new());
        Ok(Self { ring, file, ram, watched, active, free, ended, under_way: 0 })
    }

    /// Reports each signal of `event` from now on, as the number of calls before this one.
    ///
    /// # Errors
    /// If the host has no descriptors left, or refuses.
    pub fn watch(&mut self, event: &EventFd) -> io::Result<()> {
        self.watched.push(event.try_clone()?);
        self.poll(self.watched.len() - 1)
    }

    fn poll(&mut self, index: usize) -> io::Result<()> {
        let Some(event) = self.watched.get(index) else { return Ok(()) };
        let flags = u32::try_from(libc::POLLIN).unwrap_or(0);
        let poll = opcode::PollAdd::new(types::Fd(event.as_raw_fd()), flags).multi(true);
        self.push(&poll.build().user_data(WATCHED + index as u64))
    }

    /// Operations that have not been reported yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way + self.ended.len()
    }

    /// Starts an operation; [`Uring::event`] reports its end with `payload`.
    ///
    /// # Errors
    /// If the kernel takes no more. An operation that cannot be is reported as failed instead.
    pub fn start(&mut self, op: Op<'_>, payload: T) -> io::Result<()> {
        let kind = match self.kind(op) {
            Ok(kind) => kind,
            Err(error) => {
                self.ended.push((payload, Err(error)));
                return Ok(());
            }
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.active.push(None);
            self.active.len() - 1
        });
        self.active[slot] = Some(Active { kind, payload });
        self.under_way += 1;
        self.submit_slot(slot)
    }

    fn kind(&self, op: Op<'_>) -> io::Result<Kind> {
        let fd = types::Fd(self.file.as_raw_fd());
        Ok(match op {
            Op::Read(segments, offset) => {
                Kind::Read(Iovecs::new(&self.ram, segments, Permissions::Write)?, offset)
            }
            Op::Write(segments, offset) => {
                Kind::Write(Iovecs::new(&self.ram, segments, Permissions::Read)?, offset)
            }
            Op::Sync => {
                let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC);
                Kind::Other(sync.build())
            }
            Op::Allocate(mode, offset, len) => {
                Kind::Other(opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build())
            }
        })
    }

    /// Queues what is left of the operation in `slot`.
    fn submit_slot(&mut self, slot: usize) -> io::Result<()> {
        let Some(Some(active)) = self.active.get(slot) else { return Ok(()) };
        let fd = types::Fd(self.file.as_raw_fd());
        let count = |list: &[libc::iovec]| u32::try_from(list.len()).unwrap_or(0);
        let entry = match &active.kind {
            Kind::Read(iovecs, offset) => {
                let rest = iovecs.rest();
                opcode::Readv::new(fd, rest.as_ptr(), count(rest)).offset(*offset).build()
            }
            Kind::Write(iovecs, offset) => {
                let rest = iovecs.rest();
                opcode::Writev::new(fd, rest.as_ptr(), count(rest)).offset(*offset).build()
            }
            Kind::Other(entry) => entry.clone(),
        };
        self.push(&entry.user_data(slot as u64))
    }

    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: a poll names a descriptor that `watched` keeps open. Other entries name `file`, and lists
        // of buffers that `active` keeps in place until the operation has ended; the buffers are in guest
        // memory, which `ram` keeps mapped, and `drop` waits for every operation. Nobody has references
        // into guest memory: all access to it is volatile.
        let pushed = unsafe { self.ring.submission().push(entry) };
        if pushed.is_ok() {
            return Ok(());
        }
        self.submit(0)?;
        // SAFETY: as above.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)
    }

    fn submit(&mut self, want: usize) -> io::Result<()> {
        handed_over(self.ring.submit_and_wait(want))
    }

    /// Hands over what was started. With `wait`, returns once there is something to report, or now and
    /// then without.
    ///
    /// # Errors
    /// If the ring is of no use any more.
    pub fn enter(&mut self, wait: bool) -> io::Result<()> {
        let idle = self.ended.is_empty() && self.ring.completion().is_empty();
        self.submit(usize::from(wait && idle))
    }

    /// As [`Uring::enter`], waiting, but no longer than `limit`. Whether there is something to report.
    ///
    /// # Errors
    /// If the ring is of no use any more.
    pub fn enter_within(&mut self, limit: Duration) -> io::Result<bool> {
        let limit = types::Timespec::from(limit);
        let args = types::SubmitArgs::new().timespec(&limit);
        let idle = self.ended.is_empty() && self.ring.completion().is_empty();
        match self.ring.submitter().submit_with_args(usize::from(idle), &args) {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {}
            other => handed_over(other)?,
        }
        Ok(!self.ended.is_empty() || !self.ring.completion().is_empty())
    }

    /// Whether anything waits to be handed over.
    pub fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// What happened since, one by one; no system call.
    ///
    /// # Errors
    /// If the ring is of no use any more.
    pub fn event(&mut self) -> io::Result<Option<Event<T>>> {
        loop {
            if let Some((payload, result)) = self.ended.pop() {
                return Ok(Some(Event::Done(payload, result)));
            }
            let Some(completion) = self.ring.completion().next() else { return Ok(None) };
            let data = completion.user_data();
            if let Some(index) = data.checked_sub(WATCHED) {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                if !cqueue::more(completion.flags()) {
                    self.poll(index)?;
                }
                return Ok(Some(Event::Watched(index)));
            }
            self.completed(usize::try_from(data).unwrap_or(usize::MAX), completion.result())?;
        }
    }

    /// The kernel is done with the operation in `slot`, for now or for good.
    fn completed(&mut self, slot: usize, result: i32) -> io::Result<()> {
        let Some(Some(active)) = self.active.get_mut(slot) else { return Ok(()) };
        let Some(result) = active.kind.judge(result) else { return self.submit_slot(slot) };
        if let Some(active) = self.active[slot].take() {
            self.free.push(slot);
            self.under_way -= 1;
            self.ended.push((active.payload, result));
        }
        Ok(())
    }
}

impl Kind {
    /// How the operation ended; `None` if it has to go on.
    fn judge(&mut self, result: i32) -> Option<io::Result<()>> {
        let Ok(count) = u32::try_from(result) else {
            let error = result.checked_neg().unwrap_or(libc::EIO);
            let again = matches!(error, libc::EINTR | libc::EAGAIN);
            return (!again).then(|| Err(io::Error::from_raw_os_error(error)));
        };
        let (iovecs, offset) = match self {
            Self::Read(iovecs, offset) | Self::Write(iovecs, offset) => (iovecs, offset),
            Self::Other(_) => return Some(Ok(())),
        };
        iovecs.advance(usize::try_from(count).unwrap_or(usize::MAX));
        *offset = offset.saturating_add(count.into());
        match count {
            _ if iovecs.is_done() => Some(Ok(())),
            0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => None,
        }
    }
}

/// Whether the ring can go on after a call.
fn handed_over(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        // A signal; or completions that must be taken first.
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

impl<T> Drop for Uring<T> {
    fn drop(&mut self) {
        while self.under_way > 0 {
            let went_on = self.enter(true).and_then(|()| self.event().map(drop));
            if went_on.is_err() {
                // The kernel may still use buffers: they must never be freed.
                std::mem::forget(self.ram.clone());
                std::mem::forget(std::mem::take(&mut self.active));
                return;
            }
            self.ended.clear();
        }
    }
}

#[cfg(test)]
#[path = "uring_test.rs"]
mod uring_test;
