//! A specification for a root file system without a `config.json`.
//!
//! Invariant: what is not asked for is as `cofferdam spec` has it, but that the root is writable, there is no
//! terminal, and privileges are those that engines give by default: enough for what Debian packages start.

use std::path::Path;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::oci::default_spec_text;
use crate::units::Bytes;
use crate::user;

/// Period of a CPU limit in microseconds, the kernel's default.
const PERIOD: u32 = 100_000;

/// The capabilities of a container in docker and podman, unless told otherwise.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What was asked for on the command line.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) rootfs: &'a Path,
    pub(super) command: &'a [String],
    pub(super) tty: bool,
    pub(super) env: &'a [String],
    pub(super) cwd: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) memory: Option<Bytes>,
    pub(super) cpus: Option<f64>,
    pub(super) hostname: Option<&'a str>,
    pub(super) read_only: bool,
}

/// The specification for `request`.
pub(super) fn spec(request: &Request<'_>) -> Result<Spec> {
    if request.command.is_empty() {
        bail!("the command is missing: cofferdam run --rootfs DIR [ID] -- COMMAND...");
    }
    let mut spec: Value = serde_json::from_str(&default_spec_text())?;
    let rootfs =
        request.rootfs.to_str().context("the path of the root file system is not UTF-8")?;
    spec["root"] = json!({ "path": rootfs, "readonly": request.read_only });
    if let Some(hostname) = request.hostname {
        spec["hostname"] = hostname.into();
    }
    let process = &mut spec["process"];
    process["args"] = request.command.into();
    process["terminal"] = request.tty.into();
    process["env"] = environment(request).into();
    process["cwd"] = request.cwd.unwrap_or("/").into();
    process["noNewPrivileges"] = false.into();
    for set in ["bounding", "effective", "permitted"] {
        process["capabilities"][set] = CAPABILITIES.as_slice().into();
    }
    if let Some(name) = request.user {
        let (uid, gid) = user::resolve(request.rootfs, name)?;
        process["user"] = json!({ "uid": uid, "gid": gid });
    }
    let resources = &mut spec["linux"]["resources"];
    if let Some(memory) = request.memory {
        let limit = i64::try_from(memory.0).context("--memory is too large")?;
        resources["memory"] = json!({ "limit": limit });
    }
    if let Some(cpus) = request.cpus {
        resources["cpu"] = json!({ "quota": quota(cpus)?, "period": PERIOD });
    }
    Ok(serde_json::from_value(spec)?)
}

/// Those asked for win over the defaults.
fn environment(request: &Request<'_>) -> Vec<String> {
    let mut all = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "HOME=/root".to_owned(),
    ];
    if request.tty {
        all.push("TERM=xterm".to_owned());
    }
    for variable in request.env {
        let name = variable.split('=').next().unwrap_or_default();
        all.retain(|other| other.split('=').next() != Some(name));
        all.push(variable.clone());
    }
    all
}

/// Microseconds of CPU time in each [`PERIOD`]; the kernel takes 1 ms at least.
fn quota(cpus: f64) -> Result<i64> {
    if !(0.01..=1024.0).contains(&cpus) {
        bail!("--cpus {cpus} is not 0.01 to 1024");
    }
    // In range, so the text of the rounded number is that of an integer.
    Ok(format!("{:.0}", cpus * f64::from(PERIOD)).parse()?)
}
