//! What containerd's configuration says to a runtime that has no options of its own
//! (`containerd/api/types/runtimeoptions/v1`): where its configuration file is.
//!
//! Invariant: options of other types are none of ours.

use std::path::PathBuf;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use prost::Message;

use crate::config;

/// Their type.
const TYPE: &str = "runtimeoptions.v1.Options";

#[derive(Clone, PartialEq, Message)]
struct RuntimeOptions {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
}

/// The configuration file that the options name, or the usual one.
///
/// # Errors
/// They cannot be read.
pub(super) fn configuration(options: Option<&Any>) -> anyhow::Result<PathBuf> {
    Ok(named(options)?.unwrap_or_else(config::usual))
}

/// The configuration file that the options name, if they do.
///
/// # Errors
/// They cannot be read.
pub(super) fn named(options: Option<&Any>) -> anyhow::Result<Option<PathBuf>> {
    let Some(options) = options.filter(|any| any.type_url.ends_with(TYPE)) else {
        return Ok(None);
    };
    let options = RuntimeOptions::decode(options.value.as_slice());
    let options = options.map_err(|error| anyhow::anyhow!("options of the runtime: {error}"))?;
    Ok(Some(options.config_path).filter(|path| !path.is_empty()).map(PathBuf::from))
}

#[cfg(test)]
#[path = "options_test.rs"]
mod options_test;
