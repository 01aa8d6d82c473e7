//! Telling a file server where its queue is (vhost-user, the front-end's side).
//!
//! It is done before any byte of a guest's reaches the server, and nothing is said afterwards: the socket stays open
//! because the server ends when it closes.
//!
//! Invariant: each step is acknowledged, or the whole fails.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cofferdam_vmm_api::{FS_MEMORY, FS_QUEUE, FS_QUEUE_SIZE};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// How long the server may take for a step.
const PATIENCE: Duration = Duration::from_secs(60);

/// The queue for requests; that for those that must not wait has number 0, and is not used.
const QUEUE: u32 = 1;

/// Requests (vhost-user protocol, front-end message types).
const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SET_VRING_ENABLE: u32 = 18;

/// Flags of a message: the version, an answer, the wish for one.
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

const F_VERSION_1: u64 = 1 << 32;
const F_PROTOCOL_FEATURES: u64 = 1 << 30;
const PROTOCOL_F_REPLY_ACK: u64 = 1 << 3;

/// The address of the memory in our process, as far as the server knows.
const OURS: u64 = 1 << 32;

/// What the monitor needs of a server that was told.
#[derive(Debug)]
pub(super) struct Connected {
    /// The memory, and the events of the queue in it.
    pub(super) memory: OwnedFd,
    pub(super) kick: OwnedFd,
    pub(super) call: OwnedFd,
}

/// Tells the server at the other end of `socket`.
///
/// # Errors
/// What the server does not acknowledge, or the failure of a system call.
pub(super) fn connect(socket: &UnixStream) -> io::Result<Connected> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let memory = memfd_create("volumes", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, FS_MEMORY)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let connected = Connected { memory, kick: event()?, call: event()? };
    let front = FrontEnd { socket };
    let offered = front.get(GET_FEATURES)?;
    let wanted = F_VERSION_1 | F_PROTOCOL_FEATURES;
    if offered & wanted != wanted {
        return Err(io::Error::other(format!("it offers the features {offered:#x} only")));
    }
    front.send(SET_FEATURES, &wanted.to_le_bytes(), None, false)?;
    if front.get(GET_PROTOCOL_FEATURES)? & PROTOCOL_F_REPLY_ACK == 0 {
        return Err(io::Error::other("it does not acknowledge anything"));
    }
    front.send(SET_PROTOCOL_FEATURES, &PROTOCOL_F_REPLY_ACK.to_le_bytes(), None, false)?;
    front.tell(SET_OWNER, &[], None)?;
    // One region; its address for the server's queue, its size, its address in our process, its place in the file.
    let table = longs(&[1, 0, FS_MEMORY, OURS, 0]);
    front.tell(SET_MEM_TABLE, &table, Some(connected.memory.as_fd()))?;
    let state = |value: u32| [QUEUE.to_le_bytes(), value.to_le_bytes()].concat();
    front.tell(SET_VRING_NUM, &state(FS_QUEUE_SIZE.into()), None)?;
    let [descriptors, available, used] = FS_QUEUE.map(|at| OURS + at);
    let address = [state(0), longs(&[descriptors, used, available, 0])].concat();
    front.tell(SET_VRING_ADDR, &address, None)?;
    front.tell(SET_VRING_BASE, &state(0), None)?;
    let index = u64::from(QUEUE).to_le_bytes();
    front.tell(SET_VRING_CALL, &index, Some(connected.call.as_fd()))?;
    front.tell(SET_VRING_KICK, &index, Some(connected.kick.as_fd()))?;
    front.tell(SET_VRING_ENABLE, &state(1), None)?;
    Ok(connected)
}

fn longs(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Our end.
struct FrontEnd<'a> {
    socket: &'a UnixStream,
}

impl FrontEnd<'_> {
    /// Tells something, and has it acknowledged.
    fn tell(&self, request: u32, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send(request, payload, fd, true)?;
        match self.answer(request)? {
            0 => Ok(()),
            code => Err(io::Error::other(format!("it answers request {request} with {code:#x}"))),
        }
    }

    /// Asks for a number.
    fn get(&self, request: u32) -> io::Result<u64> {
        self.send(request, &[], None, false)?;
        self.answer(request)
    }

    fn send(
        &self,
        request: u32,
        payload: &[u8],
        fd: Option<BorrowedFd<'_>>,
        acknowledged: bool,
    ) -> io::Result<()> {
        let flags = if acknowledged { VERSION | NEED_REPLY } else { VERSION };
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut message: Vec<u8> =
            [request, flags, len].iter().flat_map(|word| word.to_le_bytes()).collect();
        message.extend(payload);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let bytes = [IoSlice::new(&message)];
        let sent = sendmsg(self.socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?;
        if sent == message.len() {
            Ok(())
        } else {
            Err(io::Error::other("a message was cut short"))
        }
    }

    /// The number that it answers with.
    fn answer(&self, request: u32) -> io::Result<u64> {
        let mut message = [0; 20];
        let mut socket = self.socket;
        socket.read_exact(&mut message)?;
        let [a, b, c, value @ ..] = message.as_chunks::<4>().0 else { return Err(nonsense()) };
        let header = [a, b, c].map(|word| u32::from_le_bytes(*word));
        let [low, high] = value else { return Err(nonsense()) };
        if header != [request, VERSION | REPLY, 8] {
            return Err(nonsense());
        }
        let [low, high] = [low, high].map(|word| u64::from(u32::from_le_bytes(*word)));
        Ok(high << 32 | low)
    }
}

fn nonsense() -> io::Error {
    io::Error::other("it answers with something else")
}

#[cfg(test)]
#[path = "handshake_test.rs"]
mod handshake_test;
