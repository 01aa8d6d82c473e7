use super::*;

#[test]
fn bats_names_are_found_however_they_are_quoted() {
    let text = "#!/usr/bin/env bats\n@test \"runc run [x] ({a} | b)\" {\n\t[ 1 ]\n}\n\
                @test 'single' {\n}\n  @test \"not at the start\" {\n";
    assert_eq!(bats_tests(text), ["runc run [x] ({a} | b)", "single"]);
}

#[test]
fn python_names_are_the_keys_of_the_dictionary() {
    let text = "other = {\n    \"no\" : 1,\n}\nall_tests = {\n    \"mount-ro\" : test_mount_ro,\n    \
                \"exec_x\" : test_exec,\n}\n\"no\"\n";
    assert_eq!(python_tests(text), ["mount-ro", "exec_x"]);
}

#[test]
fn a_plan_has_a_line_for_each_file() {
    let test = |file: &str, name: &str| Test { file: file.to_owned(), name: name.to_owned() };
    let limit = Duration::from_secs(60);

    let bats = [test("a.bats", "run [x]"), test("a.bats", "a + b?"), test("b.bats", "plain")];
    assert_eq!(
        Suite::Runc.plan(&bats, limit),
        "a.bats\t60\t^(run \\[x\\]|a \\+ b\\?)$\nb.bats\t60\t^(plain)$\n"
    );
    let python = [test("test_a.py", "one"), test("test_a.py", "two")];
    assert_eq!(Suite::Crun.plan(&python, limit), "test_a.py\t60\tone two\n");
}

#[test]
fn tests_are_left_out_and_filtered() {
    let test = |file: &str, name: &str| Test { file: file.to_owned(), name: name.to_owned() };
    let list = List::parse("leave out | a.bats | one | because").unwrap();
    let all = vec![test("a.bats", "one"), test("a.bats", "two"), test("b.bats", "one")];

    assert_eq!(Suite::select(all.clone(), &list, &[]).len(), 2);
    assert_eq!(Suite::select(all.clone(), &list, &["one".to_owned()]), [test("b.bats", "one")]);
    assert_eq!(
        Suite::select(all, &list, &["none".to_owned(), "a.bats".to_owned()]),
        [test("a.bats", "two")]
    );
}
