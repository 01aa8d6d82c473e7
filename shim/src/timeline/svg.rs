//! A timeline as an SVG drawing: one bar per step, from the stage before to the stage it leads to.
//!
//! Invariant: text comes only from [`super::PodStage`]; nothing of the guest reaches the file.

use super::{PodStage, Timeline, milliseconds};

const LEFT: u64 = 190;
const WIDTH: u64 = 640;
const RIGHT: u64 = 110;
const TOP: u64 = 56;
const ROW: u64 = 28;
const BAR: u64 = 18;

/// Who spends the time of the step that leads to a stage.
fn colour(stage: PodStage) -> &'static str {
    match stage {
        PodStage::SupervisorStarted | PodStage::RootfsReady | PodStage::MonitorSpawned => "#4c78a8",
        PodStage::MonitorStarted | PodStage::MachineBuilt | PodStage::KernelEntered => "#f58518",
        PodStage::DriversStarted | PodStage::AgentHello => "#54a24b",
        PodStage::ContainerCreated | PodStage::ContainerStarted => "#b279a2",
        PodStage::ContainerExited => "#9d9da1",
        PodStage::MachineGone => "#e45756",
    }
}

const LEGEND: [(&str, &str); 6] = [
    ("supervisor", "#4c78a8"),
    ("monitor", "#f58518"),
    ("guest kernel", "#54a24b"),
    ("agent", "#b279a2"),
    ("container", "#9d9da1"),
    ("end", "#e45756"),
];

/// The drawing of `timeline`.
pub(super) fn draw(timeline: &Timeline) -> String {
    let steps: Vec<_> = timeline.steps().collect();
    let total = steps.last().map_or(0, |(_, at, _)| *at).max(1);
    let rows = u64::try_from(steps.len()).unwrap_or(0);
    let height = TOP + rows * ROW + 44;
    let width = LEFT + WIDTH + RIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"600\">Pod timeline, {} ms</text>\n",
        milliseconds(total)
    );
    svg += &legend(width);
    svg += &grid(total, TOP + rows * ROW);
    for (row, (stage, at, step)) in steps.into_iter().enumerate() {
        svg += &bar(u64::try_from(row).unwrap_or(0), (stage, at, step), total);
    }
    svg += "</svg>\n";
    svg
}

fn legend(width: u64) -> String {
    let mut x = width - 6 * 92 - 8;
    let mut svg = String::new();
    for (name, colour) in LEGEND {
        svg += &format!(
            "<rect x=\"{x}\" y=\"14\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"24\" fill=\"#444444\">{name}</text>\n",
            x + 15
        );
        x += 92;
    }
    svg
}

/// Lines at round times, at most ten.
fn grid(total: u64, bottom: u64) -> String {
    let spacing = spacing(total);
    let mut svg = String::new();
    let mut next = Some(0);
    while let Some(at) = next.filter(|at: &u64| *at <= total) {
        let x = LEFT + scale(at, total);
        svg += &format!(
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{x}\" y=\"{}\" fill=\"#777777\" text-anchor=\"middle\">{}</text>\n",
            TOP - 8,
            bottom + 18,
            axis_label(at)
        );
        next = at.checked_add(spacing);
    }
    svg + &format!(
        "<text x=\"{}\" y=\"{}\" fill=\"#777777\">ms</text>\n",
        LEFT + WIDTH + 34,
        bottom + 18
    )
}

/// 1, 2 or 5 times a power of ten nanoseconds, so that `total` has 4 to 10 of them.
fn spacing(total: u64) -> u64 {
    let mut power: u64 = 1;
    loop {
        for factor in [1, 2, 5] {
            let spacing = power.saturating_mul(factor);
            if total / spacing <= 10 {
                return spacing;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn axis_label(ns: u64) -> String {
    let text = milliseconds(ns);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn scale(at: u64, total: u64) -> u64 {
    let place = u128::from(at) * u128::from(WIDTH) / u128::from(total);
    u64::try_from(place).unwrap_or(WIDTH)
}

fn bar(row: u64, (stage, at, step): (PodStage, u64, u64), total: u64) -> String {
    let y = TOP + row * ROW;
    let end = scale(at, total);
    let start = scale(at - step.min(at), total);
    let width = (end - start).max(2);
    let x = LEFT + start;
    let (middle, text_x) = (y + BAR - 5, x + width + 6);
    format!(
        "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{stage}</text>\
         <rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\" rx=\"3\" fill=\"{}\">\
         <title>{stage}: at {} ms, after {} ms</title></rect>\
         <text x=\"{text_x}\" y=\"{middle}\" fill=\"#444444\">{}</text>\n",
        LEFT - 12,
        colour(stage),
        milliseconds(at),
        milliseconds(step),
        milliseconds(step),
    )
}
