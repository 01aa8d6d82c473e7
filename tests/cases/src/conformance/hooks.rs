//! `hooks`: when they run, with what on standard input, and what their failure does.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::runtime::{Bundle, Runtime, plain};
use super::{Alone, Clause, Group, alone};
use crate::call::eventually;

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[Group::Alone("hooks", ALONE)];

const ALONE: &[Clause<Alone>] = &[
    alone("on_the_host_in_order", "config: hooks", in_order),
    alone("prestart_has_the_state", "config: hooks.prestart", |r| state(r, "prestart", CREATING)),
    alone("create_runtime_has_the_state", "config: hooks.createRuntime", |r| {
        state(r, "createRuntime", CREATING)
    }),
    alone("poststart_has_the_state", "config: hooks.poststart", |r| {
        state(r, "poststart", &["created", "running"])
    }),
    alone("poststop_has_the_state", "config: hooks.poststop", |r| {
        state(r, "poststop", &["stopped"])
    }),
    alone("args_and_env", "config: hooks.args, env", args_and_env),
    alone("start_container_runs_in_the_container", "config: hooks.startContainer", start_container),
    alone(
        "create_container_runs_in_its_namespaces",
        "config: hooks.createContainer",
        create_container,
    ),
    alone("a_failing_prestart_stops_the_start", "runtime: lifecycle, step 4", |r| {
        stops(r, "prestart")
    }),
    alone("a_failing_create_runtime_stops_the_start", "runtime: lifecycle, step 5", |r| {
        stops(r, "createRuntime")
    }),
    alone("a_failing_create_container_stops_the_start", "runtime: lifecycle, step 6", |r| {
        stops(r, "createContainer")
    }),
    alone("a_failing_start_container_stops_the_process", "runtime: lifecycle, step 8", |r| {
        stops(r, "startContainer")
    }),
    alone("a_failing_poststop_is_only_logged", "runtime: lifecycle, step 13", |runtime| {
        let bundle =
            with_hooks(runtime, "echo ran", |_| json!({ "poststop": [{ "path": "/bin/false" }] }))?;
        let id = runtime.id();
        runtime.call(&["run", "--bundle", &bundle.path(), &id])?.exits(0)?.prints("ran").map(drop)
    }),
    alone("poststop_after_a_failed_create_runtime", "runtime: lifecycle, step 5", |runtime| {
        let bundle = with_hooks(runtime, "echo ran", |log| {
            json!({
                "createRuntime": [shell(&format!("echo begun >> {log}")), { "path": "/bin/false" }],
                "poststop": [shell(&format!("echo undone >> {log}"))],
            })
        })?;
        let outcome = runtime.call(&["create", "--bundle", &bundle.path(), &runtime.id()])?;
        ensure!(outcome.code != 0, "{outcome}");
        let text = fs::read_to_string(log(&bundle)).context("no hook ran")?;
        ensure!(text == "begun\nundone\n", "{text:?}");
        Ok(())
    }),
    alone("timeout", "config: hooks.timeout", |runtime| {
        let hook = json!({ "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1 });
        let bundle = with_hooks(runtime, "echo ran", |_| json!({ "createRuntime": [hook] }))?;
        let outcome = runtime.call(&["run", "--bundle", &bundle.path(), &runtime.id()])?;
        ensure!(outcome.code != 0 && !outcome.text().contains("ran"), "{outcome}");
        Ok(())
    }),
    alone("a_hook_that_is_not_there", "config: hooks.path", |runtime| {
        let hook = json!({ "path": "/no/such/hook" });
        let bundle = with_hooks(runtime, "echo ran", |_| json!({ "createRuntime": [hook] }))?;
        let outcome = runtime.call(&["run", "--bundle", &bundle.path(), &runtime.id()])?;
        ensure!(outcome.code != 0 && !outcome.text().contains("ran"), "{outcome}");
        outcome.complains("/no/such/hook").map(drop)
    }),
    alone("a_relative_path_is_refused", "config: hooks.path", |runtime| {
        let hook = json!({ "path": "bin/true" });
        let bundle = with_hooks(runtime, "echo ran", |_| json!({ "createRuntime": [hook] }))?;
        let outcome = runtime.call(&["run", "--bundle", &bundle.path(), &runtime.id()])?;
        ensure!(outcome.code != 0 && !outcome.text().contains("ran"), "{outcome}");
        Ok(())
    }),
];

/// A bundle with hooks, which get a file to write to.
fn with_hooks(runtime: &Runtime, script: &str, hooks: impl Fn(&str) -> Value) -> Result<Bundle> {
    let bundle = runtime.bundle(script, plain)?;
    let mut config = bundle.config()?;
    config["hooks"] = hooks(&log(&bundle).display().to_string());
    bundle.write(&config)?;
    Ok(bundle)
}

/// The file that hooks write to.
fn log(bundle: &Bundle) -> PathBuf {
    bundle.directory.path().join("log")
}

/// A shell script as a hook.
fn shell(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] })
}

fn in_order(runtime: &Runtime) -> Result<()> {
    let bundle = with_hooks(runtime, "true", |log| {
        let hook = |name: &str| json!([shell(&format!("echo {name} >> {log}"))]);
        json!({
            "poststop": hook("poststop"), "poststart": hook("poststart"),
            "createRuntime": [shell(&format!("echo first >> {log}")), shell(&format!("echo second >> {log}"))],
            "prestart": hook("prestart"),
        })
    })?;
    runtime.call(&["run", "--bundle", &bundle.path(), &runtime.id()])?.exits(0)?;
    let text = fs::read_to_string(log(&bundle)).context("no hook ran")?;
    let words: Vec<&str> = text.lines().collect();
    ensure!(words == ["prestart", "first", "second", "poststart", "poststop"], "{words:?}");
    Ok(())
}

/// What the status may be before the program runs.
const CREATING: &[&str] = &["creating", "created"];

/// The hook `name` reads the state, whose status is one of `statuses`.
fn state(runtime: &Runtime, name: &str, statuses: &[&str]) -> Result<()> {
    let bundle =
        with_hooks(runtime, "true", |log| json!({ name: [shell(&format!("cat > {log}"))] }))?;
    let mut config = bundle.config()?;
    config["annotations"] = json!({ "com.example.key": "value" });
    bundle.write(&config)?;
    let id = runtime.id();
    runtime.call(&["run", "--bundle", &bundle.path(), &id])?.exits(0)?;
    let text = fs::read(log(&bundle)).context("the hook did not run")?;
    let state: Value = serde_json::from_slice(&text)?;
    ensure!(state["id"] == id.as_str() && state["bundle"] == bundle.path().as_str(), "{state}");
    ensure!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "{state}");
    ensure!(state["annotations"]["com.example.key"] == "value", "{state}");
    ensure!(state["status"].as_str().is_some_and(|s| statuses.contains(&s)), "{state}");
    let pid = state["pid"].as_i64().unwrap_or(0);
    ensure!((pid > 0) == (name != "poststop"), "{state}");
    Ok(())
}

fn args_and_env(runtime: &Runtime) -> Result<()> {
    let bundle = with_hooks(runtime, "true", |log| {
        let script = format!("echo \"$0,$1,$WORDS,$COFFERDAM_CASE_SECRET,$(pwd)\" > {log}");
        json!({ "createRuntime": [{
            "path": "/bin/sh", "args": ["sh", "-c", script, "zeroth", "two words"],
            "env": ["PATH=/usr/bin:/bin", "WORDS=some words"],
        }] })
    })?;
    runtime.call(&["run", "--bundle", &bundle.path(), &runtime.id()])?.exits(0)?;
    let text = fs::read_to_string(log(&bundle)).context("the hook did not run")?;
    ensure!(text.trim() == format!("zeroth,two words,some words,,{}", bundle.path()), "{text:?}");
    Ok(())
}

fn start_container(runtime: &Runtime) -> Result<()> {
    let bundle = with_hooks(
        runtime,
        "cat /tmp/hook",
        |_| json!({ "startContainer": [shell("(hostname; wc -c | grep -c 0; echo $$) > /tmp/hook")] }),
    )?;
    let mut config = bundle.config()?;
    config["hostname"] = "inside".into();
    bundle.write(&config)?;
    let id = runtime.id();
    let outcome = runtime.call(&["run", "--bundle", &bundle.path(), &id])?.exits(0)?;
    ensure!(outcome.text().starts_with("inside\n"), "{outcome}");
    Ok(())
}

fn create_container(runtime: &Runtime) -> Result<()> {
    let script = "cat /proc/sys/kernel/msgmax";
    let bundle = with_hooks(
        runtime,
        script,
        |_| json!({ "createContainer": [shell("echo 43210 > /proc/sys/kernel/msgmax")] }),
    )?;
    // A program of the image runs when they are read-only already.
    let mut config = bundle.config()?;
    config["linux"]["readonlyPaths"] = json!([]);
    bundle.write(&config)?;
    runtime
        .call(&["run", "--bundle", &bundle.path(), &runtime.id()])?
        .exits(0)?
        .prints("43210")
        .map(drop)
}

/// Where the hook `name` fails, the container's program does not run and `run` fails; poststop hooks run.
fn stops(runtime: &Runtime, name: &str) -> Result<()> {
    let bundle = with_hooks(runtime, "echo ran", |_| json!({ name: [{ "path": "/bin/false" }] }))?;
    let id = runtime.id();
    let outcome = runtime.call(&["run", "--bundle", &bundle.path(), &id])?;
    ensure!(outcome.code != 0 && !outcome.text().contains("ran"), "{outcome}");
    ensure!(outcome.stderr.contains("hook"), "no word about the hook: {outcome}");
    eventually("no state", || Ok(!runtime.root().join(&id).exists()))
}
