//! A terminal that arrives at the other end of a socket, and is raw.

use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;

#[test]
fn the_other_side_arrives_and_the_terminal_is_raw() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let pty = Pty::open(24, 80).unwrap();
    pty.send(&path).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let mut text = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [io::IoSliceMut::new(&mut text)];
    let received = recvmsg(&socket, &mut slices, &mut control, RecvFlags::empty()).unwrap();
    assert!(text[..received.bytes].starts_with(b"/dev/pts/"));
    let Some(RecvAncillaryMessage::ScmRights(fds)) = control.drain().next() else { panic!() };
    let master = fds.into_iter().next().unwrap();
    rustix::io::write(&pty.slave, b"a\nb").unwrap();
    let mut read = [0; 8];
    let count = rustix::io::read(&master, &mut read).unwrap();
    assert_eq!(&read[..count], b"a\nb");
    let size = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (24, 80));
}
