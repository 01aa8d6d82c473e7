//! The start of both monitors as a drawing: exits over instructions.
//!
//! Invariant: pure; the text in it is ours.

use std::collections::BTreeMap;

use cofferdam_test_bench::Measured;

use super::runs::{OURS, OURS_TRACED, QEMU, QEMU_TRACED};

const LEFT: u64 = 70;
const TOP: u64 = 60;
const WIDTH: u64 = 720;
const HEIGHT: u64 = 320;

/// Points of a curve.
const POINTS: usize = 400;

const COLOURS: [(&str, &str, &str); 2] =
    [(OURS, OURS_TRACED, "#4c78a8"), (QEMU, QEMU_TRACED, "#f58518")];

/// The drawing.
pub(super) fn draw(measured: &BTreeMap<String, Vec<Measured>>) -> String {
    let one = |name: &str| measured.get(name).and_then(|runs| runs.first());
    let traced: Vec<&Measured> = COLOURS.iter().filter_map(|(_, name, _)| one(name)).collect();
    let last = traced.iter().map(|run| run.hello).max().unwrap_or(1).max(1);
    let most = traced.iter().map(|run| run.exits.len()).max().unwrap_or(1).max(1);
    let (width, height) = (LEFT + WIDTH + 40, TOP + HEIGHT + 60);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"600\">Exits on the way from exec to the \
         agent's hello</text>\n"
    );
    svg += &axes(last, most);
    for (row, (name, traced, colour)) in (0u64..).zip(COLOURS) {
        let y = 30 + row * 16;
        let millions = one(name).map_or(0, |run| run.hello / 1_000_000);
        svg += &format!(
            "<rect x=\"{}\" y=\"{}\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\">{name}: {millions} M instructions untraced</text>\n",
            LEFT + 340,
            y - 10,
            LEFT + 356,
            y
        );
        if let Some(run) = one(traced) {
            svg += &curve(run, (last, most), colour);
            svg += &marks(run, last);
        }
    }
    svg + "</svg>\n"
}

fn axes(last: u64, most: usize) -> String {
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let mut svg = format!(
        "<path d=\"M{LEFT} {TOP} V{bottom} H{right}\" fill=\"none\" stroke=\"#444444\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most} exits</text>\n",
        LEFT + 90,
        TOP - 6
    );
    for at in (0..=last).step_by(50_000_000) {
        let x = LEFT + scale(at, last, WIDTH);
        svg += &format!(
            "<path d=\"M{x} {TOP} V{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{} M</text>\n",
            bottom + 18,
            at / 1_000_000
        );
    }
    svg
}

/// Exits so far, at each of some points of the way.
fn curve(run: &Measured, (last, most): (u64, usize), colour: &str) -> String {
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let mut points = format!("{LEFT},{}", TOP + HEIGHT);
    let step = run.exits.len().div_ceil(POINTS).max(1);
    for (count, exit) in (1u64..).zip(&run.exits).step_by(step) {
        let x = LEFT + scale(exit.at, last, WIDTH);
        points += &format!(" {x},{}", TOP + HEIGHT - scale(count, most, HEIGHT));
    }
    format!(
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"
    )
}

/// Where the monitor's stages were reached.
fn marks(run: &Measured, last: u64) -> String {
    let mut svg = String::new();
    for (row, (name, at)) in (0u64..).zip(&run.stages) {
        let x = LEFT + scale(*at, last, WIDTH);
        let y = TOP + 20 + row * 16;
        svg += &format!(
            "<path d=\"M{x} {TOP} V{}\" stroke=\"#54a24b\" stroke-dasharray=\"3 3\"/>\
             <text x=\"{}\" y=\"{y}\" fill=\"#54a24b\">{name}</text>\n",
            TOP + HEIGHT,
            x + 4
        );
    }
    svg
}

fn scale(value: u64, most: u64, length: u64) -> u64 {
    let place = u128::from(value) * u128::from(length) / u128::from(most.max(1));
    u64::try_from(place).unwrap_or(length)
}
