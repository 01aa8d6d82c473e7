//! A page for each command, and words for the shell.

use super::*;

#[test]
fn each_command_has_a_page() {
    let directory = tempfile::tempdir().unwrap();
    pages(directory.path()).unwrap();
    for name in ["cofferdam", "cofferdam-run", "cofferdam-create", "cofferdam-exec"] {
        let text = fs::read_to_string(directory.path().join(format!("{name}.8"))).unwrap();
        assert!(text.contains(".SH NAME") && text.contains("OPTIONS"), "{name}: {text}");
    }
    assert!(!directory.path().join("cofferdam-supervisor.8").exists());
}

#[test]
fn completions_know_the_commands() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let text = completions(shell);
        assert!(text.contains("delete") && text.contains("console-socket"), "{shell}");
    }
}
