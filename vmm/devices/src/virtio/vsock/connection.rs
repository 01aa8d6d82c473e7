//! One connection as the protocol sees it: its state and both sides' credit (virtio 1.2, 5.10.6.3).
//!
//! Pure: packets and events go in, [`Verdict`]s and headers come out; sockets are elsewhere.
//!
//! ```text
//!  guest's REQUEST ──► Offered ── accepted ──► Open ──► (shutdowns both ways, RST) ──► gone
//!  host's fd ────────► Requesting ─ RESPONSE ──┘
//! ```
//!
//! Invariants: we never have more bytes under way to the guest than it has room for, and never hold
//! more bytes of it than we promised room for. Counters wrap, as the specification has it.

use super::packet::{
    HOST_CID, Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};

/// What names a connection; the guest's and the host's context ids are always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// The port on the host's side.
    pub(super) host_port: u32,
    /// The port on the guest's side.
    pub(super) guest_port: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The guest asked; the host has not taken it yet.
    Offered,
    /// The host asked; the guest has not answered yet.
    Requesting,
    /// Data flows.
    Open,
}

/// What a packet from the guest leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The state changed at most.
    Noted,
    /// The guest accepted.
    Established,
    /// The packet's data is to be passed on.
    Data,
    /// The packet's data is to be thrown away: the host takes no more.
    Discard,
    /// The guest ended the connection: forget it without an answer.
    Ended,
    /// The guest broke the protocol: answer with a reset and forget the connection.
    Violation,
}

/// The guest's side of the credit: what it has room for.
#[derive(Clone, Copy, Debug, Default)]
struct Outgoing {
    /// Size of the guest's buffer.
    allowed: u32,
    /// What it says it has taken out of the buffer.
    consumed: u32,
    /// What we have sent.
    sent: u32,
    /// A request for credit has been sent, and none came yet.
    asked: bool,
}

/// Our side of the credit: what we have room for.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    /// Size of our buffer.
    promised: u32,
    /// What came from the guest.
    received: u32,
    /// What was passed on to the host.
    forwarded: u32,
    /// The `forwarded` that the guest knows of.
    told: u32,
    /// The guest asked for an update.
    update: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    key: Key,
    guest_cid: u64,
    state: State,
    /// A REQUEST or RESPONSE is to be sent.
    announce: bool,
    outgoing: Outgoing,
    incoming: Incoming,
    /// `SHUTDOWN_*`: what the guest will no longer do.
    guest_closed: u32,
    /// `SHUTDOWN_*`: what we will no longer do.
    host_closed: u32,
    /// The `host_closed` that the guest knows of.
    told_closed: u32,
}

impl Connection {
    /// The guest asked for it with `request`.
    pub(super) fn offered(key: Key, guest_cid: u64, promised: u32, request: &Header) -> Self {
        let mut this = Self::new(key, guest_cid, promised, State::Offered);
        this.outgoing.note(request);
        this
    }

    /// The host asks for it.
    pub(super) fn requesting(key: Key, guest_cid: u64, promised: u32) -> Self {
        let mut this = Self::new(key, guest_cid, promised, State::Requesting);
        this.announce = true;
        this
    }

    fn new(key: Key, guest_cid: u64, promised: u32, state: State) -> Self {
        let incoming = Incoming { promised, received: 0, forwarded: 0, told: 0, update: false };
        let outgoing = Outgoing::default();
        let (announce, guest_closed, host_closed, told_closed) = (false, 0, 0, 0);
        Self {
            key,
            guest_cid,
            state,
            announce,
            outgoing,
            incoming,
            guest_closed,
            host_closed,
            told_closed,
        }
    }

    /// Its name.
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// What we promised to buffer.
    pub(super) fn promised(&self) -> u32 {
        self.incoming.promised
    }

    /// The host took the guest's offer.
    pub(super) fn accept(&mut self) {
        if self.state == State::Offered {
            self.state = State::Open;
            self.announce = true;
        }
    }

    /// A packet for this connection came from the guest.
    pub(super) fn packet(&mut self, header: &Header) -> Verdict {
        let Some(op) = Op::parse(header.op) else { return Verdict::Violation };
        self.outgoing.note(header);
        match (self.state, op) {
            (_, Op::Rst) => Verdict::Ended,
            (State::Requesting, Op::Response) => {
                self.state = State::Open;
                Verdict::Established
            }
            (State::Open, Op::Rw) => self.data(header.len),
            (State::Open | State::Offered, Op::Shutdown) => {
                self.guest_closed |= header.flags & SHUTDOWN_BOTH;
                Verdict::Noted
            }
            (State::Open, Op::CreditUpdate) => Verdict::Noted,
            (State::Open, Op::CreditRequest) => {
                self.incoming.update = true;
                Verdict::Noted
            }
            _ => Verdict::Violation,
        }
    }

    fn data(&mut self, len: u32) -> Verdict {
        let room = self.incoming.promised.saturating_sub(self.held());
        if self.guest_closed & SHUTDOWN_SEND != 0 || len > room {
            return Verdict::Violation;
        }
        self.incoming.received = self.incoming.received.wrapping_add(len);
        if self.host_closed & SHUTDOWN_RECEIVE != 0 {
            self.forwarded(len);
            return Verdict::Discard;
        }
        Verdict::Data
    }

    /// Bytes that came from the guest and were not passed on yet.
    fn held(&self) -> u32 {
        self.incoming.received.wrapping_sub(self.incoming.forwarded)
    }

    /// `len` bytes from the guest were passed on to the host, or thrown away.
    pub(super) fn forwarded(&mut self, len: u32) {
        let len = len.min(self.held());
        self.incoming.forwarded = self.incoming.forwarded.wrapping_add(len);
    }

    /// The host will send no more.
    pub(super) fn host_sends_no_more(&mut self) {
        self.host_closed |= SHUTDOWN_SEND;
    }

    /// The host will take no more.
    pub(super) fn host_receives_no_more(&mut self) {
        self.host_closed |= SHUTDOWN_RECEIVE;
    }

    /// The guest will send no more.
    pub(super) fn guest_sends_no_more(&self) -> bool {
        self.guest_closed & SHUTDOWN_SEND != 0
    }

    /// The guest will take no more.
    pub(super) fn guest_receives_no_more(&self) -> bool {
        self.guest_closed & SHUTDOWN_RECEIVE != 0
    }

    /// The guest has ended both directions and waits for our reset.
    pub(super) fn guest_is_done(&self) -> bool {
        self.guest_closed == SHUTDOWN_BOTH
    }

    /// Nothing flows from the host to the guest any more.
    pub(super) fn outgoing_done(&self) -> bool {
        self.host_closed & SHUTDOWN_SEND != 0 || self.guest_receives_no_more()
    }

    /// Nothing flows from the guest to the host any more.
    pub(super) fn incoming_done(&self) -> bool {
        let sent_all = self.guest_sends_no_more() && self.held() == 0;
        sent_all || self.host_closed & SHUTDOWN_RECEIVE != 0
    }

    /// Bytes that may be sent to the guest now.
    pub(super) fn credit(&self) -> u32 {
        if self.state != State::Open || self.announce || self.outgoing_done() {
            return 0;
        }
        self.outgoing.free()
    }

    /// Whether data could flow to the guest if only it had room: time to ask.
    fn stalled(&self, readable: bool) -> bool {
        let open = self.state == State::Open && !self.outgoing_done();
        readable && open && !self.outgoing.asked && self.outgoing.free() == 0
    }

    /// The guest sees less than half of our buffer free, and there is news for it.
    fn update_due(&self) -> bool {
        let incoming = &self.incoming;
        let seen = incoming.received.wrapping_sub(incoming.told);
        let news = incoming.forwarded != incoming.told && seen > incoming.promised / 2;
        incoming.update || (news && !self.guest_sends_no_more())
    }

    /// Whether a packet without data is to be sent. `readable`: the host has data for the guest.
    pub(super) fn has_control(&self, readable: bool) -> bool {
        let open = self.state == State::Open;
        let closes = self.host_closed != self.told_closed;
        self.announce || (open && (closes || self.stalled(readable) || self.update_due()))
    }

    /// The next packet without data, if one is to be sent.
    pub(super) fn next_control(&mut self, readable: bool) -> Option<Header> {
        if !self.has_control(readable) {
            return None;
        }
        let op = if self.announce {
            self.announce = false;
            if self.state == State::Requesting { Op::Request } else { Op::Response }
        } else if self.host_closed != self.told_closed {
            self.told_closed = self.host_closed;
            Op::Shutdown
        } else if self.stalled(readable) {
            self.outgoing.asked = true;
            Op::CreditRequest
        } else {
            Op::CreditUpdate
        };
        let mut header = self.header(op);
        if op == Op::Shutdown {
            header.flags = self.told_closed;
        }
        Some(header)
    }

    /// `len` bytes, at most [`Connection::credit`], go to the guest under this header.
    pub(super) fn send(&mut self, len: u32) -> Header {
        self.outgoing.sent = self.outgoing.sent.wrapping_add(len);
        Header { len, ..self.header(Op::Rw) }
    }

    /// A packet that says nothing but our credit.
    pub(super) fn credit_update(&mut self) -> Header {
        self.header(Op::CreditUpdate)
    }

    /// The packet that ends the connection.
    pub(super) fn reset(&mut self) -> Header {
        self.header(Op::Rst)
    }

    /// Every packet tells our credit.
    fn header(&mut self, op: Op) -> Header {
        self.incoming.told = self.incoming.forwarded;
        self.incoming.update = false;
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: self.key.host_port,
            dst_port: self.key.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op: op as u16,
            flags: 0,
            buf_alloc: self.incoming.promised,
            fwd_cnt: self.incoming.forwarded,
        }
    }
}

impl Outgoing {
    /// Every packet tells the guest's credit.
    fn note(&mut self, header: &Header) {
        self.allowed = header.buf_alloc;
        self.consumed = header.fwd_cnt;
        if self.free() > 0 {
            self.asked = false;
        }
    }

    /// What the guest has room for. A guest that shrinks its buffer, or says that it consumed what was
    /// never sent, has no room.
    fn free(&self) -> u32 {
        self.allowed.saturating_sub(self.sent.wrapping_sub(self.consumed))
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod connection_test;
