//! Directories and files of the host that containers see as they are.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cases;
use super::kills::wait_for_helper;
use super::sudden::{done, processes, sleeper, wait_for};
use crate::run::{Run, Started, unique_id};

cases!("volumes":
    what_either_side_does_the_other_sees,
    a_read_only_volume_refuses_writes,
    what_is_written_arrives_whole,
    nothing_leads_out_of_a_volume,
    what_is_written_to_has_no_set_id_bit,
    a_file_that_can_be_written_to_is_the_host_s,
    submounts_are_there_if_asked_for,
    submounts_of_a_read_only_or_mapped_volume_are_as_runc_has_them,
    ids_are_mapped,
    ids_are_mapped_for_a_user_namespace,
    two_volumes_are_two_file_systems,
    a_container_that_joins_a_pod_has_its_own,
    a_file_server_that_dies_leaves_errors_and_a_pod,
    a_supervisor_that_dies_takes_the_file_server_along,
    the_file_server_has_few_rights,
    a_source_that_is_missing_is_named,
);

/// A directory of the host that everybody may write to.
fn directory() -> Result<TempDir> {
    let directory = TempDir::with_prefix("volume-")?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
    Ok(directory)
}

/// A run of `script` with `source` mounted on /data.
fn with(source: &Path, options: &[&str], script: &str) -> Result<Run> {
    with_more(source, options, script, |_| ())
}

fn with_more(
    source: &Path,
    options: &[&str],
    script: &str,
    edit: impl FnOnce(&mut Value),
) -> Result<Run> {
    Run::bundle(script, |config| {
        bind(config, source, "/data", options);
        edit(config);
    })
}

fn bind(config: &mut Value, source: &Path, destination: &str, options: &[&str]) {
    if let Some(list) = config["mounts"].as_array_mut() {
        list.push(json!({
            "destination": destination, "type": "bind", "source": source, "options": options,
        }));
    }
}

/// As this user of the container.
fn user(config: &mut Value, uid: u32, gid: u32) {
    config["process"]["user"] = json!({ "uid": uid, "gid": gid });
}

/// Waits until something is so.
fn eventually(what: &str, so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        ensure!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A file system in memory on a directory, until it is dropped.
struct Memory<'a>(&'a Path);

impl<'a> Memory<'a> {
    fn on(path: &'a Path) -> Result<Self> {
        mount(Some("test"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        Ok(Self(path))
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

fn what_either_side_does_the_other_sees() -> Result<()> {
    let volume = directory()?;
    let path = |name: &str| volume.path().join(name);
    fs::write(path("old"), "from the host")?;
    let script = "cat /data/old; echo; umask 0; echo new > /data/new; chmod 640 /data/new; mkdir /data/d; \
                  ln -s new /data/link; ln /data/new /data/hard; mv /data/old /data/d/moved; echo ready; \
                  until [ -e /data/go ]; do sleep 0.1; done; cat /data/new; rm /data/go; \
                  until [ \"$(stat -c %s /data/new)\" = 7 ]; do sleep 0.1; done; cat /data/new; ls /data";
    let mut run =
        with_more(volume.path(), &["rbind"], script, |config| user(config, 1234, 2345))?.start()?;
    run.wait_for("ready")?;
    let new = fs::metadata(path("new"))?;
    ensure!((new.uid(), new.gid()) == (1234, 2345), "{}:{}", new.uid(), new.gid());
    ensure!(new.mode() & 0o7777 == 0o640 && new.nlink() == 2, "{new:?}");
    ensure!(fs::read_to_string(path("new"))? == "new\n");
    ensure!(fs::read_link(path("link"))? == Path::new("new"));
    ensure!(fs::read_to_string(path("d/moved"))? == "from the host" && !path("old").exists());
    fs::write(path("new"), "other\n")?;
    fs::write(path("go"), "")?;
    eventually("the guest removes a file", || !path("go").exists())?;
    fs::write(path("new"), "longer\n")?;
    run.finish()?
        .exits(0)?
        .prints("from the host\nready\nother\nlonger\nd\nhard\nlink\nnew")
        .map(drop)
}

fn a_read_only_volume_refuses_writes() -> Result<()> {
    let volume = directory()?;
    fs::write(volume.path().join("file"), "as it was")?;
    let script = "cat /data/file; echo x > /data/file || echo no; touch /data/new || echo no; \
                  rm -f /data/file || echo no; mv /data/file /data/other || echo no";
    for option in ["ro", "rro"] {
        with(volume.path(), &["rbind", option], script)?
            .output()?
            .prints("as it wasno\nno\nno\nno")?
            .complains("Read-only file system")?;
    }
    ensure!(fs::read_to_string(volume.path().join("file"))? == "as it was");
    ensure!(fs::read_dir(volume.path())?.count() == 1);
    Ok(())
}

fn what_is_written_arrives_whole() -> Result<()> {
    let volume = directory()?;
    let bytes: Vec<u8> =
        (0..1_500_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    fs::write(volume.path().join("in"), &bytes)?;
    // Requests of all sizes, and ends in the middle of a page.
    let script = "cp /data/in /data/a && dd if=/data/in of=/data/b bs=1M 2> /dev/null && \
                  dd if=/data/in of=/data/c bs=4097 2> /dev/null && cmp /data/in /data/a && \
                  cmp /data/in /data/b && cmp /data/in /data/c && sync /data/c && \
                  for i in $(seq 300); do echo $i > /data/f$i; done; ls /data | wc -l; \
                  truncate -s 3 /data/a; cat /data/f299";
    with(volume.path(), &["bind"], script)?.output()?.exits(0)?.prints("304\n299")?;
    for name in ["b", "c"] {
        ensure!(fs::read(volume.path().join(name))? == bytes, "{name} is another");
    }
    ensure!(fs::read(volume.path().join("a"))? == bytes[..3]);
    Ok(())
}

fn nothing_leads_out_of_a_volume() -> Result<()> {
    let outside = TempDir::with_prefix("outside-")?;
    fs::write(outside.path().join("secret"), "secret")?;
    let volume = directory()?;
    let parent = volume.path().parent().context("a parent")?;
    std::os::unix::fs::symlink(outside.path(), volume.path().join("link"))?;
    std::os::unix::fs::symlink("../../../..", volume.path().join("up"))?;
    let name = outside.path().file_name().context("a name")?.to_string_lossy().into_owned();
    let script = format!(
        "cat /data/link/secret; echo x > /data/link/new; cat /data/../{name}/secret; ls /data/.. | grep -c data; \
         ln -s {}/secret /data/made; cat /data/made; echo y > /data/made; readlink /data/link; \
         ls -d /data/up/data; mknod /data/null c 1 3 || echo no; ls {}/..",
        outside.path().display(),
        volume.path().display(),
    );
    let outcome = with_more(volume.path(), &["rbind"], &script, |config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] =
                json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"]);
        }
        // The cgroup of the container allows it.
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    })?
    .output()?;
    let said = outcome.text();
    ensure!(!said.contains("secret\nsecret") && !said.starts_with("secret"), "{said}");
    let link = outside.path().display().to_string();
    ensure!(said.contains(&format!("1\n{link}\n/data/up/data\nno")), "{said}");
    ensure!(fs::read_dir(outside.path())?.count() == 1, "something was made outside");
    ensure!(fs::read_to_string(outside.path().join("secret"))? == "secret");
    ensure!(!parent.join("new").exists() && !volume.path().join("null").exists());
    Ok(())
}

fn what_is_written_to_has_no_set_id_bit() -> Result<()> {
    let volume = directory()?;
    let file = volume.path().join("program");
    fs::write(&file, "first")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6777))?;
    let script = "echo second > /data/program; stat -c %a /data/program";
    with_more(volume.path(), &["rbind"], script, |config| user(config, 1000, 1000))?
        .output()?
        .exits(0)?
        .prints("777")?;
    ensure!(file.metadata()?.mode() & 0o7777 == 0o777, "the host's file has it yet");
    Ok(())
}

fn a_file_that_can_be_written_to_is_the_host_s() -> Result<()> {
    let directory = directory()?;
    let file = directory.path().join("file");
    fs::write(&file, "first")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
    let script = "cat /data; echo; echo second > /data; echo ready; \
                  until grep -q third /data; do sleep 0.1; done; cat /data; ls /proc/1/root/data";
    let mut run = with(&file, &["bind"], script)?.start()?;
    run.wait_for("ready")?;
    ensure!(fs::read_to_string(&file)? == "second\n");
    fs::write(&file, "third\n")?;
    run.finish()?.exits(0)?.prints("first\nready\nthird\n/proc/1/root/data")?;
    // Next to it is nothing that the container could have seen.
    ensure!(fs::read_dir(directory.path())?.count() == 1);
    Ok(())
}

fn submounts_are_there_if_asked_for() -> Result<()> {
    let volume = directory()?;
    let below = volume.path().join("below");
    fs::create_dir(&below)?;
    let _memory = Memory::on(&below)?;
    fs::write(below.join("file"), "on the other")?;
    let script = "cat /data/below/file || echo none; \
                  [ $(stat -c %d /data) = $(stat -c %d /data/below) ] && echo same || echo other; \
                  mv /data/below/file /data/moved && cat /data/moved";
    with(volume.path(), &["rbind"], script)?
        .output()?
        .exits(0)?
        .prints("on the otherother\non the other")?;
    ensure!(fs::read_to_string(volume.path().join("moved"))? == "on the other");
    with(volume.path(), &["bind"], "ls /data/below; echo $?")?
        .output()?
        .exits(0)?
        .prints("0")
        .map(drop)
}

fn submounts_of_a_read_only_or_mapped_volume_are_as_runc_has_them() -> Result<()> {
    let volume = directory()?;
    let below = volume.path().join("a b");
    fs::create_dir(&below)?;
    let _memory = Memory::on(&below)?;
    fs::write(below.join("file"), "")?;
    let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    let script = "touch /ro/new || echo top; touch '/ro/a b/new' && echo inside; \
                  touch '/rro/a b/more' || echo none; stat -c %u:%g '/mapped/a b/file'; \
                  stat -c %u:%g '/top/a b/file'";
    let run = Run::bundle(script, |config| {
        bind(config, volume.path(), "/ro", &["rbind", "ro"]);
        bind(config, volume.path(), "/rro", &["rbind", "ro", "rro"]);
        for (destination, option) in [("/mapped", "ridmap"), ("/top", "idmap")] {
            bind(config, volume.path(), destination, &["rbind", option]);
            if let Some(mount) = config["mounts"].as_array_mut().and_then(|list| list.last_mut()) {
                (mount["uidMappings"], mount["gidMappings"]) = (map(12), map(34));
            }
        }
    })?;
    let outcome = run.output()?.exits(0)?;
    let said = outcome.text();
    for line in ["top", "inside", "none", "12:34\n0:0"] {
        ensure!(said.contains(line), "no {line:?}: {said}");
    }
    ensure!(below.join("new").exists() && !below.join("more").exists());
    Ok(())
}

fn ids_are_mapped() -> Result<()> {
    let volume = directory()?;
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o755))?;
    fs::write(volume.path().join("old"), "content")?;
    let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    // Only who owns the directory may make files in it.
    let script = "stat -c %u:%g /data /data/old; echo new > /data/new; mkdir /data/d; stat -c %u:%g /data/new; \
                  cat /data/old; rm /data/old";
    Run::bundle(script, |config| {
        user(config, 12, 34);
        if let Some(list) = config["mounts"].as_array_mut() {
            list.push(json!({
                "destination": "/data", "type": "bind", "source": volume.path(),
                "options": ["bind", "idmap"], "uidMappings": map(12), "gidMappings": map(34),
            }));
        }
    })?
    .output()?
    .exits(0)?
    .prints("12:34\n12:34\n12:34\ncontent")?;
    for name in ["new", "d"] {
        let made = fs::metadata(volume.path().join(name))?;
        ensure!((made.uid(), made.gid()) == (0, 0), "{name} is {}:{}", made.uid(), made.gid());
    }
    ensure!(!volume.path().join("old").exists());
    Ok(())
}

fn ids_are_mapped_for_a_user_namespace() -> Result<()> {
    let volume = directory()?;
    fs::write(volume.path().join("old"), "")?;
    // Without a map of its own, what root owns is nobody's there. The root file system is nobody's, too: both directories
    // are in it.
    let script =
        "stat -c %u:%g /mnt/old /srv/old; touch /mnt/new /srv/own; stat -c %u:%g /mnt/new /srv/own";
    let run = Run::bundle(script, |config| {
        bind(config, volume.path(), "/srv", &["rbind"]);
        bind(config, volume.path(), "/mnt", &["rbind", "idmap"]);
        if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
            list.push(json!({ "type": "user" }));
        }
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })?;
    run.output()?.exits(0)?.prints("0:0\n65534:65534\n0:0\n0:0")?;
    for (name, owner) in [("new", 0), ("own", 100_000)] {
        let made = fs::metadata(volume.path().join(name))?;
        ensure!(
            (made.uid(), made.gid()) == (owner, owner),
            "{name} is {}:{}",
            made.uid(),
            made.gid()
        );
    }
    Ok(())
}

fn two_volumes_are_two_file_systems() -> Result<()> {
    let (first, second) = (directory()?, directory()?);
    let script = "[ $(stat -c %d /data) != $(stat -c %d /more) ] && echo two; echo x > /data/x; \
                  mv /data/x /more/x && cat /more/x; ln /more/x /data/y || echo no; \
                  awk '$3 == \"virtiofs\" { print $2 }' /proc/mounts";
    with_more(first.path(), &["rbind"], script, |config| {
        bind(config, second.path(), "/more", &["rbind", "nosuid", "noexec"]);
    })?
    .output()?
    .exits(0)?
    .prints("two\nx\nno\n/data\n/more")?;
    ensure!(fs::read_to_string(second.path().join("x"))? == "x\n");
    Ok(())
}

fn a_container_that_joins_a_pod_has_its_own() -> Result<()> {
    const KIND: &str = "io.kubernetes.cri.container-type";
    const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
    let sandbox = unique_id();
    let pause = sleeper(&[(KIND, "sandbox"), (SANDBOX, &sandbox)])?;
    done(&["create", "--bundle", &pause.path().display().to_string(), &sandbox])?;
    done(&["start", &sandbox])?;
    let servers = || processes(|line| line.contains("virtiofsd --fd=0"));
    ensure!(servers().is_empty(), "a file server without a volume");
    for round in 0..2 {
        let (id, volume) = (unique_id(), directory()?);
        fs::write(volume.path().join("file"), round.to_string())?;
        let member = sleeper(&[(KIND, "container"), (SANDBOX, &sandbox)])?;
        let path = member.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        bind(&mut config, volume.path(), "/data", &["rbind"]);
        fs::write(&path, serde_json::to_vec(&config)?)?;
        done(&["create", "--bundle", &member.path().display().to_string(), &id])?;
        done(&["start", &id])?;
        let script = "cat /data/file; echo made > /data/new";
        ensure!(done(&["exec", &id, "sh", "-c", script])? == round.to_string());
        ensure!(fs::read_to_string(volume.path().join("new"))? == "made\n");
        let pids = servers();
        ensure!(pids.len() == 2, "one file server, in two processes: {pids:?}");
        done(&["kill", &id, "KILL"])?;
        wait_for(&id, "stopped")?;
        done(&["delete", &id])?;
        // With the container goes its volume.
        let inner = pids.into_iter().max().context("no file server")?;
        let mounts = fs::read_to_string(format!("/proc/{inner}/mountinfo"))?;
        ensure!(mounts.lines().count() == 1, "{mounts}");
    }
    done(&["kill", &sandbox, "KILL"])?;
    wait_for(&sandbox, "stopped")?;
    done(&["delete", &sandbox]).map(drop)
}

/// The file server of a run that prints `ready`.
fn server(run: &mut Started) -> Result<Pid> {
    run.wait_for("ready")?;
    wait_for_helper(run, "virtiofsd")
}

fn a_file_server_that_dies_leaves_errors_and_a_pod() -> Result<()> {
    let volume = directory()?;
    fs::write(volume.path().join("file"), "content")?;
    let script = "cat /data/file; exec 3< /data/file; echo ready; while ls /data > /dev/null 2>&1; do sleep 0.1; done; \
                  ls /data; cat <&3; echo alive > /tmp/x; cat /tmp/x";
    let mut run = with(volume.path(), &["rbind"], script)?.start()?;
    let server = server(&mut run)?;
    kill(server, Signal::SIGKILL)?;
    run.finish()?
        .exits(0)?
        .prints("contentready\nalive")?
        .complains("Input/output error")?
        .complains("the file server of the pod's volumes has ended")
        .map(drop)
}

fn a_supervisor_that_dies_takes_the_file_server_along() -> Result<()> {
    let volume = directory()?;
    let mut run = with(volume.path(), &["rbind"], "echo ready; sleep 1000")?.start()?;
    let server = server(&mut run)?;
    let supervisor =
        wait_for_helper(&run, " supervisor ").or_else(|_| wait_for_helper(&run, "supervisor"))?;
    kill(supervisor, Signal::SIGKILL)?;
    let gone = || !Path::new(&format!("/proc/{server}")).exists();
    eventually("the file server ends", gone)?;
    // What is left, if anything, is seen after the case.
    run.finish()?.exits(1).map(drop)
}

fn the_file_server_has_few_rights() -> Result<()> {
    let volume = directory()?;
    let mut run = with(volume.path(), &["rbind"], "echo ready; sleep 1000")?.start()?;
    let outer = server(&mut run)?;
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
    let pid: u32 = children.split_whitespace().next().context("it has no child")?.parse()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned()).unwrap_or_default()
    };
    // Files of any owner: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID; no more.
    let effective = u64::from_str_radix(&field("CapEff:"), 16)?;
    ensure!(effective == 0b1101_1011, "{effective:#x}");
    ensure!(field("Seccomp:") == "2", "{}", field("Seccomp:"));
    // Nothing of the host is mounted but the volume, in a directory that cannot be written to.
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    ensure!(points == ["/", "/0"], "{mounts}");
    ensure!(mounts.lines().next().is_some_and(|line| line.contains(" ro,")), "{mounts}");
    let here = fs::read_link("/proc/self/ns/net")?;
    ensure!(fs::read_link(format!("/proc/{pid}/ns/net"))? != here, "it has the host's network");
    run.signal(Signal::SIGKILL)?;
    run.finish().map(drop)
}

fn a_source_that_is_missing_is_named() -> Result<()> {
    with(Path::new("/no/such/place"), &["rbind"], "true")?
        .output()?
        .exits(1)?
        .complains("mounts[")?
        .complains("/no/such/place")?
        .complains("No such file or directory")
        .map(drop)
}
