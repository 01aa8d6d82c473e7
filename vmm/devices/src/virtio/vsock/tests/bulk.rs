//! Much data, many connections, small queues.

use std::thread::JoinHandle;

use super::*;

/// Byte `at` of every stream.
fn pattern(at: usize) -> u8 {
    u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()
}

fn chunk(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(pattern).collect()
}

fn assert_pattern(at: usize, bytes: &[u8]) {
    let wrong = bytes.iter().zip(at..).find(|(byte, at)| **byte != pattern(*at));
    assert!(wrong.is_none(), "wrong byte: {wrong:?}");
}

fn write_all(mut stream: UnixStream, total: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for at in (0..total).step_by(50_000) {
            stream.write_all(&chunk(at, 50_000.min(total - at))).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

fn read_all(mut stream: UnixStream) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut at, mut bytes) = (0, vec![0; 70_000]);
        loop {
            let count = stream.read(&mut bytes).unwrap();
            if count == 0 {
                return at;
            }
            assert_pattern(at, &bytes[..count]);
            at += count;
        }
    })
}

/// The guest and the host send `total` bytes to each other at the same time.
fn exchange(setup: &Setup, total: usize) {
    let (mut driver, host) = device(setup);
    driver.send(&packet(Op::Request, PORTS), &[]);
    let (_, stream) = host.take();
    let writer = write_all(stream.try_clone().unwrap(), total);
    let reader = read_all(stream);

    let (mut sent, mut got, mut credit, mut over) = (0_usize, 0_usize, 0, false);
    while !over || sent < total {
        let mut idle = true;
        let len = (total - sent).min(40_000).min(credit);
        let header = Header { fwd_cnt: u32::try_from(got).unwrap(), ..data(PORTS, &vec![0; len]) };
        if len > 0 && driver.try_send(&header, &chunk(sent, len)) {
            sent += len;
            credit -= len;
            idle = false;
            if sent == total {
                driver.send(&shutdown(PORTS, SHUTDOWN_SEND), &[]);
            }
        }
        // A guest that only receives tells its credit now and then.
        let told = got;
        while let Some((header, bytes)) = driver.try_receive() {
            idle = false;
            assert_pattern(got, &bytes);
            got += bytes.len();
            let free = header.buf_alloc - (u32::try_from(sent).unwrap() - header.fwd_cnt);
            credit = usize::try_from(free).unwrap();
            over |= header.op == Op::Shutdown as u16;
            assert_ne!(header.op, Op::Rst as u16);
        }
        driver.fill();
        if got != told {
            let fwd_cnt = u32::try_from(got).unwrap();
            driver.send(&Header { fwd_cnt, ..packet(Op::CreditUpdate, PORTS) }, &[]);
        }
        if idle {
            std::thread::yield_now();
        }
    }

    writer.join().unwrap();
    assert_eq!((got, reader.join().unwrap()), (total, total));
}

#[test]
fn sixty_four_mib_both_ways() {
    exchange(&Setup::default(), 64 << 20);
}

#[test]
fn queues_with_room_for_one_packet() {
    exchange(&Setup { queue_size: 2, ..Setup::default() }, 1 << 20);
}

#[test]
fn buffers_with_room_for_a_few_bytes() {
    exchange(&Setup { rx_buffer: 50, queue_size: 16, ..Setup::default() }, 20_000);
}

#[test]
fn without_event_idx() {
    exchange(&Setup { features: 0, ..Setup::default() }, 4 << 20);
}

/// Each connection takes two descriptors here, and a soft limit of 1024 is usual.
fn raise_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

#[test]
fn a_thousand_connections_at_once_from_the_guest() {
    raise_limit();
    let (mut driver, host) = device(&Setup::default());
    let ports: Vec<_> = (0..1000).map(|n| (10_000 + n, 1024)).collect();
    // All requests first: more than the socket of connections holds.
    let mut answers = Vec::new();
    for ports in &ports {
        driver.send(&packet(Op::Request, *ports), &[]);
        answers.extend(driver.try_receive());
        driver.fill();
    }
    let mut streams: Vec<_> = ports.iter().map(|_| host.take().1).collect();
    while answers.len() < ports.len() {
        answers.push(driver.receive());
    }
    assert!(answers.iter().all(|answer| op(answer) == Op::Response));

    for (_, host_port) in &mut streams.iter().zip(&ports).map(|(s, p)| (s, p.1)) {
        assert_eq!(host_port, 1024);
    }
    for ports in &ports {
        let text = ports.0.to_le_bytes();
        driver.send(&data(*ports, &text), &text);
    }
    for stream in &mut streams {
        let text = read_exactly(stream, 4);
        stream.write_all(&text).unwrap();
    }
    let mut seen = std::collections::HashSet::new();
    while seen.len() < ports.len() {
        let (header, bytes) = driver.receive();
        assert_eq!(header.dst_port.to_le_bytes(), *bytes);
        assert!(seen.insert(header.dst_port));
    }

    drop(streams);
    let mut closed = std::collections::HashMap::new();
    while closed.len() < ports.len() || closed.values().any(|flags| *flags != SHUTDOWN_BOTH) {
        let (header, _) = driver.receive();
        *closed.entry(header.dst_port).or_insert(0) |= header.flags;
    }
    for ports in &ports {
        driver.send(&packet(Op::Rst, *ports), &[]);
    }
    assert!(driver.is_quiet());
}

#[test]
fn a_thousand_connections_at_once_from_the_host() {
    raise_limit();
    let (mut driver, host) = device(&Setup::default());
    let mut names = std::collections::HashSet::new();
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(host.connect(80));
        let (header, _) = driver.receive();
        assert!(names.insert(header.src_port));
        driver.send(&packet(Op::Response, (80, header.src_port)), &[]);
    }

    for stream in &mut streams {
        stream.write_all(b"x").unwrap();
    }

    for _ in 0..1000 {
        let (header, bytes) = driver.receive();
        assert_eq!(bytes, b"x");
        assert!(names.remove(&header.src_port));
    }
}

#[test]
fn turns_go_round() {
    let (mut driver, host) = device(&Setup { queue_size: 4, ..Setup::default() });
    let all = [(1, 9), (2, 9), (3, 9)];
    let mut streams: Vec<_> = all.iter().map(|ports| open(&mut driver, &host, *ports)).collect();
    for stream in &mut streams {
        stream.write_all(&[0; 100_000]).unwrap();
    }
    // Until all three are known to be readable.
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..6 {
        driver.receive();
    }

    let order: Vec<_> = (0..30).map(|_| driver.receive().0.dst_port).collect();

    assert!(order.windows(3).all(|w| w[0] != w[1] && w[1] != w[2] && w[0] != w[2]), "{order:?}");
}

#[test]
fn a_guest_without_receive_buffers_holds_the_host_back() {
    let (mut driver, host) = device(&Setup { queue_size: 2, ..Setup::default() });
    let mut stream = open(&mut driver, &host, PORTS);
    stream.set_nonblocking(true).unwrap();
    // One buffer is out; take no packet, give no further one.
    let mut written = 0;
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        written += stream.write(&[1; 4096]).unwrap_or(0);
    }
    assert!(written < 1 << 20, "{written}");
    drop(stream);

    let mut got = 0;
    while got < written {
        let (_, bytes) = driver.receive();
        got += bytes.len();
        let fwd_cnt = u32::try_from(got).unwrap();
        driver.send(&Header { fwd_cnt, ..packet(Op::CreditUpdate, PORTS) }, &[]);
    }
    assert_eq!(got, written);
}
