//! Help and version in the layout of runc's, under the name by which the program was called: scripts look for it.
//!
//! Invariant: what is parsed does not depend on that name.

use std::ffi::OsString;
use std::path::Path;

use clap::Command;

/// The program's own name.
const NAME: &str = "cofferdam";

/// From which sources it was built, if who built it says so.
const COMMIT: Option<&str> = option_env!("COFFERDAM_COMMIT");

/// The name in `called`, the first word of the command line, if it is one.
pub(super) fn program(called: Option<OsString>) -> String {
    let called = called.unwrap_or_default();
    let name = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(plain) { NAME.to_owned() } else { name.to_owned() }
}

/// `command` and those below it with such help.
pub(super) fn laid_out(command: Command, program: &str) -> Command {
    let template = |name: &str| {
        format!("NAME:\n   {name} - {{about}}\n\nUSAGE:\n   {{usage}}\n\n{{all-args}}")
    };
    command.help_template(template(program)).mut_subcommands(|command| {
        let name = format!("{program} {}", command.get_name());
        command.help_template(template(&name))
    })
}

/// What `--version` prints.
pub(super) fn version(program: &str) -> String {
    format!(
        "{program} version {}\ncommit: {}\nspec: 1.2.0\nagent protocol: {}\nmonitor interface: {}\n",
        env!("CARGO_PKG_VERSION"),
        COMMIT.unwrap_or("unknown"),
        cofferdam_agent_protocol::PROTOCOL_VERSION,
        cofferdam_vmm_api::API_VERSION,
    )
}

#[cfg(test)]
#[path = "layout_test.rs"]
mod layout_test;
