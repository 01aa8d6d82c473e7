//! A running machine: one thread per vCPU.
//!
//! Invariant: no vCPU enters the guest before every thread of the machine is confined; after
//! [`Running::stop`] no vCPU runs, no device works, and the console is written out.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use cofferdam_vmm_api::{ExitReason, MemoryState, MiB, Stats};
use cofferdam_vmm_hv::{End, ExitCounts, Kicker, Vcpu, install_kick_handler, run_vcpu};

use super::build::{BuildError, Devices, Machine};
use super::crew::Crew;
use super::memory::ResizeError;
use super::meter::Meter;
use super::orders::{Order, Orders};
use super::outcome::Outcome;
use super::space::Space;
use crate::jail::Kind;

/// A machine that runs, or is paused.
pub struct Running {
    vcpus: Vec<(Kicker, JoinHandle<()>)>,
    orders: Arc<Orders>,
    pub(super) devices: Devices,
    outcome: Arc<Outcome>,
    pub(super) meter: Meter,
}

impl Machine {
    /// Confines all threads, the calling one among them for the rest of its life, and lets all vCPUs run.
    /// All but the first wait until the guest starts them.
    ///
    /// # Errors
    /// [`BuildError`]; no vCPU runs then.
    pub fn start(self) -> Result<Running, BuildError> {
        install_kick_handler()?;
        let mut running = Running {
            vcpus: Vec::with_capacity(self.vcpus.len()),
            orders: Arc::new(Orders::new()),
            devices: self.devices,
            outcome: self.outcome,
            meter: self.meter,
        };
        for (index, vcpu) in self.vcpus.into_iter().enumerate() {
            let started = vcpu.kicker().map_err(BuildError::from).and_then(|kicker| {
                let thread = running.spawn(&self.crew, index, vcpu);
                Ok((kicker, thread.map_err(BuildError::host("start a vCPU's thread"))?))
            });
            match started {
                Ok(vcpu) => running.vcpus.push(vcpu),
                Err(error) => {
                    running.stop();
                    return Err(error);
                }
            }
        }
        if let Err(error) = self.crew.confined() {
            running.stop();
            return Err(BuildError::host("install a system-call filter")(error));
        }
        running.orders.give(Order::Run);
        Ok(running)
    }
}

impl Running {
    fn spawn(&mut self, crew: &Crew, index: usize, vcpu: Vcpu) -> io::Result<JoinHandle<()>> {
        let thread = VcpuThread {
            index,
            vcpu,
            space: Arc::clone(&self.devices.space),
            orders: Arc::clone(&self.orders),
            outcome: Arc::clone(&self.outcome),
            counts: self.meter.add_vcpu(),
        };
        crew.spawn(format!("vcpu{index}"), Kind::Vcpu, move || thread.run())
    }

    /// What it tells.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.meter.read(self.orders.order() == Order::Pause)
    }

    /// Has the guest take or give back memory until it has `wanted`; how far it is.
    ///
    /// # Errors
    /// [`ResizeError`]; nothing has changed then.
    pub fn set_memory(&self, wanted: MiB) -> Result<MemoryState, ResizeError> {
        self.devices.memory.set(wanted)
    }

    /// How much memory the guest has.
    #[must_use]
    pub fn memory(&self) -> MemoryState {
        self.devices.memory.state()
    }

    /// Returns when no vCPU is in the guest. Devices go on: what was asked of them is answered, and found by
    /// the guest when it runs again.
    pub fn pause(&mut self) {
        self.order(Order::Pause);
        self.orders.wait_out(self.vcpus.len());
    }

    /// Undoes [`Running::pause`].
    pub fn resume(&mut self) {
        self.orders.give(Order::Run);
    }

    /// Gives an order that makes vCPUs leave the guest.
    fn order(&mut self, order: Order) {
        self.orders.give(order);
        for (kicker, thread) in &mut self.vcpus {
            kicker.kick(thread);
        }
    }

    /// Stops vCPUs, then devices; gives the last account. What the guest has not flushed is lost, as when
    /// power is cut.
    pub fn stop(mut self) -> Stats {
        self.order(Order::Stop);
        for (_, thread) in self.vcpus.drain(..) {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
        if let Some(serial) = &self.devices.serial {
            serial.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
        self.stats()
        // The devices' work ends as their functions are dropped with `self`.
    }
}

/// What a vCPU's thread works with.
struct VcpuThread {
    index: usize,
    vcpu: Vcpu,
    space: Arc<Space>,
    orders: Arc<Orders>,
    outcome: Arc<Outcome>,
    counts: Arc<ExitCounts>,
}

impl VcpuThread {
    fn run(self) {
        let Self { index, mut vcpu, space, orders, outcome, counts } = self;
        while orders.obey(|| vcpu.rearm()) == Order::Run {
            match run_vcpu(&mut vcpu, space.as_ref(), orders.leave(), &counts) {
                End::Stopped => continue,
                End::Shutdown => outcome.end(ExitReason::TripleFault),
                End::Failed(why) => outcome.end(ExitReason::Error(format!("vCPU {index}: {why}"))),
            }
            return orders.retire();
        }
    }
}
