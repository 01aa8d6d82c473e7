//! `cofferdam-vmm`: without arguments it serves its supervisor's control socket; `boot` runs a machine by
//! hand.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use cofferdam_vmm::control::chain;
use cofferdam_vmm::machine::now_ns;

use crate::cli::Cli;
use crate::cli::exit;

fn main() -> ExitCode {
    let started_ns = now_ns();
    let result = match Cli::parse().command {
        None => cli::serve::run(started_ns),
        Some(cli::Command::Boot(args)) => cli::boot::run(&args, started_ns),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cofferdam-vmm: {}", chain(error.as_ref()));
        ExitCode::from(exit::FAILED)
    })
}
