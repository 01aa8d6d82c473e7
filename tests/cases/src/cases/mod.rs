//! The cases, a file a topic.

use anyhow::Result;

mod bad_input;
mod boot;
mod disks;
mod grow;
mod hostile;
mod hotplug;
mod jail;
mod kills;
mod limits;
mod memory;
mod mounts;
mod net;
mod netplug;
mod oci;
mod oci_seccomp;
mod processes;
mod resize;
mod signals;
mod stdio;
mod sudden;
mod tty;
mod unprivileged;
mod users;
mod volumes;
mod vsock;

/// One case.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// `topic::what_is_true`.
    pub(crate) name: &'static str,
    /// Fails when it is not.
    pub(crate) body: fn() -> Result<()>,
}

/// The functions named, as cases of the module's topic.
macro_rules! cases {
    ($topic:literal: $($name:ident),+ $(,)?) => {
        /// The cases of this topic.
        pub(super) const CASES: &[$crate::cases::Case] = &[
            $($crate::cases::Case { name: concat!($topic, "::", stringify!($name)), body: $name }),+
        ];
    };
}
use cases;

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    [
        boot::CASES,
        stdio::CASES,
        sudden::CASES,
        signals::CASES,
        tty::CASES,
        users::CASES,
        mounts::CASES,
        volumes::CASES,
        limits::CASES,
        oci::CASES,
        oci_seccomp::CASES,
        disks::CASES,
        memory::CASES,
        hotplug::CASES,
        resize::CASES,
        grow::CASES,
        vsock::CASES,
        net::CASES,
        netplug::CASES,
        processes::CASES,
        bad_input::CASES,
        kills::CASES,
        jail::CASES,
        unprivileged::CASES,
        hostile::CASES,
    ]
    .concat()
}
