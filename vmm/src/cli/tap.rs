//! Network cards of a machine that is booted by hand: `--tap NAME[,mac=M][,queues=N][,mtu=N]`.
//!
//! Invariant: the tap is ready to be used when the monitor gets it; an error names it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::str::FromStr;

use anyhow::Context;
use cofferdam_vmm_api::{Mac, NetSpec};

use super::files::Outbox;
use crate::sys;

/// Bytes of the header before each frame: `virtio_net_hdr` of a modern device.
const HEADER: i32 = 12;

/// A tap as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TapArg {
    name: String,
    queues: u8,
    mac: Option<Mac>,
    mtu: Option<u16>,
}

impl FromStr for TapArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default().to_owned();
        let mut tap = Self { name, queues: 1, mac: None, mtu: None };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let number = || value.parse::<u16>().map_err(|_| format!("{key}: expected a number"));
            match key {
                "queues" => {
                    tap.queues = number()?.try_into().map_err(|_| "too many queues".to_owned())?;
                }
                "mtu" => tap.mtu = Some(number()?),
                "mac" => tap.mac = Some(value.parse().map_err(|error| format!("{error}"))?),
                _ => return Err(format!("{part:?}: expected mac=, queues= or mtu=")),
            }
        }
        Ok(tap)
    }
}

/// Opens all queues of a tap. It is made if there is none, and is then gone with the machine.
pub(super) fn open(tap: &TapArg, outbox: &mut Outbox) -> anyhow::Result<NetSpec> {
    let mut taps = Vec::new();
    for _ in 0..tap.queues {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun").context("cannot open /dev/net/tun")?;
        sys::attach_tap(&file, &tap.name, tap.queues > 1, HEADER)
            .with_context(|| format!("cannot use the tap {}", tap.name))?;
        taps.push(outbox.add(file)?);
    }
    Ok(NetSpec { taps, mac: tap.mac, mtu: tap.mtu })
}

#[cfg(test)]
#[path = "tap_test.rs"]
mod tap_test;
