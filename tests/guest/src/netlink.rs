//! Gives the network card an address, as `ip` would (`rtnetlink(7)`).
//!
//! Invariant: every request is acknowledged, or an error.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::Outcome;

/// Requests (`linux/rtnetlink.h`).
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;

/// `NLM_F_REQUEST | NLM_F_ACK`, and with `NLM_F_CREATE | NLM_F_EXCL`.
const ASK: u16 = 0x5;
const MAKE: u16 = 0x605;

/// `IFF_UP`.
const UP: u32 = 1;

/// `AF_INET`.
const INET: u8 = 2;

/// `IFA_ADDRESS` and `IFA_LOCAL`.
const ADDRESSES: [u16; 2] = [1, 2];

/// Switches the interface `name` on, with `address` in a network of 256.
pub(crate) fn set_up(name: &str, address: Ipv4Addr) -> Outcome {
    let index: u32 =
        fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?.trim().parse()?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let mut body = vec![INET, 24, 0, 0];
    body.extend(index.to_ne_bytes());
    for kind in ADDRESSES {
        body.extend([8, kind].map(u16::to_ne_bytes).concat());
        body.extend(address.octets());
    }
    ask(&socket, (NEW_ADDRESS, MAKE), &body)?;
    // Family, padding and type; then index, flags and which flags are meant.
    let body = [0, index, UP, UP].map(u32::to_ne_bytes).concat();
    ask(&socket, (NEW_LINK, ASK), &body)
}

fn ask(socket: &OwnedFd, (kind, flags): (u16, u16), body: &[u8]) -> Outcome {
    let mut message = u32::try_from(16 + body.len())?.to_ne_bytes().to_vec();
    message.extend([kind, flags].map(u16::to_ne_bytes).concat());
    message.extend([0; 8]);
    message.extend(body);
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 256];
    recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(-error).into()),
    }
}
