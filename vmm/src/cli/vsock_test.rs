use std::os::fd::OwnedFd;
use std::time::Duration;

use super::*;

/// The adapter on a path of its own, and the device's end.
fn adapter() -> (tempfile::TempDir, PathBuf, Channel) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v");
    let mut outbox = Outbox::default();
    let spec = listen(&path, &mut outbox).unwrap();
    assert_eq!((spec.cid, spec.connections.0), (Cid(3), 0));
    let device = outbox.borrowed()[0].try_clone_to_owned().unwrap();
    (directory, path, Channel::new(device))
}

fn received(device: &Channel) -> (u32, UnixStream) {
    let mut port = [0; 4];
    let (length, mut fds): (usize, Vec<OwnedFd>) = device.receive_bytes(&mut port).unwrap();
    assert_eq!((length, fds.len()), (4, 1));
    let stream = UnixStream::from(fds.remove(0));
    stream.set_nonblocking(false).unwrap();
    (u32::from_le_bytes(port), stream)
}

fn is_at_end(stream: &mut UnixStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read(&mut [0]).is_ok_and(|count| count == 0)
}

#[test]
fn a_program_reaches_a_port_of_the_guest() {
    let (_directory, path, device) = adapter();
    let mut client = UnixStream::connect(&path).unwrap();

    client.write_all(b"CONN").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    client.write_all(b"ECT 1024\nat once").unwrap();

    let mut answer = [0; 8];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK 1024\n");
    let (port, mut guest) = received(&device);
    assert_eq!(port, 1024);
    let mut text = [0; 7];
    guest.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"at once");
    drop(guest);
    assert!(is_at_end(&mut client));
}

#[test]
fn nonsense_is_closed() {
    let (_directory, path, _device) = adapter();
    for line in ["HELLO\n", "CONNECT\n", "CONNECT 4294967296\n", &"C".repeat(100)] {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        let mut byte = [0];
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(!matches!(client.read(&mut byte), Ok(1..)), "{line}");
    }
}

#[test]
fn the_guest_reaches_a_listener_of_the_host() {
    let (_directory, path, device) = adapter();
    let listener = UnixListener::bind(format!("{}_9", path.display())).unwrap();
    let (mut guest, theirs) = UnixStream::pair().unwrap();
    device.send_bytes(&9_u32.to_le_bytes(), &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let (mut host, _) = listener.accept().unwrap();

    // More than the sockets hold, both ways.
    let writer = {
        let mut guest = guest.try_clone().unwrap();
        std::thread::spawn(move || {
            guest.write_all(&vec![1; 1 << 20]).unwrap();
            guest.shutdown(std::net::Shutdown::Write).unwrap();
        })
    };
    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert_eq!(got, vec![1; 1 << 20]);
    writer.join().unwrap();
    host.write_all(b"answer").unwrap();
    drop(host);
    let mut answer = String::new();
    guest.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn a_port_where_nobody_listens_is_refused() {
    let (_directory, _path, device) = adapter();
    let (mut guest, theirs) = UnixStream::pair().unwrap();

    device.send_bytes(&9_u32.to_le_bytes(), &[theirs.as_fd()]).unwrap();
    drop(theirs);

    assert!(is_at_end(&mut guest));
}

#[test]
fn the_path_goes_with_the_device_and_a_stale_one_is_replaced() {
    let (_directory, path, device) = adapter();
    drop(device);
    for _ in 0..500 {
        if !path.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!path.exists());

    drop(UnixListener::bind(&path).unwrap());

    listen(&path, &mut Outbox::default()).unwrap();
}
