//! Device nodes and device rules (OCI runtime-spec, config-linux#devices, #default-devices).
//!
//! A block device of the host that a container may read or write becomes a disk of its machine, with a number of its own
//! there. Until that is known, nodes, rules and settings have the host's.
//!
//! Invariant: the nodes and rules every container has come last, as the specification and runc have it.

use std::os::unix::ffi::OsStrExt;

use cofferdam_agent_protocol::{ContainerPlan, DeviceNode, DeviceType};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::device_filter::{ALL, DeviceRule, MKNOD, READ, RuleType, Substitute, WRITE, program};
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

/// A block device of the host that a container is to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDisk {
    /// The field of the specification, for messages.
    pub field: String,
    /// Major and minor number on the host.
    pub number: (u32, u32),
    /// The container may write.
    pub writable: bool,
}

/// The block devices among `nodes` that the container may read or write.
pub(super) fn host_disks(nodes: &[DeviceNode], rules: &DeviceRules) -> Vec<HostDisk> {
    let mut disks: Vec<HostDisk> = Vec::new();
    for node in nodes.iter().filter(|node| node.kind() == DeviceType::Block) {
        let number = (node.major, node.minor);
        let writable = rules.allow_block(number, WRITE);
        let useful = writable || rules.allow_block(number, READ);
        if useful && disks.iter().all(|disk| disk.number != number) {
            let field = format!("linux.devices ({})", String::from_utf8_lossy(&node.path));
            disks.push(HostDisk { field, number, writable });
        }
    }
    disks
}

/// Puts what the guest has in the place of the host's: the numbers of `disks` in nodes, rules, and limits of
/// input and output.
///
/// # Errors
/// The rules do not fit into a filter.
pub(crate) fn substitute(
    container: &mut ContainerPlan,
    rules: &DeviceRules,
    disks: &[Substitute],
) -> Result<(), OciError> {
    for node in container.devices.iter_mut().filter(|node| node.kind() == DeviceType::Block) {
        let own = (node.major, node.minor);
        if let Some(disk) = disks.iter().find(|disk| disk.host == own) {
            (node.major, node.minor) = disk.guest;
        }
    }
    let Some(cgroup) = container.cgroup.as_mut() else { return Ok(()) };
    cgroup.device_filter = program(&rules.0, disks)?;
    for setting in cgroup.settings.iter_mut().filter(|setting| setting.file.starts_with("io.")) {
        let Some((number, rest)) = setting.value.split_once(' ') else { continue };
        let name = |(major, minor): (u32, u32)| format!("{major}:{minor}");
        if let Some(disk) = disks.iter().find(|disk| name(disk.host) == number) {
            setting.value = format!("{} {rest}", name(disk.guest));
        }
    }
    Ok(())
}

/// The device rules of a container.
#[derive(Clone, Debug)]
pub struct DeviceRules(Vec<DeviceRule>);

impl DeviceRules {
    /// Whether a block device of the host may be accessed so: the last rule that names it decides.
    fn allow_block(&self, number: (u32, u32), access: u8) -> bool {
        let decides = |rule: &&DeviceRule| rule.names_block(number) && rule.access & access != 0;
        self.0.iter().rev().find(decides).is_some_and(|rule| rule.allow)
    }
}

/// The device rules of a container.
pub(super) fn rules(
    linux: Option<&Linux>,
    warnings: &mut Vec<String>,
) -> Result<DeviceRules, OciError> {
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let listed = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
    let rule = |one| rule(one, warnings);
    let mut rules = listed.iter().enumerate().map(rule).collect::<Result<Vec<_>, _>>()?;
    let allow = |kind, major, minor, access| DeviceRule { allow: true, kind, major, minor, access };
    rules.push(allow(RuleType::Any, None, None, MKNOD));
    for (major, minor) in DEFAULT_RULES {
        rules.push(allow(RuleType::Character, Some(major), minor, ALL));
    }
    Ok(DeviceRules(rules))
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
