//! Lines of processes as the guest tells them.

use super::*;

fn process(stat: &str) -> Process {
    Process { stat: stat.into(), uid: 0, command: "sleep 1000".into() }
}

/// As of a process called "a) b" on the terminal pts/3.
const STAT: &str = "37 (a) b) S 12 37 37 34819 37 4194560 1 0 0 0 250 150 0 0 20 0 1 0 5000 0 0";

#[test]
fn a_full_listing_has_the_columns_of_ps() {
    let row = Row::of(&process(STAT), 7000).unwrap();
    assert_eq!((row.pid, row.parent, row.used, row.age), (37, 12, 4, 20));
    let text = full_listing(&[row], Duration::from_secs(3600 * 10 + 60 * 5 + 20));
    let line = text.lines().nth(1).unwrap();
    assert!(text.starts_with("UID          PID    PPID  C STIME TTY          TIME CMD\n"));
    assert_eq!(line, "root          37      12 20 10:05 pts/3    00:00:04 sleep 1000");
}

#[test]
fn a_short_listing_has_them_too() {
    let row = Row::of(&process(&STAT.replace("34819", "0")), 7000).unwrap();
    let text = short_listing(&[row]);
    assert_eq!(text.lines().nth(1).unwrap(), "     37 ?        S      0:04 sleep 1000");
}

#[test]
fn what_is_no_stat_is_left_out() {
    for stat in ["", "37", "37 (a) S", "x (a) S 12 37 37 0 37 1 1 0 0 0 1 1 0 0 20 0 1 0 5"] {
        assert_eq!(Row::of(&process(stat), 0), None, "{stat}");
    }
}
