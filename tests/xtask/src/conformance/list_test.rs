use super::*;

fn test(file: &str, name: &str) -> Test {
    Test { file: file.to_owned(), name: name.to_owned() }
}

#[test]
fn entries_cover_a_test_or_a_file() {
    let list = List::parse(
        "# comment\n\nleave out | checkpoint.bats | * | not supported\n\
         differs | help.bats | runc -h | the name | of the program\n",
    )
    .unwrap();

    assert_eq!(list.left_out(&test("checkpoint.bats", "anything")), Some("not supported"));
    assert_eq!(list.differs(&test("help.bats", "runc -h")), Some("the name | of the program"));
    assert_eq!(list.differs(&test("help.bats", "runc foo -h")), None);
    assert_eq!(list.left_out(&test("help.bats", "runc -h")), None);
    assert_eq!(
        list.differs(&test("help.bats", "runc -h ")),
        list.differs(&test("help.bats", "runc -h"))
    );
}

#[test]
fn entries_without_a_reason_or_of_another_kind_are_refused() {
    for (line, why) in [
        ("differs | a.bats | name", "file, name and reason"),
        ("differs | a.bats | name | ", "file, name and reason"),
        ("ignore | a.bats | name | because", "`ignore` is neither"),
    ] {
        let error = List::parse(line).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("line 1"), "{line}: {error}");
    }
}

#[test]
fn an_entry_for_a_test_that_is_gone_is_an_error() {
    let list = List::parse("differs | a.bats | old | because").unwrap();

    list.check(&[test("a.bats", "old")]).unwrap();
    let error = list.check(&[test("a.bats", "new")]).unwrap_err().to_string();

    assert!(error.contains("a.bats: old"), "{error}");
}
