//! Hooks run, fail and are refused.

use serde_json::json;

use super::*;

fn parse(value: serde_json::Value) -> Result<Hooks, String> {
    let hooks: oci_spec::runtime::Hooks = serde_json::from_value(value).unwrap();
    hooks_of(&hooks)
}

fn hooks_of(value: &oci_spec::runtime::Hooks) -> Result<Hooks, String> {
    hooks(Some(value)).map_err(|error| error.to_string())
}

fn shell(script: &str, timeout: Option<u64>) -> Hook {
    Hook {
        name: "prestart hook #0".into(),
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), script.into()],
        env: Some(vec![("NAME".into(), "value".into())]),
        timeout: timeout.map(Duration::from_secs),
    }
}

#[test]
fn a_bad_hook_is_named_by_field() {
    let error = |hook| parse(json!({"poststop": [{"path": "/bin/true"}, hook]})).unwrap_err();
    assert!(error(json!({"path": "true"})).starts_with("hooks.poststop[1].path: "));
    let no_time = error(json!({"path": "/bin/true", "timeout": 0}));
    assert!(no_time.starts_with("hooks.poststop[1].timeout: "), "{no_time}");
}

#[test]
fn hooks_of_the_guest_do_not_run_here() {
    let hooks =
        json!({"startContainer": [{"path": "/bin/x"}], "createContainer": [{"path": "/y"}]});
    assert_eq!(parse(hooks), Ok(Hooks::default()));
}

#[test]
fn prestart_comes_before_create_runtime() {
    let hooks = parse(json!({"createRuntime": [{"path": "/b"}], "prestart": [{"path": "/a"}]}));
    let paths: Vec<PathBuf> = hooks.unwrap().create.into_iter().map(|hook| hook.path).collect();
    assert_eq!(paths, [PathBuf::from("/a"), PathBuf::from("/b")]);
}

/// Runs `hook` on a thread that waits for it.
fn run(hook: &Hook, state: &str) -> Result<(), HookError> {
    runtime().block_on(hook.run(state, None, |_| {}))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A hook that tells its child's process id in the file that it gives, and then waits for that child.
fn with_child(directory: &tempfile::TempDir, timeout: Option<u64>) -> (Hook, PathBuf) {
    let file = directory.path().join("pid");
    let name = file.display();
    let script = format!("sleep 60 & echo $! > {name}.new; mv {name}.new {name}; wait");
    (shell(&script, timeout), file)
}

/// Whether the process whose id is in `file` ends within a moment.
fn ends(file: &std::path::Path) -> bool {
    let pid = std::fs::read_to_string(file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        gone()
    })
}

#[test]
fn all_that_a_failing_hook_says_is_repeated() {
    let error = run(&shell("echo out; echo err >&2; exit 1", None), "").unwrap_err().to_string();
    assert!(error.contains("out") && error.contains("err"), "{error}");
}

#[test]
fn a_hook_gets_the_state_and_its_environment() {
    assert!(
        run(&shell("test \"$(cat)\" = state && test \"$NAME\" = value", None), "state").is_ok()
    );
    let ours = std::env::var("PATH").unwrap();
    let inherits = |hook| run(&hook, "").is_ok();
    let tests_path = shell(&format!("test \"$PATH\" = '{ours}'"), None);
    assert!(!inherits(tests_path.clone()) && inherits(Hook { env: None, ..tests_path }));
    let long = "x".repeat(1 << 20);
    assert!(run(&shell("test \"$(wc -c)\" -eq 1048576", None), &long).is_ok());
    assert!(run(&shell("exec <&-; exit 0", None), &long).is_ok());
}

#[test]
fn a_hook_that_reads_no_long_state_is_held_to_its_time_out() {
    let error = run(&shell("exec sleep 60", Some(1)), &"x".repeat(1 << 20)).unwrap_err();
    assert!(matches!(error, HookError::Timeout { .. }));
}

#[test]
fn a_failing_hook_is_named_with_its_output() {
    let error = run(&shell("echo broken >&2; exit 3", None), "").unwrap_err().to_string();
    assert!(
        error.contains("/bin/sh") && error.contains("broken") && error.contains('3'),
        "{error}"
    );
}

#[test]
fn a_time_out_ends_the_whole_process_group() {
    let directory = tempfile::tempdir().unwrap();
    let (hook, file) = with_child(&directory, Some(1));
    assert!(matches!(run(&hook, "").unwrap_err(), HookError::Timeout { .. }));
    assert!(ends(&file));
}

#[test]
fn a_hook_that_is_not_waited_for_any_more_is_killed_with_its_group() {
    let directory = tempfile::tempdir().unwrap();
    let (hook, file) = with_child(&directory, None);
    let mut told = Vec::new();
    let started = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let first = runtime().block_on(async {
        tokio::select! {
            _ = hook.run("", None, |pid| told.push(pid.is_some())) => "hook",
            () = started => "file",
        }
    });
    assert_eq!((first, told.as_slice()), ("file", &[true, false][..]));
    assert!(ends(&file));
}

#[test]
fn what_a_finished_hook_leaves_running_stays() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let hook = shell(&format!("sleep 60 >/dev/null & echo $! > {}", file.display()), None);
    run(&hook, "").unwrap();
    let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok());
}

#[test]
fn a_hook_dies_with_the_thread_that_started_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let hook = shell(&format!("echo $$ > {}; exec sleep 60", file.display()), None);
    let name = file.clone();
    let thread = std::thread::spawn(move || {
        // Forgotten, as by a thread that is killed.
        let runtime = std::mem::ManuallyDrop::new(runtime());
        let mut running = std::mem::ManuallyDrop::new(Box::pin(hook.run("", None, |_| {})));
        runtime.block_on(async {
            let mut waited = 0;
            while std::fs::read_to_string(&name).map_or(true, |text| text.is_empty()) {
                assert!(waited < 1000, "the hook did not start");
                waited += 1;
                let pause = Duration::from_millis(5);
                let _ = tokio::time::timeout(pause, running.as_mut()).await;
            }
        });
    });
    thread.join().unwrap();
    assert!(ends(&file));
}
