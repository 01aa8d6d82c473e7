//! Relays pass all bytes and every end on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use cofferdam_agent_protocol::{STDIO_PORT, Stdio};

use super::*;

fn null() -> File {
    File::open("/dev/null").unwrap()
}

/// A host that listens where the agent dials.
struct Host {
    directory: tempfile::TempDir,
    listener: UnixListener,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join(STDIO_PORT.to_string())).unwrap();
        Self { directory, listener }
    }

    fn dialer(&self) -> Dialer {
        Dialer::Unix(self.directory.path().into())
    }

    fn accept(&self, token: u64) -> UnixStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut got = [0; 8];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(u64::from_le_bytes(got), token);
        stream
    }
}

fn plan(stdio: Stdio) -> ProcessPlan {
    ProcessPlan { stdio: Some(stdio), ..ProcessPlan::default() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn output_arrives_whole_and_then_ends() {
    let host = Host::new();
    let data: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let expected = data.clone();
    runtime().block_on(async {
        let stdio = Stdio { stdout: Some(7), ..Stdio::default() };
        let streams = Streams::new(&host.dialer(), &plan(stdio), None, null().as_fd()).unwrap();
        let mut process = File::from(streams.child[1].try_clone().unwrap());
        let writer = std::thread::spawn(move || process.write_all(&data).unwrap());
        let reader = std::thread::spawn(move || {
            let mut stream = host.accept(7);
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got
        });
        streams.relay(None).await.unwrap();
        while !reader.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        writer.join().unwrap();
        assert!(reader.join().unwrap() == expected);
    });
}

#[test]
fn the_end_of_input_closes_the_pipe() {
    let host = Host::new();
    runtime().block_on(async {
        let stdio = Stdio { stdin: Some(9), ..Stdio::default() };
        let streams = Streams::new(&host.dialer(), &plan(stdio), None, null().as_fd()).unwrap();
        let mut process = File::from(streams.child[0].try_clone().unwrap());
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            process.read_to_end(&mut got).unwrap();
            got
        });
        let writer = std::thread::spawn(move || {
            let mut stream = host.accept(9);
            stream.write_all(&[5; 300_000]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        });
        streams.relay(None).await.unwrap();
        while !reader.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(reader.join().unwrap(), [5; 300_000]);
        drop(writer.join().unwrap());
    });
}

#[test]
fn a_host_that_does_not_listen_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let stdio = Stdio { stdout: Some(1), ..Stdio::default() };
        let dialer = Dialer::Unix(directory.path().into());
        let streams = Streams::new(&dialer, &plan(stdio), None, null().as_fd()).unwrap();
        let failure = streams.relay(None).await.unwrap_err();
        let text = "connecting a standard stream to the host: no such file or directory";
        assert_eq!(failure.message, text);
    });
}
