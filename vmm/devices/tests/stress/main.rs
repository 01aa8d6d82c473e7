//! Devices at full speed, looking for lost wake-ups: real threads, real doorbells and interrupts, a driver that sleeps
//! whenever there is nothing to do, queues of any size, with the event index and without.
//!
//! Three seconds by default; `COFFERDAM_STRESS_SECONDS=3600 cargo test --release -p cofferdam-vmm-devices --test
//! stress -- --nocapture` for an hour.
//!
//! Invariant: a side that has something to do is told of it: who waits longer than [`driver::PATIENCE`] has found an
//! error.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]
#![allow(clippy::cast_possible_truncation, reason = "random numbers are cut on purpose")]

mod block;
mod driver;
mod net;
mod random;
mod vsock;

use std::time::{Duration, Instant};

use self::random::Random;

/// How long one device works with one size of its queues.
const ROUND: Duration = Duration::from_millis(200);

/// Sizes of queues.
const SIZES: [u16; 10] = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// What a device is to do in a round.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Entries of each queue.
    size: u16,
    /// Whether the event index is agreed on.
    event_idx: bool,
    /// Ends then.
    end: Instant,
}

/// How long to go on.
fn length() -> Duration {
    let seconds = std::env::var("COFFERDAM_STRESS_SECONDS");
    Duration::from_secs(seconds.map_or(3, |text| text.parse().expect("a number of seconds")))
}

/// Has `work` do rounds of all sizes in random order; what it did in all.
fn rounds(name: &str, work: impl Fn(Round, &mut Random) -> u64) {
    let end = Instant::now() + length();
    let mut random = Random::new();
    println!("{name}: seed {:#x}", random.seed());
    let (mut rounds, mut done) = (0u64, 0u64);
    while Instant::now() < end {
        let size = SIZES[random.below(SIZES.len())];
        let event_idx = random.below(4) != 0;
        let round = Round { size, event_idx, end: Instant::now() + ROUND };
        done += work(round, &mut random);
        rounds += 1;
    }
    println!("{name}: {done} in {rounds} rounds");
    assert!(done > 0);
}

#[test]
fn no_wakeup_is_lost() {
    std::thread::scope(|threads| {
        threads.spawn(|| rounds("block", block::round));
        threads.spawn(|| rounds("net", net::round));
        threads.spawn(|| rounds("vsock", vsock::round));
    });
}
