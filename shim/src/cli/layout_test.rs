//! Names, and what is printed under them.

use clap::CommandFactory;

use super::super::Cli;
use super::*;

#[test]
fn the_name_is_that_of_the_file_or_our_own() {
    let named = |called: &str| program(Some(called.into()));
    assert_eq!(named("/usr/sbin/runc"), "runc");
    assert_eq!(named("cofferdam"), "cofferdam");
    for odd in ["", "/", "..", "/bin/{about}", "a b"] {
        assert_eq!(named(odd), "cofferdam", "{odd:?}");
    }
    assert_eq!(program(None), "cofferdam");
}

#[test]
fn help_begins_with_name_and_purpose() {
    let help = |words: &[&str]| {
        let command = laid_out(Cli::command(), "runc");
        command.try_get_matches_from(words).unwrap_err().to_string()
    };
    for flag in ["-h", "--help"] {
        let text = help(&["runc", flag]);
        assert!(text.starts_with("NAME:\n   runc - Open Container Initiative runtime"), "{text}");
        let text = help(&["runc", "create", flag]);
        assert!(text.starts_with("NAME:\n   runc create - Create a container"), "{text}");
        assert!(text.contains("USAGE:\n   runc create [OPTIONS] <ID>\n"), "{text}");
        assert!(text.contains("--pid-file"), "{text}");
    }
}

#[test]
fn the_version_has_runc_s_first_lines() {
    let text = version("runc");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("runc version 0."), "{text}");
    assert!(lines[1].starts_with("commit: ") && lines[2].starts_with("spec: 1."), "{text}");
}
