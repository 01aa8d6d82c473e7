//! `delete`: what is left of a container whose resident process was killed.
//!
//! Invariant: containerd is told the exit status of a container that was killed, whatever was found.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};

use super::flags::Flags;
use super::{launch, mounts, root};
use crate::container::Saved;
use crate::control::ToSupervisor;
use crate::living::{ask_at, connect};
use crate::pod::{check_id, clear_dead};

/// The status of a container that was killed.
const KILLED: u32 = 137;

/// How long the kernel may take to take apart what died with the process; containerd gives us 5 seconds in all.
const DYING: Duration = Duration::from_secs(2);

/// How long the supervisor of a living pod may take to end a container.
const TELLING: Duration = Duration::from_secs(2);

/// Does it; gives what containerd reads.
///
/// # Errors
/// The id is none, or the answer cannot be encoded.
pub(super) fn delete(flags: &Flags) -> Result<Vec<u8>> {
    check_id(&flags.id)?;
    let root = root(&flags.namespace)?;
    let directory = root.join(&flags.id);
    let bundle = flags.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let saved = Saved::load(&root, &flags.id).ok();
    let pid = saved.as_ref().map_or(0, |saved| saved.process.pid);
    if let Some(saved) = &saved {
        end(&root, saved);
    }
    mounts::unmount(&bundle.join(mounts::ROOTFS));
    // The machine ends with whoever supervises it.
    if !clear_dead(&directory, false, DYING) {
        eprintln!("{} is still in use; the next container removes it", directory.display());
    }
    remove_socket(&bundle);
    let response = DeleteResponse {
        pid,
        exit_status: KILLED,
        exited_at: MessageField::some(SystemTime::now().into()),
        ..Default::default()
    };
    response.write_to_bytes().context("encoding the answer")
}

/// Ends what may still run of a container that containerd has given up, with its resident process or alone.
fn end(root: &Path, saved: &Saved) {
    if saved.pod == saved.id {
        return saved.process.kill();
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    // A pod that is gone needs no word, and one that hangs gets no more time.
    let told = runtime.block_on(async {
        let tell = async {
            let supervisor = connect(root, saved)?;
            ask_at(&supervisor, &ToSupervisor::kill(&saved.id)).await?;
            ask_at(&supervisor, &ToSupervisor::Delete(saved.id.clone())).await
        };
        tokio::time::timeout(TELLING, tell).await
    });
    if let Ok(Err(error)) = told {
        eprintln!("ending {} in its pod: {error:#}", saved.id);
    }
}

/// Removes the socket at which nobody listens any more.
fn remove_socket(bundle: &Path) {
    let Some(socket) = launch::socket_of(bundle) else { return };
    if std::os::unix::net::UnixStream::connect(&socket).is_err() {
        let _ = std::fs::remove_file(socket);
    }
}
