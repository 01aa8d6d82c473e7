//! The middle of several rounds, and the one promise.

use super::*;

fn line(runtime: &str, create: u64, delete: u64) -> String {
    format!(r#"{{"runtime":"{runtime}","create":{create},"start":1000,"delete":{delete}}}"#) + "\n"
}

#[test]
fn the_middle_round_counts() {
    let text = [
        line("runc", 5000, 1000),
        line("cofferdam", 100, 9000),
        line("cofferdam", 200, 2000),
        line("cofferdam", 300, 1000),
    ];
    let report = Report::new(&text.concat()).unwrap();
    let row = &report.0[&Runtime::Cofferdam];
    assert_eq!(
        (row.rounds, row.create, row.start, row.delete, row.all),
        (3, 200, 1000, 2000, 3200)
    );
    assert_eq!(report.broken(), [""; 0]);
    assert!(report.to_string().contains("\ncofferdam "), "{report}");
}

#[test]
fn as_many_as_runc_are_too_many() {
    let report = Report::new(&[line("runc", 5, 5), line("cofferdam", 5, 5)].concat()).unwrap();
    assert!(report.broken()[0].contains("1010"), "{:?}", report.broken());
}

#[test]
fn both_are_measured() {
    assert!(Report::new(&line("runc", 5, 5)).is_err());
    assert!(Report::new("nothing").is_err());
}
