//! What goes on between the device and its file server, whatever drivers come and go.
//!
//! Invariant: a reply reaches the chain that asked for it, or none; a chain is answered once, with an error where the
//! server is gone.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use vm_memory::{Bytes, GuestMemory, Permissions, VolatileSlice};

use super::super::mem::Segment;
use super::amend::{LOOKED_AT, amend, concerns};
use super::request::{IN_HEADER, InHeader, OUT_HEADER, OutHeader, Parts};
use super::slots::{Nonsense, SLOTS, Slots};
use crate::ports::Ram;

/// The device's end of a file server.
pub(super) struct Session {
    slots: Slots,
    /// Tells the server that there is something to do, and the device that something is done.
    kick: File,
    call: OwnedFd,
    /// Readable once the server has ended.
    server: OwnedFd,
    /// What each slot is for; none also if it was for a driver that is gone.
    waiting: [Option<Waiting>; SLOTS as usize],
    gone: bool,
}

/// A chain that waits for its reply.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Which queue it is of.
    pub(super) queue: usize,
    /// Where it begins.
    pub(super) head: u16,
    reply: Vec<Segment>,
    header: InHeader,
    /// The start of what follows the header, if the reply depends on it.
    request: Vec<u8>,
}

impl Waiting {
    /// Answers it with an error; how many bytes were written.
    pub(super) fn fail(&self, ram: &Ram) -> u32 {
        refuse(ram, &self.reply, self.header.unique)
    }
}

/// What becomes of a chain at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// The server has it.
    Passed,
    /// It is answered, with this many bytes written.
    Refused(u32),
}

impl Session {
    pub(super) fn new(slots: Slots, (kick, call): (File, OwnedFd), server: OwnedFd) -> Self {
        Self { slots, kick, call, server, waiting: Default::default(), gone: false }
    }

    /// What is signalled when the server has done something, and what is readable once it has ended.
    pub(super) fn events(&self) -> [RawFd; 2] {
        [self.call.as_raw_fd(), self.server.as_raw_fd()]
    }

    /// Whether a request can begin: there is a slot for it, or it will be refused.
    pub(super) fn has_room(&self) -> bool {
        self.gone || self.slots.free().is_some()
    }

    /// Forgets the chains of a driver that is gone. The server goes on with them.
    pub(super) fn abandon(&mut self) {
        self.waiting = Default::default();
    }

    /// The server has ended, or is not to be listened to any more: the chains that wait for it.
    pub(super) fn end(&mut self) -> Vec<Waiting> {
        self.gone = true;
        self.waiting.iter_mut().filter_map(Option::take).collect()
    }

    /// Tells the server that there is something to do.
    pub(super) fn kick(&self) {
        // Fails only if the counter is full, and then the server will look anyway.
        let _full = (&self.kick).write(&1u64.to_ne_bytes());
    }

    /// Begins the request of the chain of `queue` that begins at `head` and has these parts; `fine` if they are a
    /// request's.
    pub(super) fn begin(
        &mut self,
        ram: &Ram,
        (queue, head): (usize, u16),
        (parts, fine): (Parts, bool),
    ) -> Begun {
        let passed = if fine { self.pass(ram, &parts) } else { None };
        let Some((slot, header, request)) = passed else {
            let mut unique = [0; 8];
            gather(ram, &after(&parts.request, 8), &VolatileSlice::from(unique.as_mut_slice()));
            return Begun::Refused(refuse(ram, &parts.reply, u64::from_le_bytes(unique)));
        };
        if let Some(place) = self.waiting.get_mut(slot) {
            *place = Some(Waiting { queue, head, reply: parts.reply, header, request });
        }
        Begun::Passed
    }

    /// Copies a request to the server's memory; its slot and what has to be known of it.
    fn pass(&mut self, ram: &Ram, parts: &Parts) -> Option<(usize, InHeader, Vec<u8>)> {
        let slot = self.slots.free().filter(|_| !self.gone)?;
        let (sent, room) = (parts.sent()?, parts.room()?);
        let mut header = [0; IN_HEADER];
        if gather(ram, &parts.request, &VolatileSlice::from(header.as_mut_slice()))? != IN_HEADER {
            return None;
        }
        let parsed = InHeader::parse(&header);
        if usize::try_from(parsed.len) != Ok(sent) {
            return None;
        }
        let (target, _) = self.slots.parts(slot, (sent, room))?;
        if gather(ram, &parts.request, &target)? != sent {
            return None;
        }
        // The server gets the header that was looked at here.
        target.write_slice(&header, 0).ok()?;
        let mut start = Vec::new();
        if concerns(&parsed) {
            start.resize(LOOKED_AT.min(sent - IN_HEADER), 0);
            target.read_slice(&mut start, IN_HEADER).ok()?;
        }
        self.slots.offer(slot, (sent, room))?;
        Some((slot, parsed, start))
    }

    /// The next chain that has its reply, and how many bytes were written.
    ///
    /// # Errors
    /// The server is not to be listened to any more.
    pub(super) fn next(&mut self, ram: &Ram) -> Result<Option<(Waiting, u32)>, Nonsense> {
        while !self.gone {
            let Some((slot, sent, len)) = self.slots.done()? else { break };
            let Some(waiting) = self.waiting.get_mut(slot).and_then(Option::take) else { continue };
            let written = match self.deliver(ram, &waiting, slot, (sent, len)) {
                Some(written) => written,
                None => waiting.fail(ram),
            };
            return Ok(Some((waiting, written)));
        }
        Ok(None)
    }

    /// Copies a reply of `len` bytes to the chain that waits for it, unless it is none.
    fn deliver(
        &self,
        ram: &Ram,
        waiting: &Waiting,
        slot: usize,
        (sent, len): (usize, usize),
    ) -> Option<u32> {
        if waiting.reply.is_empty() {
            return Some(0);
        }
        let (_, reply) = self.slots.parts(slot, (sent, len))?;
        let mut start = vec![0; len.min(LOOKED_AT)];
        reply.read_slice(&mut start, 0).ok()?;
        let header: &[u8; OUT_HEADER] = start.first_chunk()?;
        let header = OutHeader::parse(header);
        if !header.answers(&waiting.header, len) {
            return None;
        }
        if header.error == 0 && concerns(&waiting.header) {
            amend(&waiting.header, &waiting.request, &mut start);
        }
        let all = scatter(ram, &waiting.reply, &reply)? == len;
        // The driver gets the start that was looked at here.
        scatter(ram, &waiting.reply, &VolatileSlice::from(start.as_mut_slice()))?;
        all.then(|| u32::try_from(len).ok()).flatten()
    }
}

/// Answers the request of this number with an error, if there is room for a reply; how many bytes were written.
fn refuse(ram: &Ram, reply: &[Segment], unique: u64) -> u32 {
    let header = OutHeader::failed(libc::EIO, unique);
    let mut bytes = header.bytes();
    match scatter(ram, reply, &VolatileSlice::from(bytes.as_mut_slice())) {
        Some(OUT_HEADER) => header.len,
        _ => 0,
    }
}

/// What of `segments` follows the first `skip` bytes.
fn after(segments: &[Segment], mut skip: u32) -> Vec<Segment> {
    let mut rest = Vec::new();
    for segment in segments {
        let past = skip.min(segment.len);
        skip -= past;
        let address = vm_memory::Address::checked_add(&segment.address, past.into());
        if let Some(address) = address.filter(|_| past < segment.len) {
            rest.push(Segment { address, len: segment.len - past });
        }
    }
    rest
}

/// Copies from guest memory, as much as `to` takes; how many bytes. `None` if a segment is outside of it.
fn gather(ram: &Ram, segments: &[Segment], to: &VolatileSlice<'_>) -> Option<usize> {
    let mut done = 0;
    each(ram, segments, Permissions::Read, to.len(), |slice| {
        slice.copy_to_volatile_slice(to.subslice(done, slice.len()).ok()?);
        done += slice.len();
        Some(())
    })?;
    Some(done)
}

/// Copies to guest memory, as much as there is room for; how many bytes. `None` if a segment is outside of it.
fn scatter(ram: &Ram, segments: &[Segment], from: &VolatileSlice<'_>) -> Option<usize> {
    let mut done = 0;
    each(ram, segments, Permissions::Write, from.len(), |slice| {
        from.subslice(done, slice.len()).ok()?.copy_to_volatile_slice(slice);
        done += slice.len();
        Some(())
    })?;
    Some(done)
}

/// Calls `work` with each piece of the first `len` bytes of guest memory in `segments`.
fn each<'a>(
    ram: &'a Ram,
    segments: &[Segment],
    access: Permissions,
    mut len: usize,
    mut work: impl FnMut(VolatileSlice<'a>) -> Option<()>,
) -> Option<()> {
    for segment in segments {
        let count = usize::try_from(segment.len).ok()?.min(len);
        len -= count;
        if count == 0 {
            continue;
        }
        for slice in GuestMemory::get_slices(ram, segment.address, count, access).ok()? {
            work(slice.ok()?)?;
        }
    }
    Some(())
}
