//! The whole device, driven by a miniature driver.

mod bulk;
mod driver;
mod hostile;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use self::driver::{CID, Driver, Packet, Setup};
use super::backend::Arrival;
use super::packet::{
    HOST_CID, Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use super::*;

/// The host's supervisor.
struct Host(Backend);

impl Host {
    fn try_take(&self) -> Option<(u32, UnixStream)> {
        match self.0.take() {
            Arrival::Connection(port, socket) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                Some((port, stream))
            }
            Arrival::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    fn take(&self) -> (u32, UnixStream) {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the device offers no connection");
    }

    fn connect(&self, port: u32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(self.0.offer(port, theirs.as_fd()).unwrap());
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        ours
    }
}

fn device(setup: &Setup) -> (Driver, Host) {
    let (a, b) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    (Driver::new(a, setup), Host(Backend::new(b)))
}

const PORTS: (u32, u32) = (5000, 1024);

/// A packet from the guest's port to the host's.
fn packet(op: Op, (guest, host): (u32, u32)) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: guest,
        dst_port: host,
        kind: TYPE_STREAM,
        op: op as u16,
        buf_alloc: 256 << 10,
        ..Header::default()
    }
}

fn data(ports: (u32, u32), bytes: &[u8]) -> Header {
    Header { len: u32::try_from(bytes.len()).unwrap(), ..packet(Op::Rw, ports) }
}

fn shutdown(ports: (u32, u32), flags: u32) -> Header {
    Header { flags, ..packet(Op::Shutdown, ports) }
}

fn op(packet: &Packet) -> Op {
    Op::parse(packet.0.op).unwrap()
}

/// Opens a connection from the guest.
fn open(driver: &mut Driver, host: &Host, ports: (u32, u32)) -> UnixStream {
    driver.send(&packet(Op::Request, ports), &[]);
    let response = driver.receive();
    assert_eq!(op(&response), Op::Response);
    assert_eq!((response.0.src_cid, response.0.dst_cid), (HOST_CID, CID));
    assert_eq!((response.0.dst_port, response.0.src_port), ports);
    let (port, stream) = host.take();
    assert_eq!(port, ports.1);
    stream
}

fn read_exactly(mut stream: &UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn is_at_end(mut stream: &UnixStream) -> bool {
    stream.read(&mut [0]).is_ok_and(|count| count == 0)
}

#[test]
fn the_configuration_is_the_cid() {
    let (a, _b) = UnixStream::pair().unwrap();
    let device = Vsock::new(0x1_0000_0003, a.into());
    let mut config = [0; 12];

    device.read_config(0, &mut config);

    assert_eq!(config, [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let mut part = [9; 4];
    device.read_config(6, &mut part);
    assert_eq!(part, [0, 0, 9, 9]);
    assert_eq!((device.id(), device.queue_sizes().len()), (DeviceId::Vsock, 3));
}

#[test]
fn packets_and_their_data_are_counted() {
    let (mut driver, host) = device(&Setup::default());
    let counters = driver.device.counters();
    let mut stream = open(&mut driver, &host, PORTS);
    driver.send(&data(PORTS, b"12345"), b"12345");
    assert_eq!(read_exactly(&stream, 5), b"12345");
    stream.write_all(b"abc").unwrap();
    while op(&driver.receive()) != Op::Rw {}
    driver.stop();
    let counts: std::collections::HashMap<_, _> = counters.read().into_iter().collect();
    assert_eq!((counts["connections"], counts["packets_from_guest"]), (1, 2));
    assert_eq!((counts["bytes_from_guest"], counts["bytes_to_guest"]), (5, 3));
    assert!(counts["packets_to_guest"] >= 2, "{counts:?}");
}

#[test]
fn the_guest_connects_and_both_sides_talk() {
    for features in [0, F_EVENT_IDX] {
        let (mut driver, host) = device(&Setup { features, ..Setup::default() });
        let mut stream = open(&mut driver, &host, PORTS);

        driver.send(&data(PORTS, b"from the guest"), b"from the guest");
        assert_eq!(read_exactly(&stream, 14), b"from the guest");
        stream.write_all(b"from the host").unwrap();
        let (header, bytes) = driver.receive();

        assert_eq!(bytes, b"from the host");
        assert_eq!((header.op, header.fwd_cnt), (Op::Rw as u16, 14));
        assert_eq!(header.buf_alloc, 256 << 10);
    }
}

#[test]
fn the_host_connects_to_a_port_of_the_guest() {
    let (mut driver, host) = device(&Setup::default());
    let mut first = host.connect(80);
    let second = host.connect(80);
    let requests = [driver.receive(), driver.receive()];
    assert!(requests.iter().all(|r| op(r) == Op::Request && r.0.dst_port == 80));
    let (one, two) = (requests[0].0.src_port, requests[1].0.src_port);
    assert_ne!(one, two);

    driver.send(&packet(Op::Response, (80, one)), &[]);
    driver.send(&packet(Op::Rst, (80, two)), &[]);
    first.write_all(b"hello").unwrap();

    assert_eq!(driver.receive().1, b"hello");
    assert!(is_at_end(&second));
}

#[test]
fn connections_wait_for_a_guest_that_is_not_ready() {
    let (mut driver, host) = device(&Setup::default());
    driver.stop();
    let _stream = host.connect(80);

    driver.start();

    assert_eq!(op(&driver.receive()), Op::Request);
}

#[test]
fn the_guest_closes_its_half() {
    let (mut driver, host) = device(&Setup::default());
    let mut stream = open(&mut driver, &host, PORTS);
    driver.send(&data(PORTS, b"last words"), b"last words");

    driver.send(&shutdown(PORTS, SHUTDOWN_SEND), &[]);

    assert_eq!(read_exactly(&stream, 10), b"last words");
    assert!(is_at_end(&stream));
    stream.write_all(b"answer").unwrap();
    assert_eq!(driver.receive().1, b"answer");
    stream.shutdown(Shutdown::Write).unwrap();
    let (header, _) = driver.receive();
    assert_eq!((header.op, header.flags), (Op::Shutdown as u16, SHUTDOWN_BOTH));
    driver.send(&packet(Op::Rst, PORTS), &[]);
    assert!(driver.is_quiet());
}

#[test]
fn the_host_closes_its_half() {
    let (mut driver, host) = device(&Setup::default());
    let mut stream = open(&mut driver, &host, PORTS);
    stream.write_all(b"last words").unwrap();

    stream.shutdown(Shutdown::Write).unwrap();

    assert_eq!(driver.receive().1, b"last words");
    let (header, _) = driver.receive();
    assert_eq!((header.op, header.flags), (Op::Shutdown as u16, SHUTDOWN_SEND));
    driver.send(&data(PORTS, b"answer"), b"answer");
    assert_eq!(read_exactly(&stream, 6), b"answer");
    driver.send(&shutdown(PORTS, SHUTDOWN_BOTH), &[]);
    assert!(is_at_end(&stream));
    assert_eq!(op(&driver.receive()), Op::Rst);
}

#[test]
fn the_host_closes_and_the_guest_hears_of_both_directions() {
    let (mut driver, host) = device(&Setup::default());
    let mut stream = open(&mut driver, &host, PORTS);
    stream.write_all(b"bye").unwrap();

    drop(stream);

    let mut flags = 0;
    let mut bytes = Vec::new();
    while flags != SHUTDOWN_BOTH {
        let (header, data) = driver.receive();
        bytes.extend(data);
        flags |= header.flags;
    }
    assert_eq!(bytes, b"bye");
    // What the guest sent before it heard of it is lost without a fuss.
    driver.send(&data(PORTS, b"late"), b"late");
    driver.send(&shutdown(PORTS, SHUTDOWN_BOTH), &[]);
    assert_eq!(op(&driver.receive()), Op::Rst);
    assert!(driver.is_quiet());
}

#[test]
fn the_guest_stops_receiving_and_the_host_cannot_write() {
    let (mut driver, host) = device(&Setup::default());
    let mut stream = open(&mut driver, &host, PORTS);

    driver.send(&shutdown(PORTS, SHUTDOWN_RECEIVE), &[]);
    driver.send(&data(PORTS, b"still sending"), b"still sending");

    assert_eq!(read_exactly(&stream, 13), b"still sending");
    assert!(stream.write(b"x").is_err());
    assert!(driver.is_quiet());
}

#[test]
fn what_the_guest_sent_before_it_closed_reaches_a_slow_host() {
    let (mut driver, host) = device(&Setup::default());
    let stream = open(&mut driver, &host, PORTS);
    // More than the socket takes, so that the device holds some.
    let chunk = vec![7; 32 << 10];
    let mut sent = 0;
    for _ in 0..8 {
        driver.send(&data(PORTS, &chunk), &chunk);
        sent += chunk.len();
    }

    driver.send(&shutdown(PORTS, SHUTDOWN_BOTH), &[]);
    while op(&driver.receive()) != Op::Rst {}
    // The name is free again at once.
    let _second = open(&mut driver, &host, PORTS);

    assert_eq!(read_exactly(&stream, sent), vec![7; sent]);
    assert!(is_at_end(&stream));
}

#[test]
fn a_reset_by_the_guest_closes_the_socket_without_an_answer() {
    let (mut driver, host) = device(&Setup::default());
    let stream = open(&mut driver, &host, PORTS);

    driver.send(&packet(Op::Rst, PORTS), &[]);

    assert!(is_at_end(&stream));
    assert!(driver.is_quiet());
}

#[test]
fn a_reset_of_the_device_closes_all_streams_and_it_starts_again() {
    let (mut driver, host) = device(&Setup::default());
    let first = open(&mut driver, &host, PORTS);
    let second = open(&mut driver, &host, (5001, 1024));

    driver.stop();

    assert!(is_at_end(&first) && is_at_end(&second));
    driver.start();
    let stream = open(&mut driver, &host, PORTS);
    driver.send(&data(PORTS, b"again"), b"again");
    assert_eq!(read_exactly(&stream, 5), b"again");
}

#[test]
fn a_host_that_takes_no_connections_refuses_them() {
    let (mut driver, host) = device(&Setup::default());
    drop(host);

    driver.send(&packet(Op::Request, PORTS), &[]);

    assert_eq!(op(&driver.receive()), Op::Rst);
}

#[test]
fn data_for_the_guest_stops_at_its_credit_and_goes_on() {
    let (mut driver, host) = device(&Setup::default());
    let small = |op, fwd_cnt| Header { buf_alloc: 1000, fwd_cnt, ..packet(op, PORTS) };
    driver.send(&small(Op::Request, 0), &[]);
    assert_eq!(op(&driver.receive()), Op::Response);
    let (_, mut stream) = host.take();

    stream.write_all(&[1; 2500]).unwrap();

    let mut consumed = 0;
    for expected in [1000, 1000, 500] {
        let mut got = 0;
        while got < expected {
            let packet = driver.receive();
            match op(&packet) {
                Op::Rw => got += packet.1.len(),
                other => assert_eq!(other, Op::CreditRequest),
            }
        }
        assert_eq!(got, expected);
        if expected == 1000 {
            assert_eq!(op(&driver.receive()), Op::CreditRequest);
            assert!(driver.is_quiet());
        }
        consumed += u32::try_from(got).unwrap();
        driver.send(&small(Op::CreditUpdate, consumed), &[]);
    }
}

#[test]
fn the_guest_gets_credit_as_the_host_reads() {
    let (mut driver, host) = device(&Setup::default());
    let stream = open(&mut driver, &host, PORTS);
    let chunk = vec![9; 64 << 10];
    let (mut sent, mut told) = (0_u32, 0_u32);
    // The host reads nothing: after its socket is full the credit comes to an end.
    let full = loop {
        while sent - told <= 192 << 10 {
            driver.send(&data(PORTS, &chunk), &chunk);
            sent += 64 << 10;
        }
        match driver.receive_soon() {
            Some(packet) => told = packet.0.fwd_cnt,
            None => break sent,
        }
    };
    assert!((256 << 10..2 << 20).contains(&full), "{full}");

    read_exactly(&stream, usize::try_from(full).unwrap());

    while told != full {
        let update = driver.receive();
        assert_eq!(op(&update), Op::CreditUpdate);
        told = update.0.fwd_cnt;
        if told != full {
            driver.send(&packet(Op::CreditRequest, PORTS), &[]);
        }
    }
}

#[test]
fn a_guest_that_overruns_the_credit_is_reset() {
    let (mut driver, host) = device(&Setup::default());
    let _stream = open(&mut driver, &host, PORTS);
    let chunk = vec![9; 64 << 10];
    let mut packets = 0;
    let refused = loop {
        assert!(packets < 100);
        packets += 1;
        // Without looking at the credit.
        driver.send(&data(PORTS, &chunk), &chunk);
        let mut seen = None;
        while let Some(packet) = driver.try_receive() {
            seen = (op(&packet) == Op::Rst).then_some(packet).or(seen);
        }
        driver.fill();
        if let Some(packet) = seen {
            break packet;
        }
    };

    assert_eq!((refused.0.dst_port, refused.0.src_port), PORTS);
}
