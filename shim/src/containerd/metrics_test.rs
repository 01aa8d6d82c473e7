//! Accounting of the guest to containerd's form.

use super::*;

#[test]
fn files_become_metrics() {
    let files = [
        ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_throttled 2\n"),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 1\nfile 2\nworkingset_refault_anon 3\nworkingset_refault_file 4\n"),
        ("memory.events", "low 0\noom 5\noom_kill 1\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("io.stat", "254:16 rbytes=512 wbytes=7 rios=1 wios=2 dbytes=0 dios=0\n254:0 \n"),
    ];
    let files: Vec<_> = files.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let any = encoded(&Files(&files)).unwrap();
    assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
    let metrics = Metrics::parse_from_bytes(&any.value).unwrap();
    assert_eq!((metrics.cpu.usage_usec, metrics.cpu.nr_throttled), (30, 2));
    assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (4096, u64::MAX));
    assert_eq!((metrics.memory.anon, metrics.memory.workingset_refault), (1, 7));
    assert_eq!((metrics.memory_events.oom, metrics.memory_events.oom_kill), (5, 1));
    assert_eq!((metrics.pids.current, metrics.pids.limit), (3, u64::MAX));
    let disk = &metrics.io.usage[0];
    assert_eq!((disk.major, disk.minor, disk.rbytes, disk.wios), (254, 16, 512, 2));
    assert_eq!(metrics.io.usage[1].rbytes, 0);
}
