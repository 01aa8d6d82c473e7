use std::process::Command;

use super::*;

#[test]
fn a_quoted_word_is_one_word_of_a_shell() {
    for word in ["", "a b", "it's", "$HOME", "`x`", "\"", "\\", "*", "a\nb", "''"] {
        let script = format!("printf '%s|' {}", quote(word));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{word}|"));
    }
}

#[test]
fn a_list_of_packages_may_have_comments_and_empty_lines() {
    assert_eq!(packages("# what\n\npython3\n  crun  \n"), ["python3", "crun"]);
}
