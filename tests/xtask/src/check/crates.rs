//! The directions in which crates may depend on each other, and who may use which foreign crate.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::source::{self, File};
use crate::artefacts::{cargo, root};

/// Each crate of ours, and which others of ours it may use.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("cofferdam-agent", &["cofferdam-agent-protocol"]),
    ("cofferdam-agent-protocol", &[]),
    ("cofferdam-rootfs-builder", &[]),
    (
        "cofferdam-shim",
        &["cofferdam-agent-protocol", "cofferdam-rootfs-builder", "cofferdam-vmm-api"],
    ),
    ("cofferdam-test-bench", &["cofferdam-agent-protocol", "cofferdam-vmm-api"]),
    (
        "cofferdam-test-cases",
        &[
            "cofferdam-agent-protocol",
            "cofferdam-rootfs-builder",
            "cofferdam-shim",
            "cofferdam-vmm-api",
        ],
    ),
    (
        "cofferdam-test-fuzz",
        &[
            "cofferdam-agent-protocol",
            "cofferdam-shim",
            "cofferdam-vmm",
            "cofferdam-vmm-api",
            "cofferdam-vmm-devices",
            "cofferdam-vmm-hv",
        ],
    ),
    ("cofferdam-test-guest", &[]),
    ("cofferdam-test-harness", &[]),
    ("cofferdam-test-hostile", &["cofferdam-vmm", "cofferdam-vmm-api", "cofferdam-vmm-hv"]),
    ("cofferdam-vmm", &["cofferdam-vmm-api", "cofferdam-vmm-devices", "cofferdam-vmm-hv"]),
    ("cofferdam-vmm-api", &[]),
    ("cofferdam-vmm-devices", &[]),
    ("cofferdam-vmm-hv", &[]),
    (
        "xtask",
        &[
            "cofferdam-agent-protocol",
            "cofferdam-rootfs-builder",
            "cofferdam-test-bench",
            "cofferdam-test-harness",
        ],
    ),
];

/// Foreign crates that only the crates named may use, by the beginning of their names.
const RESERVED: &[(&str, &[&str])] = &[
    ("kvm-", &["cofferdam-vmm-hv"]),
    ("virtio-", &["cofferdam-vmm-devices"]),
    ("linux-loader", &["cofferdam-vmm"]),
    ("oci-spec", &["cofferdam-shim"]),
];

/// Foreign crates that no crate named may use.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("serde_json", &["cofferdam-agent", "cofferdam-agent-protocol", "cofferdam-test-guest"]),
    ("anyhow", &["cofferdam-vmm-hv", "cofferdam-vmm-devices", "cofferdam-vmm-api"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// What it is called here, if that is another name.
    rename: Option<String>,
    /// Set if it is one of ours.
    path: Option<String>,
    /// `dev`, `build`, or nothing.
    kind: Option<String>,
}

/// Dependencies that are not as the tables say.
pub(crate) fn directions() -> Result<Vec<String>> {
    Ok(faults(&metadata()?))
}

/// Dependencies of a crate that none of its source files names.
pub(crate) fn unused(files: &[File]) -> Result<Vec<String>> {
    Ok(unnamed(&metadata()?, files, &root()))
}

fn metadata() -> Result<Metadata> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .context("starting cargo")?;
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

fn unnamed(metadata: &Metadata, files: &[File], root: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let folder = package.manifest_path.parent().and_then(|path| path.strip_prefix(root).ok());
        let folder = folder.unwrap_or(Path::new("")).to_string_lossy();
        for Dependency { name, rename, .. } in &package.dependencies {
            let name = rename.as_ref().unwrap_or(name);
            if !source::names_crate(files, &folder, name) {
                faults.push(format!("{} does not use {name}", package.name));
            }
        }
    }
    faults
}

fn faults(metadata: &Metadata) -> Vec<String> {
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some((_, ours)) = DIRECTIONS.iter().find(|(name, _)| *name == package.name) else {
            faults.push(format!("{}: a crate that is not in the table", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            if let Some(why) = fault(&package.name, dependency, ours) {
                faults.push(format!("{} must not use {}: {why}", package.name, dependency.name));
            }
        }
    }
    faults
}

fn fault(package: &str, dependency: &Dependency, ours: &[&str]) -> Option<String> {
    let name = dependency.name.as_str();
    if dependency.path.is_some() {
        let known = ours.contains(&name);
        return (!known).then(|| "against the direction of the crates".to_owned());
    }
    if dependency.kind.as_deref() == Some("dev") {
        return None;
    }
    let reserved = RESERVED.iter().find(|(start, _)| name.starts_with(start));
    if let Some((_, users)) = reserved.filter(|(_, users)| !users.contains(&package)) {
        return Some(format!("only {} may", users.join(", ")));
    }
    let forbidden = FORBIDDEN.iter().any(|(what, who)| *what == name && who.contains(&package));
    forbidden.then(|| "it has no business there".to_owned())
}

#[cfg(test)]
#[path = "crates_test.rs"]
mod crates_test;
