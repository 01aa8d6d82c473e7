//! What a chain of descriptors is to a network card (virtio 1.2, 5.1.6): pure.
//!
//! Nothing is assumed about how the driver cuts headers and frames into descriptors (virtio 1.2, 2.7.4.1).
//!
//! Invariant: no byte of a chain is lost or used twice, and a chain costs a bounded amount of work.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestAddress};

use super::super::mem::Segment;

/// Most descriptors of a chain; Linux uses 19 at most.
const MAX_DESCRIPTORS: usize = 1022;

/// A chain that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the chain is cut off or loops")]
    Broken,
    #[error("more than {MAX_DESCRIPTORS} descriptors")]
    TooLong,
    #[error("a buffer for the wrong direction")]
    Direction,
    #[error("a buffer wraps around the end of the address space")]
    Address,
    #[error("fewer bytes than a header has")]
    Short,
}

/// What a chain has to consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The driver's data only.
    Output,
    /// Room for the device's data only.
    Input,
}

/// The buffers of a chain, at least `least` bytes of them; how many bytes they are.
pub(super) fn collect(
    chain: impl Iterator<Item = Descriptor>,
    direction: Direction,
    least: u32,
    segments: &mut Vec<Segment>,
) -> Result<u32, Malformed> {
    segments.clear();
    let mut total = 0u32;
    walk(chain, |segment, writable| {
        if writable != (direction == Direction::Input) {
            return Err(Malformed::Direction);
        }
        if segment.len > 0 {
            // A chain has less than 4 GiB (virtio 1.2, 2.7.5.2).
            total = total.checked_add(segment.len).ok_or(Malformed::Broken)?;
            segments.push(segment);
        }
        Ok(())
    })?;
    if total < least { Err(Malformed::Short) } else { Ok(total) }
}

/// Calls `each` with the buffers of a chain, and whether the device may write there.
fn walk(
    chain: impl Iterator<Item = Descriptor>,
    mut each: impl FnMut(Segment, bool) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    // An iterator that ends although the last descriptor names another one met a loop, an index out of
    // bounds or a bad table.
    let mut expected = true;
    for (count, descriptor) in chain.enumerate() {
        if count == MAX_DESCRIPTORS {
            return Err(Malformed::TooLong);
        }
        expected = descriptor.has_next();
        let segment = Segment { address: descriptor.addr(), len: descriptor.len() };
        segment.address.checked_add(segment.len.into()).ok_or(Malformed::Address)?;
        each(segment, descriptor.is_write_only())?;
    }
    if expected { Err(Malformed::Broken) } else { Ok(()) }
}

/// A chain of the control queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// Class, command, data.
    pub(super) output: Vec<Segment>,
    /// Where the answer goes: the last byte.
    pub(super) answer: GuestAddress,
}

/// The parts of a chain of the control queue.
pub(super) fn command(chain: impl Iterator<Item = Descriptor>) -> Result<Command, Malformed> {
    let (mut output, mut answer) = (Vec::new(), None);
    walk(chain, |segment, writable| {
        if !writable {
            // What the device reads comes first (virtio 1.2, 2.7.4.2).
            if answer.is_some() {
                return Err(Malformed::Direction);
            }
            output.push(segment);
        } else if let Some(last) = segment.len.checked_sub(1) {
            answer = segment.address.checked_add(last.into());
        }
        Ok(())
    })?;
    Ok(Command { output, answer: answer.ok_or(Malformed::Short)? })
}

/// Takes the first `count` bytes off `segments`; they are there.
pub(super) fn split_off_front(segments: &mut Vec<Segment>, count: u32) {
    let mut left = count;
    let mut whole = 0;
    for segment in segments.iter_mut() {
        if segment.len > left {
            segment.address = segment.address.unchecked_add(left.into());
            segment.len -= left;
            break;
        }
        left -= segment.len;
        whole += 1;
    }
    segments.drain(..whole);
}

/// The address of byte `offset` of `segments`.
pub(super) fn address_of(segments: &[Segment], offset: u32) -> Option<GuestAddress> {
    let mut left = offset;
    for segment in segments {
        if left < segment.len {
            return segment.address.checked_add(left.into());
        }
        left -= segment.len;
    }
    None
}

#[cfg(test)]
#[path = "request_test.rs"]
mod request_test;
