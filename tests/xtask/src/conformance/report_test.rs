use super::*;

/// Tests of one file with these outcomes, named by their number.
fn results(outcomes: &[Outcome]) -> Results {
    let ended = |outcome: &Outcome| Ended {
        outcome: outcome.clone(),
        time: None,
        detail: vec!["it said".to_owned()],
    };
    let test = |number: usize| Test { file: "a.bats".to_owned(), name: number.to_string() };
    outcomes.iter().enumerate().map(|(number, outcome)| (test(number), ended(outcome))).collect()
}

fn skipped() -> Outcome {
    Outcome::Skipped("no reason".to_owned())
}

#[test]
fn what_the_baseline_does_not_pass_does_not_count() {
    use Outcome::{Failed, Passed};
    let baseline = results(&[Passed, Failed, skipped(), Passed]);
    let ours = results(&[Passed, Failed, Failed, Passed]);
    let list = List::default();
    let report = Report::new(Suite::Runc, (&baseline, &ours), &list, 7);

    assert_eq!(report.score(), (2, 2));
    assert!(report.enough() && report.unexpected().is_empty());
    assert!(
        report.summary().contains("passes 2, cofferdam 2 of them: 100 %; 0 unexpected; 7 left out")
    );
}

#[test]
fn a_skipped_test_is_not_passed_and_an_expected_one_does_not_count_as_passed() {
    use Outcome::{Failed, Passed};
    let baseline = results(&[Passed, Passed, Passed]);
    let ours = results(&[Passed, skipped(), Failed]);
    let list = List::parse("differs | a.bats | 2 | on purpose").unwrap();
    let report = Report::new(Suite::Runc, (&baseline, &ours), &list, 0);

    assert_eq!(report.score(), (3, 1));
    assert!(!report.enough());
    let names: Vec<&str> = report.unexpected().iter().map(|(test, _)| test.name.as_str()).collect();
    assert_eq!(names, ["1"]);
    let text = report.to_string();
    assert!(text.contains("on purpose") && text.contains("UNEXPECTED  a.bats: 1"), "{text}");
    assert!(text.contains("skipped: no reason"), "{text}");
}

#[test]
fn the_least_part_is_enough_and_less_is_not() {
    let baseline = results(&vec![Outcome::Passed; 20]);
    let list = List::parse("differs | a.bats | * | all of them").unwrap();
    for (failures, enough) in [(3, true), (4, false)] {
        let mut ours = vec![Outcome::Failed; failures];
        ours.resize(20, Outcome::Passed);
        let ours = results(&ours);
        let report = Report::new(Suite::Crun, (&baseline, &ours), &list, 0);
        assert_eq!(report.enough(), enough, "{failures} failures");
        assert!(report.to_string().contains("there is no difference"));
    }
}

#[test]
fn each_file_has_a_row() {
    let baseline = results(&[Outcome::Passed, Outcome::Failed, skipped()]);
    let list = List::default();
    let report = Report::new(Suite::Podman, (&baseline, &baseline), &list, 0);

    let counts = Counts { passed: 1, failed: 1, skipped: 1 };
    assert_eq!(report.files(), BTreeMap::from([("a.bats", (counts, counts))]));
}
