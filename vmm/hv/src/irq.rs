//! Interrupts: eventfds that KVM turns into messages or IOAPIC pins.
//!
//! KVM takes the routes of all interrupts in one table and waits for every vCPU when it is replaced. A guest
//! programs vectors one by one, several per device, so a changed route is only noted, and the table is
//! replaced by the first interrupt raised afterwards on any changed vector:
//!
//! ```text
//!              connect                raise: table replaced, irqfd made
//! disconnected ───────► noted ──────────────────────────────► live
//!      ▲                  ▲ ◄──────────────────────────────────┘│
//!      └──────────────────┴─────────── disconnect / connect ────┘
//! ```
//!
//! A vector that is dropped gives its irqfd and its place in the table back; the entry that KVM's table has for
//! it leads nowhere then, and is gone with the next replacement.
//!
//! Invariant: a vector that is `live` has exactly its own message in KVM's table; a free place has no irqfd.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::vm::VmError;

/// Pins of the IOAPIC; their interrupt numbers come first.
pub const IOAPIC_PINS: u32 = 24;

/// Most message-signalled vectors of one machine. KVM's own limit is 4096 routes.
const MAX_VECTORS: usize = 1024;

/// Where a message-signalled interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiTarget {
    /// Address written to.
    pub address: u64,
    /// Data written.
    pub data: u32,
}

/// The interrupt routes of one machine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Irqs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    vm: Arc<VmFd>,
    /// By interrupt number; `None` is free.
    routes: Mutex<Vec<Option<Route>>>,
}

/// One vector as the table has it.
#[derive(Debug)]
struct Route {
    /// Where it goes; a masked vector keeps its last target.
    target: Option<MsiTarget>,
    /// What KVM's table has.
    installed: Option<MsiTarget>,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    event: EventFd,
    state: AtomicU8,
}

const DISCONNECTED: u8 = 0;
const NOTED: u8 = 1;
const LIVE: u8 = 2;

/// One message-signalled interrupt vector.
#[derive(Debug)]
pub struct IrqVector {
    shared: Arc<Shared>,
    index: usize,
    line: Arc<Line>,
}

impl Irqs {
    pub(crate) fn new(vm: Arc<VmFd>) -> Self {
        Self { shared: Arc::new(Shared { vm, routes: Mutex::default() }) }
    }

    /// A new vector, disconnected.
    ///
    /// # Errors
    /// If there are too many vectors or descriptors.
    pub fn vector(&self) -> io::Result<IrqVector> {
        let line = Arc::new(Line {
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            state: AtomicU8::new(DISCONNECTED),
        });
        let mut routes = self.shared.routes();
        let free = routes.iter().position(Option::is_none);
        let index = free.unwrap_or(routes.len());
        if index >= MAX_VECTORS {
            return Err(io::Error::other("too many interrupt vectors"));
        }
        let route = Route { target: None, installed: None, line: Arc::clone(&line) };
        match routes.get_mut(index) {
            Some(place) => *place = Some(route),
            None => routes.push(Some(route)),
        }
        Ok(IrqVector { shared: Arc::clone(&self.shared), index, line })
    }

    /// An eventfd that pulses pin `pin` of the IOAPIC (an edge).
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn pin(&self, pin: u8) -> Result<EventFd, VmError> {
        let make = || {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            self.shared.vm.register_irqfd(&event, u32::from(pin)).map(|()| event)
        };
        make().map_err(|errno| VmError::refused("connect an interrupt pin", errno))
    }
}

impl Shared {
    fn routes(&self) -> MutexGuard<'_, Vec<Option<Route>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives KVM all routes, and every connected vector its irqfd.
    fn replace_table(&self) -> io::Result<()> {
        let mut routes = self.routes();
        let table = KvmIrqRouting::from_entries(&entries(&routes))
            .map_err(|_| io::Error::other("too many interrupt routes"))?;
        self.vm.set_gsi_routing(&table)?;
        for (index, route) in routes.iter_mut().enumerate() {
            let Some(route) = route else { continue };
            let first = route.installed.is_none() && route.target.is_some();
            if first {
                self.vm.register_irqfd(&route.line.event, gsi(index))?;
            }
            route.installed = route.target;
            // Disconnected vectors stay so; all changes of state but this one hold the lock, too.
            let state = &route.line.state;
            let _ = state.compare_exchange(NOTED, LIVE, Ordering::AcqRel, Ordering::Acquire);
        }
        Ok(())
    }
}

impl IrqVector {
    /// Notes where the vector goes; `None` disconnects it.
    pub fn connect(&self, target: Option<MsiTarget>) {
        let mut routes = self.shared.routes();
        let Some(Some(route)) = routes.get_mut(self.index) else { return };
        let state = match target {
            None => DISCONNECTED,
            // The table still has it from before it was masked.
            Some(_) if route.installed == target => LIVE,
            Some(_) => NOTED,
        };
        // The target of a masked vector stays in the table: unmasking it is then free.
        if target.is_some() {
            route.target = target;
        }
        self.line.state.store(state, Ordering::Release);
    }

    /// Raises the interrupt; nothing happens while disconnected, or if KVM refuses the route.
    pub fn raise(&self) {
        let live = match self.line.state.load(Ordering::Acquire) {
            LIVE => true,
            NOTED => self.shared.replace_table().is_ok(),
            _ => false,
        };
        if live {
            // An eventfd that is full has its interrupt pending already.
            let _ = self.line.event.write(1);
        }
    }
}

impl Drop for IrqVector {
    fn drop(&mut self) {
        let mut routes = self.shared.routes();
        let Some(place) = routes.get_mut(self.index) else { return };
        if place.take().is_some_and(|route| route.installed.is_some()) {
            // The eventfd is about to be closed, which KVM notices, too; but only when the last copy is gone.
            let _refused = self.shared.vm.unregister_irqfd(&self.line.event, gsi(self.index));
        }
    }
}

/// The global interrupt number of the vector at `index` of the table.
fn gsi(index: usize) -> u32 {
    u32::try_from(index).map_or(u32::MAX, |index| index.saturating_add(IOAPIC_PINS))
}

/// KVM's table: the IOAPIC's pins, then every vector that has a target.
fn entries(routes: &[Option<Route>]) -> Vec<kvm_irq_routing_entry> {
    let pins = (0..IOAPIC_PINS).map(|pin| kvm_irq_routing_entry {
        gsi: pin,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin },
        },
        ..Default::default()
    });
    let vectors = routes.iter().enumerate().filter_map(|(index, route)| {
        let target = route.as_ref()?.target?;
        let [low, high] = halves(target.address);
        Some(kvm_irq_routing_entry {
            gsi: gsi(index),
            type_: KVM_IRQ_ROUTING_MSI,
            u: kvm_irq_routing_entry__bindgen_ty_1 {
                msi: kvm_irq_routing_msi {
                    address_lo: low,
                    address_hi: high,
                    data: target.data,
                    ..Default::default()
                },
            },
            ..Default::default()
        })
    });
    pins.chain(vectors).collect()
}

/// The lower and the upper 32 bits.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

#[cfg(test)]
#[path = "irq_test.rs"]
mod irq_test;
