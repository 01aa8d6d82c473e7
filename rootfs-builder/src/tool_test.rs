//! Tests of running programs.

use super::*;

fn run(program: &'static str, arguments: &[&str]) -> Result<(), ToolError> {
    let tool = Tool { program, package: "a-package" };
    let lock = tempfile::tempfile().unwrap();
    tool.run(arguments.iter().map(std::ffi::OsStr::new), &lock, || {})
}

#[test]
fn success_is_success() {
    run("true", &[]).unwrap();
}

#[test]
fn missing_program_names_its_package() {
    let error = run("no-such-program", &[]).unwrap_err();

    assert_eq!(error.to_string(), "no-such-program is not installed: apt-get install a-package");
}

#[test]
fn failure_shows_what_the_program_said() {
    let error = run("sh", &["-c", "echo one; echo two >&2; exit 3"]).unwrap_err();

    assert_eq!(error.to_string(), "sh: exit status: 3: one; two");
}

#[test]
fn only_the_end_of_a_long_output_is_kept() {
    let error = run("sh", &["-c", "seq 100000; exit 1"]).unwrap_err();

    assert!(error.to_string().ends_with("99999; 100000"));
    assert!(error.to_string().len() < OUTPUT_SHOWN);
}

#[test]
fn caller_is_called_while_the_program_runs() {
    let tool = Tool { program: "sleep", package: "coreutils" };
    let lock = tempfile::tempfile().unwrap();
    let mut calls = 0;

    tool.run([std::ffi::OsStr::new("0.2")], &lock, || calls += 1).unwrap();

    assert!(calls > 1);
}
