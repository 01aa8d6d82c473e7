//! `mounts`: file systems of the guest's own, and small files of the host.

use serde_json::{Value, json};

use super::{Clause, Group, Script, prints};

/// The options that the mount at a place has, those of the file system among them.
macro_rules! options {
    ($name:literal, $place:literal, $pattern:literal, $found:literal) => {
        prints(
            $name,
            "config: mounts.options",
            concat!(
                "findmnt -no FS-OPTIONS,VFS-OPTIONS ",
                $place,
                " | tr ' ,' '\\n' | grep -E '^(",
                $pattern,
                ")$' | sort -u | tr '\\n' ' '"
            ),
            $found,
        )
    };
}

/// Whom the mount at a place tells of changes.
macro_rules! propagation {
    ($name:literal, $found:literal) => {
        prints(
            $name,
            "config: mounts.options",
            concat!("findmnt -no PROPAGATION /m/", $name, " | tail -n 1"),
            $found,
        )
    };
}

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[
    Group::Inside("mounts", options, OPTIONS),
    Group::Inside("mounts", kinds, KINDS),
    Group::Inside("mounts", defaults, DEFAULTS),
];

/// Adds a mount.
pub(super) fn add(config: &mut Value, mount: Value) {
    if let Some(all) = config["mounts"].as_array_mut() {
        all.push(mount);
    }
}

fn tmpfs(config: &mut Value, place: &str, options: &[&str]) {
    let mount = json!({
        "destination": format!("/m/{place}"), "type": "tmpfs", "source": "tmpfs", "options": options,
    });
    add(config, mount);
}

fn options(config: &mut Value) {
    let places: &[(&str, &[&str])] = &[
        ("ro", &["ro"]),
        ("nosuid", &["nosuid"]),
        ("nodev", &["nodev"]),
        ("noexec", &["noexec"]),
        ("noatime", &["noatime"]),
        ("nodiratime", &["nodiratime"]),
        ("relatime", &["relatime"]),
        ("strictatime", &["strictatime"]),
        ("sync", &["sync"]),
        ("dirsync", &["dirsync"]),
        ("lazytime", &["lazytime"]),
        ("nosymfollow", &["nosymfollow"]),
        ("later", &["ro", "nosuid", "noexec", "rw", "suid", "exec"]),
        ("size", &["size=2m"]),
        ("mode", &["mode=1751"]),
        ("owner", &["uid=12", "gid=34"]),
        ("inodes", &["nr_inodes=99"]),
        ("private", &["private"]),
        ("shared", &["shared"]),
        ("slave", &["shared", "slave"]),
        ("unbindable", &["unbindable"]),
        ("rprivate", &["rprivate"]),
        ("rshared", &["rshared"]),
    ];
    for (place, options) in places {
        tmpfs(config, place, options);
    }
}

const OPTIONS: &[Clause<Script>] = &[
    options!("ro", "/m/ro", "ro|rw", "ro rw"),
    prints(
        "ro_refuses_writes",
        "config: mounts.options",
        "touch /m/ro/x 2>/dev/null || echo refused",
        "refused",
    ),
    options!("nosuid", "/m/nosuid", "nosuid", "nosuid"),
    options!("nodev", "/m/nodev", "nodev", "nodev"),
    options!("noexec", "/m/noexec", "noexec", "noexec"),
    prints(
        "noexec_refuses_execution",
        "config: mounts.options",
        "cp /bin/true /m/noexec/; /m/noexec/true 2>/dev/null; echo $?",
        "126",
    ),
    options!("noatime", "/m/noatime", "noatime|relatime", "noatime"),
    options!("nodiratime", "/m/nodiratime", "nodiratime", "nodiratime"),
    options!("relatime", "/m/relatime", "noatime|relatime", "relatime"),
    options!("strictatime", "/m/strictatime", "noatime|relatime", ""),
    options!("sync", "/m/sync", "sync", "sync"),
    options!("dirsync", "/m/dirsync", "dirsync", "dirsync"),
    options!("lazytime", "/m/lazytime", "lazytime", "lazytime"),
    options!("nosymfollow", "/m/nosymfollow", "nosymfollow", "nosymfollow"),
    options!("later_options_win", "/m/later", "ro|rw|nosuid|noexec", "rw"),
    prints("size", "config: mounts.options", "df -k --output=size /m/size | tail -n 1", "2048"),
    prints("mode", "config: mounts.options", "stat -c %a /m/mode", "1751"),
    prints("owner", "config: mounts.options", "stat -c '%u %g' /m/owner", "12 34"),
    prints("inodes", "config: mounts.options", "df --output=itotal /m/inodes | tail -n 1", "99"),
    propagation!("private", "private"),
    propagation!("shared", "shared"),
    // Nobody is its master.
    propagation!("slave", "private"),
    propagation!("unbindable", "private,unbindable"),
    propagation!("rprivate", "private"),
    propagation!("rshared", "shared"),
];

fn kinds(config: &mut Value) {
    config["linux"]["maskedPaths"] = json!([]);
    tmpfs(config, "order", &[]);
    tmpfs(config, "order/below", &["mode=711"]);
    tmpfs(config, "covered/below", &[]);
    tmpfs(config, "covered", &[]);
    add(
        config,
        json!({
            "destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nodev"],
        }),
    );
    add(
        config,
        json!({
            "destination": "/m/link/../proc", "type": "proc", "source": "proc", "options": ["ro"],
        }),
    );
    add(
        config,
        json!({
            "destination": "/m/ramfs", "type": "ramfs", "source": "ramfs", "options": [],
        }),
    );
    add(
        config,
        json!({
            "destination": "/m/file", "type": "bind", "source": "/etc/hostname", "options": ["bind"],
        }),
    );
    add(
        config,
        json!({
            "destination": "/m/readonly", "type": "none", "source": "/etc/hostname",
            "options": ["rbind", "ro", "nosuid", "nodev", "noexec"],
        }),
    );
    add(
        config,
        json!({
            "destination": "/usr/share/doc/deep/er/file", "type": "bind", "source": "/etc/hostname",
            "options": ["rbind", "rprivate", "ro"],
        }),
    );
    add(
        config,
        json!({
            "destination": "/var/run/link", "type": "tmpfs", "source": "tmpfs",
        }),
    );
}

const KINDS: &[Clause<Script>] = &[
    prints("in_order", "config: mounts", "stat -c %a /m/order/below", "711"),
    prints("a_later_one_covers", "config: mounts", "ls /m/covered", ""),
    prints(
        "tmpcopyup",
        "config: mounts.options",
        "findmnt -no FSTYPE /etc; test -s /etc/passwd && test -d /etc/apt && echo copied",
        "tmpfs\ncopied",
    ),
    prints(
        "tmpcopyup_keeps_modes",
        "config: mounts.options",
        "stat -c '%a %G' /etc/shadow; readlink /etc/os-release",
        "640 shadow\n../usr/lib/os-release",
    ),
    prints(
        "destination_is_cleaned",
        "config: mounts.destination",
        "findmnt -no FSTYPE /m/proc",
        "proc",
    ),
    prints(
        "destination_through_a_link",
        "config: mounts.destination",
        "findmnt -no FSTYPE /run/link",
        "tmpfs",
    ),
    prints(
        "destination_directory_is_made",
        "config: mounts.destination",
        "test -d /m/ramfs && echo made",
        "made",
    ),
    prints(
        "destination_file_is_made",
        "config: mounts.destination",
        "cat /usr/share/doc/deep/er/file",
        "kvm-test-host",
    ),
    prints("type_ramfs", "config: mounts.type", "findmnt -no FSTYPE /m/ramfs", "ramfs"),
    prints("bind_of_a_file", "config: mounts.options", "cat /m/file", "kvm-test-host"),
    prints(
        "bind_read_only",
        "config: mounts.options",
        "(echo x > /m/readonly) 2>/dev/null || echo refused",
        "refused",
    ),
    options!("bind_flags", "/m/readonly", "nosuid|nodev|noexec", "nodev noexec nosuid"),
];

fn defaults(config: &mut Value) {
    config["linux"]["maskedPaths"] =
        json!(["/etc/passwd", "/etc/apt", "/no/such/path", "/proc/kcore"]);
    config["linux"]["readonlyPaths"] = json!(["/var", "/etc/group", "/proc/sys", "/no/such/path"]);
}

/// File systems that the specification names as the default ones (config-linux: default filesystems), and paths that
/// are covered.
const DEFAULTS: &[Clause<Script>] = &[
    kind("proc", "findmnt -no FSTYPE /proc", "proc"),
    kind("dev", "findmnt -no FSTYPE /dev", "tmpfs"),
    kind("dev_pts", "findmnt -no FSTYPE /dev/pts", "devpts"),
    kind("dev_shm", "findmnt -no FSTYPE /dev/shm", "tmpfs"),
    kind("dev_mqueue", "findmnt -no FSTYPE /dev/mqueue", "mqueue"),
    kind("sys", "findmnt -no FSTYPE /sys", "sysfs"),
    kind("sys_is_read_only", "findmnt -no VFS-OPTIONS /sys | cut -d , -f 1", "ro"),
    kind("cgroup", "findmnt -no FSTYPE /sys/fs/cgroup", "cgroup2"),
    kind("cgroup_is_read_only", "mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused", "refused"),
    kind("dev_shm_takes_files", "echo x > /dev/shm/x && cat /dev/shm/x", "x"),
    kind(
        "a_terminal_can_be_made",
        "script -qc tty /dev/null < /dev/null | tr -d '\\r'",
        "/dev/pts/0",
    ),
    masked("masked_file", "wc -c < /etc/passwd", "0"),
    masked("masked_directory", "ls -A /etc/apt", ""),
    masked(
        "masked_directory_is_read_only",
        "touch /etc/apt/x 2>/dev/null || echo refused",
        "refused",
    ),
    masked("masked_path_that_is_not_there", "ls -d /no 2>/dev/null || echo none", "none"),
    readonly("readonly_directory", "touch /var/x 2>/dev/null || echo refused", "refused"),
    readonly("readonly_file", "(echo x >> /etc/group) 2>/dev/null || echo refused", "refused"),
    readonly(
        "readonly_proc_sys",
        "(echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo refused",
        "refused",
    ),
    readonly(
        "readonly_path_shows_what_is_there",
        "test -s /etc/group && test -d /var/lib && echo there",
        "there",
    ),
    readonly("other_paths_are_writable", "echo x > /home/x && cat /home/x", "x"),
];

const fn kind(name: &'static str, script: &'static str, text: &'static str) -> Clause<Script> {
    prints(name, "config-linux: default filesystems", script, text)
}

const fn masked(name: &'static str, script: &'static str, text: &'static str) -> Clause<Script> {
    prints(name, "config-linux: maskedPaths", script, text)
}

const fn readonly(name: &'static str, script: &'static str, text: &'static str) -> Clause<Script> {
    prints(name, "config-linux: readonlyPaths", script, text)
}
