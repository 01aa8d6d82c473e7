use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

fn pair() -> (Backend, Backend) {
    let (a, b) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    (Backend::new(a), Backend::new(b))
}

#[test]
fn a_connection_goes_across() {
    let (a, b) = pair();
    let (ours, theirs) = Backend::pair().unwrap();
    assert!(matches!(b.take(), Arrival::Nothing));

    assert!(a.offer(0x0102_0304, theirs.as_fd()).unwrap());
    drop(theirs);

    let Arrival::Connection(port, socket) = b.take() else { panic!("no connection") };
    assert_eq!(port, 0x0102_0304);
    UnixStream::from(ours).write_all(b"x").unwrap();
    let mut byte = [0];
    UnixStream::from(socket).read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn other_messages_cost_nothing() {
    let (a, b) = pair();
    for bytes in [&[1, 2, 3][..], &[1, 2, 3, 4], &[1, 2, 3, 4, 5]] {
        rustix::net::send(&a.socket, bytes, SendFlags::empty()).unwrap();
        assert!(matches!(b.take(), Arrival::Malformed), "{bytes:?}");
    }
    assert!(matches!(b.take(), Arrival::Nothing));
}

#[test]
fn a_full_socket_is_no_error_and_a_closed_one_is() {
    let (a, b) = pair();
    let (ours, _theirs) = Backend::pair().unwrap();
    let mut offers = 0;
    while a.offer(1, ours.as_fd()).unwrap() {
        offers += 1;
        assert!(offers < 100_000);
    }
    assert!(offers > 10);
    for _ in 0..offers {
        assert!(matches!(b.take(), Arrival::Connection(1, _)));
    }
    assert!(a.offer(1, ours.as_fd()).unwrap());

    drop(b);

    assert!(a.offer(1, ours.as_fd()).is_err());
    assert!(matches!(a.take(), Arrival::Closed));
}
