//! The KVM test host and the tools that the developer commands share.
//!
//! Invariant: nothing here is linked into a shipped binary.

#![forbid(unsafe_code)]

pub mod host;
pub mod tools;
