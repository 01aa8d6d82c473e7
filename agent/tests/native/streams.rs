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

/// Asks for a connection to `port`; its stream.
fn forward(host: &mut Host, port: u16) -> UnixStream {
    let stream = token();
    host.done(request::Body::Forward(request::Forward { port: port.into(), stream }));
    host.stream(stream)
}

#[test]
fn a_port_is_connected_both_ways() {
    if !possible() || in_guest() {
        return;
    }
    let mut host = Host::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = std::net::TcpListener::bind(address) else {
            eprintln!("SKIPPED: this machine has no {address}");
            continue;
        };
        let mut stream = forward(&mut host, listener.local_addr().unwrap().port());
        let (mut server, _) = listener.accept().unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(first, [1]);
        // Much, before anything is read; then the end of this side, and the other one goes on.
        let much = vec![b'x'; 3 << 20];
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            server.write_all(b"as much came").unwrap();
            all
        });
        stream.write_all(&much).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "as much came");
        assert_eq!(reader.join().unwrap(), much);
    }
    host.shutdown();
}

#[test]
fn a_port_without_a_listener_ends_its_stream() {
    if !possible() || in_guest() {
        return;
    }
    let mut host = Host::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut all = Vec::new();
    forward(&mut host, free).read_to_end(&mut all).unwrap();
    assert!(all.is_empty(), "{all:?}");
    for port in [0, 65_536] {
        let wanted = request::Forward { port, stream: token() };
        let (kind, text) = host.refused(request::Body::Forward(wanted));
        assert_eq!((kind, text), (ErrorKind::Unsupported, format!("port {port}")));
    }
    host.shutdown();
}
