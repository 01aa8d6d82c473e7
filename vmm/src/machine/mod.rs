//! A machine: built from a [`Plan`](crate::plan::Plan), then running, then ended.
//!
//! ```text
//! Machine::build ──► Machine ──start──► Running ──stop──► (gone)
//!                                         │ a vCPU or a device
//!                                         └──► Outcome: the first reason wins
//! ```
//!
//! Invariant: a machine has one owner, the thread that built it; vCPUs and devices reach that thread
//! through the [`Outcome`] alone.

mod board;
mod build;
mod crew;
mod memory;
mod meter;
mod orders;
mod outcome;
mod plug;
mod ports;
mod run;
mod space;
mod stages;

pub use board::PlugError;
pub use build::{BuildError, Files, Host, Machine};
pub use memory::ResizeError;
pub use outcome::Outcome;
pub use run::Running;
pub use stages::now_ns;
