//! Network cards that come to and go from a running machine.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use cofferdam_shim::pod::{AttachedNet, NewDisk, NewNet};
use cofferdam_vmm_api::{Bdf, Mac};
use nix::sched::{CloneFlags, unshare};

use super::cases;
use crate::live::{Images, Live, run};
use crate::tap;

cases!("netplug":
    ten_cards_come_and_go_and_each_reaches_its_own_tap,
);

/// Cards that there are at most at once.
const CARDS: u8 = 10;

/// A pod, and which of the cards are attached.
struct Rack {
    live: Live,
    attached: BTreeMap<u8, AttachedNet>,
}

impl Rack {
    /// Attaches those of `wanted`, each to a tap of its own with a network of its own.
    async fn attach(&mut self, wanted: &[u8]) -> Result<()> {
        let cards = wanted.iter().map(|index| card(*index)).collect::<Result<_>>()?;
        let attached = self.live.pod.attach_nets(cards).await?;
        ensure!(attached.len() == wanted.len(), "{attached:?}");
        for index in wanted {
            let network = format!("10.9.{index}.1/24");
            ip(&["addr", "add", &network, "dev", &name(*index)])?;
            ip(&["link", "set", &name(*index), "up"])?;
        }
        self.attached.extend(wanted.iter().copied().zip(attached));
        Ok(())
    }

    async fn detach(&mut self, wanted: &[u8]) -> Result<()> {
        let place = |index| self.attached.remove(index).map(|net| net.address);
        let places: Option<Vec<_>> = wanted.iter().map(place).collect();
        self.live.pod.detach(&places.context("not attached")?).await?;
        for index in wanted {
            ensure!(ip(&["link", "show", &name(*index)]).is_err(), "the tap is still there");
        }
        Ok(())
    }

    /// The guest has the interfaces of those cards that are attached, and reaches the host through each.
    async fn check(&self) -> Result<()> {
        let mut script =
            "for path in $(busybox ip -o link | cut -d: -f2); do echo $path; done\n".to_owned();
        for (index, net) in &self.attached {
            let interface = &net.interface;
            script += &format!(
                "busybox ip addr add 10.9.{index}.2/24 dev {interface} 2> /dev/null\n\
                 busybox ip link set {interface} up\n\
                 busybox ping -c 1 -W 60 10.9.{index}.1 > /dev/null || echo no answer to {index}\n"
            );
        }
        let found = self.live.shell(&[], &script).await?;
        let found: BTreeSet<_> = found.lines().filter(|name| *name != "lo").collect();
        let expected: BTreeSet<_> =
            self.attached.values().map(|net| net.interface.as_str()).collect();
        ensure!(found == expected, "found {found:?}, expected {expected:?}");
        Ok(())
    }

    fn places(&self) -> BTreeSet<Bdf> {
        self.attached.values().map(|net| net.address).collect()
    }
}

fn name(index: u8) -> String {
    format!("coffplug{index}")
}

fn card(index: u8) -> Result<NewNet> {
    Ok(NewNet { taps: vec![tap::make(&name(index))?], mac: Mac([2, 0, 0, 0, 1, index]), mtu: None })
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    ensure!(command.status().context("starting ip")?.success(), "ip {arguments:?}");
    Ok(())
}

fn ten_cards_come_and_go_and_each_reaches_its_own_tap() -> Result<()> {
    // The driver of taps may be a module.
    let _built_in = Command::new("modprobe").arg("tun").status();
    // In a network namespace of its own, which ends with the thread.
    let case = || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        run(come_and_go())
    };
    let joined = thread::scope(|scope| scope.spawn(case).join());
    joined.map_err(|_| anyhow::anyhow!("the case panicked"))?
}

async fn come_and_go() -> Result<()> {
    let mut rack = Rack { live: Live::start().await?, attached: BTreeMap::new() };
    rack.check().await?;
    let before = rack.live.holdings()?;
    let all: Vec<_> = (0..CARDS).collect();
    rack.attach(&all).await?;
    let places = rack.places();
    rack.check().await?;
    // The same address twice is refused, and nothing of it stays.
    let twice = NewNet { mac: Mac([2, 0, 0, 0, 1, 0]), ..card(CARDS)? };
    let refused = rack.live.pod.attach_nets(vec![twice]).await.err().context("attached twice")?;
    ensure!(refused.to_string().ends_with("is plugged in already"), "{refused}");
    for gone in [&[7, 0, 3][..], &[9, 1, 8, 4, 6], &[2]] {
        rack.detach(gone).await?;
        rack.check().await?;
        rack.attach(gone).await?;
        ensure!(rack.places() == places, "{:?} instead of {places:?}", rack.places());
        rack.check().await?;
    }
    // A card's place serves a disk, and the disk is the right one.
    rack.detach(&[5, 2]).await?;
    let images = Images::new([("file", "content")].into_iter())?;
    let disk = NewDisk { file: images.file(0)?, readonly: true };
    let attached = rack.live.pod.attach(vec![disk]).await?;
    let place: Vec<_> = attached.iter().map(|disk| disk.address).collect();
    ensure!(place.iter().all(|place| places.contains(place)), "{place:?} of {places:?}");
    let text = rack.live.shell(&place, "cat /file").await?;
    ensure!(text == "content", "{text}");
    rack.live.pod.detach(&place).await?;
    rack.attach(&[2, 5]).await?;
    rack.detach(&all).await?;
    rack.check().await?;
    let after = rack.live.holdings()?;
    ensure!(before == after, "{before:?}, {after:?}");
    rack.live.pod.stop().await;
    Ok(())
}
