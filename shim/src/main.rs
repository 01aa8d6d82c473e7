//! The `cofferdam` command line.
//!
//! Invariant: nothing is decided here.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(places) = cofferdam_shim::pod::guardian::requested(std::env::args_os()) {
        cofferdam_shim::pod::guardian::main(&places);
        return ExitCode::SUCCESS;
    }
    cofferdam_shim::cli::main()
}
