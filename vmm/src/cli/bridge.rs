//! Two non-blocking streams, each of which gets what the other one says.
//!
//! Invariant: at most one chunk is held each way; the end of one stream's data is the end of the other's.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

const CHUNK: usize = 64 << 10;

/// Chunks each way before others get their turn.
const SHARE: usize = 16;

/// One direction.
#[derive(Default)]
struct Direction {
    held: Vec<u8>,
    done: bool,
}

/// Two streams.
pub(super) struct Bridge {
    streams: [UnixStream; 2],
    directions: [Direction; 2],
}

impl Bridge {
    /// Joins two streams.
    pub(super) fn new(a: UnixStream, b: UnixStream) -> Self {
        Self { streams: [a, b], directions: Default::default() }
    }

    /// Moves what can be moved; true if its share was not enough.
    pub(super) fn pump(&mut self) -> bool {
        let [a, b] = &self.streams;
        let [there, back] = &mut self.directions;
        let more = [there.pump(a, b), back.pump(b, a)];
        more.contains(&true)
    }

    /// Whether both directions are over.
    pub(super) fn is_done(&self) -> bool {
        self.directions.iter().all(|direction| direction.done)
    }
}

impl Direction {
    fn pump(&mut self, mut from: &UnixStream, mut to: &UnixStream) -> bool {
        let mut chunk = [0; CHUNK];
        for _ in 0..SHARE {
            while !self.held.is_empty() {
                match to.write(&self.held) {
                    Ok(count) => drop(self.held.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return self.end(from, to),
                }
            }
            if self.done {
                return false;
            }
            match from.read(&mut chunk) {
                Ok(0) => return self.end(from, to),
                Ok(count) => self.held.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.end(from, to),
            }
        }
        true
    }

    /// Nothing more flows. A stream that is gone already needs no ending.
    fn end(&mut self, from: &UnixStream, to: &UnixStream) -> bool {
        self.held = Vec::new();
        self.done = true;
        let _ = from.shutdown(Shutdown::Read);
        let _ = to.shutdown(Shutdown::Write);
        false
    }
}
