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

/// What a good disk measures.
fn good() -> [String; 5] {
    [
        line("read 4 KiB, depth 1", 1000, 1002, 3003),
        line("write 4 KiB, depth 1", 1000, 700, 2600),
        line("read 4 KiB, depth 32", 6400, 1920, 6400),
        line("write 4 KiB, depth 32", 6400, 1000, 6400),
        line("read in order", 32, 3200, 3200),
    ]
}

#[test]
fn what_is_promised_is_kept_or_named() {
    let report = Report::new(&good().concat()).unwrap();
    assert_eq!(report.broken(), [""; 0]);
    let text = report.to_string();
    assert!(text.contains("read in order") && text.contains("100.00"), "{text}");
    for (doorbells, calls) in [(1010, 3000), (1000, 3010), (0, 3000), (1000, 0)] {
        let mut lines = good();
        lines[1] = line("write 4 KiB, depth 1", 1000, doorbells, calls);
        let broken = Report::new(&lines.concat()).unwrap().broken();
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].starts_with("write 4 KiB, depth 1: "), "{broken:?}");
    }
}

#[test]
fn what_was_not_measured_is_not_kept() {
    let report = Report::new(&good()[..3].concat()).unwrap();
    assert_eq!(report.broken(), ["write 4 KiB, depth 32: it was not measured"]);
    let streams = line("one byte and back", 100, 100, 100) + &line("to the host", 32, 100, 100);
    let report = Report::new(&streams).unwrap();
    assert_eq!(report.missing(), ["from the host: it was not measured"]);
}

#[test]
fn nothing_is_an_error() {
    assert!(Report::new("\n").is_err());
    assert!(Report::new("not this\n").is_err());
}
