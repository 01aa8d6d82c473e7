use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vm_memory::{GuestAddress, GuestMemory, Permissions};

use super::super::table::MAX_CONNECTIONS;
use super::*;

fn muxer() -> (Muxer, Backend) {
    let (a, b) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let epoll = Arc::new(Epoll::new().unwrap());
    (Muxer::new(3, Backend::new(a), epoll, Arc::default()).unwrap(), Backend::new(b))
}

fn request(guest_port: u32) -> Header {
    Header {
        src_cid: 3,
        dst_cid: HOST_CID,
        src_port: guest_port,
        dst_port: 1024,
        kind: TYPE_STREAM,
        op: Op::Request as u16,
        buf_alloc: 1 << 16,
        ..Header::default()
    }
}

/// Runs `work` with room for a packet of one page.
fn with_room<T>(work: impl FnOnce(&Buffers<'_>) -> T) -> T {
    let ram = crate::ram::fixed(
        vm_memory::GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap(),
    );
    let slices = ram.get_slices(GuestAddress(0), 4096, Permissions::Write).unwrap();
    work(&Buffers::of(slices.map(Result::unwrap).collect()))
}

fn produce(muxer: &mut Muxer, now: Instant) -> Option<Header> {
    with_room(|room| muxer.produce(room, now))
}

fn receive(muxer: &mut Muxer, header: &Header, now: Instant) {
    with_room(|packet| muxer.receive(header, packet, now));
}

#[test]
fn a_request_of_the_host_that_nobody_answers_ends() {
    let (mut muxer, host) = muxer();
    let now = Instant::now();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    assert!(host.offer(80, theirs.as_fd()).unwrap());
    drop(theirs);
    muxer.connections_event(EventSet::IN, now);
    assert_eq!(produce(&mut muxer, now).unwrap().op, Op::Request as u16);
    assert_eq!(muxer.next_deadline(), Some(now + PATIENCE));

    muxer.expire(now + PATIENCE);

    assert_eq!(produce(&mut muxer, now).unwrap().op, Op::Rst as u16);
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    assert_eq!(muxer.next_deadline(), None);
}

#[test]
fn an_answer_ends_the_waiting() {
    let (mut muxer, host) = muxer();
    let now = Instant::now();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    assert!(host.offer(80, theirs.as_fd()).unwrap());
    muxer.connections_event(EventSet::IN, now);
    let asked = produce(&mut muxer, now).unwrap();

    let answer = Header { dst_port: asked.src_port, op: Op::Response as u16, ..request(80) };
    receive(&mut muxer, &answer, now);

    assert_eq!(muxer.next_deadline(), None);
}

#[test]
fn a_guest_that_does_not_answer_our_end_is_reset() {
    let (mut muxer, host) = muxer();
    let now = Instant::now();
    receive(&mut muxer, &request(5000), now);
    drop(host.take());
    assert_eq!(produce(&mut muxer, now).unwrap().op, Op::Response as u16);
    let id = muxer.links.find(Key { host_port: 1024, guest_port: 5000 }).unwrap();

    muxer.socket_event(id, EventSet::IN | EventSet::HANG_UP, now);

    let mut flags = 0;
    while let Some(header) = produce(&mut muxer, now) {
        flags |= header.flags;
    }
    assert_eq!(flags, 3);
    muxer.expire(now + PATIENCE);
    assert_eq!(produce(&mut muxer, now).unwrap().op, Op::Rst as u16);
    assert!(!muxer.links.has_name(id));
}

#[test]
fn offers_wait_for_room_and_withdrawn_ones_are_not_made() {
    let (mut muxer, host) = muxer();
    let now = Instant::now();
    // Each offer costs two descriptors, and more than the socket takes are wanted.
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(limit).unwrap();
    nix::sys::resource::setrlimit(limit, hard, hard).unwrap();
    let mut port = 0;
    while muxer.offers.len() < 10 {
        receive(&mut muxer, &request(port), now);
        port += 1;
        assert!(port < 2000);
    }
    let withdrawn = Header { op: Op::Rst as u16, ..request(port - 2) };
    receive(&mut muxer, &withdrawn, now);
    assert_eq!(muxer.offers.len(), 9);

    let mut taken = 0;
    loop {
        while matches!(host.take(), Arrival::Connection(1024, _)) {
            taken += 1;
        }
        if muxer.offers.is_empty() {
            break;
        }
        muxer.connections_event(EventSet::OUT, now);
    }

    assert_eq!(taken, port - 1);
    drop(host);
    receive(&mut muxer, &request(9999), now);
    assert!(muxer.resets.iter().any(|reset| reset.dst_port == 9999));
}

#[test]
fn requests_beyond_the_limit_are_refused() {
    let (mut muxer, host) = muxer();
    let now = Instant::now();
    // The table alone is filled: so many descriptors are not to be had everywhere.
    for guest_port in 0..u32::try_from(MAX_CONNECTIONS).unwrap() {
        let key = Key { host_port: 1, guest_port };
        let conn = Connection::requesting(key, 3, 1);
        let mut link = Link::new(conn, Stream::new(Backend::pair().unwrap().0).unwrap());
        link.stream = None;
        muxer.links.insert(key, 1, link).unwrap();
    }

    receive(&mut muxer, &request(5000), now);

    assert_eq!(produce(&mut muxer, now).unwrap().op, Op::Rst as u16);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    assert!(host.offer(80, theirs.as_fd()).unwrap());
    drop(theirs);
    muxer.connections_event(EventSet::IN, now);
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    assert!(ours.write_all(b"x").is_err());
}
