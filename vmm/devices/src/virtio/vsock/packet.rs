//! The header every packet begins with (virtio 1.2, 5.10.6).
//!
//! Invariant: any 44 bytes parse; what they mean is checked by whoever uses them.

/// Length of the header in bytes.
pub(super) const HEADER_LEN: usize = 44;

/// The host's context id (virtio 1.2, 5.10.4).
pub(super) const HOST_CID: u64 = 2;

/// Stream sockets, the only type this device has (virtio 1.2, 5.10.6).
pub(super) const TYPE_STREAM: u16 = 1;

/// Flag of [`Op::Shutdown`]: the sender will receive no more data (virtio 1.2, 5.10.6.5).
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;

/// Flag of [`Op::Shutdown`]: the sender will send no more data.
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// Both flags of [`Op::Shutdown`].
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet is for (virtio 1.2, 5.10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    /// Asks for a connection.
    Request = 1,
    /// Accepts one.
    Response = 2,
    /// Refuses or ends one at once.
    Rst = 3,
    /// Ends one or both of its directions.
    Shutdown = 4,
    /// Data.
    Rw = 5,
    /// Says how much buffer space there is.
    CreditUpdate = 6,
    /// Asks for a [`Op::CreditUpdate`].
    CreditRequest = 7,
}

impl Op {
    /// The operation of this number.
    pub(super) fn parse(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Rst,
            4 => Self::Shutdown,
            5 => Self::Rw,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Who sends.
    pub(super) src_cid: u64,
    /// Who receives.
    pub(super) dst_cid: u64,
    /// The sender's port.
    pub(super) src_port: u32,
    /// The receiver's port.
    pub(super) dst_port: u32,
    /// Bytes of data that follow.
    pub(super) len: u32,
    /// The type of socket.
    pub(super) kind: u16,
    /// The operation.
    pub(super) op: u16,
    /// Flags of the operation.
    pub(super) flags: u32,
    /// Size of the sender's receive buffer.
    pub(super) buf_alloc: u32,
    /// Bytes the sender has ever taken out of its receive buffer, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Reads a header.
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    /// Writes the header.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The reset that answers this packet; none answers a reset, or two sides would go on for ever.
    pub(super) fn refusal(&self, guest_cid: u64) -> Option<Self> {
        (self.op != Op::Rst as u16).then(|| Self {
            src_cid: self.dst_cid,
            dst_cid: guest_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Rst as u16,
            ..Self::default()
        })
    }
}

#[cfg(test)]
#[path = "packet_test.rs"]
mod packet_test;
