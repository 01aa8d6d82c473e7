//! Vsock by hand, the way Firecracker has it: a program connects to PATH, writes `CONNECT <port>` and a
//! newline, and after `OK <port>` talks to that port of the guest; a connection that the guest makes to
//! a port of the host goes to the socket `PATH_<port>`, and is refused if nobody listens there.
//!
//! A thread translates this to the device's socket of connections. `OK` says that the request is on its
//! way; if the guest refuses, the end of the stream follows.
//!
//! Invariant: no connection waits for another one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context;
use cofferdam_vmm_api::{Channel, Cid, VsockSpec};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::bridge::Bridge;
use super::files::Outbox;

/// The guest's context id, when it is not chosen.
const GUEST: Cid = Cid(3);

/// Longest first line of a client in bytes.
const MAX_LINE: usize = 32;

const LISTENER: u64 = 0;
const CHANNEL: u64 = 1;
const FIRST: u64 = 2;

/// Listens on `path` until the device is gone.
pub(super) fn listen(path: &Path, outbox: &mut Outbox) -> anyhow::Result<VsockSpec> {
    remove_stale(path);
    let listener = UnixListener::bind(path)
        .with_context(|| format!("cannot listen on the vsock path {}", path.display()))?;
    let (ours, theirs) = Channel::pair().context("cannot make a socket of connections")?;
    let adapter = Adapter::new(path, listener, ours).context("cannot watch the vsock path")?;
    std::thread::Builder::new()
        .name("vsock paths".to_owned())
        .spawn(move || adapter.run())
        .context("cannot start a thread")?;
    Ok(VsockSpec { cid: GUEST, connections: outbox.add(theirs.into_inner())? })
}

/// Removes the socket that an earlier run left, if nobody listens on it.
fn remove_stale(path: &Path) {
    if UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
        // If it cannot be removed, binding tells why.
        let _ = std::fs::remove_file(path);
    }
}

/// What a number of epoll stands for.
enum Client {
    /// It has not yet said all of where it wants to go.
    Greeting(UnixStream, Vec<u8>),
    /// The guest's stream and that of a program of the host.
    Bridged(Box<Bridge>),
}

struct Adapter {
    path: PathBuf,
    epoll: Epoll,
    listener: UnixListener,
    channel: Channel,
    clients: HashMap<u64, Client>,
    next: u64,
    /// Clients that had their share and have more to do.
    again: Vec<u64>,
}

impl Adapter {
    fn new(path: &Path, listener: UnixListener, channel: Channel) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        listener.set_nonblocking(true)?;
        let event = |data| EpollEvent::new(EventSet::IN, data);
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), event(LISTENER))?;
        epoll.ctl(ControlOperation::Add, channel.as_fd().as_raw_fd(), event(CHANNEL))?;
        let (path, clients, again) = (path.to_owned(), HashMap::new(), Vec::new());
        Ok(Self { path, epoll, listener, channel, clients, next: FIRST, again })
    }

    /// Works until the device is gone; then removes the path.
    fn run(mut self) {
        let mut events = [EpollEvent::default(); 64];
        'work: loop {
            let timeout = if self.again.is_empty() { -1 } else { 0 };
            let count = match self.epoll.wait(timeout, &mut events) {
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(_) => break,
                Ok(count) => count,
            };
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.greet(),
                    CHANNEL if self.guest_connects().is_err() => break 'work,
                    CHANNEL => {}
                    client => self.serve(client),
                }
            }
            for client in std::mem::take(&mut self.again) {
                self.serve(client);
            }
        }
        let _ = std::fs::remove_file(&self.path);
    }

    /// A program of the host wants a connection.
    fn greet(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let id = self.next;
        self.next += 1;
        if stream.set_nonblocking(true).is_ok() && self.watch(stream.as_raw_fd(), id).is_ok() {
            self.clients.insert(id, Client::Greeting(stream, Vec::new()));
            self.serve(id);
        }
    }

    /// The guest wants a connection; an error means that there is no device any more.
    fn guest_connects(&mut self) -> Result<(), ()> {
        let mut port = [0; 4];
        let Ok((4, mut fds)) = self.channel.receive_bytes(&mut port) else { return Err(()) };
        let Some(guest) = fds.pop().map(UnixStream::from) else { return Ok(()) };
        let Ok(host) = self.connect(u32::from_le_bytes(port)) else { return Ok(()) };
        let id = self.next;
        self.next += 1;
        let watched = [guest.as_raw_fd(), host.as_raw_fd()].map(|fd| self.watch(fd, id));
        if watched.iter().all(Result::is_ok) && guest.set_nonblocking(true).is_ok() {
            self.clients.insert(id, Client::Bridged(Box::new(Bridge::new(guest, host))));
            self.serve(id);
        }
        Ok(())
    }

    /// Connects to `PATH_<port>`. Without waiting: a listener whose queue is full refuses.
    fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(Path::new(&path))?)?;
        Ok(socket.into())
    }

    fn watch(&self, fd: RawFd, id: u64) -> io::Result<()> {
        let what = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP;
        self.epoll.ctl(
            ControlOperation::Add,
            fd,
            EpollEvent::new(what | EventSet::EDGE_TRIGGERED, id),
        )
    }

    fn serve(&mut self, id: u64) {
        match self.clients.get_mut(&id) {
            Some(Client::Greeting(stream, line)) => match read_line(stream, line) {
                None => {}
                Some(port) => self.hand_over(id, port),
            },
            Some(Client::Bridged(bridge)) => {
                if bridge.pump() {
                    self.again.push(id);
                }
                if bridge.is_done() {
                    self.clients.remove(&id);
                }
            }
            None => {}
        }
    }

    /// The client has said where it wants to go: to `port`, or nowhere sensible.
    fn hand_over(&mut self, id: u64, port: Option<u32>) {
        let Some(Client::Greeting(mut stream, _)) = self.clients.remove(&id) else { return };
        // The device gets the same open socket, which would go on to be watched here.
        let none = EpollEvent::default();
        let _ = self.epoll.ctl(ControlOperation::Delete, stream.as_raw_fd(), none);
        let Some(port) = port else { return };
        if stream.write_all(format!("OK {port}\n").as_bytes()).is_ok() {
            // If the device is gone, the client finds its stream closed, and the loop ends soon.
            let _ = self.channel.send_bytes(&port.to_le_bytes(), &[stream.as_fd()]);
        }
    }
}

/// Reads on; Some when the line is complete or will never be. What follows it belongs to the guest, so
/// bytes are read one by one.
fn read_line(stream: &mut UnixStream, line: &mut Vec<u8>) -> Option<Option<u32>> {
    let mut byte = [0];
    while line.len() < MAX_LINE {
        match stream.read(&mut byte) {
            Ok(1) if byte == *b"\n" => return Some(parse_line(line)),
            Ok(1) => line.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    Some(None)
}

fn parse_line(line: &[u8]) -> Option<u32> {
    std::str::from_utf8(line).ok()?.strip_prefix("CONNECT ")?.trim_end().parse().ok()
}

#[cfg(test)]
#[path = "vsock_test.rs"]
mod vsock_test;
