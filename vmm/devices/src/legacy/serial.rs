//! A 16550 serial port, output only.
//!
//! Invariant: a character costs one exit and no more; the guest never waits for the host.

use std::io::{self, Write};

use vm_superio::Trigger;
use vm_superio::serial::NoEvents;
use vmm_sys_util::eventfd::EventFd;

use super::log::LogRing;
use crate::ports::BusDevice;

/// The I/O ports it answers.
pub const SERIAL_PORTS: u64 = 8;

/// The serial port.
pub struct Serial(vm_superio::Serial<Line, NoEvents, Output>);

/// The interrupt line, if there is one: without it Linux's console (printk) works, its tty polls.
struct Line(Option<EventFd>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |event| event.write(1))
    }
}

/// The model flushes after every byte; the log decides by itself when to write.
struct Output(LogRing);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().for_each(|&byte| self.0.push(byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Serial {
    /// A port without an interrupt line.
    #[must_use]
    pub fn new(log: LogRing) -> Self {
        Self(vm_superio::Serial::new(Line(None), Output(log)))
    }

    /// A port that signals `line` for each interrupt (edge-triggered, legacy IRQ 4 of the first port).
    #[must_use]
    pub fn with_interrupt(log: LogRing, line: EventFd) -> Self {
        Self(vm_superio::Serial::new(Line(Some(line)), Output(log)))
    }

    /// Writes out an unfinished line.
    pub fn flush(&mut self) {
        self.0.writer_mut().0.flush();
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (register, byte) in (offset..SERIAL_PORTS).zip(data) {
            *byte = u8::try_from(register).map_or(0xff, |register| self.0.read(register));
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (register, &byte) in (offset..SERIAL_PORTS).zip(data) {
            // An error is one of the interrupt line: the guest polls then.
            let _ = u8::try_from(register).map(|register| self.0.write(register, byte));
        }
    }
}

#[cfg(test)]
#[path = "serial_test.rs"]
mod serial_test;
