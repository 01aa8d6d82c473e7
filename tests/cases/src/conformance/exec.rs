//! `exec` and its flags.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::console::Console;
use super::runtime::{Container, lives};
use super::{Clause, Group, Step, step};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[Group::With("exec", &["run", "--detach"], edit, EXEC)];

fn edit(config: &mut Value) {
    config["hostname"] = "executed".into();
    config["process"]["cwd"] = "/usr".into();
    config["process"]["env"] = json!(["PATH=/usr/bin:/bin", "OF=config", "HOME=/home"]);
    config["process"]["noNewPrivileges"] = false.into();
    config["linux"]["resources"]["pids"] = json!({ "limit": 100 });
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }],
    });
}

const EXEC: &[Clause<Step>] = &[
    step("output", "runc exec", |c| {
        c.prints("started")?;
        let outcome =
            c.exec(&[], &["sh", "-c", "echo out; echo err >&2"])?.exits(0)?.prints("out")?;
        ensure!(outcome.stderr == "err\n", "{outcome}");
        Ok(())
    }),
    step("input", "runc exec", |c| {
        c.runtime
            .call_with(&["exec", &c.id, "cat"], "some input\n")?
            .exits(0)?
            .prints("some input")
            .map(drop)
    }),
    step("exit_code", "runc exec", |c| c.exec(&[], &["sh", "-c", "exit 23"])?.exits(23).map(drop)),
    step("exit_code_of_a_signal", "runc exec", |c| {
        c.exec(&[], &["sh", "-c", "kill -KILL $$"])?.exits(137).map(drop)
    }),
    step("a_program_that_is_not_there", "runc exec", |c| {
        let outcome = c.exec(&[], &["no-such-program"])?;
        ensure!(outcome.code == 255, "{outcome}");
        outcome.complains("executable file not found in $PATH").map(drop)
    }),
    step("a_file_that_is_no_program", "runc exec", |c| {
        let outcome = c.exec(&[], &["/etc/passwd"])?;
        ensure!(outcome.code == 255, "{outcome}");
        outcome.complains("permission denied").map(drop)
    }),
    step("same_namespaces", "runc exec", |c| {
        equal(&c.shell("hostname; ps -o args= -p 1 | grep -o 'echo started'; ls -i /proc/1/ns/mnt /proc/self/ns/mnt 2>/dev/null | wc -l; \
                  test \"$(readlink /proc/1/ns/mnt /proc/1/ns/net /proc/1/ns/pid)\" = \"$(readlink /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/pid)\" && echo same")?,
              "executed\necho started\n2\nsame")
    }),
    step("same_group", "runc exec", |c| {
        equal(&c.shell("cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max")?, "0::/\n100")
    }),
    step("seccomp_of_the_container", "config-linux: seccomp", |c| {
        let code = "import ctypes; l = ctypes.CDLL(None, use_errno=True); l.syscall(167, 0, 0); print(ctypes.get_errno())";
        c.exec(&[], &["python3", "-c", code])?.exits(0)?.prints("95").map(drop)
    }),
    step("cwd_of_the_container", "runc exec", |c| equal(&c.shell("pwd")?, "/usr")),
    step("cwd", "runc exec --cwd", |c| {
        c.exec(&["--cwd", "/etc"], &["pwd"])?.exits(0)?.prints("/etc").map(drop)
    }),
    step("env_of_the_container", "runc exec", |c| {
        equal(&c.shell("echo $OF $HOME")?, "config /home")
    }),
    step("env", "runc exec --env", |c| {
        c.exec(&["--env", "OF=flag", "--env", "MORE=two words"], &["sh", "-c", "echo $OF $MORE"])?
            .exits(0)?
            .prints("flag two words")
            .map(drop)
    }),
    step("env_nothing_of_the_callers", "runc exec", |c| {
        equal(&c.shell("env | grep -c COFFERDAM || true")?, "0")
    }),
    step("user", "runc exec --user", |c| {
        c.exec(&["--user", "12:34"], &["sh", "-c", "id -u; id -g; id -G"])?
            .exits(0)?
            .prints("12\n34\n34")
            .map(drop)
    }),
    step("user_without_group", "runc exec --user", |c| {
        c.exec(&["-u", "1000"], &["sh", "-c", "id -u; id -g"])?
            .exits(0)?
            .prints("1000\n0")
            .map(drop)
    }),
    step("additional_gids", "runc exec --additional-gids", |c| {
        c.exec(
            &["--user", "12:34", "--additional-gids", "100", "--additional-gids", "200"],
            &["id", "-G"],
        )?
        .exits(0)?
        .prints("34 100 200")
        .map(drop)
    }),
    step("cap", "runc exec --cap", |c| {
        let bits = c
            .exec(&["--cap", "CAP_SYS_CHROOT"], &["grep", "CapBnd", "/proc/self/status"])?
            .exits(0)?;
        // CAP_SYS_CHROOT, beside CAP_KILL, CAP_NET_BIND_SERVICE and CAP_AUDIT_WRITE of the container.
        bits.prints("CapBnd:\t0000000020040420").map(drop)
    }),
    step("no_new_privs", "runc exec --no-new-privs", |c| {
        c.exec(&["--no-new-privs"], &["grep", "NoNewPrivs", "/proc/self/status"])?
            .exits(0)?
            .prints("NoNewPrivs:\t1")
            .map(drop)
    }),
    step("process", "runc exec --process", process),
    step("tty", "runc exec --tty, --console-socket", tty),
    step("detach_and_pid_file", "runc exec --detach, --pid-file", detach),
    step("preserve_fds", "runc exec --preserve-fds", preserved).differs(super::flags::DESCRIPTORS),
    step("flags_may_have_equals_signs", "runc exec", |c| {
        c.exec(&["--user=12:34", "--cwd=/etc"], &["sh", "-c", "id -u; pwd"])?
            .exits(0)?
            .prints("12\n/etc")
            .map(drop)
    }),
    step("flags_of_the_program_are_its_own", "runc exec", |c| {
        c.exec(&[], &["echo", "--cwd", "/etc", "-e"])?.exits(0)?.prints("--cwd /etc -e").map(drop)
    }),
    step("much_output", "runc exec", |c| {
        let outcome = c.exec(&[], &["head", "-c", "1000000", "/dev/zero"])?.exits(0)?;
        ensure!(outcome.stdout.len() == 1_000_000, "{} bytes", outcome.stdout.len());
        Ok(())
    }),
    step("a_missing_command_is_an_error", "runc exec", |c| {
        let outcome = c.call(&["exec"])?;
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    }),
    step("ends_with_the_container", "runc exec", ends_with_the_container),
];

fn equal(found: &str, expected: &str) -> Result<()> {
    ensure!(found == expected, "{found:?}, not {expected:?}");
    Ok(())
}

fn process(c: &Container<'_>) -> Result<()> {
    let file = c.runtime.file("process.json");
    let process = json!({
        "terminal": false, "cwd": "/var", "user": { "uid": 5, "gid": 6, "additionalGids": [7] },
        "env": ["PATH=/usr/bin:/bin", "FROM=file"],
        "args": ["sh", "-c", "pwd; id -u; id -G; echo $FROM.$OF; ulimit -n"],
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }],
    });
    fs::write(&file, process.to_string())?;
    c.call(&["exec", "--process", &file.display().to_string()])?
        .exits(0)?
        .prints("/var\n5\n6 7\nfile.\n77")
        .map(drop)
}

fn tty(c: &Container<'_>) -> Result<()> {
    let console = Console::listen(c.runtime, "exec.sock")?;
    let flags = ["--tty", "--detach", "--console-socket", console.path()];
    c.exec(&flags, &["sh", "-c", "read x; echo \"got $x\"; stty size; tty; sleep 100"])?
        .exits(0)?;
    let mut screen = console.accept()?;
    screen.resize(33, 111)?;
    screen.types("word\r")?;
    screen.shows("got word")?;
    screen.shows("33 111")?;
    screen.shows("/dev/pts/")
}

fn detach(c: &Container<'_>) -> Result<()> {
    let file = c.runtime.file("exec.pid");
    let path = file.display().to_string();
    c.exec(&["--detach", "--pid-file", &path], &["sh", "-c", "sleep 1; exit 9"])?.exits(0)?;
    let pid: i32 = fs::read_to_string(&file)?.parse().context("the pid file")?;
    ensure!(lives(pid), "no process {pid}");
    use nix::sys::wait::{WaitStatus, waitpid};
    let status = waitpid(nix::unistd::Pid::from_raw(pid), None)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 9)), "{status:?}");
    Ok(())
}

/// Descriptor 3 is passed on.
fn preserved(c: &Container<'_>) -> Result<()> {
    if c.runtime.ours() {
        let outcome = c.exec(&["--preserve-fds", "1"], &["true"])?;
        ensure!(outcome.code != 0, "{outcome}");
        return outcome.complains("cannot enter a virtual machine").map(drop);
    }
    let file = c.runtime.file("preserved");
    fs::write(&file, "through a descriptor\n")?;
    let runtime = c.runtime.command();
    let mut command = std::process::Command::new("sh");
    let words: Vec<_> = std::iter::once(runtime.get_program()).chain(runtime.get_args()).collect();
    command.args(["-c", &format!("exec \"$@\" 3< {}", file.display()), "sh"]).args(words);
    command.args(["exec", "--preserve-fds", "1", &c.id, "sh", "-c", "cat <&3"]);
    c.runtime.spawn(command)?.finish()?.exits(0)?.prints("through a descriptor").map(drop)
}

fn ends_with_the_container(c: &Container<'_>) -> Result<()> {
    let arguments = ["exec", &c.id, "sh", "-c", "echo here; sleep 1000"];
    let mut call = c.runtime.start(&arguments, std::process::Stdio::null())?;
    call.wait_for("here")?;
    c.kill("KILL")?;
    call.finish()?.exits(137)?;
    c.becomes("stopped")
}
