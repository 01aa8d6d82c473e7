//! A guest that means harm.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;

const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_INDIRECT: u16 = 4;

/// The device still works.
fn assert_alive(driver: &mut Driver, host: &Host, ports: (u32, u32)) {
    let stream = open(driver, host, ports);
    driver.send(&data(ports, b"alive"), b"alive");
    assert_eq!(read_exactly(&stream, 5), b"alive");
}

#[test]
fn what_belongs_to_no_connection_is_refused() {
    let (mut driver, host) = device(&Setup::default());
    let good = packet(Op::Request, PORTS);
    let cases = [
        ("data for nobody", data(PORTS, &[])),
        ("response for nobody", packet(Op::Response, PORTS)),
        ("shutdown for nobody", shutdown(PORTS, SHUTDOWN_BOTH)),
        ("credit for nobody", packet(Op::CreditUpdate, PORTS)),
        ("another guest", Header { src_cid: 77, ..good }),
        ("another host", Header { dst_cid: 9, ..good }),
        ("reserved bits", Header { dst_cid: 2 | 1 << 32, ..good }),
        ("datagrams", Header { kind: 3, ..good }),
        ("no type", Header { kind: 0, ..good }),
        ("no operation", Header { op: 0, ..good }),
        ("unknown operation", Header { op: 8, ..good }),
    ];
    for (what, header) in cases {
        driver.send(&header, &[]);

        let (answer, _) = driver.receive();

        assert_eq!(answer.op, Op::Rst as u16, "{what}");
        assert_eq!((answer.dst_cid, answer.src_cid), (CID, header.dst_cid), "{what}");
        assert_eq!((answer.dst_port, answer.src_port), PORTS, "{what}");
        assert_eq!(answer.kind, header.kind, "{what}");
        driver.send(&Header { op: Op::Rst as u16, ..header }, &[]);
    }
    assert!(driver.is_quiet(), "a reset was answered");
    assert!(host.try_take().is_none());
}

#[test]
fn what_a_connection_does_not_allow_resets_it() {
    let cases = [
        ("second request", packet(Op::Request, PORTS)),
        ("response to a response", packet(Op::Response, PORTS)),
        ("unknown operation", Header { op: 99, ..packet(Op::Rw, PORTS) }),
        ("more data than there is", Header { len: 100, ..packet(Op::Rw, PORTS) }),
        ("very much data", Header { len: u32::MAX, ..packet(Op::Rw, PORTS) }),
    ];
    for (what, header) in cases {
        let (mut driver, host) = device(&Setup::default());
        let stream = open(&mut driver, &host, PORTS);

        driver.send(&header, b"x");

        assert_eq!(op(&driver.receive()), Op::Rst, "{what}");
        assert!(is_at_end(&stream), "{what}");
        assert_alive(&mut driver, &host, PORTS);
    }
}

#[test]
fn data_after_the_end_resets() {
    let (mut driver, host) = device(&Setup::default());
    let stream = open(&mut driver, &host, PORTS);

    driver.send(&shutdown(PORTS, SHUTDOWN_SEND), &[]);
    driver.send(&data(PORTS, b"x"), b"x");

    assert_eq!(op(&driver.receive()), Op::Rst);
    assert!(is_at_end(&stream));
}

#[test]
fn broken_chains_are_given_back() {
    let (mut driver, host) = device(&Setup::default());
    let at = 0x180_0000;
    let chains: [&[(u64, u32, u16, u16)]; 9] = [
        &[(at, 44, F_NEXT, 200)],                             // a loop of one
        &[(at, 1, F_NEXT, 201), (at, 1, F_NEXT, 200)],        // a loop of two, of single bytes
        &[(at, 43, 0, 0)],                                    // too short
        &[(0xffff_ffff_ffff_fff0, 44, 0, 0)],                 // the end of all addresses
        &[(0x8000_0000, 44, 0, 0)],                           // no memory there
        &[(at, u32::MAX, F_NEXT, 201), (at, u32::MAX, 0, 0)], // longer than memory
        &[(at, 44, F_WRITE, 0)],                              // the wrong direction
        &[(at, 44, F_NEXT, 999)],                             // leads out of the table
        &[(at, 64, F_INDIRECT, 0)],                           // a table full of nonsense
    ];
    for chain in chains {
        for (descriptor, index) in chain.iter().zip(200..) {
            driver.tx.write_descriptor(&driver.ram, index, *descriptor);
        }
        driver.tx.publish(&driver.ram, 200);
        driver.tx.kick();
    }
    assert!(!driver.bell.broken.load(Ordering::SeqCst));

    // Headers of zeroes are of an unsupported type: two of the chains held one.
    let mut answers = 0;
    while let Some(packet) = driver_packet(&mut driver) {
        assert_eq!(op(&packet), Op::Rst);
        answers += 1;
    }
    assert!(answers <= 4, "{answers}");
    // The first slots of the driver: those above are spoilt.
    driver.stop();
    driver.start();
    assert_alive(&mut driver, &host, PORTS);
}

fn driver_packet(driver: &mut Driver) -> Option<Packet> {
    std::thread::sleep(Duration::from_millis(50));
    let packet = driver.try_receive();
    driver.fill();
    packet
}

#[test]
fn broken_receive_buffers_are_given_back() {
    let (mut driver, host) = device(&Setup { queue_size: 16, ..Setup::default() });
    driver.stop();
    driver.start();
    // All good buffers are out; a response uses one each.
    let bad =
        [(0x180_0000, 10, F_WRITE, 0), (0x8000_0000, 4096, F_WRITE, 0), (0x180_0000, 4096, 0, 0)];
    for what in bad {
        driver.rx.write_descriptor(&driver.ram, 1, what);
        driver.rx.publish(&driver.ram, 1);
        driver.rx.kick();
    }
    let streams: Vec<_> = (0..20).map(|port| open(&mut driver, &host, (port, 1024))).collect();
    assert_eq!(streams.len(), 20);
    assert!(!driver.bell.broken.load(Ordering::SeqCst));
}

#[test]
fn a_ring_that_makes_no_sense_stops_the_device_only() {
    let (mut driver, host) = device(&Setup::default());
    let stream = open(&mut driver, &host, PORTS);

    driver.tx.set_available_index(&driver.ram, 40_000);
    driver.tx.kick();

    assert!(is_at_end(&stream));
    assert!(driver.bell.broken.load(Ordering::SeqCst));
    driver.stop();
    driver.bell.broken.store(false, Ordering::SeqCst);
    driver.start();
    assert_alive(&mut driver, &host, PORTS);
}

#[test]
fn a_guest_that_takes_no_answers_is_not_listened_to_and_recovers() {
    let (mut driver, host) = device(&Setup { queue_size: 16, ..Setup::default() });
    // Every packet wants a reset; nothing is taken from the receive queue.
    let mut sent = 0;
    let mut refused = 0;
    while refused < 1000 {
        if driver.try_send(&data(PORTS, &[]), &[]) {
            sent += 1;
            refused = 0;
            assert!(sent < 10_000, "no end of patience");
        } else {
            refused += 1;
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    for _ in 0..sent {
        assert_eq!(op(&driver.receive()), Op::Rst);
    }
    assert_alive(&mut driver, &host, PORTS);
}

#[test]
fn requests_and_resets_without_end_leave_nothing() {
    let (mut driver, host) = device(&Setup { queue_size: 16, ..Setup::default() });
    for round in 0..3000 {
        let ports = (round % 7, 1024);
        driver.send(&packet(Op::Request, ports), &[]);
        driver.send(&packet(Op::Rst, ports), &[]);
        while driver.try_receive().is_some() {}
        driver.fill();
        while host.try_take().is_some() {}
    }
    driver.stop();
    driver.start();
    while host.try_take().is_some() {}
    assert_alive(&mut driver, &host, PORTS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_packets_do_no_harm(packets in prop::collection::vec(random_packet(), 1..400)) {
        let (mut driver, host) = device(&Setup::default());
        let mut streams = Vec::new();
        for (header, bytes) in packets {
            driver.send(&header, &vec![0; usize::from(bytes)]);
            streams.extend(host.try_take());
            while driver.try_receive().is_some() {}
            driver.fill();
            if streams.len() > 3 {
                streams.remove(0);
            }
            for (_, stream) in &mut streams {
                let _ = stream.set_nonblocking(true);
                let _ = stream.read(&mut [0; 5000]);
                let _ = stream.write(&[0; 100]);
            }
        }
        prop_assert!(!driver.bell.broken.load(Ordering::SeqCst));
    }
}

fn random_packet() -> impl Strategy<Value = (Header, u8)> {
    let ports = (0_u32..4, 1024_u32..1027);
    let cids = (
        prop_oneof![9 => Just(CID), 1 => any::<u64>()],
        prop_oneof![9 => Just(HOST_CID), 1 => any::<u64>()],
    );
    let numbers = (prop_oneof![0_u32..300, any::<u32>()], any::<u32>(), any::<u32>(), any::<u32>());
    let kind = prop_oneof![9 => Just(TYPE_STREAM), 1 => any::<u16>()];
    let op = prop_oneof![9 => 1_u16..8, 1 => any::<u16>()];
    (ports, cids, numbers, kind, op, any::<u8>()).prop_map(
        |(
            (src_port, dst_port),
            (src_cid, dst_cid),
            (len, flags, buf_alloc, fwd_cnt),
            kind,
            op,
            bytes,
        )| {
            let header = Header {
                src_cid,
                dst_cid,
                src_port,
                dst_port,
                len,
                kind,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
            };
            (header, bytes)
        },
    )
}
