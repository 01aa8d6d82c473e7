//! Maps of user and group ids.
//!
//! Invariant: a map says what the kernel is to be told, no more: whether it makes sense is the kernel's to judge.

use prost::Message;

/// A line of `/proc/PID/uid_map` (`user_namespaces(7)`).
#[derive(Clone, PartialEq, Message)]
pub struct IdMap {
    /// First id inside.
    #[prost(uint32, tag = "1")]
    pub container: u32,
    /// First id outside.
    #[prost(uint32, tag = "2")]
    pub host: u32,
    /// How many.
    #[prost(uint32, tag = "3")]
    pub size: u32,
}
