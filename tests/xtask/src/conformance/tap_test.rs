use super::*;

fn test(file: &str, name: &str) -> Test {
    Test { file: file.to_owned(), name: name.to_owned() }
}

/// What is read from `text` when `wanted` were to run.
fn read(text: &str, wanted: &[Test]) -> Results {
    let mut reader = Reader::default();
    for line in text.lines() {
        reader.line(line);
    }
    reader.finish(wanted)
}

#[test]
fn what_bats_prints_in_a_terminal_is_understood() {
    let text = "### FILE exec.bats\r\n1..3\r\nok 1 runc exec in 1412ms\r\n\
                not ok 2 runc exec [a] in b in 1630ms\r\n# (in test file exec.bats, line 280)\r\n#   `false' failed\r\n\
                ok 3 runc exec [v1] in 915ms # skip test requires cgroups_v1\r\n# after\r\n### END 1\n";
    let wanted =
        ["runc exec", "runc exec [a] in b", "runc exec [v1]"].map(|name| test("exec.bats", name));

    let results = read(text, &wanted);

    let [first, second, third] = &wanted;
    assert_eq!(results[first].outcome, Outcome::Passed);
    assert_eq!(results[first].time, Some(Duration::from_millis(1412)));
    assert_eq!(results[second].outcome, Outcome::Failed);
    assert_eq!(results[second].detail, ["(in test file exec.bats, line 280)", "  `false' failed"]);
    assert_eq!(results[third].outcome, Outcome::Skipped("test requires cgroups_v1".to_owned()));
    assert_eq!(results[third].detail, [""; 0]);
}

#[test]
fn a_test_that_said_nothing_has_failed() {
    let wanted = [test("a.bats", "one"), test("a.bats", "two"), test("b.bats", "one")];
    let results = read("### FILE a.bats\n1..2\nok 1 one in 5ms\n### END 124\n", &wanted);

    assert_eq!(results[&wanted[0]].outcome, Outcome::Passed);
    assert_eq!(results[&wanted[1]].outcome, Outcome::Failed);
    assert_eq!(results[&wanted[2]].outcome, Outcome::Failed);
}

#[test]
fn only_what_was_wanted_counts() {
    let wanted = [test("a.bats", "one")];
    let results = read("### FILE a.bats\nok 1 one\nok 2 other\nokay 3 one\nok one\n", &wanted);

    assert_eq!(results.len(), 1);
    assert_eq!(results[&wanted[0]].time, None);
}

#[test]
fn a_time_limit_of_bats_is_no_part_of_the_name() {
    let wanted = [test("a.bats", "slow")];
    let results = read("### FILE a.bats\nnot ok 1 slow in 60193ms # timeout after 60s\n", &wanted);

    assert_eq!(results[&wanted[0]].outcome, Outcome::Failed);
    assert_eq!(results[&wanted[0]].detail, ["timeout after 60s"]);
}
