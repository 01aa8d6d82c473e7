//! The header before each packet, `struct virtio_net_hdr` (virtio 1.2, 5.1.6): pure.
//!
//! What the driver writes is checked field by field and built anew before the host's kernel sees it: a
//! field that the others do not give a meaning is zero.
//!
//! Invariant: a header from [`check`] asks for nothing that the features do not allow, names no byte
//! outside of its frame, and has the kernel cut a frame into [`MAX_SEGMENTS`] packets at most.

use super::features::{
    CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_USO4, GUEST_USO6, HOST_ECN, HOST_TSO4,
    HOST_TSO6, HOST_USO,
};

/// Bytes of the header of a modern device, `num_buffers` included.
pub(super) const HEADER_LEN: u32 = 12;

/// Where `num_buffers` is.
pub(super) const NUM_BUFFERS: u32 = 10;

/// Bytes of an Ethernet header; a tag of a virtual LAN needs four more.
pub(super) const ETHERNET: u32 = 14;
const VLAN: u32 = 4;

/// The longest frame: the longest IP packet, in Ethernet.
pub(super) const MAX_FRAME: u32 = ETHERNET + VLAN + 65535;

/// Most packets that one frame may be cut into. The least segment that TCP uses is 48 bytes.
const MAX_SEGMENTS: u32 = 2048;

/// `flags`: the checksum is to be filled in.
const NEEDS_CSUM: u8 = 1;

/// `gso_type`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Why a frame is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHeader {
    #[error("a frame of {0} bytes")]
    Length(u32),
    #[error("an offload that was not agreed on")]
    Feature,
    #[error("a checksum outside of the frame")]
    Checksum,
    #[error("segments of {0} bytes")]
    Segments(u16),
    #[error("headers longer than the frame")]
    HeaderLength,
}

/// Judges the header of a frame of `len` bytes from the driver; the header for the tap.
pub(super) fn check(
    header: [u8; HEADER_LEN as usize],
    len: u32,
    features: u64,
) -> Result<[u8; HEADER_LEN as usize], BadHeader> {
    if !(ETHERNET..=MAX_FRAME).contains(&len) {
        return Err(BadHeader::Length(len));
    }
    let [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1, _, _] = header;
    let mut checked = [0; HEADER_LEN as usize];
    // Bits that are not known are ignored (virtio 1.2, 5.1.6.2.2).
    let needs_csum = flags & NEEDS_CSUM != 0;
    if needs_csum {
        if features & CSUM == 0 {
            return Err(BadHeader::Feature);
        }
        let [start, offset] = [[c0, c1], [o0, o1]].map(u16::from_le_bytes).map(u32::from);
        if start + offset + 2 > len {
            return Err(BadHeader::Checksum);
        }
        checked[0] = NEEDS_CSUM;
        checked[6..10].copy_from_slice(&[c0, c1, o0, o1]);
    }
    if gso == GSO_NONE {
        return Ok(checked);
    }
    // Packets that are cut out need their checksums filled in (virtio 1.2, 5.1.6.2.1).
    if !needs_csum {
        return Err(BadHeader::Checksum);
    }
    if gso_feature(gso).is_none_or(|needed| features & needed != needed) {
        return Err(BadHeader::Feature);
    }
    let size = u16::from_le_bytes([s0, s1]);
    if size == 0 || len.div_ceil(size.into()) > MAX_SEGMENTS {
        return Err(BadHeader::Segments(size));
    }
    if u32::from(u16::from_le_bytes([h0, h1])) > len {
        return Err(BadHeader::HeaderLength);
    }
    checked[1..6].copy_from_slice(&[gso, h0, h1, s0, s1]);
    Ok(checked)
}

/// The features that a segmentation needs; `None` if there is no such segmentation.
fn gso_feature(gso: u8) -> Option<u64> {
    match (gso & !GSO_ECN, gso & GSO_ECN != 0) {
        (GSO_TCPV4, false) => Some(HOST_TSO4),
        (GSO_TCPV4, true) => Some(HOST_TSO4 | HOST_ECN),
        (GSO_TCPV6, false) => Some(HOST_TSO6),
        (GSO_TCPV6, true) => Some(HOST_TSO6 | HOST_ECN),
        (GSO_UDP_L4, false) => Some(HOST_USO),
        _ => None,
    }
}

/// Most bytes of a packet for the driver, header included, at an MTU of `mtu`.
pub(super) fn longest(features: u64, mtu: u16) -> u32 {
    let large = GUEST_TSO4 | GUEST_TSO6 | GUEST_USO4 | GUEST_USO6;
    let frame = match features & GUEST_CSUM != 0 && features & large != 0 {
        true => MAX_FRAME,
        false => ETHERNET + VLAN + u32::from(mtu),
    };
    HEADER_LEN + frame
}

#[cfg(test)]
#[path = "header_test.rs"]
mod header_test;
