//! Work comes and goes; the thread stays.

use std::sync::Mutex;

use super::super::testing::{PlainThreads, thread};
use super::*;

#[test]
fn one_thread_does_all_the_work() {
    let thread = thread();
    let seen = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..3 {
        let seen = Arc::clone(&seen);
        let worker = thread.run(move |stop| {
            seen.lock().unwrap().push(std::thread::current().id());
            while !stop.requested() {
                std::thread::yield_now();
            }
        });
        worker.unwrap().stop();
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
}

#[test]
fn a_stop_waits_for_the_end() {
    let thread = thread();
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let worker = thread.run(move |stop| {
        while !stop.requested() {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        flag.store(true, Ordering::Release);
    });
    worker.unwrap().stop();
    assert!(ended.load(Ordering::Acquire));
}

#[test]
fn a_thread_that_is_gone_takes_no_work() {
    let thread = Arc::new(DeviceThread::start(DeviceId::Rng, &PlainThreads).unwrap());
    let worker = thread.run(|_| panic!("on purpose")).unwrap();
    worker.stop();
    while !thread.handle.as_ref().unwrap().is_finished() {
        std::thread::yield_now();
    }
    assert!(thread.run(|_| {}).is_err());
}
