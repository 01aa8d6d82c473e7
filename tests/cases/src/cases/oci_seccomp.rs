//! System-call filters do what runc's do.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cases;
use super::oci::same_as_runc;

cases!("oci_seccomp":
    every_action_and_comparison_is_as_with_runc,
    calls_of_another_architecture_are_as_with_runc,
    podmans_default_profile_is_as_with_runc,
);

/// Makes the calls of `CALLS` one by one, each in a process of its own, and tells how that ended.
const CALLER: &str = r#"
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        result = libc.syscall(number, *[ctypes.c_long(a) for a in arguments])
        os._exit(ctypes.get_errno() if result == -1 else 0)
    status = os.waitpid(pid, 0)[1]
    return "signal %d" % (status & 127) if status & 127 else "errno %d" % (status >> 8)
"#;

/// The arguments of a shell that runs `python`.
fn python(config: &mut Value, code: &str) {
    config["process"]["args"] = json!(["python3", "-c", format!("{CALLER}\n{code}")]);
}

fn every_action_and_comparison_is_as_with_runc() -> Result<()> {
    let rule =
        |name: &str, action: &str| json!({ "names": [name, "no_such_call"], "action": action });
    let compared = |name: &str, errno: u32, args: Value| json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args });
    let is = |index: u32, op: &str, value: u64| json!({ "index": index, "op": op, "value": value });
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
        "syscalls": [
            { "names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 },
            rule("vhangup", "SCMP_ACT_ERRNO"),
            rule("getpriority", "SCMP_ACT_TRAP"),
            rule("sched_rr_get_interval", "SCMP_ACT_KILL_PROCESS"),
            rule("sched_get_priority_min", "SCMP_ACT_KILL_THREAD"),
            rule("getpgid", "SCMP_ACT_TRACE"),
            rule("getsid", "SCMP_ACT_LOG"),
            compared("sched_get_priority_max", 11, json!([is(0, "SCMP_CMP_GE", 5), is(1, "SCMP_CMP_NE", 7)])),
            compared("personality", 12, json!([{
                "index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0xff, "valueTwo": 8 }])),
            compared("setfsuid", 13, json!([is(0, "SCMP_CMP_LT", 3)])),
            compared("setfsuid", 14, json!([is(0, "SCMP_CMP_GT", 0x1_0000_0000)])),
            compared("setfsgid", 15, json!([is(0, "SCMP_CMP_LE", 3)])),
            compared("setfsgid", 16, json!([is(0, "SCMP_CMP_EQ", 9)])),
        ],
    });
    let code = "
for c in [(162,), (153,), (140, 0, 0), (148, 0, 0), (147, 0), (121, 0), (124, 0),
          (146, 5, 8), (146, 5, 7), (146, 4, 8), (146, -1, 0),
          (135, 8), (135, 0x108), (135, 0xffffffff),
          (122, 2), (122, 0x100000000), (122, 0x100000001), (122, -1),
          (123, 3), (123, 4), (123, 9), (123, 0x100000009)]:
    print(*c, call(*c))";
    same_as_runc("", |config| {
        python(config, code);
        config["linux"]["seccomp"] = profile.clone();
    })?
    .exits(0)?
    .has("162 errno 77\n153 errno 1\n140 0 0 signal 31\n148 0 0 signal 31\n147 0 signal 31\n121 0 errno 38\n124 0 errno 0\n")?
    .has("146 5 8 errno 11\n146 5 7 errno 0\n146 4 8 errno 22\n146 -1 0 errno 11\n")?
    .has("135 8 errno 12\n135 264 errno 12\n135 4294967295 errno 0\n")?
    // A small number is not larger than one of 33 bits either; libseccomp has it otherwise, so it is not compared.
    .has("122 2 errno 13\n122 4294967296 errno 0\n122 4294967297 errno 14\n")?
    .has("123 3 errno 15\n123 4 errno 0\n123 9 errno 16\n")
    .map(drop)
}

fn calls_of_another_architecture_are_as_with_runc() -> Result<()> {
    // A 32-bit program: exit(-sync()), where sync has the number 36.
    let code = r#"
import struct
code = bytes.fromhex("b824000000cd80f7d889c3b801000000cd80")
base = 0x08048000
size = 0x54 + len(code)
elf = b"\x7fELF\x01\x01\x01" + bytes(9)
elf += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + 0x54, 52, 0, 0, 52, 32, 1, 40, 0, 0)
elf += struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 4096)
open("/dev/shm/i386", "wb").write(elf + code)
os.chmod("/dev/shm/i386", 0o755)
status = os.spawnv(os.P_WAIT, "/dev/shm/i386", ["i386"])
print(status, call(162))"#;
    for (architectures, expected) in [
        (json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), "77 errno 77"),
        (json!(["SCMP_ARCH_X86_64"]), "-31 errno 77"),
    ] {
        same_as_runc("", |config| {
            python(config, code);
            add_exec_shm(config);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": architectures,
                "syscalls": [{ "names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }],
            });
        })?
        .exits(0)?
        .prints(expected)?;
    }
    Ok(())
}

/// Lets programs in /dev/shm be executed.
fn add_exec_shm(config: &mut Value) {
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/dev/shm" {
            mount["options"] = json!(["nosuid", "nodev", "mode=1777", "size=65536k"]);
        }
    }
}

/// Where podman's package has its profile.
const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// The part of podman's profile that applies to a container with `capabilities`, as a profile of the specification.
fn applied(profile: &Value, capabilities: &[&str]) -> Value {
    let applies = |rule: &&Value| {
        let caps = |list: &str| {
            let of = rule[list]["caps"].as_array().into_iter().flatten();
            of.filter_map(Value::as_str).collect::<Vec<_>>()
        };
        let arches = |list: &str| {
            let of = rule[list]["arches"].as_array().into_iter().flatten();
            of.filter_map(Value::as_str).collect::<Vec<_>>()
        };
        let native =
            |arches: &[&str]| ["amd64", "x86", "x32"].iter().any(|arch| arches.contains(arch));
        let included = caps("includes").iter().all(|cap| capabilities.contains(cap))
            && (arches("includes").is_empty() || native(&arches("includes")));
        let excluded = caps("excludes").iter().any(|cap| capabilities.contains(cap))
            || native(&arches("excludes"));
        included && !excluded
    };
    let rule = |rule: &Value| {
        let mut plain = json!({ "names": rule["names"], "action": rule["action"] });
        for member in ["args", "errnoRet"] {
            let value = &rule[member];
            if !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()) {
                plain[member] = value.clone();
            }
        }
        plain
    };
    let rules = profile["syscalls"].as_array().into_iter().flatten().filter(applies);
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules.map(rule).collect::<Vec<_>>(),
    })
}

fn podmans_default_profile_is_as_with_runc() -> Result<()> {
    let text = std::fs::read(PROFILE).with_context(|| format!("reading {PROFILE}"))?;
    let profile: Value = serde_json::from_slice(&text)?;
    let profile = applied(&profile, &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    // Every call but those that end, wait, make processes or signal others: which of them are refused. What is not
    // is asked for nonsense, about which the two kernels may differ.
    let code = "
skipped = {15, 34, 56, 57, 58, 60, 62, 129, 130, 200, 231, 234, 297, 424, 435}
refused = [n for n in range(0, 470) if n not in skipped and call(n, *[-1] * 6) == 'errno 1']
print(len(refused) > 20, refused)
unknown = [call(n, *[-1] * 6) for n in (435, 470, 471, 600, 1000)]
print(unknown, call(41, 1, 1, 0), call(135, 0), call(135, 1), call(56, 0x10000000, 0, 0, 0, 0))";
    same_as_runc("", |config| {
        python(config, code);
        config["linux"]["seccomp"] = profile.clone();
    })?
    .exits(0)?
    .has("True [")
    .map(drop)
}
