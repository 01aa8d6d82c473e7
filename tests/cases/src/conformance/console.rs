//! The socket that `--console-socket` names, and the terminal that comes through it.
//!
//! Invariant: the socket is gone with the runtime's directory.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::runtime::Runtime;
use crate::call::eventually;

/// A listening socket.
pub(super) struct Console {
    listener: UnixListener,
    path: String,
}

/// The controlling end of a container's terminal.
pub(super) struct Screen {
    file: File,
    seen: Arc<Mutex<String>>,
}

impl Console {
    /// A socket `name` in the runtime's directory.
    pub(super) fn listen(runtime: &Runtime, name: &str) -> Result<Self> {
        let path = runtime.file(name);
        let listener = UnixListener::bind(&path).context("binding the console socket")?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.display().to_string() })
    }

    /// What `--console-socket` gets.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Takes the terminal that was sent.
    pub(super) fn accept(&self) -> Result<Screen> {
        let mut stream = None;
        eventually("a terminal", || {
            stream = self.listener.accept().ok();
            Ok(stream.is_some())
        })?;
        let (stream, _) = stream.context("no connection")?;
        stream.set_nonblocking(false)?;
        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg(&stream, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        ensure!(message.bytes > 0, "the terminal has no name");
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                let descriptor = descriptors.next().context("no descriptor")?;
                return Screen::new(File::from(descriptor));
            }
        }
        bail!("no terminal in the message")
    }
}

impl Screen {
    fn new(file: File) -> Result<Self> {
        let seen = Arc::<Mutex<String>>::default();
        let (mut reader, growing) = (file.try_clone()?, seen.clone());
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut chunk) {
                let mut all = growing.lock().unwrap_or_else(PoisonError::into_inner);
                all.push_str(&String::from_utf8_lossy(&chunk[..length]));
            }
        });
        Ok(Self { file, seen })
    }

    /// All that was shown.
    pub(super) fn text(&self) -> String {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `text` is shown.
    pub(super) fn shows(&self, text: &str) -> Result<()> {
        eventually(text, || Ok(self.text().contains(text)))
            .with_context(|| format!("the terminal shows {:?}", self.text()))
    }

    /// Types `text`.
    pub(super) fn types(&mut self, text: &str) -> Result<()> {
        Ok(self.file.write_all(text.as_bytes())?)
    }

    /// Gives the terminal this size.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.file, size)?)
    }
}
