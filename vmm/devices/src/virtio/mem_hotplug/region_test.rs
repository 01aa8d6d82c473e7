//! The state of the region, against a model; and each way to be refused.

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::ports::Reclaim;

/// Where the region is.
const BASE: u64 = 1 << 32;

/// Chunks of the region.
const CHUNKS: u64 = 4;

/// Remembers what the guest has, and refuses one chunk.
#[derive(Default)]
pub(in super::super) struct Host {
    mapped: Mutex<BTreeSet<u32>>,
    given_back: Mutex<Vec<(u64, u64)>>,
    refuses: Option<u32>,
}

impl Reclaim for Host {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        self.given_back.lock().unwrap().push((address, len));
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl MemoryChunks for Host {
    fn map(&self, index: u32) -> io::Result<()> {
        if self.refuses == Some(index) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        assert!(self.mapped.lock().unwrap().insert(index), "chunk {index} twice");
        Ok(())
    }

    fn unmap(&self, index: u32) {
        assert!(self.mapped.lock().unwrap().remove(&index), "chunk {index} was not there");
    }
}

impl Host {
    fn mapped(&self) -> Vec<u32> {
        self.mapped.lock().unwrap().iter().copied().collect()
    }
}

fn region(requested: u64, host: Host) -> (Region, Arc<Host>, Arc<Blocks>) {
    let (host, blocks) = (Arc::new(host), Arc::new(Blocks::new(CHUNKS * CHUNK)));
    let region = Region::new(BASE, Arc::clone(&blocks), host.clone());
    region.request(requested);
    (region, host, blocks)
}

/// `blocks` from block `first` on.
fn span(first: u64, blocks: u16) -> Span {
    Span { address: BASE + first * BLOCK, blocks }
}

#[test]
fn memory_is_plugged_in_and_out() {
    let (region, host, blocks) = region(CHUNK, Host::default());
    assert_eq!(region.plug(span(0, 64)), Answer::Ack);
    assert_eq!((region.plugged(), host.mapped()), (CHUNK, vec![0]));
    assert!(blocks.cover(0, CHUNK.try_into().unwrap()));
    assert_eq!(region.state(span(0, 64)), Answer::State(State::Plugged));
    assert_eq!(region.unplug(span(1, 2)), Answer::Ack);
    assert_eq!((region.plugged(), host.mapped()), (CHUNK - 2 * BLOCK, vec![0]));
    assert_eq!(region.state(span(0, 3)), Answer::State(State::Mixed));
    assert_eq!(region.state(span(1, 2)), Answer::State(State::Unplugged));
    // And whatever may be in chunks of which nothing is there.
    let unused = (BASE + CHUNK, (CHUNKS - 1) * CHUNK);
    assert_eq!(*host.given_back.lock().unwrap(), [(BASE + BLOCK, 2 * BLOCK), unused]);
    assert_eq!(region.unplug(span(0, 1)), Answer::Ack);
    assert_eq!(region.unplug(span(3, 61)), Answer::Ack);
    assert_eq!((region.plugged(), host.mapped()), (0, vec![]));
    assert_eq!(host.given_back.lock().unwrap().last(), Some(&(BASE, CHUNKS * CHUNK)));
}

#[test]
fn a_chunk_goes_back_as_a_whole_with_its_last_block() {
    let (region, host, _) = region(2 * CHUNK, Host::default());
    for first in [PER_CHUNK + 5, 2 * PER_CHUNK] {
        assert_eq!(region.plug(span(first, 1)), Answer::Ack);
    }
    assert_eq!(region.unplug(span(PER_CHUNK + 5, 1)), Answer::Ack);
    let chunks = |first, count| (BASE + first * CHUNK, count * CHUNK);
    let given_back = host.given_back.lock().unwrap();
    assert_eq!(given_back[1..], [chunks(0, 2), chunks(3, CHUNKS - 3)]);
}

#[test]
fn more_than_requested_is_denied_whatever_it_is() {
    let (region, host, _) = region(3 * BLOCK, Host::default());
    assert_eq!(region.plug(span(0, 4)), Answer::Nack);
    assert_eq!(region.plug(span(0, 3)), Answer::Ack);
    assert_eq!(region.plug(span(3, 1)), Answer::Nack);
    region.request(0);
    assert_eq!(region.plug(span(3, 1)), Answer::Nack);
    // What is plugged in stays until the driver gives it back.
    assert_eq!((region.plugged(), host.mapped()), (3 * BLOCK, vec![0]));
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let (region, host, _) = region(u64::MAX, Host::default());
    assert_eq!(region.requested(), CHUNKS * CHUNK);
    let all = CHUNKS * PER_CHUNK;
    let wrong = [
        span(0, 0),
        span(all, 1),
        span(all - 1, 2),
        span(1, u16::MAX),
        Span { address: BASE - BLOCK, blocks: 1 },
        Span { address: BASE + 4096, blocks: 1 },
        Span { address: u64::MAX - 4095, blocks: 1 },
        Span { address: 0, blocks: 1 },
    ];
    for span in wrong {
        for request in [Request::Plug(span), Request::Unplug(span), Request::State(span)] {
            assert_eq!(region.serve(Some(request)), Answer::Error, "{request:?}");
        }
    }
    assert_eq!(region.serve(None), Answer::Error);
    assert_eq!(region.plug(span(5, 2)), Answer::Ack);
    assert_eq!(region.plug(span(6, 2)), Answer::Error, "half of it is there");
    assert_eq!(region.unplug(span(6, 2)), Answer::Error, "half of it is not there");
    assert_eq!((region.plugged(), host.mapped()), (2 * BLOCK, vec![0]));
}

#[test]
fn a_driver_cannot_spread_itself_over_the_region() {
    let (region, host, _) = region(2 * BLOCK, Host::default());
    assert_eq!(region.plug(span(0, 1)), Answer::Ack);
    assert_eq!(region.plug(span(PER_CHUNK, 1)), Answer::Busy);
    assert_eq!(region.plug(span(1, 1)), Answer::Ack);
    region.request(CHUNK + BLOCK);
    assert_eq!(region.plug(span(PER_CHUNK, 1)), Answer::Ack);
    assert_eq!(host.mapped(), [0, 1]);
    // Shrunk, but what is there may be moved about within what is there.
    region.request(3 * BLOCK);
    assert_eq!(region.unplug(span(0, 1)), Answer::Ack);
    assert_eq!(region.plug(span(PER_CHUNK + 1, 1)), Answer::Ack);
}

#[test]
fn a_host_that_refuses_is_busy_and_nothing_has_changed() {
    let (region, host, blocks) = region(u64::MAX, Host { refuses: Some(2), ..Host::default() });
    assert_eq!(region.plug(span(0, 1)), Answer::Ack);
    assert_eq!(region.plug(span(1, 3 * 64 - 1)), Answer::Busy);
    assert_eq!((region.plugged(), host.mapped()), (BLOCK, vec![0]));
    assert_eq!(blocks.count(0..256), 1);
}

#[test]
fn all_of_it_goes_at_once() {
    let (region, host, blocks) = region(u64::MAX, Host::default());
    assert_eq!(region.serve(Some(Request::UnplugAll)), Answer::Ack);
    assert_eq!(*host.given_back.lock().unwrap(), []);
    for first in [0, 70, 130] {
        assert_eq!(region.plug(span(first, 3)), Answer::Ack);
    }
    assert_eq!(host.mapped(), [0, 1, 2]);
    assert_eq!(region.serve(Some(Request::UnplugAll)), Answer::Ack);
    assert_eq!((region.plugged(), host.mapped()), (0, vec![]));
    assert_eq!(blocks.count(0..256), 0);
    assert_eq!(*host.given_back.lock().unwrap(), [(BASE, CHUNKS * CHUNK); 2]);
}

/// What a driver or the host does.
#[derive(Clone, Debug)]
enum Step {
    Request(u64),
    Plug(u64, u16),
    Unplug(u64, u16),
    UnplugAll,
    State(u64, u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..CHUNKS * PER_CHUNK + 4, prop_oneof![0u16..4, 0u16..200, any::<u16>()]);
    let step = prop_oneof![
        1 => (0..CHUNKS * CHUNK).prop_map(Step::Request),
        4 => place().prop_map(|(first, count)| Step::Plug(first, count)),
        3 => place().prop_map(|(first, count)| Step::Unplug(first, count)),
        1 => Just(Step::UnplugAll),
        1 => place().prop_map(|(first, count)| Step::State(first, count)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// A set of blocks behaves the same; the bounds hold after every step.
    #[test]
    fn it_is_a_set_of_blocks(steps in steps()) {
        let (region, host, blocks) = region(0, Host::default());
        let mut model: BTreeSet<u64> = BTreeSet::new();
        let mut most = 0;
        for step in steps {
            let named = |first: u64, count: u16| first..first + u64::from(count);
            match step {
                Step::Request(bytes) => {
                    region.request(bytes);
                    most = most.max(region.requested());
                }
                Step::Plug(first, count) => {
                    if region.plug(span(first, count)) == Answer::Ack {
                        prop_assert!(named(first, count).all(|block| model.insert(block)));
                        prop_assert!(model.len() as u64 * BLOCK <= region.requested());
                    }
                }
                Step::Unplug(first, count) => {
                    let there = count > 0 && named(first, count).all(|b| model.contains(&b));
                    let answer = region.unplug(span(first, count));
                    prop_assert_eq!(answer == Answer::Ack, there);
                    if there {
                        model.retain(|block| !named(first, count).contains(block));
                    }
                }
                Step::UnplugAll => {
                    prop_assert_eq!(region.unplug_all(), Answer::Ack);
                    model.clear();
                }
                Step::State(first, count) => {
                    let count_there = named(first, count).filter(|b| model.contains(b)).count();
                    let expected = match count_there {
                        _ if count == 0 || first + u64::from(count) > 256 => Answer::Error,
                        0 => Answer::State(State::Unplugged),
                        all if all == usize::from(count) => Answer::State(State::Plugged),
                        _ => Answer::State(State::Mixed),
                    };
                    prop_assert_eq!(region.state(span(first, count)), expected);
                }
            }
            prop_assert_eq!(region.plugged(), model.len() as u64 * BLOCK);
            prop_assert_eq!(blocks.count(0..256), model.len() as u64);
            let chunk = |block: &u64| u32::try_from(block / PER_CHUNK).unwrap();
            let chunks: BTreeSet<_> = model.iter().map(chunk).collect();
            prop_assert_eq!(&*host.mapped.lock().unwrap(), &chunks);
            prop_assert!(chunks.len() as u64 <= most.div_ceil(CHUNK));
        }
    }
}
