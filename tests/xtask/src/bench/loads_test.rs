use super::*;

fn line(name: &str, count: u64, doorbells: u64, calls: u64) -> String {
    let phase = Phase {
        name: name.to_owned(),
        unit: "request".to_owned(),
        count,
        exits: BTreeMap::from([("npf".to_owned(), doorbells), ("hlt".to_owned(), 7 * count)]),
        calls: BTreeMap::from([(16, calls / 2), (426, calls - calls / 2)]),
    };
    serde_json::to_string(&phase).unwrap() + "\n"
}

#[test]
fn what_is_promised_is_kept_or_named() {
    let good = line("read 4 KiB, depth 1", 1000, 1002, 3003)
        + &line("read 4 KiB, depth 32", 6400, 1920, 6400)
        + &line("read in order", 32, 3200, 3200);
    let report = Report::new(&good).unwrap();
    assert_eq!(report.broken(), [""; 0]);
    let text = report.to_string();
    assert!(text.contains("read in order") && text.contains("100.00"), "{text}");

    for (doorbells, calls) in [(1010, 3000), (1000, 3010)] {
        let broken = Report::new(&line("write 4 KiB, depth 1", 1000, doorbells, calls)).unwrap();
        assert_eq!(broken.broken().len(), 1);
        assert!(broken.broken()[0].starts_with("write 4 KiB, depth 1: 1.0"));
    }
    assert_eq!(Report::new(&line("a 4 KiB, depth 32", 100, 31, 0)).unwrap().broken().len(), 1);
}

#[test]
fn nothing_is_an_error() {
    assert!(Report::new("\n").is_err());
    assert!(Report::new("not this\n").is_err());
}
