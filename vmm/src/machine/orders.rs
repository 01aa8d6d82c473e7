//! What the vCPUs' threads are told: to run, to pause, to stop.
//!
//! ```text
//!            run                     stop
//! paused ◄─────────► running ──────────────► stopped
//!            pause      (from paused, too)
//! ```
//!
//! Invariant: a thread enters the guest only while the order is to run; a kick that follows an order reaches
//! a thread that has not seen it yet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Enter the guest.
    Run,
    /// Wait for another order.
    Pause,
    /// End.
    Stop,
}

/// The order of the moment.
#[derive(Debug)]
pub(super) struct Orders {
    /// True unless the order is to run: what a thread in the guest looks at.
    leave: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    order: Order,
    /// Threads that are not in the guest and will not enter it before the next order.
    out: usize,
}

impl Orders {
    /// To pause.
    pub(super) fn new() -> Self {
        let state = Mutex::new(State { order: Order::Pause, out: 0 });
        Self { leave: AtomicBool::new(true), state, changed: Condvar::new() }
    }

    /// Gives an order. Threads that are in the guest must be kicked afterwards.
    pub(super) fn give(&self, order: Order) {
        let mut state = self.state();
        state.order = order;
        self.leave.store(order != Order::Run, Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    /// The order of the moment.
    pub(super) fn order(&self) -> Order {
        self.state().order
    }

    /// True when a thread is to leave the guest.
    pub(super) fn leave(&self) -> &AtomicBool {
        &self.leave
    }

    /// Called by a thread that is out of the guest: waits until it is to run or to stop. When it is to run,
    /// `prepare` is called before the next order can be given.
    pub(super) fn obey(&self, prepare: impl FnOnce()) -> Order {
        let mut state = self.state();
        state.out += 1;
        self.changed.notify_all();
        let state = self.changed.wait_while(state, |state| state.order == Order::Pause);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.order == Order::Run {
            state.out -= 1;
            prepare();
        }
        state.order
    }

    /// Called by a thread that will never enter the guest again.
    pub(super) fn retire(&self) {
        self.state().out += 1;
        self.changed.notify_all();
    }

    /// Waits until `count` threads are out of the guest.
    pub(super) fn wait_out(&self, count: usize) {
        let all_out = self.changed.wait_while(self.state(), |state| state.out < count);
        drop(all_out);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "orders_test.rs"]
mod orders_test;
