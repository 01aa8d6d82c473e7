//! Which socket takes connections to the loopback addresses of a network namespace: a program of the kernel
//! (`BPF_PROG_TYPE_SK_LOOKUP`, since Linux 5.9) that gives those of TCP to one per family, whatever their port.
//!
//! Invariant: the program works as long as the descriptor of its link is open, and no longer.
#![allow(unsafe_code, reason = "`bpf(2)` has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Commands of `bpf(2)`, as in `linux/bpf.h`.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;

/// `BPF_MAP_TYPE_SOCKMAP`, `BPF_PROG_TYPE_SK_LOOKUP` and `BPF_SK_LOOKUP` of `linux/bpf.h`.
const SOCKMAP: u32 = 15;
const SK_LOOKUP_PROGRAM: u32 = 30;
const SK_LOOKUP: u32 = 36;

/// Bytes of a key and a value of the map.
const KEY: u32 = 4;
const VALUE: u32 = 8;

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` needs.
#[repr(C)]
struct NewMap {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The part that `BPF_MAP_UPDATE_ELEM` needs.
#[repr(C)]
struct Element {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part that `BPF_PROG_LOAD` needs.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    flags: u64,
    name: [u64; 2],
    interface: u32,
    attach_type: u32,
}

/// The part that `BPF_LINK_CREATE` needs.
#[repr(C)]
struct NewLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// An instruction (`struct bpf_insn`): operation; source and destination; offset; operand.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

/// Operations: 64-bit arithmetic, 32-bit loads and stores, jumps.
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const ADD_NUMBER: u8 = 0x07;
const AND_NUMBER: u8 = 0x57;
const LOAD: u8 = 0x61;
const LOAD_MAP: u8 = 0x18;
const STORE_NUMBER: u8 = 0x62;
const JUMP: u8 = 0x05;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_OTHER: u8 = 0x55;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// In the place of the source of [`LOAD_MAP`]: the operand is a descriptor.
const BY_DESCRIPTOR: u8 = 1;

/// Functions of the kernel.
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

/// Fields of `struct bpf_sk_lookup`; addresses are in network order.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;

/// `SK_PASS`: go on, with the socket that was assigned, if one was.
const PASS: i32 = 1;

/// TCP to 127.0.0.0/8 goes to the first socket in `map`, that to `::1` to the second. Comments count the instructions: a jump goes to the next
/// one and as many further.
const fn program(map: RawFd) -> [Instruction; 35] {
    const FIRST_OCTET: i32 = i32::from_ne_bytes([0xff, 0, 0, 0]);
    const LOOPBACK: i32 = i32::from_ne_bytes([127, 0, 0, 0]);
    const ONE: i32 = i32::from_ne_bytes([0, 0, 0, 1]);
    const fn i(op: u8, source: u8, destination: u8, offset: i16, operand: i32) -> Instruction {
        Instruction(op, source << 4 | destination, offset, operand)
    }
    [
        /*  0 */ i(MOVE, 1, 6, 0, 0),
        /*  1 */ i(LOAD, 6, 0, PROTOCOL, 0),
        /*  2 */ i(JUMP_IF_OTHER, 0, 0, 30, libc::IPPROTO_TCP),
        /*  3 */ i(LOAD, 6, 0, FAMILY, 0),
        /*  4 */ i(JUMP_IF_EQUAL, 0, 0, 6, libc::AF_INET6),
        /*  5 */ i(JUMP_IF_OTHER, 0, 0, 27, libc::AF_INET),
        /*  6 */ i(LOAD, 6, 0, LOCAL_IP4, 0),
        /*  7 */ i(AND_NUMBER, 0, 0, 0, FIRST_OCTET),
        /*  8 */ i(JUMP_IF_OTHER, 0, 0, 24, LOOPBACK),
        /*  9 */ i(STORE_NUMBER, 0, 10, -4, 0),
        /* 10 */ i(JUMP, 0, 0, 9, 0),
        /* 11 */ i(LOAD, 6, 0, LOCAL_IP6, 0),
        /* 12 */ i(JUMP_IF_OTHER, 0, 0, 20, 0),
        /* 13 */ i(LOAD, 6, 0, LOCAL_IP6 + 4, 0),
        /* 14 */ i(JUMP_IF_OTHER, 0, 0, 18, 0),
        /* 15 */ i(LOAD, 6, 0, LOCAL_IP6 + 8, 0),
        /* 16 */ i(JUMP_IF_OTHER, 0, 0, 16, 0),
        /* 17 */ i(LOAD, 6, 0, LOCAL_IP6 + 12, 0),
        /* 18 */ i(JUMP_IF_OTHER, 0, 0, 14, ONE),
        /* 19 */ i(STORE_NUMBER, 0, 10, -4, 1),
        /* 20 */ i(LOAD_MAP, BY_DESCRIPTOR, 1, 0, map),
        /* 21 */ i(0, 0, 0, 0, 0),
        /* 22 */ i(MOVE, 10, 2, 0, 0),
        /* 23 */ i(ADD_NUMBER, 0, 2, 0, -4),
        /* 24 */ i(CALL, 0, 0, 0, MAP_LOOKUP_ELEM),
        /* 25 */ i(JUMP_IF_EQUAL, 0, 0, 7, 0),
        /* 26 */ i(MOVE, 0, 7, 0, 0),
        /* 27 */ i(MOVE, 6, 1, 0, 0),
        /* 28 */ i(MOVE, 0, 2, 0, 0),
        /* 29 */ i(MOVE_NUMBER, 0, 3, 0, 0),
        /* 30 */ i(CALL, 0, 0, 0, SK_ASSIGN),
        /* 31 */ i(MOVE, 7, 1, 0, 0),
        /* 32 */ i(CALL, 0, 0, 0, SK_RELEASE),
        /* 33 */ i(MOVE_NUMBER, 0, 0, 0, PASS),
        /* 34 */ i(EXIT, 0, 0, 0, 0),
    ]
}

/// Has listening TCP sockets take all TCP connections to loopback addresses of the network namespace that `network` is
/// open on, as long as the descriptor that this gives is open: by IPv4, and if there is a second one by IPv6.
///
/// # Errors
/// Those of `bpf(2)`.
pub(crate) fn take_loopback(
    listeners: (BorrowedFd<'_>, Option<BorrowedFd<'_>>),
    network: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let new = NewMap { map_type: SOCKMAP, key_size: KEY, value_size: VALUE, max_entries: 2 };
    // SAFETY: no pointers in it.
    let map = unsafe { bpf(MAP_CREATE, &new) }.map(owned)?;
    let (v4, v6) = listeners;
    for (key, listener) in (0_u32..).zip([Some(v4), v6].into_iter().flatten()) {
        let value = u64::from(number(listener.as_raw_fd()));
        let (key, value) = (&raw const key as u64, &raw const value as u64);
        let element = Element { map: number(map.as_raw_fd()).into(), key, value, flags: 0 };
        // SAFETY: the key and the value have the sizes that the map was made with, and outlive the call.
        unsafe { bpf(MAP_UPDATE_ELEM, &element) }?;
    }
    let program = program(map.as_raw_fd());
    let load = Load {
        program_type: SK_LOOKUP_PROGRAM,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"".as_ptr() as u64,
        log: [0; 2],
        flags: 0,
        name: [0; 2],
        interface: 0,
        attach_type: SK_LOOKUP,
    };
    // SAFETY: the instructions, as many as are told of, and the text outlive the call; no log is asked for.
    let program = unsafe { bpf(PROG_LOAD, &load) }.map(owned)?;
    let (program, target) = (number(program.as_raw_fd()), number(network.as_raw_fd()));
    let new = NewLink { program, target, attach_type: SK_LOOKUP, flags: 0 };
    // SAFETY: no pointers in it.
    unsafe { bpf(LINK_CREATE, &new) }.map(owned)
}

/// `bpf(2)`.
///
/// # Safety
/// What `attributes` points to is as `command` expects it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    let size = size_of::<T>();
    // SAFETY: the kernel reads as many bytes as there are; the rest is for the caller to see to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// A descriptor that `bpf(2)` has made.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: new, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A descriptor as attributes have it; an open one is not negative.
fn number(fd: RawFd) -> u32 {
    fd.cast_unsigned()
}

#[cfg(test)]
#[path = "lookup_test.rs"]
mod lookup_test;
