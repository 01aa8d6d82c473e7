//! Order, text and drawing of timelines.

use super::*;

fn timeline() -> Timeline {
    let mut timeline = Timeline::default();
    timeline.reach_at(PodStage::SupervisorStarted, 1_000_000_000);
    timeline.reach_at(PodStage::MonitorSpawned, 1_004_000_000);
    timeline.reach_at(PodStage::RootfsReady, 1_002_500_000);
    timeline.reach_at(PodStage::AgentHello, 1_150_000_000);
    timeline.reach_at(PodStage::AgentHello, 1_999_000_000);
    timeline
}

#[test]
fn stages_are_in_the_order_of_their_times_and_count_once() {
    let stages: Vec<PodStage> = timeline().entries().iter().map(|entry| entry.stage).collect();
    let expected = [
        PodStage::SupervisorStarted,
        PodStage::RootfsReady,
        PodStage::MonitorSpawned,
        PodStage::AgentHello,
    ];
    assert_eq!(stages, expected);
    assert_eq!(timeline().last(), Some(PodStage::AgentHello));
}

#[test]
fn the_table_has_times_and_steps() {
    let text = timeline().to_text();
    assert!(text.contains("       2.500        2.500  root file system ready"), "{text}");
    assert!(text.contains("     150.000      146.000  agent said hello"), "{text}");
}

#[test]
fn json_names_the_stages() {
    let json: serde_json::Value = serde_json::from_str(&timeline().to_json()).unwrap();
    assert_eq!(json[1]["stage"], "rootfs_ready");
    assert_eq!(json[1]["at_ns"], 1_002_500_000u64);
}

#[test]
fn the_drawing_has_a_bar_for_each_stage_within_its_bounds() {
    let svg = timeline().to_svg();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<title>").count(), 4);
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    assert!(svg.contains("agent said hello: at 150.000 ms, after 146.000 ms"));
}

#[test]
fn extreme_timelines_are_drawn_too() {
    assert!(Timeline::default().to_svg().contains("</svg>"));
    let mut single = Timeline::default();
    single.reach_at(PodStage::SupervisorStarted, u64::MAX);
    assert_eq!(single.to_svg().matches("<title>").count(), 1);
    single.reach_at(PodStage::AgentHello, 0);
    assert!(single.to_svg().contains("</svg>"));
}
