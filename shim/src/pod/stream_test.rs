//! Copies between pipes, files and sockets, and what ends become.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;

use super::*;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_pipe_reaches_a_socket_with_its_end() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (near, mut far) = StdStream::pair().unwrap();
    let mut pump = Pump::start("t", reader.into(), near.into()).unwrap();
    let sender = std::thread::spawn(move || writer.write_all(&vec![7; 1 << 20]));
    let mut received = Vec::new();
    far.read_to_end(&mut received).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(received.len(), 1 << 20);
    block_on(pump.finished());
    block_on(pump.finished());
}

#[test]
fn a_socket_reaches_a_file() {
    let (near, mut far) = StdStream::pair().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let append = std::fs::OpenOptions::new().append(true).open(file.path()).unwrap();
    let mut pump = Pump::start("t", near.into(), append.into()).unwrap();
    far.write_all(b"hello").unwrap();
    drop(far);
    block_on(pump.finished());
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn what_is_in_a_pipe_can_be_read_while_the_source_is_silent() {
    let (near, mut far) = StdStream::pair().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut pump = Pump::start("t", near.into(), writer.into()).unwrap();
    far.write_all(b"now").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = [0; 3];
        sender.send(reader.read_exact(&mut text).map(|()| text)).unwrap();
    });
    let read = receiver.recv_timeout(std::time::Duration::from_secs(5));
    assert_eq!(read.expect("the reader is kept waiting").unwrap(), *b"now");
    drop(far);
    block_on(pump.finished());
}

#[test]
fn a_non_blocking_source_is_waited_for() {
    let (near, mut far) = StdStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let (other, mut end) = StdStream::pair().unwrap();
    let mut pump = Pump::start("t", near.into(), other.into()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    far.write_all(b"late").unwrap();
    drop(far);
    let mut text = String::new();
    end.read_to_string(&mut text).unwrap();
    assert_eq!(text, "late");
    block_on(pump.finished());
}

#[test]
fn a_broken_target_closes_the_source() {
    let (near, mut far) = StdStream::pair().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut pump = Pump::start("t", near.into(), writer.into()).unwrap();
    let _ = far.write_all(b"nobody reads this");
    block_on(pump.finished());
    // Ours is closed, maybe with what it had not read: end-of-file or reset, but no hang.
    let _ = far.read(&mut [0; 1]);
    assert!(far.write_all(b"more").is_err());
}

#[test]
fn tokens_differ() {
    assert_ne!(token().unwrap(), token().unwrap());
}
