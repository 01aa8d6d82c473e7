//! runtime.md: state and its changes, by create, start, kill and delete.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::runtime::{Runtime, field, lives, plain};
use super::{Alone, Clause, Group, Step, alone, step};
use crate::run::Outcome;

/// Groups of this topic.
pub(super) const GROUPS: &[Group] =
    &[Group::With("lifecycle", &["create"], annotated, CREATED), Group::Alone("lifecycle", ALONE)];

fn annotated(config: &mut Value) {
    config["annotations"] = json!({ "com.example.key": "a value", "com.example.empty": "" });
}

/// The first finds a container that was created; each leaves to the next what it made of it.
const CREATED: &[Clause<Step>] = &[
    step("created", "runtime: state.status", |c| c.is("created")),
    step("state_oci_version", "runtime: state.ociVersion", |c| {
        let state = c.state()?;
        let version = field(&state, "/ociVersion")?.as_str().unwrap_or_default();
        ensure!(version.starts_with("1."), "{state}");
        Ok(())
    }),
    step("state_id", "runtime: state.id", |c| equal(&c.state()?, "/id", &json!(c.id))),
    step("state_bundle", "runtime: state.bundle", |c| {
        equal(&c.state()?, "/bundle", &json!(c.bundle.path()))
    }),
    step("state_annotations", "runtime: state.annotations", |c| {
        let state = c.state()?;
        equal(&state, "/annotations/com.example.key", &json!("a value"))?;
        equal(&state, "/annotations/com.example.empty", &json!(""))
    }),
    step("state_pid", "runtime: state.pid", |c| equal(&c.state()?, "/pid", &json!(c.pid))),
    step("pid_is_a_process_of_the_host", "runc create --pid-file", |c| {
        ensure!(lives(c.pid), "no process {}", c.pid);
        Ok(())
    }),
    step("state_of_runc", "runc state: rootfs, created, owner", |c| {
        let state = c.state()?;
        let created = field(&state, "/created")?.as_str().unwrap_or_default().to_owned();
        ensure!(created.starts_with("20") && created.contains('T'), "{state}");
        ensure!(
            field(&state, "/rootfs")?.as_str().is_some_and(|p| p.ends_with("rootfs")),
            "{state}"
        );
        equal(&state, "/owner", &json!(""))
    }),
    step("process_waits_for_start", "runtime: create", |c| {
        ensure!(c.output()?.is_empty(), "{}", c.output()?);
        Ok(())
    }),
    step("an_id_that_is_used_is_refused", "runtime: create", |c| {
        let bundle = c.bundle.path();
        refuse(c.runtime.call(&["create", "--bundle", &bundle, &c.id])?, "exist")?;
        c.is("created")
    }),
    step("exec_in_a_created_container", "runc exec", |c| {
        c.exec(&[], &["echo", "here"])?.exits(0)?.prints("here").map(drop)
    }),
    step("start", "runtime: start", |c| {
        // What config.json says now is no longer asked (runtime: create).
        let mut config = c.bundle.config()?;
        config["process"]["args"] = json!(["echo", "changed"]);
        c.bundle.write(&config)?;
        c.call(&["start"])?.exits(0)?.prints("")?;
        c.prints("started")
    }),
    step("config_is_read_at_create", "runtime: create", |c| {
        ensure!(c.output()? == "started\n", "{}", c.output()?);
        Ok(())
    }),
    step("running", "runtime: state.status", |c| c.is("running")),
    step("start_of_a_running_one_is_refused", "runtime: start", |c| {
        refuse(c.call(&["start"])?, "")?;
        c.is("running")
    }),
    step("delete_of_a_running_one_is_refused", "runtime: delete", |c| {
        refuse(c.call(&["delete"])?, "not stopped")?;
        c.is("running")
    }),
    step("kill", "runtime: kill", |c| c.kill("TERM")),
    step("exit_code_of_the_process_in_the_pid_file", "runc create --pid-file", |c| {
        let code = c.exit_code()?;
        ensure!(code == 7, "exit code {code}");
        Ok(())
    }),
    step("stopped", "runtime: state.status", |c| c.becomes("stopped")),
    step("state_without_pid", "runtime: state.pid", |c| equal(&c.state()?, "/pid", &json!(0))),
    step("start_of_a_stopped_one_is_refused", "runtime: start", |c| {
        refuse(c.call(&["start"])?, "stopped")
    }),
    step("kill_of_a_stopped_one_is_refused", "runtime: kill", |c| {
        refuse(c.call(&["kill"])?, "container not running")
    }),
    step("exec_in_a_stopped_one_is_refused", "runc exec", |c| {
        refuse(c.exec(&[], &["true"])?, "cannot exec in a stopped container")
    })
    .since("1.2"),
    step("pause_of_a_stopped_one_is_refused", "runc pause", |c| refuse(c.call(&["pause"])?, "")),
    step("delete", "runtime: delete", |c| {
        c.call(&["delete"])?.exits(0)?.prints("")?;
        ensure!(!c.runtime.root().join(&c.id).exists(), "its state is still there");
        Ok(())
    }),
    step("state_after_delete_is_an_error", "runtime: state", |c| {
        refuse(c.call(&["state"])?, "container does not exist")
    }),
    step("delete_twice_is_an_error", "runtime: delete", |c| {
        refuse(c.call(&["delete"])?, "container does not exist")
    }),
    step("delete_force_of_what_is_not_there", "runc delete --force", |c| {
        c.call(&["delete", "--force"])?.exits(0).map(drop)
    }),
    step("the_id_can_be_used_again", "runtime: delete", |c| {
        c.runtime
            .call(&["run", "--bundle", &c.bundle.path(), &c.id])?
            .exits(0)?
            .prints("changed")
            .map(drop)
    }),
];

/// The value at `path` is `expected`.
fn equal(state: &Value, path: &str, expected: &Value) -> Result<()> {
    let found = field(state, path)?;
    ensure!(found == expected, "{path} is {found}, not {expected}: {state}");
    Ok(())
}

/// It failed with `text` among its words.
fn refuse(outcome: Outcome, text: &str) -> Result<()> {
    ensure!(outcome.code != 0, "{outcome}");
    outcome.complains(text).map(drop)
}

const ALONE: &[Clause<Alone>] = &[
    alone("delete_of_a_created_one", "runc delete", |runtime| {
        let container = runtime.create("true", plain)?;
        container.call(&["delete"])?.exits(0)?;
        ensure!(container.exit_code()? == 137);
        refuse(container.call(&["state"])?, "does not exist")
    }),
    alone("kill_of_a_created_one", "runtime: kill", |runtime| {
        let container = runtime.create("echo ran", plain)?;
        container.kill("KILL")?;
        ensure!(container.exit_code()? == 137);
        container.becomes("stopped")?;
        ensure!(container.output()?.is_empty());
        container.call(&["delete"])?.exits(0).map(drop)
    }),
    alone("delete_force_of_a_running_one", "runc delete --force", |runtime| {
        let container = runtime.detached("trap '' TERM; echo started; sleep 1000", plain)?;
        container.prints("started")?;
        container.call(&["delete", "--force"])?.exits(0)?;
        ensure!(container.exit_code()? == 137);
        refuse(container.call(&["state"])?, "does not exist")
    }),
    alone("a_process_that_ends_at_once", "runtime: lifecycle", |runtime| {
        let container = runtime.create("exit 42", plain)?;
        container.call(&["start"])?.exits(0)?;
        let code = container.exit_code()?;
        ensure!(code == 42, "exit code {code}");
        container.becomes("stopped")?;
        container.call(&["delete"])?.exits(0).map(drop)
    }),
    alone("a_program_that_is_not_there_fails_create", "runc create", |runtime| {
        let bundle = runtime.bundle("", |config| {
            config["process"]["args"] = json!(["no-such-program"]);
        })?;
        let id = runtime.id();
        let outcome = runtime.call(&["create", "--bundle", &bundle.path(), &id])?;
        refuse(outcome, "executable file not found in $PATH")?;
        refuse(runtime.call(&["state", &id])?, "does not exist")
    }),
    alone("commands_for_unknown_ids_fail", "runtime: operations", unknown),
];

fn unknown(runtime: &Runtime) -> Result<()> {
    for command in ["state", "start", "kill", "delete", "pause", "resume", "ps", "events", "update"]
    {
        let outcome = runtime.call(&[command, "no-such-container"])?;
        ensure!(outcome.code == 1, "{command}: {outcome}");
        outcome.complains("container does not exist")?;
    }
    refuse(runtime.call(&["exec", "no-such-container", "true"])?, "container does not exist")
}
