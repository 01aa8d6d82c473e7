//! Standard streams and terminals.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::host::*;
use cofferdam_agent_protocol::*;

/// Reads until `text` was seen.
fn until(stream: &mut UnixStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => panic!("ended after {}", String::from_utf8_lossy(&seen)),
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn input_goes_in_and_its_end_too() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sh", "-c", "sha256sum; echo done >&2"]);
    let (stdin, stdout) = (token(), token());
    plan.process.as_mut().unwrap().stdio =
        Some(Stdio { stdin: Some(stdin), stdout: Some(stdout), stderr: None });
    host.create(plan);
    host.start("c");
    let mut input = host.stream(stdin);
    let writer = std::thread::spawn(move || {
        for _ in 0..2000 {
            input.write_all(&[b'x'; 10_000]).unwrap();
        }
        input.shutdown(Shutdown::Write).unwrap();
        input
    });
    let sum = host.all(stdout);
    assert_eq!(host.ended("c", ""), (0, 0));
    drop(writer.join().unwrap());
    let expected = std::process::Command::new("sh")
        .args(["-c", "head -c 20000000 /dev/zero | tr '\\0' x | sha256sum"])
        .output()
        .unwrap();
    assert_eq!(sum.as_bytes(), expected.stdout);
    host.delete("c", false);
}

#[test]
fn a_process_may_close_its_input_early() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sh", "-c", "exec 0<&-; sleep 0.3; echo still here"]);
    let (stdin, stdout) = (token(), token());
    plan.process.as_mut().unwrap().stdio =
        Some(Stdio { stdin: Some(stdin), stdout: Some(stdout), stderr: None });
    host.create(plan);
    host.start("c");
    let mut input = host.stream(stdin);
    // The agent closes the stream, though nothing more was sent.
    assert_eq!(input.read(&mut [0]).unwrap(), 0);
    assert_eq!(host.all(stdout), "still here\n");
    assert_eq!(host.ended("c", ""), (0, 0));
}

#[test]
fn much_output_arrives_whole() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let text = host.shell("seq 1 500000");
    assert_eq!(text.lines().count(), 500_000);
    assert!(text.ends_with("\n499999\n500000\n"));
}

#[test]
fn output_outlives_the_process_that_started_it() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    // The grandchild keeps the stream open until the pid namespace ends with its first process.
    let plan = container("c", &["sh", "-c", "(echo a; sleep 0.2; echo b) & wait; echo c"]);
    assert_eq!(host.shell_in(plan), "a\nb\nc\n");
}

#[test]
fn a_terminal() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sh", "-c", "tty; stty size; ls -l /dev/console; exec sh -i"]);
    let stream = token();
    let process = plan.process.as_mut().unwrap();
    process.stdio = None;
    process.uid = 33;
    process.capabilities = None;
    process.env.push(b"PS1=prompt> ".into());
    process.terminal = Some(Terminal { stream, rows: 33, columns: 111, plain_newlines: false });
    host.create(plan);
    host.start("c");
    let mut terminal = host.stream(stream);
    let seen = until(&mut terminal, "prompt> ");
    assert!(seen.starts_with("/dev/pts/0\r\n33 111\r\n"), "{seen}");
    assert!(seen.contains("www-data"), "{seen}");
    let resize =
        request::Resize { container: "c".into(), process: String::new(), rows: 50, columns: 60 };
    host.done(request::Body::Resize(resize));
    terminal.write_all(b"stty size; echo to-console > /dev/console\n").unwrap();
    let seen = until(&mut terminal, "to-console\r\n");
    let seen = seen + &until(&mut terminal, "prompt> ");
    assert!(seen.contains("50 60\r\n"), "{seen}");
    // Job control: the terminal is the controlling one.
    terminal.write_all(b"sleep 1000\n").unwrap();
    until(&mut terminal, "sleep 1000\r\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.write_all(&[3]).unwrap();
    until(&mut terminal, "prompt> ");
    terminal.write_all(b"exit 5\n").unwrap();
    let mut rest = String::new();
    terminal.read_to_string(&mut rest).unwrap();
    assert_eq!(host.ended("c", ""), (5, 0));
    host.delete("c", false);
}

#[test]
fn a_terminal_for_one_more_process() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(container("c", &["sleep", "1000"]));
    host.start("c");
    let mut plan = process(&["sh", "-c", "tty; stty size; test -t 0 && test -t 2 && echo tty"]);
    let stream = token();
    plan.stdio = None;
    plan.terminal = Some(Terminal { stream, rows: 0, columns: 0, plain_newlines: false });
    host.exec("c", "e", plan);
    assert_eq!(host.all(stream), "/dev/pts/0\r\n0 0\r\ntty\r\n");
    assert_eq!(host.ended("c", "e"), (0, 0));
    host.delete("c", true);
}
