//! Global flags, flags of create and run, and the commands without a container: list, spec, features.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::console::Console;
use super::runtime::{Runtime, SECRET, plain};
use super::{Alone, Clause, Group, alone};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[
    Group::Alone("global", GLOBAL),
    Group::Alone("features", FEATURES),
    Group::Alone("spec", SPEC),
    Group::Alone("run", RUN),
    Group::Alone("list", LIST),
];

const GLOBAL: &[Clause<Alone>] = &[
    alone("version", "runc --version", |runtime| {
        let text = runtime.call(&["--version"])?.exits(0)?.text();
        ensure!(text.starts_with(runtime.program.name()) && text.contains(" version "), "{text}");
        ensure!(text.lines().any(|line| line.starts_with("spec: 1.")), "{text}");
        Ok(())
    }),
    alone("version_short", "runc -v", |r| r.call(&["-v"])?.exits(0)?.has("spec: ").map(drop)),
    alone("help", "runc --help", |runtime| {
        let text = runtime.call(&["--help"])?.exits(0)?.text();
        for command in COMMANDS {
            ensure!(text.contains(command), "no {command} in {text}");
        }
        Ok(())
    }),
    alone("help_of_commands", "runc COMMAND --help", |runtime| {
        for command in COMMANDS {
            runtime.call(&[command, "--help"])?.exits(0)?.has(command)?;
        }
        Ok(())
    }),
    alone("an_unknown_command_is_refused", "runc COMMAND", |r| {
        ensure!(r.call(&["nosuch"])?.code != 0);
        Ok(())
    }),
    alone("an_unknown_flag_is_refused", "runc: flags", |r| {
        ensure!(r.call(&["state", "--nosuch", "x"])?.code != 0);
        Ok(())
    }),
    alone("root", "runc --root", |runtime| {
        let other = Runtime::new(runtime.program)?;
        let container = runtime.create("true", plain)?;
        ensure!(runtime.root().join(&container.id).is_dir());
        ensure!(runtime.call(&["list", "-q"])?.exits(0)?.text().trim() == container.id);
        other.call(&["list", "-q"])?.exits(0)?.prints("")?;
        let outcome = other.call(&["state", &container.id])?;
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    }),
    alone("log_text", "runc --log", |runtime| {
        let text = logged(runtime, "text", &[])?;
        ensure!(text.contains("level=error") && text.contains("does not exist"), "{text}");
        Ok(())
    }),
    alone("log_json", "runc --log-format json", |runtime| {
        let text = logged(runtime, "json", &["--log-format", "json"])?;
        let line: Value = serde_json::from_str(text.lines().last().context("an empty log")?)?;
        ensure!(line["level"] == "error" && line["time"].is_string(), "{line}");
        ensure!(line["msg"].as_str().is_some_and(|m| m.contains("does not exist")), "{line}");
        Ok(())
    }),
    alone("log_is_appended_to", "runc --log", |runtime| {
        logged(runtime, "twice", &[])?;
        let text = logged(runtime, "twice", &[])?;
        ensure!(text.lines().filter(|line| line.contains("does not exist")).count() == 2, "{text}");
        Ok(())
    }),
    alone("errors_are_on_standard_error_too", "runc --log", |runtime| {
        let log = runtime.file("log").display().to_string();
        let outcome = runtime.call(&["--log", &log, "state", "nosuch"])?;
        outcome.complains("does not exist").map(drop)
    }),
    alone("log_format_is_checked", "runc --log-format", |r| {
        let outcome = r.call(&["--log-format", "xml", "list"])?;
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    }),
    alone("checkpoint_and_restore", "runc checkpoint, restore", checkpoint)
        .differs("answered with an error: not supported yet"),
    alone("debug", "runc --debug", |runtime| {
        let log = runtime.file("debug").display().to_string();
        let bundle = runtime.bundle("true", plain)?;
        runtime
            .call(&["--debug", "--log", &log, "run", "--bundle", &bundle.path(), &runtime.id()])?
            .exits(0)?;
        ensure!(fs::read_to_string(&log)?.contains("level=debug"));
        Ok(())
    }),
];

/// Images of running containers are not built yet.
fn checkpoint(runtime: &Runtime) -> Result<()> {
    for command in ["checkpoint", "restore"] {
        let help = runtime.call(&[command, "--help"])?;
        if !runtime.ours() {
            help.exits(0)?;
            continue;
        }
        let outcome = runtime.call(&[command, "some-id"])?;
        ensure!(outcome.code != 0, "{outcome}");
        outcome.complains("not supported")?;
    }
    Ok(())
}

/// The commands of runc but checkpoint and restore.
const COMMANDS: [&str; 15] = [
    "create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume",
    "run", "spec", "start", "state", "update",
];

/// What the log `name` holds after a command that fails.
fn logged(runtime: &Runtime, name: &str, flags: &[&str]) -> Result<String> {
    let log = runtime.file(name).display().to_string();
    let outcome = runtime.call(&[&["--log", &log], flags, &["state", "nosuch"]].concat())?;
    ensure!(outcome.code != 0, "{outcome}");
    Ok(fs::read_to_string(&log)?)
}

/// `features` has `values` in the list at the path.
macro_rules! feature {
    ($name:literal, $path:literal, $($value:literal),+ $(,)?) => {
        alone($name, concat!("features: ", $path), |runtime| has(runtime, $path, &[$($value),+]))
    };
}

const FEATURES: &[Clause<Alone>] = &[
    alone("versions", "features: ociVersionMin, ociVersionMax", |runtime| {
        let features = features(runtime)?;
        for name in ["ociVersionMin", "ociVersionMax"] {
            ensure!(features[name].as_str().is_some_and(|v| v.starts_with("1.")), "{features}");
        }
        Ok(())
    }),
    feature!(
        "hooks",
        "/hooks",
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop"
    ),
    feature!(
        "mount_options",
        "/mountOptions",
        "bind",
        "ro",
        "nosuid",
        "relatime",
        "rprivate",
        "tmpcopyup",
        "nosymfollow"
    ),
    feature!(
        "namespaces",
        "/linux/namespaces",
        "cgroup",
        "ipc",
        "mount",
        "network",
        "pid",
        "user",
        "uts"
    ),
    feature!(
        "capabilities",
        "/linux/capabilities",
        "CAP_CHOWN",
        "CAP_SYS_ADMIN",
        "CAP_CHECKPOINT_RESTORE"
    ),
    feature!(
        "seccomp_actions",
        "/linux/seccomp/actions",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRAP"
    ),
    feature!(
        "seccomp_operators",
        "/linux/seccomp/operators",
        "SCMP_CMP_EQ",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE"
    ),
    feature!("seccomp_architectures", "/linux/seccomp/archs", "SCMP_ARCH_X86_64"),
    alone("cgroup_v2", "features: linux.cgroup.v2", |runtime| {
        ensure!(features(runtime)?["linux"]["cgroup"]["v2"] == true);
        Ok(())
    }),
    alone("seccomp_is_enabled", "features: linux.seccomp.enabled", |runtime| {
        ensure!(features(runtime)?["linux"]["seccomp"]["enabled"] == true);
        Ok(())
    }),
];

fn features(runtime: &Runtime) -> Result<Value> {
    Ok(serde_json::from_slice(&runtime.call(&["features"])?.exits(0)?.stdout)?)
}

fn has(runtime: &Runtime, path: &str, values: &[&str]) -> Result<()> {
    let features = features(runtime)?;
    let list =
        features.pointer(path).and_then(Value::as_array).with_context(|| format!("no {path}"))?;
    for value in values {
        ensure!(list.iter().any(|found| found == value), "no {value} in {list:?}");
    }
    Ok(())
}

const SPEC: &[Clause<Alone>] = &[
    alone("written_in_the_working_directory", "runc spec", |runtime| {
        runtime.call(&["spec"])?.exits(0)?;
        let spec: Value = serde_json::from_slice(&fs::read(runtime.file("config.json"))?)?;
        ensure!(spec["process"]["args"][0] == "sh" && spec["root"]["path"] == "rootfs", "{spec}");
        Ok(())
    }),
    alone("never_overwrites", "runc spec", |runtime| {
        fs::write(runtime.file("config.json"), "mine")?;
        let outcome = runtime.call(&["spec"])?;
        ensure!(outcome.code != 0, "{outcome}");
        ensure!(fs::read_to_string(runtime.file("config.json"))? == "mine");
        Ok(())
    }),
    alone("bundle", "runc spec --bundle", |runtime| {
        let directory = runtime.file("new");
        fs::create_dir(&directory)?;
        runtime.call(&["spec", "--bundle", &directory.display().to_string()])?.exits(0)?;
        ensure!(directory.join("config.json").exists());
        Ok(())
    }),
    alone("rootless", "runc spec --rootless", |runtime| {
        let directory = runtime.file("rootless");
        fs::create_dir(&directory)?;
        runtime
            .call(&["spec", "--rootless", "--bundle", &directory.display().to_string()])?
            .exits(0)?;
        let spec: Value = serde_json::from_slice(&fs::read(directory.join("config.json"))?)?;
        let user = |ns: &Value| ns["type"] == "user";
        ensure!(
            spec["linux"]["namespaces"].as_array().is_some_and(|all| all.iter().any(user)),
            "{spec}"
        );
        ensure!(spec["linux"]["uidMappings"].is_array(), "{spec}");
        Ok(())
    }),
];

const RUN: &[Clause<Alone>] = &[
    alone("exit_code", "runc run", |r| r.run("exit 43", plain)?.exits(43).map(drop)),
    alone("the_first_process_cannot_kill_itself", "config-linux: namespaces, pid", |r| {
        r.run("kill -KILL $$; kill -SEGV $$", plain)?.exits(0).map(drop)
    }),
    alone("leaves_no_state", "runc run", |runtime| {
        runtime.run("true", plain)?.exits(0)?;
        runtime.call(&["list", "-q"])?.exits(0)?.prints("").map(drop)
    }),
    alone("keep", "runc run --keep", |runtime| {
        let bundle = runtime.bundle("exit 5", plain)?;
        let id = runtime.id();
        runtime.call(&["run", "--keep", "--bundle", &bundle.path(), &id])?.exits(5)?;
        let text = runtime.call(&["state", &id])?.exits(0)?;
        text.has("\"stopped\"")?;
        runtime.call(&["delete", &id])?.exits(0).map(drop)
    }),
    alone("detach_and_pid_file", "runc run --detach, --pid-file", |runtime| {
        let container = runtime.detached(super::WAITS, plain)?;
        container.is("running")?;
        container.prints("started")?;
        container.kill("TERM")?;
        ensure!(container.exit_code()? == 7);
        Ok(())
    }),
    alone("bundle_is_the_working_directory", "runc create --bundle", |runtime| {
        let bundle = runtime.bundle("echo here", plain)?;
        let mut command = runtime.command();
        command
            .current_dir(bundle.path())
            .args(["run", &runtime.id()])
            .stdin(std::process::Stdio::null());
        runtime.spawn(command)?.finish()?.exits(0)?.prints("here").map(drop)
    }),
    alone("short_bundle_flag", "runc create -b", |runtime| {
        let bundle = runtime.bundle("echo here", plain)?;
        runtime
            .call(&["run", "-b", &bundle.path(), &runtime.id()])?
            .exits(0)?
            .prints("here")
            .map(drop)
    }),
    alone("no_subreaper", "runc run --no-subreaper", |runtime| {
        accepted(runtime, &["--no-subreaper"])
    }),
    alone("no_new_keyring", "runc run --no-new-keyring", |runtime| {
        accepted(runtime, &["--no-new-keyring"])
    }),
    alone("no_pivot", "runc run --no-pivot", |runtime| accepted(runtime, &["--no-pivot"])),
    alone("standard_input", "runc run", |runtime| {
        let bundle = runtime.bundle("cat; echo end >&2", plain)?;
        let outcome =
            runtime.call_with(&["run", "-b", &bundle.path(), &runtime.id()], "input\n")?;
        outcome.exits(0)?.prints("input")?.complains("end").map(drop)
    }),
    alone("preserve_fds", "runc run --preserve-fds", preserve_fds).differs(DESCRIPTORS),
    alone("listen_fds", "runc run: LISTEN_FDS", listen_fds)
        .differs("not passed on: a descriptor of the host cannot enter a virtual machine"),
    alone("console_socket", "runc create --console-socket", console_socket),
    alone("console_size", "config: process.consoleSize", console_size),
    alone("a_terminal_needs_a_console_socket", "runc create --console-socket", |runtime| {
        let bundle =
            runtime.bundle("true", |config| config["process"]["terminal"] = true.into())?;
        let outcome = runtime.call(&["create", "--bundle", &bundle.path(), &runtime.id()])?;
        ensure!(outcome.code != 0, "{outcome}");
        outcome
            .complains("cannot allocate tty if runc will detach without setting console socket")
            .map(drop)
    }),
];

/// A container runs with these flags.
fn accepted(runtime: &Runtime, flags: &[&str]) -> Result<()> {
    let bundle = runtime.bundle("echo here", plain)?;
    let path = bundle.path();
    let id = runtime.id();
    runtime
        .call(&[&["run"], flags, &["--bundle", &path, &id]].concat())?
        .exits(0)?
        .prints("here")
        .map(drop)
}

/// `run` with descriptor 3 from a file, in a shell with these variables.
fn with_descriptor(runtime: &Runtime, variables: &str, flags: &[&str], script: &str) -> Result<()> {
    let file = runtime.file("preserved");
    fs::write(&file, "through a descriptor\n")?;
    let bundle = runtime.bundle(script, plain)?;
    let own = runtime.command();
    let mut command = std::process::Command::new("sh");
    let words: Vec<_> = std::iter::once(own.get_program()).chain(own.get_args()).collect();
    command
        .args(["-c", &format!("{variables} exec \"$@\" 3< {}", file.display()), "sh"])
        .args(words);
    command.env(SECRET, "1").arg("run").args(flags).args([
        "--bundle",
        &bundle.path(),
        &runtime.id(),
    ]);
    runtime.spawn(command)?.finish()?.exits(0)?.prints("through a descriptor").map(drop)
}

/// Why descriptors are not preserved.
pub(super) const DESCRIPTORS: &str =
    "refused: a descriptor of the host cannot enter a virtual machine";

fn preserve_fds(runtime: &Runtime) -> Result<()> {
    if runtime.ours() {
        let bundle = runtime.bundle("true", plain)?;
        let path = bundle.path();
        let arguments = ["run", "--preserve-fds", "1", "--bundle", &path, &runtime.id()];
        let outcome = runtime.call(&arguments)?;
        ensure!(outcome.code != 0, "{outcome}");
        return outcome.complains("cannot enter a virtual machine").map(drop);
    }
    with_descriptor(runtime, "", &["--preserve-fds", "1"], "cat <&3")
}

fn listen_fds(runtime: &Runtime) -> Result<()> {
    let variables = "export LISTEN_FDS=1 LISTEN_PID=$$;";
    if runtime.ours() {
        let script = "test -z \"$LISTEN_FDS\" && echo 'through a descriptor'";
        return with_descriptor(runtime, variables, &[], script);
    }
    let script = "test $LISTEN_FDS,$LISTEN_PID = 1,1 && cat <&3";
    with_descriptor(runtime, variables, &[], script)
}

fn console_socket(runtime: &Runtime) -> Result<()> {
    let console = Console::listen(runtime, "console.sock")?;
    let script = "tty; test -c /dev/console && read x && echo \"got $x\"; exit 4";
    let flags = ["create", "--console-socket", console.path()];
    let container =
        runtime.make(&flags, script, |config| config["process"]["terminal"] = true.into())?;
    let mut screen = console.accept()?;
    container.call(&["start"])?.exits(0)?;
    screen.shows("/dev/pts/0")?;
    screen.types("word\r")?;
    screen.shows("got word\r\n")?;
    let code = container.exit_code()?;
    ensure!(code == 4, "exit code {code}");
    Ok(())
}

fn console_size(runtime: &Runtime) -> Result<()> {
    let console = Console::listen(runtime, "size.sock")?;
    let flags = ["run", "--detach", "--console-socket", console.path()];
    let _container = runtime.make(&flags, "stty size; sleep 100", |config| {
        config["process"]["terminal"] = true.into();
        config["process"]["consoleSize"] = serde_json::json!({ "height": 41, "width": 101 });
    })?;
    console.accept()?.shows("41 101")
}

const LIST: &[Clause<Alone>] = &[
    alone("table_of_none", "runc list", |runtime| {
        let text = runtime.call(&["list"])?.exits(0)?.text();
        let head: Vec<&str> = text.split_whitespace().collect();
        ensure!(head == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], "{text}");
        Ok(())
    }),
    alone("json_of_none", "runc list --format json", |runtime| {
        runtime.call(&["list", "--format", "json"])?.exits(0)?.prints("null").map(drop)
    }),
    alone("formats", "runc list --format, --quiet", list_formats),
    alone("an_unknown_format_is_refused", "runc list --format", |runtime| {
        let outcome = runtime.call(&["list", "--format", "xml"])?;
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    }),
];

fn list_formats(runtime: &Runtime) -> Result<()> {
    let container = runtime.create("true", plain)?;
    let text = runtime.call(&["list"])?.exits(0)?.text();
    let words: Vec<&str> = text.lines().last().unwrap_or_default().split_whitespace().collect();
    let pid = container.pid.to_string();
    let bundle = container.bundle.path();
    ensure!(words[..4] == [&*container.id, &pid, "created", &bundle], "{text}");
    ensure!(words.last() == Some(&"root"), "{text}");
    runtime.call(&["list", "--quiet"])?.exits(0)?.prints(&container.id)?;
    let outcome = runtime.call(&["list", "-f", "json"])?.exits(0)?;
    let all: Vec<Value> = serde_json::from_slice(&outcome.stdout)?;
    let one = all.first().context("an empty list")?;
    ensure!(one["id"] == container.id && one["status"] == "created", "{one}");
    ensure!(one["pid"] == container.pid && one["bundle"] == bundle, "{one}");
    ensure!(one["created"].is_string() && one["ociVersion"].is_string(), "{one}");
    Ok(())
}
