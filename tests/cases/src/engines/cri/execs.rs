//! Commands in a container that runs, asked for in one call: ExecSync.

use anyhow::{Result, ensure};

use super::super::cases;
use super::Cri;
use super::messages::{Int64Value, KeyValue};
use super::pod::{ended, exec, exec_for, refusal, runs, says, stop, text};
use crate::call::eventually;

cases!(Cri:
    exec_tells_code_and_streams,
    exec_has_what_its_container_has,
    exec_that_takes_too_long_is_killed,
    exec_of_what_is_not_there_is_told,
    exec_where_nothing_runs_is_refused,
    much_output_of_exec,
    probes,
    many_execs_at_a_time,
);

fn exec_tells_code_and_streams(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    let answer = exec(&id, "echo out; echo err >&2; exit 3")?;
    ensure!(answer.exit_code == 3, "{answer:?}");
    ensure!(answer.stdout == b"out\n" && answer.stderr == b"err\n", "{answer:?}");
    let answer = exec_for(&id, &["printf", "a b|%s|", "c d", ""], 30)?;
    ensure!(answer.exit_code == 0 && answer.stdout == b"a b|c d|a b||", "{answer:?}");
    // Nobody writes to its input.
    ensure!(exec(&id, "cat; echo end")?.stdout == b"end\n");
    ensure!(exec(&id, "kill -9 $$")?.exit_code == 137);
    Ok(())
}

fn exec_has_what_its_container_has(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.envs = vec![KeyValue { key: "OWN".into(), value: "set".into() }];
        config.working_dir = "/tmp".into();
        let security = config.security();
        security.run_as_user = Some(Int64Value { value: 1000 });
        security.run_as_group = Some(Int64Value { value: 2000 });
        security.supplemental_groups = vec![3000];
    })?;
    let said = says(&id, "echo $OF $OWN $PWD $(id -u) $(id -g); id -G | tr ' ' '\\n' | sort -u")?;
    ensure!(said == "image set /tmp 1000 2000\n2000\n3000", "{said}");
    ensure!(says(&id, "readlink /proc/self/ns/pid")? == says(&id, "readlink /proc/1/ns/pid")?);
    Ok(())
}

fn exec_that_takes_too_long_is_killed(cri: &Cri) -> Result<()> {
    /// What the service says when time is up (`google.rpc.Code`).
    const DEADLINE_EXCEEDED: u32 = 4;
    let id = cri.shared()?.start("sleep 1000")?;
    let refused = refusal(exec_for(&id, &["sleep", "2345"], 2))?;
    ensure!(refused.code == DEADLINE_EXCEEDED, "{refused}");
    ensure!(refused.message.contains("timeout 2s exceeded"), "{refused}");
    eventually("the end of what was killed", || {
        Ok(says(&id, "ps -o args | grep -cx 'sleep 2345' || true")? == "0")
    })?;
    runs(&id)
}

fn exec_of_what_is_not_there_is_told(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    let ways = [
        ("no-such-program", "\"no-such-program\": executable file not found in $PATH"),
        ("/etc/passwd", "\"/etc/passwd\": permission denied"),
    ];
    for (program, sentence) in ways {
        let refused = refusal(exec_for(&id, &[program], 0))?;
        ensure!(refused.message.contains(sentence), "{refused}");
    }
    runs(&id)
}

fn exec_where_nothing_runs_is_refused(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let waits = pod.create("sleep 1000", |_| {})?;
    let refused = refusal(exec(&waits, "true"))?;
    ensure!(refused.message.contains("container is in CONTAINER_CREATED state"), "{refused}");
    let over = pod.start("true")?;
    ended(&over)?;
    let refused = refusal(exec(&over, "true"))?;
    ensure!(refused.message.contains("container is in CONTAINER_EXITED state"), "{refused}");
    Ok(())
}

fn much_output_of_exec(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    let answer = exec(&id, "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end >&2")?;
    ensure!(answer.stdout.len() == 1_000_001 && answer.stdout.ends_with(b"xx\n"));
    ensure!(answer.stderr == b"end\n");
    Ok(())
}

/// A command every now and then, of which some find that it is not well.
fn probes(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    for round in 0..4 {
        let well = round % 3 != 2;
        says(&id, if well { "touch /tmp/well" } else { "rm /tmp/well" })?;
        let answer = exec_for(&id, &["test", "-e", "/tmp/well"], 10)?;
        ensure!(answer.exit_code == i32::from(!well), "round {round}: {answer:?}");
    }
    // Nothing of them is left.
    let processes = says(&id, "ps -o args | grep -cx 'test.*' || true")?;
    ensure!(processes == "0", "{processes}");
    Ok(())
}

fn many_execs_at_a_time(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    let answers: Vec<Result<String>> = std::thread::scope(|scope| {
        let id = &id;
        let running: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let answer =
                        exec(id, &format!("sleep 0.{number}; echo of {number}; exit {number}"))?;
                    ensure!(answer.exit_code == number, "{answer:?}");
                    Ok(text(&answer.stdout))
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        };
        running.into_iter().map(join).collect()
    });
    for (number, answer) in answers.into_iter().enumerate() {
        ensure!(answer? == format!("of {number}\n"));
    }
    stop(&id, 0)
}
