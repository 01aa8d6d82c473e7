//! Bytes go in and come out, all of them, as they are.

use anyhow::{Result, ensure};

use super::cases;
use crate::run::Run;

cases!("stdio":
    output_and_errors_stay_apart,
    the_exit_code_is_the_containers,
    input_ends_where_it_ends,
    megabytes_of_input_arrive_unchanged,
    megabytes_of_output_arrive_before_the_end,
    every_byte_value_survives,
    input_nobody_reads_does_no_harm,
    a_closed_output_ends_the_writer,
    dev_stdout_can_be_opened_again,
    environment_and_arguments_arrive_exactly,
);

/// Bytes that repeat only after a long while.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(next).collect()
}

fn output_and_errors_stay_apart() -> Result<()> {
    let outcome = Run::shell("echo out; echo err >&2").output()?.exits(0)?.prints("out")?;
    ensure!(outcome.stderr.trim() == "err", "{outcome}");
    Ok(())
}

fn the_exit_code_is_the_containers() -> Result<()> {
    Run::shell("exit 42").output()?.exits(42)?;
    // A first process takes no SIGKILL from its own namespace, so a shell reports that of a child.
    Run::shell("sh -c 'kill -KILL $$'; exit $?").output()?.exits(137).map(drop)
}

fn input_ends_where_it_ends() -> Result<()> {
    Run::command(&["cat"]).stdin("one\ntwo").output()?.exits(0)?.prints("one\ntwo").map(drop)
}

fn megabytes_of_input_arrive_unchanged() -> Result<()> {
    use sha2::{Digest, Sha256};
    let bytes = noise(8 << 20);
    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Run::command(&["sha256sum"]).stdin(bytes).output()?.exits(0)?.has(&sum).map(drop)
}

fn megabytes_of_output_arrive_before_the_end() -> Result<()> {
    let outcome = Run::shell("head -c 33554432 /dev/zero; echo end").output()?.exits(0)?;
    ensure!(outcome.stdout.len() == (32 << 20) + 4, "{} bytes", outcome.stdout.len());
    ensure!(outcome.stdout.ends_with(b"\0end\n"), "the last bytes are others");
    Ok(())
}

fn every_byte_value_survives() -> Result<()> {
    let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let outcome = Run::command(&["cat"]).stdin(bytes.clone()).output()?.exits(0)?;
    ensure!(outcome.stdout == bytes, "{} bytes came back, or others", outcome.stdout.len());
    Ok(())
}

fn input_nobody_reads_does_no_harm() -> Result<()> {
    Run::shell("echo done").stdin(noise(1 << 20)).output()?.exits(0)?.prints("done").map(drop)
}

fn a_closed_output_ends_the_writer() -> Result<()> {
    let command = Run::command(&["yes"]).arguments().join("' '");
    let script = format!("'cofferdam' '{command}' | head -n 2");
    let done =
        std::process::Command::new("timeout").args(["120", "bash", "-c", &script]).output()?;
    ensure!(done.status.success() && done.stdout == b"y\ny\n", "{done:?}");
    Ok(())
}

fn dev_stdout_can_be_opened_again() -> Result<()> {
    let outcome = Run::shell("echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin")
        .stdin("in\n")
        .output()?
        .exits(0)?
        .prints("out\nin")?;
    ensure!(outcome.stderr.trim() == "err", "{outcome}");
    Ok(())
}

fn environment_and_arguments_arrive_exactly() -> Result<()> {
    let script = r#"printf '%s|' "$A" "$HOME" "$@"; pwd"#;
    Run::command(&["sh", "-c", script, "sh", "", "two words", "a'b\"c", "ü"])
        .flags(&["--env", "A=x y=z", "--cwd", "/usr"])
        .output()?
        .exits(0)?
        .prints("x y=z|/root||two words|a'b\"c|ü|/usr")
        .map(drop)
}
