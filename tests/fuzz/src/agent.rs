//! What an agent sends to the supervisor, and the other way round.

use cofferdam_agent_protocol::{
    AgentFrame, Frame, HEADER, HostFrame, decode, encode, frame_length,
};

use crate::allocated;

/// Bytes in memory for each byte of a frame, and in all besides.
const RATIO: usize = 64;
const BASE: usize = 64 << 10;

/// Reads `data` as a stream of frames, then as one.
pub fn run(data: &[u8]) {
    stream::<AgentFrame>(data);
    survives::<AgentFrame>(data, Some(RATIO));
    // The agent is no less careful, but its host may make it build a plan as large as it likes.
    stream::<HostFrame>(data);
    survives::<HostFrame>(data, None);
}

fn stream<F: Frame + PartialEq>(mut data: &[u8]) {
    while let Some((header, rest)) = data.split_first_chunk::<HEADER>() {
        let Ok(length) = frame_length::<F>(*header) else { return };
        assert!(length <= F::MAX);
        let Some((body, rest)) = rest.split_at_checked(length) else { return };
        survives::<F>(body, None);
        data = rest;
    }
}

/// What was understood is understood again when it is sent on, and its size in memory is bounded.
fn survives<F: Frame + PartialEq>(body: &[u8], ratio: Option<usize>) {
    let before = allocated();
    let Ok(frame) = decode::<F>(body) else { return };
    if let Some(ratio) = ratio {
        let cost = allocated().saturating_sub(before);
        assert!(cost <= BASE + ratio * body.len(), "{cost} bytes for {}", body.len());
    }
    let Ok(bytes) = encode(&frame) else { return };
    assert!(decode::<F>(&bytes[HEADER..]).unwrap() == frame, "a frame changed on its way");
}
