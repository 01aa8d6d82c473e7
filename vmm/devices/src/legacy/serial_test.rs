use std::sync::{Arc, Mutex};

use super::*;

/// A stream that tests look into.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_character_comes_out() {
    let out = Shared::default();
    let mut serial = Serial::new(LogRing::stream(Box::new(out.clone())));
    serial.write(0, b"h");
    serial.write(0, b"i");
    assert_eq!(*out.0.lock().unwrap(), b"hi");

    // LSR: transmitter empty, so that a polling driver goes on.
    let mut lsr = [0];
    serial.read(5, &mut lsr);
    assert_eq!(lsr[0] & 0x60, 0x60);
}

#[test]
fn wide_accesses_are_taken_byte_by_byte() {
    let mut serial = Serial::new(LogRing::stream(Box::new(io::sink())));
    serial.write(6, &[0, 0x5a, 1, 1]);
    let mut data = [0; 4];
    serial.read(7, &mut data);
    assert_eq!(data[0], 0x5a);
}

#[test]
fn the_transmitter_interrupts_when_asked_to() {
    let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let log = LogRing::stream(Box::new(io::sink()));
    let mut serial = Serial::with_interrupt(log, line.try_clone().unwrap());
    serial.write(1, &[0x02]);
    serial.write(0, b"x");
    assert!(line.read().unwrap() > 0);
}
