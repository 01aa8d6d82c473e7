//! The agent, run as root outside of a guest, against a host made of Unix sockets.
//!
//! Containers get this machine's own root directory as their layer, so that its programs can be run.
//! With `COFFERDAM_TEST_AGENT` they run against a guest instead: see `host.rs`.
//!
//! Needs root, overlayfs and a cgroup v2 hierarchy at `/sys/fs/cgroup/unified`; a machine without them
//! skips these tests with a message.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod container;
mod errors;
mod guest;
mod hooks;
mod host;
mod hostile;
mod keeper;
mod lifecycle;
mod mounts;
mod namespaces;
mod security;
mod streams;
