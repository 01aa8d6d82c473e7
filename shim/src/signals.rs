//! Signals sent to `cofferdam run`.
//!
//! Invariant: from the moment of [`Signals::listen`] no forwardable signal ends the program by itself;
//! they are messages, in order, bounded in number.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that are passed on to the container, as runc does: all but those that cannot be caught, those
/// about faults of this process, its children and its terminal's size. SIGTTIN and SIGTTOU stop us as they stop
/// any background job: caught, they would come again at once, for ever.
const FORWARDED: [i32; 16] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// Real-time signals that the C library leaves to programs.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Signals that wait to be handled; more of them are dropped.
const QUEUE: usize = 64;

/// A stream of signals.
#[derive(Debug)]
pub(crate) struct Signals {
    queue: mpsc::Receiver<i32>,
}

impl Signals {
    /// Begins to listen. Must be called within a runtime.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let window = std::iter::once(libc::SIGWINCH);
        for number in FORWARDED.into_iter().chain(REAL_TIME).chain(window) {
            let mut stream = signal(SignalKind::from_raw(number))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(number) {
                        return;
                    }
                }
            });
        }
        Ok(Self { queue })
    }

    /// None: those that come are another's.
    pub(crate) fn none() -> Self {
        let (_, queue) = mpsc::channel(1);
        Self { queue }
    }

    /// The next signal. May be cancelled.
    pub(crate) async fn next(&mut self) -> i32 {
        match self.queue.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// Drops what waits to be handled.
    pub(crate) fn forget(&mut self) {
        while self.queue.try_recv().is_ok() {}
    }

    /// The next signal that asks a program to end; others are passed over. May be cancelled.
    pub(crate) async fn interruption(&mut self) -> i32 {
        loop {
            let signal = self.next().await;
            if u32::try_from(signal).is_ok_and(is_interruption) {
                return signal;
            }
        }
    }
}

/// Whether `signal` asks a program to end.
pub(crate) fn is_interruption(signal: u32) -> bool {
    let asks = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
    asks.iter().any(|known| known.cast_unsigned() == signal)
}
