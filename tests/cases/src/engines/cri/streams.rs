//! Commands in a container and containers themselves whose streams somebody follows: Exec and Attach.

use anyhow::{Result, ensure};

use super::super::cases;
use super::Cri;
use super::client::call;
use super::more_messages::{AttachRequest, ExecRequest, Place};
use super::pod::{ended, exec, refusal, runs};
use super::stream::{STDERR, STDOUT, Stream};
use crate::call::eventually;

cases!(Cri:
    exec_with_streams,
    exec_with_a_terminal,
    exec_whose_caller_goes,
    exec_of_nothing_is_told_to_its_stream,
    attach_to_what_is_written,
    attach_to_standard_input,
    attach_to_a_terminal,
    two_attach_at_a_time,
);

/// A shell script in a container, with all its streams; on a terminal if `tty`.
fn exec_stream(id: &str, script: &str, tty: bool) -> Result<Stream> {
    let request = ExecRequest {
        container_id: id.to_owned(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let Place { url } = call("Exec", &request)?;
    Stream::open(&url)
}

/// The streams of a container.
fn attach(id: &str, stdin: bool, tty: bool) -> Result<Stream> {
    let request =
        AttachRequest { container_id: id.to_owned(), stdin, tty, stdout: true, stderr: !tty };
    let Place { url } = call("Attach", &request)?;
    Stream::open(&url)
}

fn exec_with_streams(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    let script = "echo ready; read a; echo \"got $a\"; echo err >&2; read b; exit $b";
    let mut stream = exec_stream(&id, script, false)?;
    stream.wait_for(STDOUT, "ready\n")?;
    stream.types("some words\n")?;
    stream.wait_for(STDOUT, "got some words\n")?;
    stream.wait_for(STDERR, "err\n")?;
    stream.types("6\n")?;
    ensure!(stream.finish()? == 6);
    ensure!(stream.text(STDOUT) == "ready\ngot some words\n", "{}", stream.text(STDOUT));
    ensure!(stream.text(STDERR) == "err\n", "{}", stream.text(STDERR));
    // One that ends well.
    ensure!(exec_stream(&id, "echo fine", false)?.finish()? == 0);
    Ok(())
}

fn exec_with_a_terminal(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    let script = "trap 'stty size' WINCH; tty; echo err >&2; read a; echo \"got $a\"; \
                  while ! stty size | grep -qx '50 132'; do sleep 0.1; done; exit 4";
    let mut stream = exec_stream(&id, script, true)?;
    stream.wait_for(STDOUT, "/dev/pts/")?;
    // There is one stream, with a terminal's ends of lines.
    stream.wait_for(STDOUT, "err\r\n")?;
    stream.types("word\r")?;
    stream.wait_for(STDOUT, "got word\r\n")?;
    stream.resize(50, 132)?;
    ensure!(stream.finish()? == 4);
    // An interrupt is typed.
    let mut stream =
        exec_stream(&id, "trap 'exit 7' INT; echo ready; while :; do sleep 0.1; done", true)?;
    stream.wait_for(STDOUT, "ready")?;
    stream.types("\u{3}")?;
    ensure!(stream.finish()? == 7);
    Ok(())
}

/// Whoever has asked goes away in the middle: the container does not care.
fn exec_whose_caller_goes(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    let mut stream = exec_stream(&id, "echo ready; sleep 1; echo late; touch /tmp/done", false)?;
    stream.wait_for(STDOUT, "ready\n")?;
    drop(stream);
    runs(&id)?;
    ensure!(exec(&id, "echo there")?.stdout == b"there\n");
    Ok(())
}

fn exec_of_nothing_is_told_to_its_stream(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let over = pod.start("true")?;
    ended(&over)?;
    let request = ExecRequest {
        container_id: over.clone(),
        cmd: vec!["true".to_owned()],
        stdout: true,
        ..ExecRequest::default()
    };
    let refused = refusal(call::<Place>("Exec", &request))?;
    ensure!(refused.message.contains("container is in CONTAINER_EXITED state"), "{refused}");
    let refused =
        refusal(call::<Place>("Exec", &ExecRequest { container_id: "none".into(), ..request }))?;
    ensure!(refused.message.contains("none"), "{refused}");
    Ok(())
}

fn attach_to_what_is_written(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let script = "until test -e /tmp/go; do sleep 0.1; done; echo out; echo err >&2; exit 3";
    let id = pod.start(script)?;
    let mut stream = attach(&id, false, false)?;
    // It says nothing before: when it listens is seen from nowhere else.
    std::thread::sleep(std::time::Duration::from_secs(1));
    exec(&id, "touch /tmp/go")?;
    stream.wait_for(STDOUT, "out\n")?;
    stream.wait_for(STDERR, "err\n")?;
    ensure!(ended(&id)?.exit_code == 3);
    stream.finish()?;
    ensure!(stream.text(STDOUT) == "out\n" && stream.text(STDERR) == "err\n");
    // The log has it, too.
    let log = pod.log(&id)?;
    ensure!(log == "out\nerr\n" || log == "err\nout\n", "{log}");
    Ok(())
}

fn attach_to_standard_input(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start_with(
        "while read a; do echo \"got $a\"; test $a = end && exit 2; done",
        |config| {
            config.stdin = true;
        },
    )?;
    // Those who come later go on where the first one has left.
    for word in ["one", "two"] {
        let mut stream = attach(&id, true, false)?;
        stream.types(&format!("{word}\n"))?;
        stream.wait_for(STDOUT, &format!("got {word}\n"))?;
    }
    runs(&id)?;
    let mut stream = attach(&id, true, false)?;
    stream.types("end\n")?;
    ensure!(ended(&id)?.exit_code == 2);
    ensure!(pod.log(&id)? == "got one\ngot two\ngot end\n", "{}", pod.log(&id)?);
    Ok(())
}

fn attach_to_a_terminal(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let script = "read a; tty; echo \"got $a\"; \
                  while ! stty size | grep -qx '40 120'; do sleep 0.1; done; echo sized; read a";
    let id = pod.start_with(script, |config| {
        (config.tty, config.stdin) = (true, true);
    })?;
    let mut stream = attach(&id, true, true)?;
    stream.types("word\r")?;
    stream.wait_for(STDOUT, "/dev/pts/0\r\n")?;
    stream.wait_for(STDOUT, "got word\r\n")?;
    stream.resize(40, 120)?;
    stream.wait_for(STDOUT, "sized\r\n")?;
    stream.types("x\r")?;
    ensure!(ended(&id)?.exit_code == 0);
    Ok(())
}

fn two_attach_at_a_time(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start("while :; do echo tick; sleep 0.2; done")?;
    let mut streams = [attach(&id, false, false)?, attach(&id, false, false)?];
    for stream in &mut streams {
        stream.wait_for(STDOUT, "tick\n")?;
    }
    let [first, mut second] = streams;
    drop(first);
    let seen = second.text(STDOUT);
    second.wait_for(STDOUT, &format!("{seen}tick\n"))?;
    let written = pod.log(&id)?.len();
    eventually("the log to grow", || Ok(pod.log(&id)?.len() > written))
}
