//! What the agent sends.

use cofferdam_agent_protocol::{CgroupSetting, MAX_AGENT_FRAME, Stats};

use super::*;

fn decoded(value: String) -> response::Body {
    let files = vec![CgroupSetting { file: "memory.stat".into(), value }];
    let bytes = answer(7, response::Body::Stats(Stats { files })).unwrap();
    let frame = decode::<AgentFrame>(&bytes[HEADER..]).unwrap();
    let Some(agent_frame::Body::Response(response)) = frame.body else { panic!("no response") };
    assert_eq!(response.id, 7);
    response.body.unwrap()
}

#[test]
fn an_answer_that_is_too_long_becomes_an_error() {
    let ordinary = decoded("anon 0".into());
    assert!(matches!(ordinary, response::Body::Stats(_)), "{ordinary:?}");
    match decoded("x".repeat(MAX_AGENT_FRAME)) {
        response::Body::Error(error) => assert!(error.message.contains("too long"), "{error:?}"),
        other => panic!("{other:?}"),
    }
}
