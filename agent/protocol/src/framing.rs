//! Framing: a little-endian `u32` length, then that many bytes of one protobuf [`Frame`].
//!
//! Invariant: a length over [`MAX_FRAME`] is refused before anything is allocated for it.

use prost::Message as _;

use crate::message::Frame;

/// Bytes of the length before each frame.
pub const HEADER: usize = 4;

/// Largest frame in bytes, the length excluded. A container's plan with the largest seccomp filters
/// (4096 instructions of 8 bytes, several of them) and a full environment fits.
pub const MAX_FRAME: usize = 1 << 20;

/// A frame that cannot be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is over [`MAX_FRAME`].
    #[error("frame of {0} bytes; at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    /// The bytes are not a [`Frame`].
    #[error("malformed frame")]
    Malformed(#[from] prost::DecodeError),
}

/// The header and body of `frame` as bytes to send.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    let body = frame.encode_to_vec();
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME);
    let length = length.ok_or(FrameError::TooLong(body.len()))?;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The number of bytes that follow `header`.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn frame_length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// The frame whose body is `body`.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::Malformed`].
pub fn decode(body: &[u8]) -> Result<Frame, FrameError> {
    if body.len() > MAX_FRAME {
        return Err(FrameError::TooLong(body.len()));
    }
    Ok(Frame::decode(body)?)
}

#[cfg(test)]
#[path = "framing_test.rs"]
mod framing_test;
