//! Ports of a pod, as `kubectl port-forward` reaches them.

use anyhow::{Result, ensure};

use super::super::cases;
use super::Cri;
use super::client::call;
use super::more_messages::{Place, PortForwardRequest};
use super::pod::says;
use super::stream::Stream;
use crate::call::eventually;

cases!(Cri:
    a_port_is_forwarded,
    a_port_that_nobody_listens_at,
    connections_to_ports_at_a_time,
);

/// The channels of the first port; each begins with its number.
const DATA: usize = 0;
const ERROR: usize = 1;

/// A connection to a port of the pod.
fn forward(pod: &str, port: u16) -> Result<Stream> {
    let request = PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: vec![port.into()] };
    let Place { url } = call("PortForward", &request)?;
    Stream::open(&url)
}

/// A script whose server at `port` says what it is told.
fn server(port: u16) -> String {
    format!("exec nc -ll -p {port} -e cat")
}

/// Waits until somebody in the container's pod listens at `port`.
fn listens(container: &str, port: u16) -> Result<()> {
    let listening = format!("netstat -ltn | grep -c ':{port} '; true");
    eventually("a listener", || Ok(says(container, &listening)? != "0"))
}

/// What is said comes back.
fn echoes(stream: &mut Stream, word: &str) -> Result<()> {
    stream.types(&format!("{word}\n"))?;
    stream.wait_for(DATA, &format!("{word}\n"))
}

fn a_port_is_forwarded(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let container = pod.start(&server(8081))?;
    listens(&container, 8081)?;
    for word in ["one", "two"] {
        let mut stream = forward(&pod.id, 8081)?;
        echoes(&mut stream, word)?;
        echoes(&mut stream, &"much ".repeat(20_000))?;
    }
    // One that listens on the loopback interface alone, and ends the connection itself.
    let container = pod.start("echo there > /tmp/page; exec httpd -f -p 127.0.0.1:8082 -h /tmp")?;
    listens(&container, 8082)?;
    let mut stream = forward(&pod.id, 8082)?;
    stream.types("GET /page HTTP/1.0\r\n\r\n")?;
    stream.wait_for(DATA, "200 OK")?;
    stream.wait_for(DATA, "there\n")
}

fn a_port_that_nobody_listens_at(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let container = pod.start(&server(8083))?;
    let mut stream = forward(&pod.id, 9)?;
    stream.wait_for(ERROR, "port")?;
    ensure!(stream.text(DATA).len() == 2, "{}", stream.text(DATA));
    // The pod goes on.
    listens(&container, 8083)?;
    echoes(&mut forward(&pod.id, 8083)?, "word")
}

fn connections_to_ports_at_a_time(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let container = pod.start(&server(8084))?;
    listens(&container, 8084)?;
    let streams = (0..8).map(|_| forward(&pod.id, 8084)).collect::<Result<Vec<_>>>();
    let mut streams = streams?;
    for round in 0..3 {
        for (number, stream) in streams.iter_mut().enumerate() {
            echoes(stream, &format!("{round} to {number}"))?;
        }
    }
    Ok(())
}
