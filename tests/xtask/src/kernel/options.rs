//! The options of the guest kernel: what the fragments ask for, what a configuration holds, what the devices
//! need.
//!
//! Invariant: all but the reading of files is pure, and no line of a fragment is ever ignored: it is an
//! option, a comment, or an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::Variant;

/// One option as a fragment asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Without `CONFIG_`.
    pub(crate) name: String,
    /// As it stands after `=`; `None` for "is not set".
    pub(crate) value: Option<String>,
    /// The fragment, for messages.
    pub(crate) file: String,
}

/// `devices.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceList {
    device: Vec<Device>,
}

/// A device that the VMM offers, and the options its driver needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Device {
    /// As the VMM calls it.
    pub(crate) name: String,
    /// The virtio device type (virtio 1.2, 5).
    pub(crate) virtio: Option<u16>,
    /// PCI vendor and device.
    pub(crate) pci: Option<String>,
    /// ACPI hardware id.
    pub(crate) acpi: Option<String>,
    /// Without `CONFIG_`; each must be `=y`.
    options: Vec<String>,
}

/// `guest-kernel-config` of this checkout.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-kernel-config")
}

/// Every option that the fragments in `directory` and the variant ask for, each once.
pub(crate) fn wanted(directory: &Path, variant: Variant) -> Result<Vec<Wanted>> {
    let fragments = directory.join("fragments");
    let mut files: Vec<PathBuf> = fs::read_dir(&fragments)
        .with_context(|| format!("reading {}", fragments.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "config"));
    files.sort();
    let mut base = Vec::new();
    for file in &files {
        base.extend(read_fragment(file)?);
    }
    reject_duplicates(&base)?;
    if variant == Variant::Trusted {
        let over = read_fragment(&directory.join("trusted.config"))?;
        reject_duplicates(&over)?;
        base.retain(|option| over.iter().all(|other| other.name != option.name));
        base.extend(over);
    }
    Ok(base)
}

/// The fragment at `path`.
fn read_fragment(path: &Path) -> Result<Vec<Wanted>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
    parse_fragment(&file, &text)
}

/// The options of one fragment.
fn parse_fragment(file: &str, text: &str) -> Result<Vec<Wanted>> {
    let mut options = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let option = match parse_line(line) {
            Some((name, value)) => Wanted { name, value, file: file.to_owned() },
            None if line.trim().is_empty() || line.starts_with('#') => continue,
            None => bail!("{file}:{}: neither an option nor a comment: {line}", number + 1),
        };
        options.push(option);
    }
    Ok(options)
}

/// An option in the syntax of `.config`: `CONFIG_NAME=value` or `# CONFIG_NAME is not set`.
fn parse_line(line: &str) -> Option<(String, Option<String>)> {
    if let Some(rest) = line.strip_prefix("# CONFIG_") {
        return Some((rest.strip_suffix(" is not set")?.to_owned(), None));
    }
    let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
    Some((name.to_owned(), Some(value.to_owned())))
}

/// An option stands in one place only, so that its reason does too.
fn reject_duplicates(options: &[Wanted]) -> Result<()> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for option in options {
        if let Some(first) = seen.insert(&option.name, &option.file) {
            bail!("CONFIG_{} stands in {first} and again in {}", option.name, option.file);
        }
    }
    Ok(())
}

/// `options` in the syntax of `.config`.
pub(crate) fn merged(options: &[Wanted]) -> String {
    options
        .iter()
        .map(|Wanted { name, value, .. }| match value {
            Some(value) => format!("CONFIG_{name}={value}\n"),
            None => format!("# CONFIG_{name} is not set\n"),
        })
        .collect()
}

/// Which of `wanted` are otherwise in `config`, a whole `.config`: one line for each.
pub(crate) fn refused(wanted: &[Wanted], config: &str) -> Vec<String> {
    let config: BTreeMap<String, String> =
        config.lines().filter_map(parse_line).filter_map(|(n, v)| Some((n, v?))).collect();
    wanted
        .iter()
        .filter(|option| config.get(&option.name) != option.value.as_ref())
        .map(|option| {
            let asked = option.value.as_deref().unwrap_or("n");
            let is = config.get(&option.name).map_or("not set", String::as_str);
            format!("CONFIG_{}: {} asks for {asked}, it is {is}", option.name, option.file)
        })
        .collect()
}

/// The devices of `devices.toml` in `directory`.
pub(crate) fn devices(directory: &Path) -> Result<Vec<Device>> {
    let path = directory.join("devices.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let list: DeviceList =
        toml::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    Ok(list.device)
}

/// The devices of `devices.toml` whose driver is not built in by `wanted`, or that nothing identifies: one
/// line for each fault.
pub(crate) fn uncovered_devices(directory: &Path, wanted: &[Wanted]) -> Result<Vec<String>> {
    Ok(devices(directory)?.iter().flat_map(|device| device_faults(device, wanted)).collect())
}

/// What is wrong with one entry.
fn device_faults(device: &Device, wanted: &[Wanted]) -> Vec<String> {
    let built_in = |name: &&String| {
        wanted.iter().any(|option| option.name == **name && option.value.as_deref() == Some("y"))
    };
    let mut faults: Vec<String> = device
        .options
        .iter()
        .filter(|name| !built_in(name))
        .map(|name| format!("{}: CONFIG_{name} is not =y", device.name))
        .collect();
    let id = device.virtio.map(|kind| format!("1af4:{:04x}", 0x1040 + u32::from(kind)));
    if id != device.pci || (device.pci.is_none() && device.acpi.is_none()) {
        faults.push(format!("{}: its ids contradict each other or are missing", device.name));
    }
    faults
}

#[cfg(test)]
#[path = "options_test.rs"]
mod options_test;
