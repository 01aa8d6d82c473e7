//! The volumes of a pod, as its supervisor has them.
//!
//! Invariant: when the value is dropped, the file server has ended and nothing is mounted any more.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::MAPPED_PREFIX;
use super::handshake::Connected;
use super::keeper::{Order, Started, children, keep};

/// The thread needs little.
const STACK: usize = 128 << 10;

/// Bytes of the server's standard error that are told.
const MAX_WORDS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Volumes {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    next: u64,
    /// Nobody needs to be told of the server's end any more.
    ending: Arc<AtomicBool>,
    /// The server has ended.
    ended: Arc<AtomicBool>,
}

/// What the monitor gets.
#[derive(Debug)]
pub(crate) struct Server {
    /// Memory, kick, call, end: the order of [`cofferdam_vmm_api::FsSpec`].
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Its processes.
    pub(crate) pids: Vec<u32>,
}

impl Volumes {
    /// Starts the file server `program`. `directory` is any directory of ours. Must be called within a runtime.
    ///
    /// # Errors
    /// What could not be done.
    pub(crate) async fn start(program: PathBuf, directory: &Path) -> io::Result<(Self, Server)> {
        let (orders, inbox) = mpsc::channel();
        let (tell, started) = oneshot::channel();
        let directory = directory.to_owned();
        let builder = std::thread::Builder::new().name("volumes".into()).stack_size(STACK);
        let thread = builder.spawn(move || keep(&program, &directory, tell, &inbox))?;
        let volumes = Self {
            orders: Some(orders),
            thread: Some(thread),
            next: 0,
            ending: Arc::default(),
            ended: Arc::default(),
        };
        let started = started.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
        let Started { connected, end, pid, words } = started?;
        let ended = Arc::clone(&volumes.ended);
        tokio::spawn(tell_of_end(words, Arc::clone(&volumes.ending), ended));
        let Connected { memory, kick, call } = connected;
        let pids = [pid].into_iter().chain(children(pid)).collect();
        Ok((volumes, Server { descriptors: vec![memory, kick, call, end], pids }))
    }

    /// Mounts `tree`, which no other volume is; the name that the guest finds it by. `mapped` if the guest is to map
    /// its ids.
    ///
    /// # Errors
    /// Those of `move_mount(2)`; the server has ended.
    pub(crate) async fn add(&mut self, tree: OwnedFd, mapped: bool) -> io::Result<String> {
        if self.ended.load(Ordering::Relaxed) {
            return Err(io::Error::other("the file server of this pod has ended"));
        }
        let prefix = if mapped { MAPPED_PREFIX.to_string() } else { String::new() };
        let name = format!("{prefix}{}", self.next);
        self.next += 1;
        let (reply, done) = oneshot::channel();
        self.order(Order::Add { tree, name: name.clone(), reply });
        let lost = |_| Err(io::Error::other("the thread that keeps the volumes has ended"));
        done.await.unwrap_or_else(lost)?;
        Ok(name)
    }

    /// Unmounts the volume of this name.
    pub(crate) fn remove(&self, name: String) {
        self.order(Order::Remove { name });
    }

    fn order(&self, order: Order) {
        // Without a thread there is nothing to be done.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        // Without somebody to ask, the thread ends.
        self.ending.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Logs what the server says, and that it has ended.
async fn tell_of_end(words: OwnedFd, expected: Arc<AtomicBool>, ended: Arc<AtomicBool>) {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(words) else { return };
    let mut kept = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let excess = kept.len().saturating_sub(MAX_WORDS);
        kept.drain(..excess);
    }
    ended.store(true, Ordering::Relaxed);
    if expected.load(Ordering::Relaxed) {
        return;
    }
    let words = crate::tail::printable(&kept);
    tracing::warn!("the file server of the pod's volumes has ended: virtiofsd: {words}");
}
