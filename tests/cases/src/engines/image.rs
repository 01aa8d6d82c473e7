//! Images: trees of files, and an OCI archive of several layers.
//!
//! Invariant: an archive's digests are those of what is in it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::run::ROOTFS;

/// Files of Debian's package bash, and of those that it depends on.
const BASH: [&str; 4] = [
    "usr/bin/bash",
    "usr/lib/x86_64-linux-gnu/libtinfo.so.6",
    "usr/lib/x86_64-linux-gnu/libc.so.6",
    "usr/lib64/ld-linux-x86-64.so.2",
];

/// The image of a pod's own container, which does nothing.
pub(super) const PAUSE: &str = "localhost/pause:latest";

/// What a pause container runs.
const WAITS: &str = "#!/bin/sh\ntrap 'exit 0' TERM INT\nwhile :; do sleep 1000 & wait $!; done\n";

/// Makes a root file system at `tree` with busybox, and nothing else.
pub(super) fn busybox(tree: &Path) -> Result<()> {
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "run", "var"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::copy(Path::new(ROOTFS).join("bin/busybox"), tree.join("bin/busybox"))?;
    let applets = Command::new("chroot").arg(ROOTFS).args(["/bin/busybox", "--list"]).output()?;
    for applet in String::from_utf8(applets.stdout)?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", tree.join("bin").join(applet))?;
    }
    fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )?;
    fs::write(tree.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")?;
    Ok(())
}

/// An OCI archive in `directory` of the image `name`: busybox; above it Debian's bash; above that, one file is changed
/// and one is removed. With [`PAUSE`], of the same layers.
pub(super) fn archive(directory: &Path, name: &str) -> Result<PathBuf> {
    let tree = |layer: &str| directory.join(layer);
    busybox(&tree("base"))?;
    let pause = tree("base").join("pause");
    fs::write(&pause, WAITS)?;
    fs::set_permissions(&pause, fs::Permissions::from_mode(0o755))?;
    fs::write(tree("base").join("etc/changed"), "of the first layer\n")?;
    fs::write(tree("base").join("etc/removed"), "of the first layer\n")?;
    for file in BASH {
        let place = tree("bash").join(file);
        fs::create_dir_all(place.parent().context("no directory")?)?;
        fs::copy(Path::new(ROOTFS).join(file), place).context(file)?;
    }
    symlink("usr/lib64", tree("bash").join("lib64"))?;
    fs::create_dir_all(tree("top").join("etc"))?;
    fs::write(tree("top").join("etc/changed"), "of the last layer\n")?;
    fs::write(tree("top").join("etc/.wh.removed"), "")?;
    let layout = directory.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    let mut layers = Vec::new();
    for layer in ["base", "bash", "top"] {
        let file = directory.join(format!("{layer}.tar"));
        tar(&tree(layer), &file)?;
        layers.push(blob(&layout, &fs::read(&file)?, "image.layer.v1.tar")?);
    }
    let own =
        json!({ "Env": ["PATH=/bin:/usr/bin", "OF=image"], "Cmd": ["sh"], "WorkingDir": "/etc" });
    let pause = json!({ "Env": ["PATH=/bin"], "Entrypoint": ["/pause"] });
    let manifests =
        [manifest(&layout, &layers, (name, &own))?, manifest(&layout, &layers, (PAUSE, &pause))?];
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?;
    let archive = directory.join("image.tar");
    tar(&layout, &archive)?;
    Ok(archive)
}

/// Adds the image `name` of `layers` that runs as `config` says; its descriptor.
fn manifest(layout: &Path, layers: &[Value], (name, config): (&str, &Value)) -> Result<Value> {
    let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let config = blob(layout, &serde_json::to_vec(&config)?, "image.config.v1+json")?;
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers,
        "mediaType": "application/vnd.oci.image.manifest.v1+json" });
    let mut manifest = blob(layout, &serde_json::to_vec(&manifest)?, "image.manifest.v1+json")?;
    manifest["annotations"] = json!({ "io.containerd.image.name": name });
    Ok(manifest)
}

/// Packs the tree at `source`.
fn tar(source: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--create", "--owner=0", "--group=0", "--file"]).arg(file);
    let status = command.arg("--directory").arg(source).arg(".").status()?;
    ensure!(status.success(), "tar: {status}");
    Ok(())
}

/// Adds a blob to the layout; its descriptor.
fn blob(layout: &Path, content: &[u8], kind: &str) -> Result<Value> {
    let path = layout.join("blob");
    fs::write(&path, content)?;
    let output = Command::new("sha256sum").stdin(File::open(&path)?).output()?;
    let text = String::from_utf8(output.stdout)?;
    let digest = text.split_whitespace().next().context("no digest")?;
    fs::rename(&path, layout.join("blobs/sha256").join(digest))?;
    Ok(json!({ "mediaType": format!("application/vnd.oci.{kind}"),
        "digest": format!("sha256:{digest}"), "size": content.len() }))
}
