//! What a guest boots and mounts, made on the host: the [initramfs] that holds the agent, read-only EROFS
//! [layers] from directories, and empty scratch [disk]s.
//!
//! Invariant: a file that is found under its name in a cache is complete and never changes; a process that
//! dies half-way leaves nothing that a later one could take for a result.

#![forbid(unsafe_code)]

pub mod disk;
mod erofs;
pub mod fingerprint;
pub mod initramfs;
pub mod layers;
mod publish;
mod tool;

pub use publish::{PublishError, clear_abandoned};
pub use tool::ToolError;
