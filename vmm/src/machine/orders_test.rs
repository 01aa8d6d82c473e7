//! Threads that obey.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;

#[test]
fn threads_run_between_run_and_pause_only() {
    let orders = Arc::new(Orders::new());
    let turns = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (orders, turns) = (Arc::clone(&orders), Arc::clone(&turns));
            thread::spawn(move || {
                while orders.obey(|| ()) == Order::Run {
                    while !orders.leave().load(Ordering::Acquire) {
                        turns.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    orders.wait_out(3);
    assert_eq!(turns.load(Ordering::Relaxed), 0);
    for _ in 0..100 {
        let before = turns.load(Ordering::Relaxed);
        orders.give(Order::Run);
        while turns.load(Ordering::Relaxed) == before {
            thread::yield_now();
        }
        orders.give(Order::Pause);
        orders.wait_out(3);
        let paused = turns.load(Ordering::Relaxed);
        thread::yield_now();
        assert_eq!(turns.load(Ordering::Relaxed), paused);
    }
    orders.give(Order::Stop);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_thread_that_has_ended_is_out() {
    let orders = Orders::new();
    orders.give(Order::Run);
    orders.retire();
    orders.give(Order::Pause);
    orders.wait_out(1);
    assert_eq!(orders.order(), Order::Pause);
}
