use super::*;

fn file(path: &str, text: &str) -> File {
    File::new(path.to_owned(), text.to_owned())
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "a // unsafe\nb /* x /* y */ unsafe */ c \"un\\\"safe\" d r#\"unsafe\"# e";
    let code = code(text);
    assert!(!code.contains("unsafe") && !code.contains("safe"), "{code}");
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "b", "c", "d", "e"]);
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn quotes_in_character_literals_open_no_string() {
    assert!(code(r#"if c == '"' { unsafe {} }"#).contains("unsafe"));
    assert!(code(r#"if c == '\"' { unsafe {} }"#).contains("unsafe"));
    assert!(code("fn f<'a>(x: &'a str) { unsafe {} }").contains("unsafe"));
}

#[test]
fn identifiers_that_begin_with_r_are_no_raw_strings() {
    assert_eq!(code("let r = ready(\"x\");").trim_end(), "let r = ready(   );");
}

#[test]
fn unterminated_literals_end_with_the_file() {
    assert_eq!(code("\"abc").trim(), "");
    assert_eq!(code("/* abc").trim(), "");
    assert_eq!(code("r##\"abc\"#").trim(), "");
}

#[test]
fn a_word_in_code_is_found_and_in_a_comment_is_not() {
    let files = [
        file("vmm/devices/src/a.rs", "//! Not KVM.\nuse kvm_ioctls::Kvm;\n"),
        file("vmm/hv/src/b.rs", "use kvm_ioctls::Kvm;\n"),
    ];
    let found = naming(&files, "vmm/devices/", "kvm");
    assert_eq!(found, ["vmm/devices/src/a.rs:2: use kvm_ioctls::Kvm;"]);
}

#[test]
fn unsafe_is_found_outside_of_the_allowed_files() {
    let files = [
        file("shim/src/main.rs", "//! x\n#![forbid(unsafe_code)]\n"),
        file("shim/src/a.rs", "fn f() { unsafe { g() } }"),
        file("shim/src/a_test.rs", "fn f() { unsafe { g() } }"),
        file("vmm/hv/src/kvm.rs", "fn f() { unsafe { g() } }"),
    ];
    // The shim may have unsafe files, so its root need not forbid it.
    assert_eq!(unsafe_code(&files), ["shim/src/a.rs: unsafe"]);
}

#[test]
fn a_crate_without_unsafe_forbids_it() {
    let files = [file("vmm/api/src/lib.rs", "//! x\n")];
    assert_eq!(unsafe_code(&files), ["vmm/api/src/lib.rs: lacks #![forbid(unsafe_code)]"]);
}

#[test]
fn long_files_and_files_without_docs_are_found() {
    let long = "x\n".repeat(501);
    let files = [file("vmm/src/a.rs", &long), file("vmm/src/a_test.rs", &long)];
    assert_eq!(lengths(&files), ["vmm/src/a.rs: 501 lines"]);
    assert_eq!(module_docs(&files), ["vmm/src/a.rs"]);
}

#[test]
fn an_allowance_that_nothing_needs_is_found() {
    let files =
        [file("vmm/src/jail/sys.rs", "unsafe fn f() {}"), file("vmm/hv/src/vm.rs", "// unsafe")];
    let found = unused_allowances(&files);
    assert!(!found.iter().any(|line| line.starts_with("vmm/src/jail/")), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("vmm/hv/src/vm.rs")), "{found:?}");
}
