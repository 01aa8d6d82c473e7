//! Volumes: directories and files of the host in containers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::{Result, ensure};

use super::super::cases;
use super::Cri;
use super::messages::Device;
use super::pod::{exec, refusal, says, start};
use crate::call::eventually;

cases!(Cri:
    a_directory_of_the_host,
    a_read_only_directory_of_the_host,
    an_empty_directory_is_shared_by_containers,
    configuration_is_exchanged_at_once,
    a_single_file,
    a_volume_in_a_volume,
    modes_and_owners,
    a_volume_that_is_not_there_is_made,
    a_device,
    the_root_file_system_is_read_only_if_asked_for,
);

fn a_directory_of_the_host(cri: &Cri) -> Result<()> {
    let directory = cri.file("written");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("of-host"), "of the host\n")?;
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.mount(&directory, "/data", false);
    })?;
    ensure!(says(&id, "cat /data/of-host")? == "of the host");
    says(&id, "mkdir /data/d; echo of the container > /data/d/file; rm /data/of-host")?;
    ensure!(fs::read_to_string(directory.join("d/file"))? == "of the container\n");
    ensure!(!directory.join("of-host").exists());
    // What changes on the host is seen.
    fs::write(directory.join("later"), "1\n")?;
    ensure!(says(&id, "cat /data/later")? == "1");
    fs::write(directory.join("later"), "changed\n")?;
    eventually("the change", || Ok(says(&id, "cat /data/later")? == "changed"))
}

fn a_read_only_directory_of_the_host(cri: &Cri) -> Result<()> {
    let directory = cri.file("readonly");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("file"), "kept\n")?;
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.mount(&directory, "/data", true);
    })?;
    ensure!(says(&id, "cat /data/file")? == "kept");
    let answer = exec(&id, "echo x > /data/file")?;
    ensure!(answer.exit_code != 0, "{answer:?}");
    let text = super::pod::text(&answer.stderr);
    ensure!(text.contains("Read-only file system"), "{text}");
    ensure!(exec(&id, "rm /data/file")?.exit_code != 0);
    ensure!(fs::read_to_string(directory.join("file"))? == "kept\n");
    Ok(())
}

fn an_empty_directory_is_shared_by_containers(cri: &Cri) -> Result<()> {
    let directory = cri.file("empty");
    fs::create_dir_all(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
    let pod = cri.shared()?;
    let mounted = |path: &'static str, readonly| {
        pod.start_with("sleep 1000", |config| config.mount(&directory, path, readonly))
    };
    let (writes, reads) = (mounted("/out", false)?, mounted("/in", true)?);
    for number in 0..3 {
        says(&writes, &format!("echo {number} >> /out/file"))?;
        ensure!(says(&reads, "tail -n 1 /in/file")? == number.to_string());
    }
    ensure!(exec(&reads, "echo x >> /in/file")?.exit_code != 0);
    Ok(())
}

/// As the kubelet writes ConfigMaps: a link is exchanged for another.
fn configuration_is_exchanged_at_once(cri: &Cri) -> Result<()> {
    let directory = cri.file("configuration");
    let version = |number: u32| -> Result<()> {
        let name = format!("..{number}");
        fs::create_dir_all(directory.join(&name))?;
        fs::write(directory.join(&name).join("key"), format!("value {number}\n"))?;
        symlink(&name, directory.join("..data_tmp"))?;
        fs::rename(directory.join("..data_tmp"), directory.join("..data"))?;
        Ok(())
    };
    version(1)?;
    symlink("..data/key", directory.join("key"))?;
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.mount(&directory, "/etc/configuration", true);
    })?;
    ensure!(says(&id, "cat /etc/configuration/key")? == "value 1");
    version(2)?;
    fs::remove_dir_all(directory.join("..1"))?;
    eventually("the new value", || {
        Ok(exec(&id, "cat /etc/configuration/key")?.stdout == b"value 2\n")
    })
}

fn a_single_file(cri: &Cri) -> Result<()> {
    let file = cri.file("single");
    fs::write(&file, "at first\n")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640))?;
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.mount(&file, "/etc/single/writable", false);
        config.mount(&file, "/etc/single/readable", true);
    })?;
    ensure!(
        says(&id, "cat /etc/single/readable; stat -c %a /etc/single/readable")? == "at first\n640"
    );
    says(&id, "echo then > /etc/single/writable")?;
    ensure!(fs::read_to_string(&file)? == "then\n");
    ensure!(exec(&id, "echo x > /etc/single/readable")?.exit_code != 0);
    Ok(())
}

fn a_volume_in_a_volume(cri: &Cri) -> Result<()> {
    let (outer, inner) = (cri.file("outer"), cri.file("inner"));
    fs::create_dir_all(outer.join("in"))?;
    fs::create_dir_all(&inner)?;
    fs::write(inner.join("file"), "of the inner one\n")?;
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        // Longer paths first: the service sorts them.
        config.mount(&inner, "/data/in", true);
        config.mount(&outer, "/data", false);
    })?;
    ensure!(says(&id, "cat /data/in/file")? == "of the inner one");
    says(&id, "echo x > /data/file")?;
    ensure!(exec(&id, "echo x > /data/in/file")?.exit_code != 0);
    ensure!(fs::read_to_string(outer.join("file"))? == "x\n");
    Ok(())
}

fn modes_and_owners(cri: &Cri) -> Result<()> {
    let directory = cri.file("modes");
    fs::create_dir_all(&directory)?;
    for (name, mode) in [("secret", 0o400), ("program", 0o755), ("setgid", 0o2770)] {
        let path = directory.join(name);
        fs::write(&path, "#!/bin/sh\necho ran\n")?;
        std::os::unix::fs::chown(&path, Some(1000), Some(2000))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.mount(&directory, "/data", false);
        config.security().run_as_user = Some(super::messages::Int64Value { value: 1001 });
    })?;
    let seen = says(&id, "cd /data; stat -c '%n %a %u %g' program secret setgid")?;
    ensure!(seen == "program 755 1000 2000\nsecret 400 1000 2000\nsetgid 2770 1000 2000", "{seen}");
    ensure!(exec(&id, "cat /data/secret")?.exit_code != 0);
    ensure!(says(&id, "/data/program")? == "ran");
    Ok(())
}

fn a_volume_that_is_not_there_is_made(cri: &Cri) -> Result<()> {
    let directory = cri.file("made").join("by").join("the-service");
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.mount(&directory, "/data", false);
    })?;
    says(&id, "echo x > /data/file")?;
    ensure!(fs::read_to_string(directory.join("file"))? == "x\n");
    Ok(())
}

fn a_device(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let device = |from: &str, permissions: &str| Device {
        container_path: "/dev/of-case".to_owned(),
        host_path: from.to_owned(),
        permissions: permissions.to_owned(),
    };
    let id = pod.start_with("sleep 1000", |config| {
        config.devices.push(device("/dev/zero", "rw"));
    })?;
    ensure!(says(&id, "head -c 3 /dev/of-case | od -An -tx1")? == "00 00 00");
    let refused = refusal(
        pod.create("true", |config| {
            config.devices.push(device("/dev/no-such-device", "rwm"));
        })
        .and_then(|id| start(&id)),
    )?;
    ensure!(refused.message.contains("/dev/no-such-device"), "{refused}");
    Ok(())
}

fn the_root_file_system_is_read_only_if_asked_for(cri: &Cri) -> Result<()> {
    let directory = cri.file("beside");
    fs::create_dir_all(&directory)?;
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.security().readonly_rootfs = true;
        config.mount(&directory, "/tmp", false);
    })?;
    let answer = exec(&id, "echo x > /etc/file")?;
    let text = super::pod::text(&answer.stderr);
    ensure!(answer.exit_code != 0 && text.contains("Read-only file system"), "{text}");
    says(&id, "echo x > /tmp/file; echo x > /dev/shm/file; rm /dev/shm/file")?;
    ensure!(fs::read_to_string(directory.join("file"))? == "x\n");
    Ok(())
}
