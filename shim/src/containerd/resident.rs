//! The resident process of a pod.
//!
//! Invariant: it ends when containerd says so, and then nothing of its pod is left but what containerd will have deleted.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use containerd_shim_protos::ttrpc::asynchronous::Server;
use containerd_shim_protos::ttrpc::asynchronous::transport::Listener;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::events::Events;
use super::flags::Flags;
use super::sandboxes::Sandboxes;
use super::service::{Job, Jobs, Service};
use super::tasks::Tasks;
use super::{launch, root};
use crate::{config, logging, supervisor};

/// The environment variable that names the socket for events.
const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";

/// How long the answer to the last question may take to go out, and connections to close.
const PARTING: Duration = Duration::from_millis(50);
const CLOSING: Duration = Duration::from_secs(1);

/// Serves until containerd needs it no more.
///
/// # Errors
/// It cannot listen.
pub(super) fn serve(flags: &Flags) -> Result<()> {
    let result = prepare(flags).and_then(|(listener, runtime)| {
        let result = runtime.block_on(LocalSet::new().run_until(serve_on(listener, flags)));
        // Threads may wait for streams that nobody closes.
        runtime.shutdown_background();
        result
    });
    result.inspect_err(|error| {
        tracing::error!("{error:#}");
        // If it served, nobody listens any more.
        let _ = std::io::stdout().write_all(format!("{error:#}").as_bytes());
        let _ = std::io::stdout().flush();
    })
}

fn prepare(flags: &Flags) -> Result<(StdListener, Runtime)> {
    let log = std::io::stderr().as_fd().try_clone_to_owned().context("the log")?;
    logging::init_lossy(File::from(log), flags.debug);
    supervisor::settle();
    let listener = listening(flags)?;
    // Where it was started is a bundle, which is removed.
    std::env::set_current_dir("/").context("leaving the bundle")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok((listener, runtime.context("starting its event loop")?))
}

/// Says that this process serves to whoever started it, and nothing after that.
fn say_ready() -> Result<()> {
    let null = File::options().write(true).open("/dev/null").context("opening /dev/null")?;
    // A person who has called it by hand may read no more.
    let _ = std::io::stdout().write_all(launch::READY.as_bytes());
    let _ = std::io::stdout().flush();
    rustix::stdio::dup2_stdout(null).context("leaving standard output")
}

/// The listening socket: standard input, or, if that is none, at the path that the flags name.
fn listening(flags: &Flags) -> Result<StdListener> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
    let null = File::open("/dev/null").context("opening /dev/null")?;
    rustix::stdio::dup2_stdin(null).context("leaving standard input")?;
    let listener = if rustix::net::sockopt::socket_acceptconn(&stdin).unwrap_or(false) {
        StdListener::from(stdin)
    } else {
        let socket = flags.socket.as_deref();
        let socket = socket.context("no listening socket: containerd starts this program")?;
        launch::listen(socket)?.with_context(|| format!("{} is in use", socket.display()))?
    };
    listener.set_nonblocking(true).context("the listening socket")?;
    Ok(listener)
}

async fn serve_on(listener: StdListener, flags: &Flags) -> Result<()> {
    supervisor::outlive_signals().context("signals")?;
    let address = std::env::var(TTRPC_ADDRESS).unwrap_or_default();
    let address = if address.is_empty() { format!("{}.ttrpc", flags.address) } else { address };
    let events = Events::to(&address, &flags.namespace);
    let tasks = Rc::new(Tasks::new(&flags.namespace, root(&flags.namespace)?, events));
    let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
    let jobs = Jobs::new(jobs);
    let config = flags.config.clone().unwrap_or_else(config::usual);
    let listener = UnixListener::from_std(listener).context("the listening socket")?;
    let mut server = Server::new()
        .add_listener(Listener::from(listener))
        .register_service(Service::new(jobs.clone()).methods())
        .register_service(Sandboxes::new(jobs, config).methods());
    server.start().await.context("serving")?;
    say_ready()?;
    loop {
        tokio::select! {
            Some(job) = queue.recv() => drop(tokio::task::spawn_local(job(tasks.clone()))),
            () = tasks.over() => break,
        }
    }
    // From now on another process may take its place.
    if let Some(socket) = &flags.socket {
        remove(socket);
    }
    tokio::time::sleep(PARTING).await;
    let _ = tokio::time::timeout(CLOSING, server.shutdown()).await;
    drop(queue);
    if let Some(tasks) = Rc::into_inner(tasks) {
        tasks.finish().await;
    }
    Ok(())
}

fn remove(socket: &Path) {
    // containerd may have done it.
    let _ = std::fs::remove_file(socket);
}
