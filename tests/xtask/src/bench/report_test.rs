use super::*;

/// Runs of all names; ours take `ours` instructions, QEMU's three times as many as the first.
fn measured(ours: [u64; 3], idle: u64) -> BTreeMap<String, Vec<Measured>> {
    let one =
        |hello| Measured { hello, private_kib: 1000, guest_kib: 30_000, ..Measured::default() };
    let mut all: BTreeMap<String, Vec<Measured>> =
        [OURS_TRACED, QEMU_TRACED, VCPU, PARKED, GIB, DISK, CONSOLE, HUGE, IDLE]
            .map(|name| (name.to_owned(), vec![one(ours[0])]))
            .into();
    all.insert(OURS.to_owned(), ours.map(one).into());
    all.insert(QEMU.to_owned(), vec![one(ours[0] * 3)]);
    if let Some(run) = all.get_mut(IDLE).and_then(|runs| runs.first_mut()) {
        run.idle_exits.insert("hlt".to_owned(), idle);
    }
    all
}

#[test]
fn the_median_counts_and_promises_are_kept() {
    let report = Report::new(&measured([101_000_000, 103_000_000, 102_000_000], 10)).unwrap();
    assert_eq!(report.cofferdam.instructions, 102_000_000);
    assert_eq!(report.more[VCPU], -1_000_000);
    assert_eq!(report.broken(), [""; 0]);
    assert!(report.to_string().contains("0.337 of QEMU's instructions"), "{report}");
}

#[test]
fn each_broken_promise_is_named() {
    let mut slow = measured([190_000_000; 3], 20 * IDLE_SECONDS);
    for run in slow.get_mut(QEMU).unwrap() {
        run.hello = 200_000_000;
    }
    for run in slow.values_mut().flatten() {
        (run.private_kib, run.guest_kib) = (6000, 50_000);
    }
    assert_eq!(Report::new(&slow).unwrap().broken().len(), 5);
}

#[test]
fn a_run_that_is_missing_is_named() {
    let mut some = measured([1; 3], 0);
    some.remove(DISK);
    assert!(Report::new(&some).unwrap_err().to_string().contains(DISK));
}
