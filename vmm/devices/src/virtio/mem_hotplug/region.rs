//! The state of a memory device, and what each request does to it (virtio 1.2, 5.15.6).
//!
//! Memory is given in blocks of [`BLOCK`] bytes, and appears in the guest's address space in chunks of [`CHUNK`]: one
//! that has a block plugged in. So a driver can reach a little more than it has plugged in, but never more than what it
//! was once asked to have, rounded up to a chunk: plugging in takes no chunk beyond that.
//!
//! Invariant: what is plugged in never exceeds what was requested when it was plugged in.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::blocks::{BLOCK, Blocks, CHUNK};
use super::request::{Answer, Request, Span, State};
use crate::ports::MemoryChunks;

/// Blocks of a chunk.
const PER_CHUNK: u64 = CHUNK / BLOCK;

/// A device's region. Its driver's requests are served by one thread.
pub(super) struct Region {
    /// The first address.
    pub(super) address: u64,
    /// Bytes.
    pub(super) size: u64,
    blocks: Arc<Blocks>,
    memory: Arc<dyn MemoryChunks>,
    requested: AtomicU64,
    plugged: AtomicU64,
}

impl Region {
    /// A region at `address` of which nothing is plugged in.
    pub(super) fn new(address: u64, blocks: Arc<Blocks>, memory: Arc<dyn MemoryChunks>) -> Self {
        let size = u64::from(blocks.chunks()) * CHUNK;
        let (requested, plugged) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { address, size, blocks, memory, requested, plugged }
    }

    /// Bytes that the driver shall have plugged in.
    pub(super) fn requested(&self) -> u64 {
        self.requested.load(Ordering::Acquire)
    }

    /// See [`Region::requested`]; rounded up to a block, and no more than there is.
    pub(super) fn request(&self, bytes: u64) {
        let bytes = bytes.min(self.size).next_multiple_of(BLOCK);
        self.requested.store(bytes, Ordering::Release);
    }

    /// Bytes that are plugged in.
    pub(super) fn plugged(&self) -> u64 {
        self.plugged.load(Ordering::Acquire)
    }

    /// Does what the driver wants, if that is possible.
    pub(super) fn serve(&self, request: Option<Request>) -> Answer {
        match request {
            Some(Request::Plug(span)) => self.plug(span),
            Some(Request::Unplug(span)) => self.unplug(span),
            Some(Request::UnplugAll) => self.unplug_all(),
            Some(Request::State(span)) => self.state(span),
            None => Answer::Error,
        }
    }

    /// The blocks that the driver means, if there are such.
    fn range(&self, span: Span) -> Option<Range<u64>> {
        let offset = span.address.checked_sub(self.address)?;
        let (first, count) = (offset / BLOCK, u64::from(span.blocks));
        let fits = first.checked_add(count)? <= self.size / BLOCK;
        (offset.is_multiple_of(BLOCK) && count > 0 && fits).then_some(first..first + count)
    }

    fn plug(&self, span: Span) -> Answer {
        let Some(range) = self.range(span) else { return Answer::Error };
        let (plugged, requested) = (self.plugged(), self.requested());
        let more = BLOCK * u64::from(span.blocks);
        if plugged + more > requested {
            return Answer::Nack;
        }
        if self.blocks.count(range.clone()) > 0 {
            return Answer::Error;
        }
        let new: Vec<u32> = chunks(&range).filter(|chunk| !self.blocks.in_use(*chunk)).collect();
        let chunks = self.blocks.chunks_in_use() + new.len() as u64;
        if !new.is_empty() && chunks > requested.div_ceil(CHUNK) {
            // A driver that fills what it has begun never comes here.
            return Answer::Busy;
        }
        for (done, chunk) in new.iter().enumerate() {
            if self.memory.map(*chunk).is_err() {
                new.iter().take(done).for_each(|chunk| self.memory.unmap(*chunk));
                return Answer::Busy;
            }
        }
        self.blocks.set(range, true);
        self.plugged.store(plugged + more, Ordering::Release);
        Answer::Ack
    }

    fn unplug(&self, span: Span) -> Answer {
        let Some(range) = self.range(span) else { return Answer::Error };
        if self.blocks.count(range.clone()) < u64::from(span.blocks) {
            return Answer::Error;
        }
        self.take(range);
        Answer::Ack
    }

    fn unplug_all(&self) -> Answer {
        if self.plugged() > 0 {
            self.take(0..self.size / BLOCK);
        }
        Answer::Ack
    }

    fn state(&self, span: Span) -> Answer {
        let Some(range) = self.range(span) else { return Answer::Error };
        Answer::State(match self.blocks.count(range) {
            0 => State::Unplugged,
            all if all == u64::from(span.blocks) => State::Plugged,
            _ => State::Mixed,
        })
    }

    /// Plugs out what of `range` is plugged in: no device sees it any more, then the guest does not, then it goes back
    /// to the host.
    fn take(&self, range: Range<u64>) {
        let taken = BLOCK * self.blocks.count(range.clone());
        let before = chunks(&range).filter(|chunk| self.blocks.in_use(*chunk));
        let before: Vec<u32> = before.collect();
        self.blocks.set(range.clone(), false);
        self.plugged.store(self.plugged().saturating_sub(taken), Ordering::Release);
        for chunk in before.into_iter().filter(|chunk| !self.blocks.in_use(*chunk)) {
            self.memory.unmap(chunk);
        }
        self.give_back(BLOCK * range.start, BLOCK * (range.end - range.start));
        self.sweep();
    }

    /// Gives back all chunks of which nothing is plugged in: while one of its blocks was, a vCPU could write anywhere in
    /// a chunk, and a device that was sent to a block before it went may have written there since.
    fn sweep(&self) {
        let chunks = self.blocks.chunks();
        let mut first = 0;
        for chunk in 0..=chunks {
            if chunk < chunks && !self.blocks.in_use(chunk) {
                continue;
            }
            if chunk > first {
                self.give_back(CHUNK * u64::from(first), CHUNK * u64::from(chunk - first));
            }
            first = chunk + 1;
        }
    }

    /// What the host does not take back is lost to the host alone, until the next time.
    fn give_back(&self, offset: u64, bytes: u64) {
        let _kept = self.memory.give_back(self.address + offset, bytes);
    }
}

/// The chunks that hold the blocks of `range`.
fn chunks(range: &Range<u64>) -> impl Iterator<Item = u32> + use<> {
    let (first, end) = (range.start / PER_CHUNK, range.end.div_ceil(PER_CHUNK));
    (first..end).filter_map(|chunk| u32::try_from(chunk).ok())
}

#[cfg(test)]
#[path = "region_test.rs"]
pub(super) mod region_test;
