//! Limits with and without a host that takes time.

use std::cell::Cell;
use std::future::{pending, ready};

use tokio::time::{advance, sleep};

use super::*;

fn limited<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test)
}

const LIMIT: Duration = Duration::from_secs(8);

#[test]
fn what_is_late_is_given_up() {
    limited(async {
        let deadline = Deadline::after(LIMIT);
        assert_eq!(deadline.wait_with(ready(7), || Duration::ZERO).await, Some(7));
        let begun = Instant::now();
        let late = deadline.wait_with(pending::<()>(), || deadline.stolen).await;
        assert_eq!((late, begun.elapsed()), (None, LIMIT));
        // What was over before it was waited for.
        advance(LIMIT).await;
        assert_eq!(deadline.wait_with(pending::<()>(), || deadline.stolen).await, None);
    });
}

#[test]
fn time_that_the_host_takes_is_added() {
    limited(async {
        let begun = Instant::now();
        let deadline = Deadline::after(LIMIT);
        // It takes half of the first ten seconds, and nothing after that.
        let taken = || deadline.stolen + begun.elapsed().min(Duration::from_secs(10)) / 2;
        let late = deadline.wait_with(pending::<()>(), taken).await;
        assert_eq!((late, begun.elapsed()), (None, LIMIT + Duration::from_secs(5)));
        let begun = Instant::now();
        let deadline = Deadline::after(LIMIT);
        let taken = || deadline.stolen + begun.elapsed() / 2;
        let slow = async {
            sleep(LIMIT + LIMIT / 2).await;
            7
        };
        assert_eq!(deadline.wait_with(slow, taken).await, Some(7));
    });
}

#[test]
fn no_host_makes_it_endless() {
    limited(async {
        let begun = Instant::now();
        let asked = Cell::new(0);
        let taken = || {
            asked.set(asked.get() + 1);
            Duration::MAX
        };
        let late = Deadline::after(LIMIT).wait_with(pending::<()>(), taken).await;
        assert_eq!((late, begun.elapsed(), asked.get()), (None, LIMIT + MOST, 2));
    });
}

#[test]
fn the_kernels_figures_are_understood() {
    let text = "cpu  1 2 3 4 5 6 7 600 9 10\ncpu0 1 2 3 4 5 6 7 400 0 0\ncpu1 0 0 0 0 0 0 0 200 0 0\n\
                intr 1\n";
    assert_eq!(stolen_of(text), Duration::from_secs(3));
    assert_eq!(stolen_of("cpu  1 2 3 4 5 6 7 x\n"), Duration::ZERO);
    assert_eq!(stolen_of("intr 5\n"), Duration::ZERO);
    assert_eq!(stolen_of(""), Duration::ZERO);
    assert!(stolen() < Duration::from_secs(1 << 32));
}
