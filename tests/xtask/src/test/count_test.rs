use super::*;

fn count(text: &str) -> Counts {
    show_and_count(text.as_bytes(), std::io::sink()).unwrap()
}

#[test]
fn results_of_several_binaries_are_added() {
    let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.1s\n\
                test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out\n";
    assert_eq!(count(text), Counts { passed: 5, failed: 4, skipped: 1, again: 0 });
}

#[test]
fn a_test_that_could_not_run_is_skipped() {
    let text = "SKIPPED: no /dev/kvm\n\
                test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
    assert_eq!(count(text), Counts { passed: 1, failed: 0, skipped: 1, again: 0 });
}

#[test]
fn output_without_a_result_is_a_failure() {
    let mut counts = count("running 3 tests\n");
    counts.judge(false);
    assert_eq!(counts, Counts { passed: 0, failed: 1, skipped: 0, again: 0 });
}

#[test]
fn a_failure_is_not_counted_twice() {
    let mut counts = count("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured\n");
    counts.judge(false);
    assert_eq!(counts.failed, 1);
}

#[test]
fn a_case_that_needed_a_second_try_is_counted() {
    let text = "test stdio::a ... AGAIN: stdio::a failed: too late\nok\n\
                test result: ok. 1 passed; 0 failed; 0 ignored\n";
    assert_eq!(count(text), Counts { passed: 1, failed: 0, skipped: 0, again: 1 });
}
