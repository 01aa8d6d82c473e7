//! A function's state as plain data.
//!
//! Invariant: holds no thread, descriptor or lock; what is not in it follows from the plan.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::common::CommonState;
use super::link::Link;
use crate::pci::config::ConfigSpace;
use crate::pci::msix::MsixState;

/// Everything the guest has set of one function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    config: ConfigSpace,
    msix: MsixState,
    common: CommonState,
    status: u8,
    generation: u8,
    config_vector: u16,
    queue_vectors: Vec<u16>,
}

impl TransportState {
    pub(super) fn of(config: &ConfigSpace, common: &CommonState, link: &Link) -> Self {
        let queue_vectors = link.queue_vectors.iter();
        Self {
            config: config.clone(),
            msix: link.msix().state(),
            common: common.clone(),
            status: link.status.load(Ordering::Acquire),
            generation: link.generation(),
            config_vector: link.config_vector.load(Ordering::Acquire),
            queue_vectors: queue_vectors.map(|vector| vector.load(Ordering::Acquire)).collect(),
        }
    }
}
