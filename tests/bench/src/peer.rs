//! The host's side of a guest's streams: what sends back, what takes, what gives.
//!
//! Invariant: a stream that ends or fails ends its peer and nothing else.

use std::io::{Read, Result, Write};

/// The ports, over vsock and TCP.
pub(crate) const PORTS: [u16; 3] = [7001, 7002, 7003];

/// Bytes moved at a time.
const CHUNK: usize = 256 << 10;

/// Serves a stream that came to `port`, on a thread of its own.
pub(crate) fn serve(port: u32, stream: impl Read + Write + Send + 'static) {
    std::thread::spawn(move || match port {
        7001 => echo(stream),
        7002 => sink(stream),
        _ => source(stream),
    });
}

fn echo(mut stream: impl Read + Write) -> Result<()> {
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
}

/// The number that the guest begins with.
fn length(stream: &mut impl Read) -> Result<usize> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(usize::from_le_bytes(bytes))
}

fn sink(mut stream: impl Read + Write) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let mut left = length(&mut stream)?;
        while left > 0 {
            let most = left.min(buffer.len());
            let count = stream.read(&mut buffer[..most])?;
            if count == 0 {
                return Ok(());
            }
            left -= count;
        }
        stream.write_all(&[0])?;
    }
}

fn source(mut stream: impl Read + Write) -> Result<()> {
    let buffer = vec![0x5a; CHUNK];
    loop {
        let mut left = length(&mut stream)?;
        while left > 0 {
            let count = left.min(buffer.len());
            stream.write_all(&buffer[..count])?;
            left -= count;
        }
    }
}
