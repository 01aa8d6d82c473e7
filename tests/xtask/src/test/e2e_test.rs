use super::*;

fn args(lane: &Lane) -> Vec<&str> {
    lane.iter().flat_map(|run| run.args.iter().map(String::as_str)).collect()
}

#[test]
fn every_topic_is_in_one_of_the_lanes() {
    let lanes = lanes(None, false);
    let [first, second] = lanes.as_slice() else { panic!("{lanes:?}") };
    let own = ["containerd::", "containerd2::"];
    let others = ["conformance::", "podman::", "docker::", "cri::", "cri2::"];
    let skipped = [&own[..], &others].concat();
    let skip = skipped.iter().flat_map(|topic| ["--skip", *topic]);
    assert_eq!(args(first), skip.chain(own).collect::<Vec<_>>());
    assert_eq!(
        args(second),
        ["conformance::cofferdam::", "podman::", "docker::", "cri::", "cri2::"]
    );
    assert!(
        !first.iter().chain(second).any(Run::needs_runc),
        "without --all nothing runs with runc"
    );
}

#[test]
fn with_runc_too_when_all_is_asked_for() {
    let lanes = lanes(None, true);
    let long = lanes.last().unwrap();
    let engines = ["podman::", "docker::", "cri::", "cri2::"].map(|topic| [topic; 2]);
    assert_eq!(args(long), [&["conformance::"][..], &engines.concat()].concat());
    assert!(long[0].needs_runc());
    let engines: Vec<bool> = long[1..].iter().map(|run| run.env.is_empty()).collect();
    assert_eq!(engines, [false, true].repeat(4));
    let first: Vec<bool> = lanes[0][1..].iter().map(|run| run.env.is_empty()).collect();
    assert_eq!(first, [false, true].repeat(2));
}

#[test]
fn a_filter_is_one_run() {
    let lanes = lanes(Some("conformance::runc::mounts"), false);
    let [lane] = lanes.as_slice() else { panic!("{lanes:?}") };
    assert_eq!(args(lane), ["conformance::runc::mounts"]);
    assert!(lane[0].needs_runc());
    assert!(!Run::of("stdio").needs_runc());
}
