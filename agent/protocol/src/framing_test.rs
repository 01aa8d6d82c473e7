//! Frames survive the way there and back; hostile bytes are refused.

use proptest::prelude::*;
use prost::Message as _;

use crate::*;

fn request(id: u64) -> HostFrame {
    let start = request::Body::Start(request::Start { container: "c".into(), files: vec![] });
    HostFrame { body: Some(host_frame::Body::Request(Request { id, body: Some(start) })) }
}

fn response(body: response::Body) -> AgentFrame {
    AgentFrame { body: Some(agent_frame::Body::Response(Response { id: 1, body: Some(body) })) }
}

#[test]
fn a_frame_survives_the_way_there_and_back() {
    let bytes = encode(&request(7)).unwrap();
    let header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
    assert_eq!(frame_length::<HostFrame>(header).unwrap(), bytes.len() - HEADER);
    assert_eq!(decode::<HostFrame>(&bytes[HEADER..]).unwrap(), request(7));
}

#[test]
fn a_length_over_the_limit_is_refused_from_its_header() {
    fn refused<F: Frame>() -> bool {
        let header = u32::try_from(F::MAX + 1).unwrap().to_le_bytes();
        matches!(frame_length::<F>(header), Err(FrameError::TooLong { .. }))
            && matches!(decode::<F>(&vec![0; F::MAX + 1]), Err(FrameError::TooLong { .. }))
    }
    assert!(refused::<HostFrame>() && refused::<AgentFrame>());
}

#[test]
fn a_frame_over_the_limit_is_not_sent() {
    let reason = "c".repeat(MAX_AGENT_FRAME);
    let host = host_frame::Body::Refusal(Refusal { reason: reason.clone() });
    assert!(encode(&HostFrame { body: Some(host) }).is_ok());
    let agent = agent_frame::Body::Refusal(Refusal { reason });
    let error = encode(&AgentFrame { body: Some(agent) }).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { max: MAX_AGENT_FRAME, .. }));
}

/// The worst that a guest can send of what the host does not want: a plan full of empty mounts, two bytes each.
#[test]
fn a_plan_in_a_frame_of_the_agent_is_never_built() {
    let mounts = vec![Mount::default(); 100_000];
    let create = request::Body::Create(Box::new(ContainerPlan { mounts, ..Default::default() }));
    let body = host_frame::Body::Request(Request { id: 1, body: Some(create) });
    let bytes = HostFrame { body: Some(body) }.encode_to_vec();
    assert!((200_000..MAX_AGENT_FRAME).contains(&bytes.len()));
    assert_eq!(decode::<AgentFrame>(&bytes).unwrap(), AgentFrame { body: None });
}

/// The worst that it can send of what the host does want: accounting without content, two bytes each.
#[test]
fn what_a_frame_of_the_agent_costs_is_bounded() {
    let count = MAX_AGENT_FRAME / 2 - 16;
    let files = vec![CgroupSetting { file: String::new(), value: String::new() }; count];
    let bytes = encode(&response(response::Body::Stats(Stats { files }))).unwrap();
    let frame = decode::<AgentFrame>(&bytes[HEADER..]).unwrap();
    let Some(agent_frame::Body::Response(Response { body: Some(body), .. })) = frame.body else {
        panic!("no response")
    };
    let response::Body::Stats(Stats { files }) = body else { panic!("no accounting") };
    // A vector that grows has at most twice the room it needs.
    let ratio = size_of::<CgroupSetting>() / 2;
    assert_eq!(ratio, 24);
    assert!(files.capacity() * size_of::<CgroupSetting>() <= 2 * ratio * MAX_AGENT_FRAME);
}

#[test]
fn the_longest_list_of_processes_fits() {
    let pids = vec![1 << 22; 32 * 1024];
    assert!(encode(&response(response::Body::Processes(Processes { pids }))).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = decode::<HostFrame>(&bytes);
        let _ = decode::<AgentFrame>(&bytes);
    }
}
