use std::io::{Read, Write};

use vm_memory::VolatileSlice;

use super::*;

fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Stream::new(ours.into()).unwrap(), theirs)
}

fn slice(bytes: &mut [u8]) -> Slice<'_> {
    VolatileSlice::from(bytes)
}

#[test]
fn what_the_socket_does_not_take_is_kept_in_order() {
    let (mut stream, mut host) = pair();
    let mut bytes: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let (first, second) = bytes.split_at_mut(2 << 20);

    let taken = stream.write([slice(first)].into_iter()).unwrap();
    assert!(taken < 2 << 20 && stream.is_keeping());
    assert_eq!(stream.write([slice(second)].into_iter()).unwrap(), 0);

    let mut got: Vec<u8> = Vec::new();
    let mut flushed = taken;
    while got.len() < 3 << 20 {
        let mut chunk = vec![0; 100_000];
        let count = host.read(&mut chunk).unwrap();
        got.extend(&chunk[..count]);
        flushed += stream.flush().unwrap();
    }
    assert!(got == bytes && !stream.is_keeping());
    assert_eq!(flushed, 3 << 20);
}

#[test]
fn several_pieces_are_written_and_filled() {
    let (mut stream, mut host) = pair();
    let (mut a, mut b, mut c) = (*b"one", *b"two", *b"three");
    let pieces = [slice(&mut a), slice(&mut b), slice(&mut c)];
    assert_eq!(stream.write(pieces.into_iter()).unwrap(), 11);
    let mut text = [0; 11];
    host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"onetwothree");

    host.write_all(b"12345678").unwrap();
    let pieces = [slice(&mut a), slice(&mut b), slice(&mut c)];
    assert_eq!(stream.read(pieces.into_iter()).unwrap(), Filled::Bytes(8));
    assert_eq!((&a, &b, &c), (b"123", b"456", b"78ree"));
}

#[test]
fn nothing_yet_is_not_the_end() {
    let (mut stream, mut host) = pair();
    let mut bytes = [0; 4];
    assert_eq!(stream.read([slice(&mut bytes)].into_iter()).unwrap(), Filled::Empty);
    host.write_all(b"1234").unwrap();
    drop(host);
    // The second piece meets the end; the next read tells.
    let mut more = [0; 4];
    let pieces = [slice(&mut bytes), slice(&mut more)];
    assert_eq!(stream.read(pieces.into_iter()).unwrap(), Filled::Bytes(4));
    assert_eq!(stream.read([slice(&mut bytes)].into_iter()).unwrap(), Filled::End);
}

#[test]
fn a_host_that_is_gone_is_an_error() {
    let (mut stream, host) = pair();
    drop(host);
    let mut bytes = [0; 4];
    assert!(stream.write([slice(&mut bytes)].into_iter()).is_err());
    assert_eq!(stream.discard(), 0);
}
