//! The control queue (virtio 1.2, 5.1.6.5): what it asks for, and the state that this makes. Pure.
//!
//! Invariant: a command that is refused changes nothing; the state stays small whatever is sent.

use serde::{Deserialize, Serialize};

/// Most bytes of a command that are looked at. Longer ones are refused.
pub(super) const MAX_COMMAND: usize = 4096;

/// Bytes of a MAC address.
pub const MAC_LEN: usize = 6;

/// Most addresses of each table; with more, the table lets everything through.
const MAX_TABLE: usize = 64;

/// Classes and their commands.
const CLASS_RX: u8 = 0;
const CLASS_MAC: u8 = 1;
const MAC_TABLE_SET: u8 = 0;
const MAC_ADDR_SET: u8 = 1;
const CLASS_MQ: u8 = 4;
const MQ_VQ_PAIRS_SET: u8 = 0;

/// Receive modes, by their commands.
const MODES: usize = 6;
const PROMISC: usize = 0;
const ALLMULTI: usize = 1;
const ALLUNI: usize = 2;
const NOMULTI: usize = 3;
const NOUNI: usize = 4;
const NOBCAST: usize = 5;

/// A MAC address.
pub type Mac = [u8; MAC_LEN];

/// A table of addresses; `None` lets everything through.
type Table = Option<Vec<Mac>>;

/// What the driver has set; plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Control {
    /// Queue pairs in use.
    pub(super) pairs: u16,
    max_pairs: u16,
    /// The card's own address, if it is known.
    pub(super) mac: Option<Mac>,
    modes: [bool; MODES],
    unicast: Table,
    multicast: Table,
}

/// A command that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a control command that makes no sense")]
pub(super) struct Refused;

impl Control {
    /// After reset: one queue pair, and everything is received.
    pub(super) fn new(mac: Option<Mac>, max_pairs: u16) -> Self {
        let mut modes = [false; MODES];
        modes[PROMISC] = true;
        Self { pairs: 1, max_pairs, mac, modes, unicast: Some(vec![]), multicast: Some(vec![]) }
    }

    /// Does what a command says: class, command and data, without the room for the answer.
    pub(super) fn perform(&mut self, command: &[u8]) -> Result<(), Refused> {
        let (&[class, command], data) = command.split_first_chunk::<2>().ok_or(Refused)?;
        match (class, command) {
            (CLASS_RX, mode) => {
                let mode = self.modes.get_mut(usize::from(mode)).ok_or(Refused)?;
                *mode = match data {
                    [0] => false,
                    [1] => true,
                    _ => return Err(Refused),
                };
            }
            (CLASS_MAC, MAC_TABLE_SET) => {
                let (unicast, rest) = table(data)?;
                let (multicast, rest) = table(rest)?;
                if !rest.is_empty() {
                    return Err(Refused);
                }
                (self.unicast, self.multicast) = (unicast, multicast);
            }
            (CLASS_MAC, MAC_ADDR_SET) => self.mac = Some(data.try_into().map_err(|_| Refused)?),
            (CLASS_MQ, MQ_VQ_PAIRS_SET) => {
                let pairs = u16::from_le_bytes(data.try_into().map_err(|_| Refused)?);
                if !(1..=self.max_pairs).contains(&pairs) {
                    return Err(Refused);
                }
                self.pairs = pairs;
            }
            _ => return Err(Refused),
        }
        Ok(())
    }

    /// Whether the driver wants a frame to this address.
    pub(super) fn accepts(&self, to: Mac) -> bool {
        let contains = |table: &Table| table.as_ref().is_none_or(|table| table.contains(&to));
        let multicast = to[0] & 1 != 0;
        if self.modes[PROMISC] {
            true
        } else if to == [0xff; MAC_LEN] {
            !self.modes[NOBCAST]
        } else if multicast {
            !self.modes[NOMULTI] && (self.modes[ALLMULTI] || contains(&self.multicast))
        } else {
            // Without an address of its own known, all are.
            let own = self.mac.is_none_or(|mac| mac == to);
            !self.modes[NOUNI] && (own || self.modes[ALLUNI] || contains(&self.unicast))
        }
    }
}

/// A table of addresses at the start of `data`, and what follows it.
fn table(data: &[u8]) -> Result<(Table, &[u8]), Refused> {
    let (&count, rest) = data.split_first_chunk::<4>().ok_or(Refused)?;
    let count = usize::try_from(u32::from_le_bytes(count)).map_err(|_| Refused)?;
    let bytes = count.checked_mul(MAC_LEN).ok_or(Refused)?;
    let (list, rest) = rest.split_at_checked(bytes).ok_or(Refused)?;
    let (list, _) = list.as_chunks::<MAC_LEN>();
    Ok(((count <= MAX_TABLE).then(|| list.to_vec()), rest))
}

#[cfg(test)]
#[path = "control_test.rs"]
mod control_test;
