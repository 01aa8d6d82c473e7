//! All connections of the device: packets of the guest and events of the host's sockets in, packets for
//! the guest out.
//!
//! Called by one thread; no call blocks. Invariant: whatever comes, at most [`MAX_CONNECTIONS`]
//! connections and [`MAX_RESETS`] unsent resets (beyond those of the connections) exist. Turns to send
//! to the guest go round, one packet each.
//!
//! [`MAX_CONNECTIONS`]: super::table::MAX_CONNECTIONS

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::Counts;
use super::backend::{Arrival, Backend};
use super::chain::Buffers;
use super::connection::{Connection, Key, Verdict};
use super::packet::{HEADER_LEN, HOST_CID, Header, Op, TYPE_STREAM};
use super::stream::{Filled, Stream};
use super::table::{Id, Table};

/// Epoll data of the socket of connections; other numbers up to [`LAST_ID`] are connections.
pub(super) const CONNECTIONS: u64 = u64::MAX - 1;

/// Numbers above are not connections.
pub(super) const LAST_ID: Id = u64::MAX >> 1;

/// How long the guest may take to answer a request, or our shutdown. Longer than the eight seconds
/// after which Linux gives up waiting for us.
const PATIENCE: Duration = Duration::from_secs(10);

/// Resets that wait for room in the guest's receive queue before we stop taking packets from it
/// (virtio 1.2, 5.10.6.1.2: a device may do so when its own resources are exhausted).
const MAX_RESETS: usize = 1024;

/// Most bytes of data in one packet to the guest, however large its buffers are; Linux' own limit.
const MAX_DATA: usize = 64 << 10;

/// Connections taken from the host before others get their turn.
const MAX_ARRIVALS: usize = 64;

/// A connection with its socket.
#[derive(Debug)]
struct Link {
    conn: Connection,
    /// None when both directions are over and only the guest's reset is awaited.
    stream: Option<Stream>,
    /// Reading from the socket may give something.
    readable: bool,
    /// Epoll tells when the socket takes bytes again.
    watches_room: bool,
    /// We have ended the direction to the host.
    write_shut: bool,
    /// We have ended the direction from the host.
    read_shut: bool,
    /// The host's end, while the socket of connections is full.
    offer: Option<OwnedFd>,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Muxer {
    guest_cid: u64,
    backend: Backend,
    epoll: Arc<Epoll>,
    links: Table<Link>,
    counts: Arc<Counts>,
    resets: VecDeque<Header>,
    /// Connections whose offer waits, oldest first.
    offers: VecDeque<Id>,
    /// Epoll tells when the socket of connections takes offers again.
    watches_offers: bool,
}

impl Muxer {
    /// No connections yet.
    ///
    /// # Errors
    /// If epoll does not take the socket of connections.
    pub(super) fn new(
        guest_cid: u64,
        backend: Backend,
        epoll: Arc<Epoll>,
        counts: Arc<Counts>,
    ) -> io::Result<Self> {
        let event = EpollEvent::new(EventSet::IN, CONNECTIONS);
        epoll.ctl(ControlOperation::Add, backend.raw(), event)?;
        let (links, resets, offers) = (Table::new(), VecDeque::new(), VecDeque::new());
        Ok(Self { guest_cid, backend, epoll, links, counts, resets, offers, watches_offers: false })
    }

    /// Whether the guest's packets must wait until it has taken some of ours.
    pub(super) fn is_blocked(&self) -> bool {
        self.resets.len() >= MAX_RESETS
    }

    /// Whether there may be packets for the guest.
    pub(super) fn has_output(&self) -> bool {
        !self.resets.is_empty() || self.links.has_turns()
    }

    /// When [`Muxer::expire`] is to be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.links.next_deadline()
    }

    /// Ends what took too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(id) = self.links.expired(now) {
            self.reset(id);
        }
    }

    // ---- packets from the guest

    /// A packet came; `packet` is all of it.
    pub(super) fn receive(&mut self, header: &Header, packet: &Buffers<'_>, now: Instant) {
        let known = header.src_cid == self.guest_cid && header.dst_cid == HOST_CID;
        if !known || header.kind != TYPE_STREAM {
            return self.refuse(header);
        }
        let key = Key { host_port: header.dst_port, guest_port: header.src_port };
        match self.links.find(key) {
            Some(id) => self.packet(id, header, packet, now),
            None if header.op == Op::Request as u16 => self.request(key, header, now),
            None => self.refuse(header),
        }
    }

    fn refuse(&mut self, header: &Header) {
        self.resets.extend(header.refusal(self.guest_cid));
    }

    /// The guest asks for a connection.
    fn request(&mut self, key: Key, header: &Header, now: Instant) {
        let promise = self.links.next_promise();
        let conn = Connection::offered(key, self.guest_cid, promise, header);
        let added = if self.links.is_full() { None } else { Backend::pair().ok() }
            .and_then(|(ours, theirs)| Some((self.add(conn, ours)?, theirs)));
        let Some((id, theirs)) = added else { return self.refuse(header) };
        if let Some(link) = self.links.get(id) {
            link.offer = Some(theirs);
        }
        self.offers.push_back(id);
        if self.offers.len() == 1 {
            self.make_offers(now);
        }
    }

    /// A packet came for a connection that exists.
    fn packet(&mut self, id: Id, header: &Header, packet: &Buffers<'_>, now: Instant) {
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let whole = header.op != Op::Rw as u16 || len <= packet.len() - HEADER_LEN;
        let Some(link) = self.links.get(id) else { return };
        let verdict = if whole { link.conn.packet(header) } else { Verdict::Violation };
        match verdict {
            Verdict::Noted | Verdict::Discard => {}
            Verdict::Established => self.links.set_deadline(id, None),
            Verdict::Data => self.forward(id, packet, len),
            Verdict::Ended => return self.ended(id),
            Verdict::Violation => return self.reset(id),
        }
        self.settle(id, now);
    }

    /// Passes data on to the host.
    fn forward(&mut self, id: Id, packet: &Buffers<'_>, len: usize) {
        let Some(link) = self.links.get(id) else { return };
        let Some(stream) = &mut link.stream else { return };
        match stream.write(packet.range(HEADER_LEN, len)) {
            Ok(taken) => link.conn.forwarded(u32::try_from(taken).unwrap_or(u32::MAX)),
            Err(_) => link.host_is_gone(),
        }
        self.watch_room(id);
    }

    /// The guest has reset the connection. What it sent before it had ended its sending still counts.
    fn ended(&mut self, id: Id) {
        let orderly = self.links.get(id).is_some_and(|link| link.conn.guest_sends_no_more());
        if orderly { self.drain(id) } else { self.close(id) }
    }

    // ---- packets to the guest

    /// The next packet for the guest. Its data, if any, has been written behind the place of the header
    /// in `room`, which holds a header at least.
    pub(super) fn produce(&mut self, room: &Buffers<'_>, now: Instant) -> Option<Header> {
        if let Some(header) = self.resets.pop_front() {
            return Some(header);
        }
        // Ends: a connection that has nothing gets no further turn.
        while let Some(id) = self.links.take_turn() {
            let header = self.links.get(id).and_then(|link| link.produce(room));
            self.settle(id, now);
            if header.is_some() {
                return header;
            }
        }
        None
    }

    // ---- events on the host's sockets

    /// Something happened on the socket of a connection.
    pub(super) fn socket_event(&mut self, id: Id, events: EventSet, now: Instant) {
        let Some(link) = self.links.get(id) else { return };
        let Some(stream) = &mut link.stream else { return };
        link.readable = true;
        if events.contains(EventSet::OUT) {
            match stream.flush() {
                Ok(taken) => link.conn.forwarded(u32::try_from(taken).unwrap_or(u32::MAX)),
                Err(_) => link.host_is_gone(),
            }
        }
        // After both sides ended their sending the socket hangs up, too: no news then.
        if events.intersects(EventSet::HANG_UP | EventSet::ERROR) && !link.write_shut {
            link.host_is_gone();
        }
        self.watch_room(id);
        self.settle(id, now);
    }

    /// Something happened on the socket of connections.
    pub(super) fn connections_event(&mut self, events: EventSet, now: Instant) {
        if events.contains(EventSet::OUT) {
            self.make_offers(now);
        }
        for _ in 0..MAX_ARRIVALS {
            match self.backend.take() {
                Arrival::Connection(port, socket) => self.arrived(port, socket, now),
                Arrival::Malformed => {}
                Arrival::Nothing => break,
                Arrival::Closed => {
                    let raw = self.backend.raw();
                    let _ = self.watch(ControlOperation::Delete, raw, EventSet::empty(), 0);
                    // Each fails now, which refuses it.
                    return self.make_offers(now);
                }
            }
        }
    }

    /// The host wants a connection. If there can be none, dropping the socket tells.
    fn arrived(&mut self, port: u32, socket: OwnedFd, now: Instant) {
        let key = self.links.free_key(port);
        let conn = Connection::requesting(key, self.guest_cid, self.links.next_promise());
        let Some(id) = self.add(conn, socket) else { return };
        self.links.set_deadline(id, Some(now + PATIENCE));
        self.settle(id, now);
    }

    /// Hands connections that the guest asked for over to the host, as many as it takes.
    fn make_offers(&mut self, now: Instant) {
        while let Some(&id) = self.offers.front() {
            let Some(link) = self.links.get(id) else {
                self.offers.pop_front();
                continue;
            };
            let port = link.conn.key().host_port;
            let sent = link.offer.as_ref().map(|end| self.backend.offer(port, end.as_fd()));
            match sent {
                Some(Ok(true)) => {
                    link.offer = None;
                    link.conn.accept();
                    self.offers.pop_front();
                    self.settle(id, now);
                }
                Some(Ok(false)) => break,
                _ => self.reset(id),
            }
        }
        let wanted = !self.offers.is_empty();
        if wanted != self.watches_offers {
            self.watches_offers = wanted;
            let room = if wanted { EventSet::OUT } else { EventSet::empty() };
            // Fails only if the host is gone and the socket therefore not watched any more.
            let raw = self.backend.raw();
            let _ = self.watch(ControlOperation::Modify, raw, EventSet::IN | room, CONNECTIONS);
        }
    }

    // ---- the life of a connection

    /// Adds a connection and watches its socket.
    fn add(&mut self, conn: Connection, socket: OwnedFd) -> Option<Id> {
        let stream = Stream::new(socket).ok()?;
        let raw = stream.raw();
        let (key, promise) = (conn.key(), conn.promised());
        let id = self.links.insert(key, promise, Link::new(conn, stream))?;
        if self.watch(ControlOperation::Add, raw, link_events(false), id).is_err() {
            self.links.remove(id);
            return None;
        }
        self.counts.connections.add(1);
        Some(id)
    }

    fn watch(&self, how: ControlOperation, raw: RawFd, what: EventSet, id: u64) -> io::Result<()> {
        self.epoll.ctl(how, raw, EpollEvent::new(what, id))
    }

    /// Has epoll tell when the socket takes bytes again, as long as there are some for it.
    fn watch_room(&mut self, id: Id) {
        let Some(link) = self.links.get(id) else { return };
        let Some(stream) = &link.stream else { return };
        let (wanted, raw) = (stream.is_keeping(), stream.raw());
        if wanted != link.watches_room {
            link.watches_room = wanted;
            if self.watch(ControlOperation::Modify, raw, link_events(wanted), id).is_err() {
                self.reset(id);
            }
        }
    }

    /// Draws the conclusions of whatever happened to the connection; may be called at any time.
    fn settle(&mut self, id: Id, now: Instant) {
        let named = self.links.has_name(id);
        let Some(link) = self.links.get(id) else { return };
        link.end_directions();
        if !named {
            if !link.is_keeping() {
                self.close(id);
            }
            return;
        }
        if link.conn.guest_is_done() {
            self.resets.push_back(link.conn.reset());
            return self.drain(id);
        }
        if link.stream.is_some() && link.conn.outgoing_done() && link.conn.incoming_done() {
            link.conn.host_sends_no_more();
            link.conn.host_receives_no_more();
            let stream = link.stream.take();
            self.unwatch(stream.as_ref());
            self.links.set_deadline(id, Some(now + PATIENCE));
        }
        if self.links.get(id).is_some_and(|link| link.has_output()) {
            self.links.give_turn(id);
        }
    }

    /// The guest is through with the connection; the host may still have bytes to come.
    fn drain(&mut self, id: Id) {
        self.withdraw_offer(id);
        match self.links.get(id) {
            Some(link) if link.is_keeping() => self.links.forget_name(id),
            _ => self.close(id),
        }
    }

    /// Tells the guest that the connection is no more, and forgets it.
    fn reset(&mut self, id: Id) {
        let named = self.links.has_name(id);
        if let Some(link) = self.links.get(id).filter(|_| named) {
            self.resets.push_back(link.conn.reset());
        }
        self.close(id);
    }

    /// Forgets a connection; its socket closes.
    fn close(&mut self, id: Id) {
        self.withdraw_offer(id);
        if let Some(link) = self.links.remove(id) {
            self.unwatch(link.stream.as_ref());
        }
    }

    /// Whoever sent us the socket may hold it, too; closing it would not be enough for epoll.
    fn unwatch(&self, stream: Option<&Stream>) {
        if let Some(stream) = stream {
            let _ = self.watch(ControlOperation::Delete, stream.raw(), EventSet::empty(), 0);
        }
    }

    fn withdraw_offer(&mut self, id: Id) {
        if self.links.get(id).and_then(|link| link.offer.take()).is_some() {
            self.offers.retain(|offer| *offer != id);
        }
    }
}

/// What epoll tells of a connection's socket: each change once.
fn link_events(room: bool) -> EventSet {
    let events = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    if room { events | EventSet::OUT } else { events }
}

impl Link {
    fn new(conn: Connection, stream: Stream) -> Self {
        let (watches_room, write_shut, read_shut) = (false, false, false);
        let (stream, readable, offer) = (Some(stream), true, None);
        Self { conn, stream, readable, watches_room, write_shut, read_shut, offer }
    }

    fn is_keeping(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_keeping)
    }

    /// The host takes nothing more; what was kept for it is lost.
    fn host_is_gone(&mut self) {
        self.conn.host_receives_no_more();
        let lost = self.stream.as_mut().map_or(0, Stream::discard);
        self.conn.forwarded(u32::try_from(lost).unwrap_or(u32::MAX));
    }

    /// Ends the directions of the socket that the guest has ended.
    fn end_directions(&mut self) {
        let Some(stream) = &self.stream else { return };
        if self.conn.guest_sends_no_more() && !self.write_shut && !stream.is_keeping() {
            self.write_shut = true;
            stream.shutdown(Shutdown::Write);
        }
        if self.conn.guest_receives_no_more() && !self.read_shut {
            self.read_shut = true;
            stream.shutdown(Shutdown::Read);
        }
    }

    fn has_output(&self) -> bool {
        self.conn.has_control(self.readable) || (self.readable && self.conn.credit() > 0)
    }

    /// Its next packet for the guest.
    fn produce(&mut self, room: &Buffers<'_>) -> Option<Header> {
        if let Some(header) = self.conn.next_control(self.readable) {
            return Some(header);
        }
        let credit = usize::try_from(self.conn.credit()).unwrap_or(usize::MAX);
        if !self.readable || credit == 0 {
            return None;
        }
        let limit = credit.min(room.len() - HEADER_LEN).min(MAX_DATA);
        if limit == 0 {
            // A buffer without room for data; something must be in it.
            return Some(self.conn.credit_update());
        }
        match self.stream.as_mut()?.read(room.range(HEADER_LEN, limit)) {
            Ok(Filled::Bytes(count)) => return Some(self.conn.send(u32::try_from(count).ok()?)),
            Ok(Filled::Empty) => {}
            Ok(Filled::End) => self.conn.host_sends_no_more(),
            Err(_) => {
                self.conn.host_sends_no_more();
                self.host_is_gone();
            }
        }
        self.readable = false;
        None
    }
}

#[cfg(test)]
#[path = "muxer_test.rs"]
mod muxer_test;
