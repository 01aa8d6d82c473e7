//! All connections of a device: by number and by ports, with their turns and deadlines.
//!
//! Pure bookkeeping. Invariants: at most [`MAX_CONNECTIONS`] entries; each has at most one turn and one
//! deadline; what is removed leaves nothing behind; the buffer space promised in all is bounded.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use super::connection::Key;

/// Most connections at once.
pub(super) const MAX_CONNECTIONS: usize = 4096;

/// Ports on the host's side of connections that the host began. The guest cannot know them beforehand;
/// should it connect to one by itself, no harm is done: names are pairs of ports.
const EPHEMERAL: std::ops::Range<u32> = 0x4000_0000..0x8000_0000;

/// Buffer space of all connections together before new ones get [`MIN_PROMISE`] only. So a guest whose
/// host reads nothing can make us hold at most this and `MAX_CONNECTIONS * MIN_PROMISE`: 128 MiB.
const BUDGET: u32 = 64 << 20;

/// Largest buffer of a connection in bytes.
const MAX_PROMISE: u32 = 256 << 10;

/// Smallest buffer of a connection in bytes.
const MIN_PROMISE: u32 = 16 << 10;

/// A connection's number; never used twice.
pub(super) type Id = u64;

#[derive(Debug)]
struct Entry<T> {
    value: T,
    key: Option<Key>,
    promise: u32,
    waits: bool,
    deadline: Option<Instant>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table<T> {
    entries: HashMap<Id, Entry<T>>,
    names: HashMap<Key, Id>,
    turns: VecDeque<Id>,
    deadlines: BTreeSet<(Instant, Id)>,
    promised: u32,
    next_id: Id,
    next_port: u32,
}

impl<T> Table<T> {
    /// An empty table.
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            names: HashMap::new(),
            turns: VecDeque::new(),
            deadlines: BTreeSet::new(),
            promised: 0,
            next_id: 0,
            next_port: EPHEMERAL.start,
        }
    }

    /// Whether no more connections fit.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_CONNECTIONS
    }

    /// A port for the host's side of a connection to `guest_port` that is in use for no other one.
    pub(super) fn free_key(&mut self, guest_port: u32) -> Key {
        loop {
            let host_port = self.next_port;
            self.next_port =
                if host_port + 1 < EPHEMERAL.end { host_port + 1 } else { EPHEMERAL.start };
            let key = Key { host_port, guest_port };
            // Ends: there are far more ports than entries.
            if !self.names.contains_key(&key) {
                return key;
            }
        }
    }

    /// The buffer space to promise to the next connection: large ones for the first hundreds.
    pub(super) fn next_promise(&self) -> u32 {
        (BUDGET.saturating_sub(self.promised) / 32).clamp(MIN_PROMISE, MAX_PROMISE)
    }

    /// Adds a connection that was promised `promise` bytes. None if the table is full or the name taken.
    pub(super) fn insert(&mut self, key: Key, promise: u32, value: T) -> Option<Id> {
        if self.is_full() || self.names.contains_key(&key) {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.promised = self.promised.saturating_add(promise);
        let entry = Entry { value, key: Some(key), promise, waits: false, deadline: None };
        self.entries.insert(id, entry);
        self.names.insert(key, id);
        Some(id)
    }

    /// The connection of this name.
    pub(super) fn find(&self, key: Key) -> Option<Id> {
        self.names.get(&key).copied()
    }

    /// The connection of this number.
    pub(super) fn get(&mut self, id: Id) -> Option<&mut T> {
        self.entries.get_mut(&id).map(|entry| &mut entry.value)
    }

    /// Takes a connection's name away: for the guest it is gone. It gets no more turns.
    pub(super) fn forget_name(&mut self, id: Id) {
        if let Some(key) = self.entries.get_mut(&id).and_then(|entry| entry.key.take()) {
            self.names.remove(&key);
        }
        self.end_turn(id);
        self.set_deadline(id, None);
    }

    /// Whether the guest still knows the connection.
    pub(super) fn has_name(&self, id: Id) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.key.is_some())
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        self.forget_name(id);
        let entry = self.entries.remove(&id)?;
        self.promised -= entry.promise;
        Some(entry.value)
    }

    /// Gives a connection a turn, after all that have one already.
    pub(super) fn give_turn(&mut self, id: Id) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|e| !e.waits && e.key.is_some()) {
            entry.waits = true;
            self.turns.push_back(id);
        }
    }

    /// Whose turn it is, if anybody's.
    pub(super) fn take_turn(&mut self) -> Option<Id> {
        let id = self.turns.pop_front()?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.waits = false;
        }
        Some(id)
    }

    /// Whether anybody has a turn.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Removing at once what will have no turn keeps the list as short as the table.
    fn end_turn(&mut self, id: Id) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.waits) {
            entry.waits = false;
            self.turns.retain(|turn| *turn != id);
        }
    }

    /// Sets or clears a connection's deadline.
    pub(super) fn set_deadline(&mut self, id: Id, deadline: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut entry.deadline, deadline) {
            self.deadlines.remove(&(old, id));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, id));
        }
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A connection whose deadline has passed.
    pub(super) fn expired(&self, now: Instant) -> Option<Id> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}

#[cfg(test)]
#[path = "table_test.rs"]
mod table_test;
