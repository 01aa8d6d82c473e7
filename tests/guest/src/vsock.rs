//! Streams between the guest and the host.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::thread;

use nix::errno::Errno;
use nix::libc::{VMADDR_CID_ANY, VMADDR_CID_HOST};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, VsockAddr, bind, connect, listen,
    shutdown, socket,
};

use crate::Outcome;
use crate::disk::pattern;
use crate::words::Words;

const CHUNK: usize = 64 << 10;

/// Enough for an echo; there may be a thousand.
const STACK: usize = 128 << 10;

/// A stream socket; a file reads and writes it as well as any type would.
pub(crate) type Stream = File;

fn stream() -> nix::Result<Stream> {
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    Ok(Stream::from(socket))
}

fn port(words: &Words) -> Result<u32, Box<dyn std::error::Error>> {
    Ok(u32::try_from(words.number("port", 5000)?)?)
}

pub(crate) fn dial(port: u32) -> Result<Stream, String> {
    let text = |errno: Errno| format!("cannot connect to port {port} of the host: {errno}");
    let stream = stream().map_err(text)?;
    connect(stream.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, port)).map_err(text)?;
    Ok(stream)
}

/// Dials the supervisor as the agent does, and says hello in version 999 of the protocol.
pub(crate) fn future_agent() -> Outcome {
    const CONTROL_PORT: u32 = 1024;
    // Five bytes: field 1 (the hello), three bytes: field 1 (the version), 999 as a varint.
    const HELLO: [u8; 9] = [5, 0, 0, 0, 0x0a, 3, 0x08, 0xe7, 0x07];
    let mut stream = dial(CONTROL_PORT)?;
    stream.write_all(&HELLO)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(())
}

/// Greets the host as an agent of its protocol, takes the welcome and the first request, and ends.
pub(crate) fn dying_agent(words: &Words) -> Outcome {
    const CONTROL_PORT: u32 = 1024;
    let version = u8::try_from(words.number("protocol", 0)?)?;
    let mut stream = dial(CONTROL_PORT)?;
    // Four bytes: field 1 (the hello), two bytes: field 1 (the version), a varint of one byte.
    stream.write_all(&[4, 0, 0, 0, 0x0a, 2, 0x08, version])?;
    for _ in 0..2 {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(u32::from_le_bytes(length))?];
        stream.read_exact(&mut frame)?;
    }
    Ok(())
}

/// Accepts `count` connections and sends back what comes on each; prints `LISTENING port` before.
pub(crate) fn echo(words: &Words) -> Outcome {
    let (port, count) = (port(words)?, words.number("count", 1)?);
    let listener = stream()?;
    bind(listener.as_raw_fd(), &VsockAddr::new(VMADDR_CID_ANY, port))?;
    listen(&listener, Backlog::new(1024)?)?;
    println!("LISTENING {port}");
    let mut threads = Vec::new();
    for _ in 0..count {
        let stream = Stream::from(rustix::net::accept(&listener)?);
        let builder = thread::Builder::new().stack_size(STACK);
        threads.push(builder.spawn(move || echo_one(stream).map_err(|error| error.to_string()))?);
    }
    let mut bytes = 0;
    for thread in threads {
        bytes += thread.join().map_err(|_| "an echo panicked")??;
    }
    println!("ECHOED {bytes}");
    Ok(())
}

/// Sends everything back; the bytes.
fn echo_one(mut stream: Stream) -> std::io::Result<u64> {
    let (mut bytes, mut buffer) = (0, vec![0; CHUNK]);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            shutdown(stream.as_raw_fd(), Shutdown::Write)?;
            return Ok(bytes);
        }
        stream.write_all(&buffer[..count])?;
        bytes += u64::try_from(count).unwrap_or(0);
    }
}

/// Opens `count` connections to an echo of the host, all at once; on each says something else, ends its
/// half and expects the same back, and the end.
pub(crate) fn connect_many(words: &Words) -> Outcome {
    let (port, count) = (port(words)?, words.number("count", 1000)?);
    let mut streams = Vec::new();
    for number in 0..count {
        streams.push(dial(port).map_err(|error| format!("connection {number}: {error}"))?);
    }
    println!("CONNECTED {count}");
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(text(number).as_bytes())?;
        shutdown(stream.as_raw_fd(), Shutdown::Write)?;
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .map_err(|error| format!("connection {number}: {error}"))?;
        if answer != text(number) {
            return Err(format!("connection {number}: got {answer:?}").into());
        }
    }
    Ok(())
}

fn text(number: usize) -> String {
    format!("connection {number} says: {}\n", "something ".repeat(number % 50))
}

/// Sends `bytes` bytes to an echo of the host while it checks what returns.
pub(crate) fn bulk(words: &Words) -> Outcome {
    let bytes = words.number("bytes", 64 << 20)?;
    let mut reading = dial(port(words)?)?;
    let mut writing = reading.try_clone()?;
    let writer = thread::spawn(move || -> std::io::Result<()> {
        let mut at = 0;
        while at < bytes {
            let count = usize::try_from(bytes - at).unwrap_or(CHUNK).min(CHUNK);
            writing.write_all(&pattern(at, count))?;
            at += u64::try_from(count).unwrap_or(0);
        }
        Ok(shutdown(writing.as_raw_fd(), Shutdown::Write)?)
    });
    let (mut at, mut buffer) = (0, vec![0; CHUNK]);
    while at < bytes {
        let count = usize::try_from(bytes - at).unwrap_or(CHUNK).min(CHUNK);
        reading
            .read_exact(&mut buffer[..count])
            .map_err(|error| format!("after {at} bytes: {error}"))?;
        if buffer[..count] != pattern(at, count) {
            return Err(format!("other data than sent near byte {at}").into());
        }
        at += u64::try_from(count).unwrap_or(0);
    }
    writer.join().map_err(|_| "the writer panicked")??;
    if reading.read(&mut buffer)? != 0 {
        return Err("more came back than was sent".into());
    }
    println!("ECHOED {bytes}");
    Ok(())
}

/// A port where nobody listens: the connection fails, or ends at once.
pub(crate) fn refused(words: &Words) -> Outcome {
    match dial(port(words)?) {
        Err(error) => println!("REFUSED {error}"),
        Ok(mut stream) => match stream.read(&mut [0]) {
            Ok(0) => println!("REFUSED by its end"),
            Err(error) => println!("REFUSED {error}"),
            Ok(_) => return Err("somebody listens there".into()),
        },
    }
    Ok(())
}
