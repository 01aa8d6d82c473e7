//! The monitor: one process per pod that runs its virtual machine.
//!
//! ```text
//! MachineSpec ──Plan::new──► Plan ──Machine::build──► Machine ──start──► Running ──► ExitReason
//!                (pure)             (KVM, files)               (threads)
//! ```
//!
//! Invariant: nothing is opened by path; everything comes as a descriptor, so that it runs in an empty root.
#![deny(unsafe_code)]

pub mod boot;
pub mod control;
pub mod jail;
pub mod machine;
pub mod plan;

#[cfg(test)]
mod testing;
