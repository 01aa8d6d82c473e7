//! Accounting of the guest to runc's form.

use super::*;

#[test]
fn files_become_runcs_data() {
    let files = [
        ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_throttled 2\n"),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 1\nfile 2\n"),
        ("pids.current", "3\n"),
        ("pids.max", "10\n"),
        ("io.stat", "254:16 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n"),
    ];
    let files: Vec<_> = files.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let data = Files(&files).data();
    assert_eq!(data["cpu"]["usage"]["total"], 30_000);
    assert_eq!(data["cpu"]["throttling"]["throttledPeriods"], 2);
    assert_eq!(data["memory"]["usage"]["usage"], 4096);
    assert_eq!(data["memory"]["usage"]["limit"], u64::MAX);
    assert_eq!(data["memory"]["cache"], 2);
    assert_eq!(data["pids"], json!({"current": 3, "limit": 10}));
    let first = &data["blkio"]["ioServiceBytesRecursive"][0];
    assert_eq!(*first, json!({"major": 254, "minor": 16, "op": "Read", "value": 512}));
}

#[test]
fn durations_are_as_in_go() {
    assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
    assert_eq!(duration("300ms").unwrap(), Duration::from_millis(300));
    assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
    for text in ["", "5", "s", "-1s", "infs"] {
        assert!(duration(text).unwrap_err().contains(&format!("{text:?}")), "{text}");
    }
}
