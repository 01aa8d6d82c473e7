//! A running machine: one thread per vCPU.
//!
//! Invariant: after [`Running::stop`] no vCPU runs, no device works, and the console is written out.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};

use cofferdam_vmm_api::ExitReason;
use cofferdam_vmm_hv::{End, Kicker, Vcpu, install_kick_handler, run_vcpu};

use super::build::{BuildError, Devices, Machine};
use super::outcome::Outcome;
use super::space::Space;

/// A machine that runs.
pub struct Running {
    vcpus: Vec<(Kicker, JoinHandle<()>)>,
    stop: Arc<AtomicBool>,
    devices: Devices,
    outcome: Arc<Outcome>,
}

impl Machine {
    /// Lets all vCPUs run. All but the first wait until the guest starts them.
    ///
    /// # Errors
    /// [`BuildError`]; no vCPU runs then.
    pub fn start(self) -> Result<Running, BuildError> {
        install_kick_handler()?;
        let mut running = Running {
            vcpus: Vec::with_capacity(self.vcpus.len()),
            stop: Arc::new(AtomicBool::new(false)),
            devices: self.devices,
            outcome: self.outcome,
        };
        for (index, vcpu) in self.vcpus.into_iter().enumerate() {
            let started = vcpu.kicker().map_err(BuildError::from).and_then(|kicker| {
                let thread = running.spawn(index, vcpu);
                let thread = thread
                    .map_err(|source| BuildError::Host { what: "start a vCPU's thread", source })?;
                Ok((kicker, thread))
            });
            match started {
                Ok(vcpu) => running.vcpus.push(vcpu),
                Err(error) => {
                    running.stop();
                    return Err(error);
                }
            }
        }
        Ok(running)
    }
}

impl Running {
    fn spawn(&self, index: usize, vcpu: Vcpu) -> io::Result<JoinHandle<()>> {
        let space = Arc::clone(&self.devices.space);
        let stop = Arc::clone(&self.stop);
        let outcome = Arc::clone(&self.outcome);
        Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || vcpu_thread(index, vcpu, &space, (&stop, &outcome)))
    }

    /// What it tells.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Stops vCPUs, then devices. What the guest has not flushed is lost, as when power is cut.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        for (kicker, thread) in &mut self.vcpus {
            kicker.kick(thread);
        }
        for (_, thread) in self.vcpus.drain(..) {
            // A thread that panicked has ended, too.
            let _ = thread.join();
        }
        if let Some(serial) = &self.devices.serial {
            serial.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
        // The devices' workers stop as their functions are dropped with `self`.
    }
}

fn vcpu_thread(
    index: usize,
    mut vcpu: Vcpu,
    space: &Space,
    (stop, outcome): (&AtomicBool, &Outcome),
) {
    match run_vcpu(&mut vcpu, space, stop) {
        End::Stopped => {}
        End::Shutdown => outcome.end(ExitReason::TripleFault),
        End::Failed(why) => outcome.end(ExitReason::Error(format!("vCPU {index}: {why}"))),
    }
}
