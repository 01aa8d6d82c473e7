use std::io::Read;

use super::*;

/// A stream that nobody looks into.
fn sink() -> LogRing {
    LogRing::stream(tempfile::tempfile().unwrap())
}

#[test]
fn a_character_comes_out() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut serial = Serial::new(LogRing::stream(std::os::fd::OwnedFd::from(writer).into()));
    serial.write(0, b"h");
    serial.write(0, b"i");
    let mut out = [0; 2];
    reader.read_exact(&mut out).unwrap();
    assert_eq!(&out, b"hi");

    // LSR: transmitter empty, so that a polling driver goes on.
    let mut lsr = [0];
    serial.read(5, &mut lsr);
    assert_eq!(lsr[0] & 0x60, 0x60);
}

#[test]
fn wide_accesses_are_taken_byte_by_byte() {
    let mut serial = Serial::new(sink());
    serial.write(6, &[0, 0x5a, 1, 1]);
    let mut data = [0; 4];
    serial.read(7, &mut data);
    assert_eq!(data[0], 0x5a);
}

#[test]
fn the_transmitter_interrupts_when_asked_to() {
    let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let mut serial = Serial::with_interrupt(sink(), line.try_clone().unwrap());
    serial.write(1, &[0x02]);
    serial.write(0, b"x");
    assert!(line.read().unwrap() > 0);
}
