//! Framing: a little-endian `u32` length, then that many bytes of one protobuf [`HostFrame`] or [`AgentFrame`].
//!
//! Invariant: a length over the sender's limit is refused before anything is allocated for it.

use crate::message::{AgentFrame, HostFrame};

/// Bytes of the length before each frame.
pub const HEADER: usize = 4;

/// Largest frame of the host in bytes, the length excluded. A container's plan with the largest seccomp
/// filters (4096 instructions of 8 bytes, several of them), a full environment and some files fits.
pub const MAX_HOST_FRAME: usize = 8 << 20;

/// Largest frame of the agent in bytes, the length excluded. The longest it has to send, a list of 32,768
/// processes with numbers of four bytes, is half of it.
pub const MAX_AGENT_FRAME: usize = 256 << 10;

/// What one side of the control connection sends.
pub trait Frame: prost::Message + Default {
    /// Its largest length in bytes.
    const MAX: usize;
}

impl Frame for HostFrame {
    const MAX: usize = MAX_HOST_FRAME;
}

impl Frame for AgentFrame {
    const MAX: usize = MAX_AGENT_FRAME;
}

/// A frame that cannot be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is over the sender's limit.
    #[error("frame of {length} bytes; at most {max} are allowed")]
    TooLong {
        /// The length.
        length: usize,
        /// [`Frame::MAX`].
        max: usize,
    },
    /// The bytes are not a frame.
    #[error("malformed frame")]
    Malformed(#[from] prost::DecodeError),
}

/// The header and body of `frame` as bytes to send.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<F: Frame>(frame: &F) -> Result<Vec<u8>, FrameError> {
    let length = check::<F>(frame.encoded_len())?;
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&frame.encode_to_vec());
    Ok(bytes)
}

/// The number of bytes that follow the `header` of an `F`.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn frame_length<F: Frame>(header: [u8; HEADER]) -> Result<usize, FrameError> {
    check::<F>(usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX))
}

/// The frame whose body is `body`.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::Malformed`].
pub fn decode<F: Frame>(body: &[u8]) -> Result<F, FrameError> {
    check::<F>(body.len())?;
    Ok(F::decode(body)?)
}

/// `length`, if an `F` may have it.
fn check<F: Frame>(length: usize) -> Result<usize, FrameError> {
    if length > F::MAX { Err(FrameError::TooLong { length, max: F::MAX }) } else { Ok(length) }
}

#[cfg(test)]
#[path = "framing_test.rs"]
mod framing_test;
