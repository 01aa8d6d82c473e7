//! What the driver asks, and the answers (virtio 1.2, 5.15.6): pure but for access to the chain's memory.
//!
//! Invariant: a chain costs a bounded amount of work, and its request is read once.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes};

use crate::ports::Ram;

/// Bytes of a request.
pub(super) const REQUEST: usize = 24;

/// Bytes of an answer.
pub(super) const ANSWER: usize = 10;

/// Most buffers of a chain that are looked at; Linux has one each way.
const MAX_BUFFERS: usize = 64;

/// Types of requests.
const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

/// Consecutive blocks, as the driver names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first one's address.
    pub(super) address: u64,
    /// How many.
    pub(super) blocks: u16,
}

/// What the driver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Blocks plugged in.
    Plug(Span),
    /// Blocks plugged out.
    Unplug(Span),
    /// All blocks plugged out.
    UnplugAll,
    /// To know whether blocks are plugged in.
    State(Span),
}

impl Request {
    /// The request in these bytes, if it is one.
    pub(super) fn parse(bytes: &[u8; REQUEST]) -> Option<Self> {
        let [t0, t1, _, _, _, _, _, _, rest @ ..] = bytes;
        let (address, rest) = rest.split_first_chunk::<8>()?;
        let (blocks, _padding) = rest.split_first_chunk::<2>()?;
        let address = u64::from_le_bytes(*address);
        let span = Span { address, blocks: u16::from_le_bytes(*blocks) };
        match u16::from_le_bytes([*t0, *t1]) {
            PLUG => Some(Self::Plug(span)),
            UNPLUG => Some(Self::Unplug(span)),
            UNPLUG_ALL => Some(Self::UnplugAll),
            STATE => Some(Self::State(span)),
            _ => None,
        }
    }
}

/// What the device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done.
    Ack,
    /// More than was asked for.
    Nack,
    /// Not now.
    Busy,
    /// It makes no sense.
    Error,
    /// None, some or all of the blocks are plugged in.
    State(State),
}

/// Whether blocks are plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// All of them.
    Plugged = 0,
    /// None of them.
    Unplugged = 1,
    /// Some of them.
    Mixed = 2,
}

impl Answer {
    /// As the driver reads it.
    pub(super) fn bytes(self) -> [u8; ANSWER] {
        let (kind, state) = match self {
            Self::Ack => (0, 0),
            Self::Nack => (1, 0),
            Self::Busy => (2, 0),
            Self::Error => (3, 0),
            Self::State(state) => (0, state as u8),
        };
        [kind, 0, 0, 0, 0, 0, 0, 0, state, 0]
    }
}

/// Reads the request of `chain`, has it answered, and writes the answer; the number of bytes written. A chain without
/// a whole request or without room for an answer is neither read nor answered.
pub(super) fn serve(
    ram: &Ram,
    chain: impl Iterator<Item = Descriptor>,
    answer: impl FnOnce(Option<Request>) -> Answer,
) -> u32 {
    let buffers: Vec<_> = chain.take(MAX_BUFFERS).collect();
    let (room, data): (Vec<_>, Vec<_>) = buffers.iter().partition(|buffer| buffer.is_write_only());
    let bytes_of = |list: &[&Descriptor]| list.iter().map(|b| u64::from(b.len())).sum::<u64>();
    if bytes_of(&data) < REQUEST as u64 || bytes_of(&room) < ANSWER as u64 {
        return 0;
    }
    let mut bytes = [0; REQUEST];
    if !copy(&data, REQUEST, |at, from, to| ram.read_slice(&mut bytes[from..to], at).is_ok()) {
        return 0;
    }
    let answer = answer(Request::parse(&bytes)).bytes();
    let written =
        copy(&room, ANSWER, |at, from, to| ram.write_slice(&answer[from..to], at).is_ok());
    if written { u32::try_from(ANSWER).unwrap_or(0) } else { 0 }
}

/// Goes over the first `total` bytes of `buffers`: `each` gets an address and the range of bytes that belongs there.
/// Whether all of them were possible.
fn copy(
    buffers: &[&Descriptor],
    total: usize,
    mut each: impl FnMut(vm_memory::GuestAddress, usize, usize) -> bool,
) -> bool {
    let mut done = 0;
    for buffer in buffers {
        let len = usize::try_from(buffer.len()).unwrap_or(usize::MAX).min(total - done);
        if len > 0
            && (buffer.addr().checked_add(len as u64).is_none()
                || !each(buffer.addr(), done, done + len))
        {
            return false;
        }
        done += len;
    }
    done == total
}

#[cfg(test)]
#[path = "request_test.rs"]
pub(super) mod request_test;
