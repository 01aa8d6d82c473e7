//! The few devices at I/O ports: a serial port for the console, power control, the panic notifier.
//!
//! Invariant: each answers bytes; wider accesses are taken byte by byte.

pub mod log;
pub mod power;
pub mod serial;
