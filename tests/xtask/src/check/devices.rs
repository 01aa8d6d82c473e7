//! Every device that the monitor offers has its driver in the guest kernel.

use std::fs;

use anyhow::{Context, Result};

use crate::artefacts::root;
use crate::kernel::{Variant, options};

/// Where the monitor's virtio devices have their numbers.
const DEVICE_IDS: &str = "vmm/devices/src/virtio/mod.rs";

/// Devices without a driver, or without an entry in `devices.toml`.
pub(crate) fn drivers() -> Result<Vec<String>> {
    let directory = options::directory();
    let mut faults = Vec::new();
    for variant in [Variant::Default, Variant::Trusted] {
        let wanted = options::wanted(&directory, variant)?;
        faults.extend(options::uncovered_devices(&directory, &wanted)?);
    }
    let path = root().join(DEVICE_IDS);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let offered = offered(&text);
    if offered.is_empty() {
        faults.push(format!("{DEVICE_IDS}: no `enum DeviceId` in it"));
    }
    let listed = options::devices(&directory)?;
    for (name, number) in offered {
        if !listed.iter().any(|device| device.name == name && device.virtio == Some(number)) {
            faults.push(format!("{name} (virtio device {number}) is not in devices.toml"));
        }
    }
    Ok(faults)
}

/// The names (in lower case) and numbers of `enum DeviceId`.
fn offered(text: &str) -> Vec<(String, u16)> {
    let body = text.split("enum DeviceId {").nth(1).and_then(|rest| rest.split('}').next());
    body.unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(" = "))
        .filter_map(|(name, number)| Some((name.to_lowercase(), number.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn variants_are_read_with_their_numbers() {
        let text =
            "pub enum DeviceId {\n    /// A card = 3.\n    Net = 1,\n    Vsock = 19,\n}\nX = 2,";
        assert_eq!(super::offered(text), [("net".to_owned(), 1), ("vsock".to_owned(), 19)]);
    }
}
