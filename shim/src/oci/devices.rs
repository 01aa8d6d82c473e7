//! Device nodes and device rules (OCI runtime-spec, config-linux#devices, #default-devices).
//!
//! Invariant: the nodes and rules every container has come last, as the specification and runc have it.

use std::os::unix::ffi::OsStrExt;

use cofferdam_agent_protocol::{DeviceNode, DeviceType};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::device_filter::{ALL, DeviceRule, MKNOD, READ, RuleType, WRITE, program};
use super::{OciError, invalid};

/// Device numbers have 12 and 20 bits (`MKDEV` of the kernel).
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

/// The nodes that every container has: path, major, minor.
const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Character devices that every container may use: the default nodes, `ptmx` and pseudoterminals.
const DEFAULT_RULES: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// The nodes of a container.
pub(super) fn nodes(linux: Option<&Linux>) -> Result<Vec<DeviceNode>, OciError> {
    let listed = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    let mut nodes = listed.iter().enumerate().map(node).collect::<Result<Vec<_>, _>>()?;
    for (path, major, minor) in DEFAULT_NODES {
        if nodes.iter().all(|node| node.path != path.as_bytes()) {
            nodes.push(DeviceNode {
                path: path.into(),
                kind: DeviceType::Character.into(),
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            });
        }
    }
    Ok(nodes)
}

fn node((index, device): (usize, &LinuxDevice)) -> Result<DeviceNode, OciError> {
    let path = device.path();
    let field = || format!("linux.devices[{index}] ({})", path.display());
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceType::Character,
        LinuxDeviceType::B => DeviceType::Block,
        LinuxDeviceType::P => DeviceType::Fifo,
        LinuxDeviceType::A => return Err(invalid(field(), "type \"a\" is not that of a node")),
    };
    if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
        return Err(invalid(field(), "the path is not absolute, or has a NUL byte"));
    }
    let number = |value: i64, most: u32| {
        let value = if kind == DeviceType::Fifo { 0 } else { value };
        u32::try_from(value).ok().filter(|n| *n <= most).ok_or_else(|| {
            invalid(field(), format!("device number {}:{}", device.major(), device.minor()))
        })
    };
    Ok(DeviceNode {
        path: path.as_os_str().as_bytes().to_vec(),
        kind: kind.into(),
        major: number(device.major(), MAX_MAJOR)?,
        minor: number(device.minor(), MAX_MINOR)?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// The device filter of a container's cgroup.
pub(super) fn filter(
    linux: Option<&Linux>,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>, OciError> {
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let listed = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
    let rule = |one| rule(one, warnings);
    let mut rules = listed.iter().enumerate().map(rule).collect::<Result<Vec<_>, _>>()?;
    let allow = |kind, major, minor, access| DeviceRule { allow: true, kind, major, minor, access };
    rules.push(allow(RuleType::Any, None, None, MKNOD));
    for (major, minor) in DEFAULT_RULES {
        rules.push(allow(RuleType::Character, Some(major), minor, ALL));
    }
    Ok(program(&rules)?)
}

fn rule(
    (index, rule): (usize, &LinuxDeviceCgroup),
    warnings: &mut Vec<String>,
) -> Result<DeviceRule, OciError> {
    let field = |part: &str| format!("linux.resources.devices[{index}].{part}");
    let number = |part: &str, value: Option<i64>, most: u32| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .ok()
            .filter(|n| *n <= most)
            .map(Some)
            .ok_or_else(|| invalid(field(part), format!("device number {value}"))),
    };
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => RuleType::Any,
        LinuxDeviceType::B => RuleType::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => RuleType::Character,
        LinuxDeviceType::P => return Err(invalid(field("type"), "a rule about fifos (\"p\")")),
    };
    let access = match rule.access().as_deref().unwrap_or_default() {
        "" if kind == RuleType::Any => ALL,
        text => text.chars().fold(0, |all, letter| match letter {
            'm' => all | MKNOD,
            'r' => all | READ,
            'w' => all | WRITE,
            // As runc.
            other => {
                warnings
                    .push(format!("{}: {other:?} is none of \"rwm\"; ignored", field("access")));
                all
            }
        }),
    };
    // A rule of type "a" is about every device, whatever its numbers say (runc, crun).
    let any = kind == RuleType::Any;
    let major = number("major", rule.major().filter(|_| !any), MAX_MAJOR)?;
    let minor = number("minor", rule.minor().filter(|_| !any), MAX_MINOR)?;
    Ok(DeviceRule { allow: rule.allow(), kind, major, minor, access })
}

#[cfg(test)]
#[path = "devices_test.rs"]
mod devices_test;
