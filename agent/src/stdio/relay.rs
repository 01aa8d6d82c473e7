//! Copies bytes between a process and the host until one side ends.
//!
//! Invariant: each end is passed on: the end of a pipe half-closes the connection, a half-closed
//! connection closes the pipe. Memory is held only while there is something to copy.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::stream::Stream;

/// Bytes copied at once; a pipe holds as many.
const CHUNK: usize = 64 * 1024;

/// How long a connection without anything left to say waits for the host to close it.
const CLOSES_WITHIN: Duration = Duration::from_secs(30);

/// Copies the host's input to the process.
pub(crate) fn input(host: Stream, pipe: Stream) {
    tokio::spawn(async move {
        // A process that closes its input has no use for more. That is no error, and the host gets to
        // know it by the end of the connection.
        tokio::select! {
            _ = copy(&host, &pipe) => {}
            () = pipe.broken() => {}
        }
    });
}

/// Copies the process's output to the host.
pub(crate) fn output(pipe: Stream, host: Stream) {
    tokio::spawn(async move {
        // A host that takes no more closes the pipe: the process gets SIGPIPE.
        let _ = copy(&pipe, &host).await;
        drop(pipe);
        finish(&host).await;
    });
}

/// Copies both ways between a terminal and the host.
pub(crate) fn terminal(master: Stream, host: Stream) {
    tokio::spawn(async move {
        let (master, host) = (Arc::new(master), Arc::new(host));
        let typed = tokio::spawn({
            let (master, host) = (Arc::clone(&master), Arc::clone(&host));
            // The end of the host's input does not end the terminal.
            async move { copy(&host, &master).await }
        });
        // The last process that closes its side ends it, with EIO.
        let _ = copy(&master, &host).await;
        typed.abort();
        // Ended or aborted: either way it holds the streams no more.
        let _ = typed.await;
        drop(master);
        finish(&host).await;
    });
}

/// Copies both ways until both have ended, or one is broken.
pub(super) async fn both(one: Stream, other: Stream) -> io::Result<()> {
    let copy = async |from, to: &Stream| {
        copy(from, to).await?;
        to.finish();
        Ok(())
    };
    tokio::try_join!(copy(&one, &other), copy(&other, &one)).map(drop)
}

/// Copies until the end of `from`, or an error of either.
async fn copy(from: &Stream, to: &Stream) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut chunk = vec![0; CHUNK];
        // Keep the memory as long as the data keeps coming.
        loop {
            let length = from.read(&mut chunk).await?;
            let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            to.write_all(bytes).await?;
            if length < CHUNK {
                break;
            }
        }
    }
}

/// Half-closes the connection, and gives the host time to take what is under way.
async fn finish(host: &Stream) {
    host.finish();
    let mut rest = [0; 512];
    let closed = async { while host.read(&mut rest).await.is_ok_and(|length| length > 0) {} };
    // Late or not, the connection is closed now.
    let _ = timeout(CLOSES_WITHIN, closed).await;
}
