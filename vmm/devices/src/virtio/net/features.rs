//! Feature bits (virtio 1.2, 5.1.3), and what they mean to a tap.
//!
//! Invariant: a tap is asked for no offload that the driver has not agreed to.

/// The driver leaves checksums to the device.
pub(super) const CSUM: u64 = 1 << 0;
/// The driver takes packets without checksums.
pub(super) const GUEST_CSUM: u64 = 1 << 1;
/// The configuration has an MTU.
pub(super) const MTU: u64 = 1 << 3;
/// The configuration has a MAC address.
pub(super) const MAC: u64 = 1 << 5;
/// The driver takes large TCP packets.
pub(super) const GUEST_TSO4: u64 = 1 << 7;
/// The same for IPv6.
pub(super) const GUEST_TSO6: u64 = 1 << 8;
/// The same with ECN.
pub(super) const GUEST_ECN: u64 = 1 << 9;
/// The device takes large TCP packets.
pub(super) const HOST_TSO4: u64 = 1 << 11;
/// The same for IPv6.
pub(super) const HOST_TSO6: u64 = 1 << 12;
/// The same with ECN.
pub(super) const HOST_ECN: u64 = 1 << 13;
/// A packet may be spread over several receive buffers.
pub(super) const MRG_RXBUF: u64 = 1 << 15;
/// The configuration has a status.
pub(super) const STATUS: u64 = 1 << 16;
/// There is a control queue.
pub(super) const CTRL_VQ: u64 = 1 << 17;
/// It takes receive modes.
pub(super) const CTRL_RX: u64 = 1 << 18;
/// And the finer ones.
pub(super) const CTRL_RX_EXTRA: u64 = 1 << 20;
/// There may be several queue pairs.
pub(super) const MQ: u64 = 1 << 22;
/// The control queue sets the MAC address.
pub(super) const CTRL_MAC_ADDR: u64 = 1 << 23;
/// The driver takes large UDP packets to be cut.
pub(super) const GUEST_USO4: u64 = 1 << 54;
/// The same for IPv6.
pub(super) const GUEST_USO6: u64 = 1 << 55;
/// The device takes large UDP packets to be cut.
pub(super) const HOST_USO: u64 = 1 << 56;

/// What every tap can.
pub(super) const OFFLOADS: u64 =
    CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | HOST_TSO4 | HOST_TSO6 | HOST_ECN;

/// What a tap of Linux 6.2 and later can besides.
pub(super) const UDP_OFFLOADS: u64 = GUEST_USO4 | GUEST_USO6 | HOST_USO;

/// `TUN_F_*` of `linux/if_tun.h`.
const TUN_CSUM: u32 = 1;
const TUN_TSO4: u32 = 2;
const TUN_TSO6: u32 = 4;
const TUN_TSO_ECN: u32 = 8;
/// The kernel takes both or none.
const TUN_USO: u32 = 0x20 | 0x40;

/// What to tell the tap that its reader takes.
pub(super) fn tap_offloads(features: u64) -> u32 {
    // Everything else builds on it (virtio 1.2, 5.1.3.1).
    if features & GUEST_CSUM == 0 {
        return 0;
    }
    let mut offloads = TUN_CSUM;
    let mut add = |needed: u64, bits: u32| {
        if features & needed == needed {
            offloads |= bits;
        }
    };
    add(GUEST_TSO4, TUN_TSO4);
    add(GUEST_TSO6, TUN_TSO6);
    if features & (GUEST_TSO4 | GUEST_TSO6) != 0 {
        add(GUEST_ECN, TUN_TSO_ECN);
    }
    add(GUEST_USO4 | GUEST_USO6, TUN_USO);
    offloads
}
