//! `linux.devices` and `linux.resources.devices`: which nodes there are, and which may be used.

use serde_json::{Value, json};

use super::{Clause, Group, Script, prints};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[Group::Inside("devices", devices, DEVICES)];

/// Type, numbers and mode of a node.
macro_rules! node {
    ($name:literal, $source:literal, $path:literal, $found:literal) => {
        prints($name, $source, concat!("stat -c '%F %t:%T %a' ", $path), $found)
    };
}

/// Where a link leads.
macro_rules! link {
    ($name:literal, $path:literal, $found:literal) => {
        prints($name, "runtime-linux: dev symbolic links", concat!("readlink ", $path), $found)
    };
}

/// `CAP_SYSLOG` is what the kernel itself wants of those who read `/dev/kmsg`.
const CAPABILITIES: [&str; 4] = ["CAP_MKNOD", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SYSLOG"];

fn devices(config: &mut Value) {
    config["process"]["capabilities"]["bounding"] = json!(CAPABILITIES);
    config["process"]["capabilities"]["effective"] = json!(CAPABILITIES);
    config["process"]["capabilities"]["permitted"] = json!(CAPABILITIES);
    config["linux"]["devices"] = json!([
        { "path": "/dev/mine", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 12, "gid": 34 },
        { "path": "/dev/block", "type": "b", "major": 7, "minor": 5, "fileMode": 0o600 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o622 },
        { "path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5, "fileMode": 0o666 },
        { "path": "/dev/deep/er/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 },
        { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 },
        { "path": "/dev/readable", "type": "c", "major": 10, "minor": 237, "fileMode": 0o666 },
    ]);
    config["linux"]["resources"]["devices"] = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" },
    ]);
}

const DEVICES: &[Clause<Script>] = &[
    node!(
        "default_null",
        "config-linux: default devices",
        "/dev/null",
        "character special file 1:3 666"
    ),
    node!(
        "default_zero",
        "config-linux: default devices",
        "/dev/zero",
        "character special file 1:5 666"
    ),
    node!(
        "default_full",
        "config-linux: default devices",
        "/dev/full",
        "character special file 1:7 666"
    ),
    node!(
        "default_random",
        "config-linux: default devices",
        "/dev/random",
        "character special file 1:8 666"
    ),
    node!(
        "default_urandom",
        "config-linux: default devices",
        "/dev/urandom",
        "character special file 1:9 666"
    ),
    node!(
        "default_tty",
        "config-linux: default devices",
        "/dev/tty",
        "character special file 5:0 666"
    ),
    link!("default_ptmx", "/dev/ptmx", "pts/ptmx"),
    link!("link_fd", "/dev/fd", "/proc/self/fd"),
    link!("link_stdin", "/dev/stdin", "/proc/self/fd/0"),
    link!("link_stdout", "/dev/stdout", "/proc/self/fd/1"),
    link!("link_stderr", "/dev/stderr", "/proc/self/fd/2"),
    prints(
        "default_devices_work",
        "config-linux: default devices",
        "head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; (echo x > /dev/full) 2>/dev/null || echo full",
        "3\n3\nfull",
    ),
    node!(
        "character_device",
        "config-linux: devices",
        "/dev/mine",
        "character special file 1:7 640"
    ),
    prints("owner", "config-linux: devices", "stat -c '%u %g' /dev/mine", "12 34"),
    node!("block_device", "config-linux: devices", "/dev/block", "block special file 7:5 600"),
    node!("fifo", "config-linux: devices", "/dev/pipe", "fifo 0:0 622"),
    node!(
        "unbuffered_device",
        "config-linux: devices",
        "/dev/unbuffered",
        "character special file 1:5 666"
    ),
    node!(
        "directories_are_made",
        "config-linux: devices",
        "/dev/deep/er/null",
        "character special file 1:3 666"
    ),
    prints(
        "rule_allows_reading",
        "config-linux: resources.devices",
        "exec 3< /dev/kmsg && echo open",
        "open",
    ),
    prints(
        "rule_denies_writing",
        "config-linux: resources.devices",
        "(exec 3> /dev/kmsg) 2>&1 | grep -o 'not permitted'",
        "not permitted",
    ),
    prints(
        "what_no_rule_allows_is_denied",
        "config-linux: resources.devices",
        "(exec 3< /dev/readable) 2>&1 | grep -o 'not permitted'",
        "not permitted",
    ),
    prints(
        "nodes_may_be_made",
        "runc: default device rules",
        "mknod /tmp/node c 10 237 && stat -c %F /tmp/node",
        "character special file",
    ),
    prints(
        "made_nodes_are_not_allowed",
        "config-linux: resources.devices",
        "mknod /tmp/other c 10 237; (exec 3< /tmp/other) 2>&1 | grep -o 'not permitted'",
        "not permitted",
    ),
];
