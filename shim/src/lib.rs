//! The supervisor of a pod and the `cofferdam` command line.
//!
//! ```text
//! cli, containerd -> run -> config, oci (pure: bundle -> plan)
//!                       \-> storage (layer, scratch disk), pod (actor: monitor, agent, streams)
//! ```
//!
//! Invariant: spec -> plan -> run: what is decided is decided before anything is started; `unsafe` only in
//! `sys`.
#![deny(unsafe_code)]

mod accounts;
mod changed;
pub mod cli;
pub mod config;
mod container;
pub mod containerd;
mod control;
mod doctor;
mod hostgroup;
mod install;
mod living;
mod logging;
pub mod oci;
pub mod pod;
pub mod proxy;
mod pty;
pub mod room;
mod run;
mod signals;
pub mod sizing;
mod socket;
mod storage;
mod supervisor;
mod sys;
pub mod tail;
mod terminal;
pub mod timeline;
pub mod uids;
pub mod units;
mod user;
pub mod volumes;
