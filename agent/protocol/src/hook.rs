//! Hooks that run in the guest (OCI runtime-spec, config#posix-platform-hooks).
//!
//! Invariant: the host writes the state's text; the guest puts one number into it and parses nothing.

use std::time::Duration;

use prost::Message;

/// Hooks that run one after the other. The first that fails ends the creation of the container.
#[derive(Clone, PartialEq, Message)]
pub struct GuestHooks {
    /// Their name in the configuration, for errors: `createContainer` or `startContainer`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// In this order.
    #[prost(message, repeated, tag = "2")]
    pub hooks: Vec<GuestHook>,
    /// The container's state in JSON, up to the process id.
    #[prost(string, tag = "3")]
    pub state_before_pid: String,
    /// The rest of it.
    #[prost(string, tag = "4")]
    pub state_after_pid: String,
}

/// One hook.
#[derive(Clone, PartialEq, Message)]
pub struct GuestHook {
    /// The program, absolute, in the container's root file system.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// All arguments, that in the place of the program's name included.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub args: Vec<Vec<u8>>,
    /// `NAME=value`; empty leaves the environment of the process that runs it.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub env: Vec<Vec<u8>>,
    /// Seconds after which it is killed; 0 is [`GuestHook::DEFAULT_TIMEOUT`].
    #[prost(uint32, tag = "4")]
    pub timeout: u32,
}

impl GuestHooks {
    /// How long they may take together.
    #[must_use]
    pub fn within(&self) -> Duration {
        self.hooks.iter().map(|hook| Duration::from_secs(hook.seconds().into())).sum()
    }
}

impl GuestHook {
    /// Seconds for a hook that has no time-out of its own. The agent does one thing at a time, so that
    /// none may wait without end.
    pub const DEFAULT_TIMEOUT: u32 = 60;

    /// Most seconds for a hook, for the same reason.
    pub const MAX_TIMEOUT: u32 = 100;

    /// Seconds after which it is killed.
    #[must_use]
    pub fn seconds(&self) -> u32 {
        match self.timeout {
            0 => Self::DEFAULT_TIMEOUT,
            seconds => seconds.min(Self::MAX_TIMEOUT),
        }
    }
}
