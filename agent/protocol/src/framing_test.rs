//! Frames survive the way there and back; hostile bytes are refused.

use proptest::prelude::*;

use crate::*;

fn request(id: u64) -> Frame {
    let start = request::Body::Start(request::Start { container: "c".into() });
    Frame { body: Some(frame::Body::Request(Request { id, body: Some(start) })) }
}

#[test]
fn a_frame_survives_the_way_there_and_back() {
    let bytes = encode(&request(7)).unwrap();
    let header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
    assert_eq!(frame_length(header).unwrap(), bytes.len() - HEADER);
    assert_eq!(decode(&bytes[HEADER..]).unwrap(), request(7));
}

#[test]
fn a_length_over_the_limit_is_refused_from_its_header() {
    let header = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
    assert!(matches!(frame_length(header), Err(FrameError::TooLong(_))));
    assert!(matches!(decode(&vec![0; MAX_FRAME + 1]), Err(FrameError::TooLong(_))));
}

#[test]
fn a_frame_over_the_limit_is_not_sent() {
    let start = request::Body::Start(request::Start { container: "c".repeat(MAX_FRAME) });
    let frame = Frame { body: Some(frame::Body::Request(Request { id: 0, body: Some(start) })) };
    assert!(matches!(encode(&frame), Err(FrameError::TooLong(_))));
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = decode(&bytes);
    }
}
