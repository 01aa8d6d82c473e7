//! OCI bundles to plans: reading `config.json` and translating it (OCI runtime-spec 1.x).
//!
//! Translation is pure: the content of small files that are bind-mounted comes in by a function.
//!
//! Invariant: no input makes anything here panic; what cannot be honoured is an error that names the
//! field, never silently dropped, except what has no meaning inside a virtual machine: that is a warning.

mod bundle;
mod capabilities;
mod cgroup;
mod default_spec;
mod device_filter;
mod devices;
mod guest_hooks;
pub mod hooks;
mod host_file;
mod json;
mod mount_options;
mod mounts;
mod namespaces;
mod process;
mod scheduling;
mod seccomp;
mod time;
mod translate;
mod update;

pub use bundle::{Bundle, BundleError, parse as parse_config};
pub(crate) use default_spec::rootless_spec_text;
pub use default_spec::{default_spec, default_spec_text};
pub use device_filter::Substitute;
pub(crate) use devices::substitute;
pub use devices::{DeviceRules, HostDisk};
pub use host_file::{HostFile, Live};
pub use json::JsonError;
pub(crate) use mount_options::MOUNT_OPTIONS;
#[cfg(test)]
pub(crate) use mount_options::takes_mount_option;
pub(crate) use mounts::{MAX_FILES, Volume, is_brought_along};
pub use namespaces::HostNetwork;
pub(crate) use namespaces::process_of;
pub(crate) use process::CAPABILITIES;
pub use process::{exec, parse_process};
pub(crate) use translate::millicpus;
pub use translate::{Needs, Translated, translate};
pub use update::{Update, update, update_to};

/// A specification that cannot be run in a pod.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A field has a value that makes no sense.
    #[error("{field}: {problem}")]
    Invalid {
        /// The path of the field in `config.json`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A field asks for something that a container in a virtual machine cannot have.
    #[error("{field} is not supported: {reason}")]
    Unsupported {
        /// The path of the field in `config.json`.
        field: String,
        /// Why not.
        reason: String,
    },
    /// A bind mount whose source cannot be brought into the guest.
    #[error("{field}: mount of {source_path} on {destination}: {reason}")]
    Bind {
        /// The mount in `config.json`.
        field: String,
        /// The path on the host.
        source_path: String,
        /// The path in the container.
        destination: String,
        /// Why not.
        reason: String,
    },
    /// JSON that is not what it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The seccomp profile.
    #[error(transparent)]
    Seccomp(#[from] seccomp::SeccompError),
    /// The device rules.
    #[error(transparent)]
    DeviceRules(#[from] device_filter::TooManyRules),
}

pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> OciError {
    OciError::Invalid { field: field.into(), problem: problem.into() }
}

pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> OciError {
    OciError::Unsupported { field: field.into(), reason: reason.into() }
}

#[cfg(test)]
#[path = "oci_test.rs"]
mod oci_test;
