//! Threads that are confined, and those that cannot be.

use std::sync::mpsc::channel;

use super::*;
use crate::testing::shrink_a_heap;

fn crew() -> Crew {
    shrink_a_heap();
    Crew::new(Arc::new(Filters::new().unwrap()))
}

#[test]
fn a_device_without_a_filter_gets_no_thread() {
    let error = crew().start(DeviceId::Fs, Box::new(|| ())).unwrap_err();
    assert_eq!(error.to_string(), "no system-call filter for a fs device");
}

#[test]
fn all_threads_are_confined_before_the_first_one_is() {
    // On a thread of its own: a filter stays.
    let first = std::thread::spawn(|| {
        let crew = crew();
        let (begin, begun) = channel::<()>();
        let threads: Vec<_> = [DeviceId::Rng, DeviceId::Block, DeviceId::Vsock, DeviceId::Net]
            .into_iter()
            .map(|id| {
                let begin = begin.clone();
                crew.start(id, Box::new(move || begin.send(()).unwrap())).unwrap()
            })
            .collect();
        crew.confined().unwrap();
        drop(begin);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        begun.iter().count()
    });
    assert_eq!(first.join().unwrap(), 4);
}

#[test]
fn spares_are_confined_and_serve_again_and_again() {
    // On a thread of its own: a filter stays.
    let first = std::thread::spawn(|| {
        let crew = crew();
        let spares = crew.spares(2).unwrap();
        crew.confined().unwrap();
        let (done, count) = channel();
        for spare in spares.iter().cycle().take(6) {
            let done = done.clone();
            spare.run(move |_| done.send(()).unwrap()).unwrap().stop();
        }
        drop((done, spares));
        count.iter().count()
    });
    assert_eq!(first.join().unwrap(), 6);
}
