//! What every developer command needs: missing packages, a content-addressed cache, visible progress.

pub mod apt;
pub mod archive;
pub mod cache;
pub mod debian;
pub mod step;
