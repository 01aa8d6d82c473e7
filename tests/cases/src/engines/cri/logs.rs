//! What containers write, in files as Kubernetes reads them.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::super::cases;
use super::Cri;
use super::client::call;
use super::messages::{Id, Nothing};
use super::pod::{Line, ended, refusal, runs, says};
use crate::call::eventually;

cases!(Cri:
    lines_have_time_and_stream,
    long_lines_come_in_parts,
    a_terminal_is_one_stream,
    logs_are_rotated,
    a_log_grows_while_nobody_reads_it,
    without_a_log_it_runs,
    termination_messages,
);

fn lines_have_time_and_stream(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start("echo one; sleep 1; echo two >&2; sleep 1; echo; printf end")?;
    ended(&id)?;
    let text = fs::read_to_string(pod.log_file(&id)?)?;
    let lines = Line::all(&text)?;
    let seen: Vec<_> = lines.iter().map(|line| (line.stream, line.is_part, line.text)).collect();
    // What is written without an end of line is a part, or a line: both are found with containerd.
    let (last, first) = seen.split_last().context("nothing")?;
    ensure!(
        first == [("stdout", false, "one"), ("stderr", false, "two"), ("stdout", false, "")],
        "{text}"
    );
    ensure!(last.0 == "stdout" && last.2 == "end", "{text}");
    let times: Vec<&str> = lines.iter().map(|line| line.time).collect();
    ensure!(times.is_sorted() && times[0] < times[1] && times[1] < times[2], "{times:?}");
    ensure!(times.iter().all(|time| time.len() > 20 && time.contains('T')), "{times:?}");
    Ok(())
}

fn long_lines_come_in_parts(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start("head -c 40000 /dev/zero | tr '\\0' x; echo y; echo short")?;
    ended(&id)?;
    let text = fs::read_to_string(pod.log_file(&id)?)?;
    let lines = Line::all(&text)?;
    let parts: Vec<_> = lines.iter().map(|line| (line.is_part, line.text.len())).collect();
    // The length of a part is containerd's choice.
    ensure!(parts.len() == 4 && parts[0] == parts[1], "{parts:?}");
    ensure!(parts[0].0 && !parts[2].0 && parts[3] == (false, 5), "{parts:?}");
    ensure!(pod.log(&id)? == format!("{}y\nshort\n", "x".repeat(40_000)));
    Ok(())
}

fn a_terminal_is_one_stream(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start_with("echo out; echo err >&2", |config| config.tty = true)?;
    ended(&id)?;
    let text = fs::read_to_string(pod.log_file(&id)?)?;
    let lines = Line::all(&text)?;
    let seen: Vec<_> = lines.iter().map(|line| (line.stream, line.text.trim_end())).collect();
    ensure!(seen == [("stdout", "out"), ("stdout", "err")], "{text}");
    Ok(())
}

fn logs_are_rotated(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start("n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done")?;
    let file = pod.log_file(&id)?;
    eventually("a line", || Ok(!pod.log(&id)?.is_empty()))?;
    let old = file.with_extension("old");
    fs::rename(&file, &old)?;
    let _: Nothing = call("ReopenContainerLog", &Id { id: id.clone() })?;
    eventually("a line of the new file", || Ok(!pod.log(&id)?.is_empty()))?;
    let numbers = |text: &str| -> Result<Vec<u32>> {
        let lines = Line::all(text)?;
        let number = |line: &Line<'_>| line.text.strip_prefix("line ")?.parse().ok();
        lines.iter().map(|line| number(line).with_context(|| text.to_owned())).collect()
    };
    let (before, after) = (fs::read_to_string(&old)?, fs::read_to_string(&file)?);
    let all = [numbers(&before)?, numbers(&after)?].concat();
    // Nothing is lost, nothing is there twice.
    ensure!(all.iter().copied().eq(1..=u32::try_from(all.len())?), "{all:?}");
    super::pod::stop(&id, 0)?;
    let refused = refusal(call::<Nothing>("ReopenContainerLog", &Id { id: id.clone() }))?;
    ensure!(refused.message.contains("not running"), "{refused}");
    Ok(())
}

fn a_log_grows_while_nobody_reads_it(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start("head -c 2000000 /dev/zero | tr '\\0' x | fold -w 100; echo end")?;
    ensure!(ended(&id)?.exit_code == 0);
    let log = pod.log(&id)?;
    ensure!(log.matches('x').count() == 2_000_000, "{} bytes", log.len());
    ensure!(log.ends_with("x\nend\n") || log.ends_with("xend\n"));
    Ok(())
}

fn without_a_log_it_runs(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start_with("echo into nothing; echo of it > /tmp/file; sleep 1000", |config| {
        config.log_path = String::new();
    })?;
    eventually("the file", || Ok(super::pod::exec(&id, "cat /tmp/file")?.stdout == b"of it\n"))?;
    runs(&id)
}

/// A file of the host, as the kubelet makes one for each container.
fn termination_messages(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let file = cri.file("termination-log");
    fs::write(&file, "")?;
    let mount = |config: &mut super::messages::ContainerConfig| {
        config.mount(&file, "/dev/termination-log", false);
    };
    let id = pod.start_with("echo because > /dev/termination-log; exit 1", mount)?;
    ensure!(ended(&id)?.exit_code == 1);
    ensure!(fs::read_to_string(&file)? == "because\n");
    // While it runs, as well.
    let id = pod.start_with("sleep 1000", mount)?;
    says(&id, "echo more >> /dev/termination-log")?;
    let read = || fs::read_to_string(&file).context("the message");
    ensure!(read()? == "because\nmore\n", "{}", read()?);
    Ok(())
}
