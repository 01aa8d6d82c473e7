//! Disks that come to and go from a running machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cofferdam_shim::pod::NewDisk;
use cofferdam_vmm_api::Bdf;
use tempfile::{NamedTempFile, TempDir};

use super::cases;
use crate::live::{Images, Live, run};

cases!("hotplug":
    forty_disks_come_and_go_in_any_order,
    a_mounted_disk_is_not_let_go_of,
    a_disk_that_was_written_to_goes_and_comes_back,
    a_place_that_the_guest_did_not_leave_is_not_used_again,
);

/// Disks that there are at most at once, and that come or go at once.
const DISKS: usize = 40;
const BATCH: usize = 10;

/// Disks attached and detached, all together. `COFFERDAM_CASE_HOTPLUG_OPERATIONS` sets another number.
const OPERATIONS: usize = 100;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Numbers in no apparent order (xorshift), the same for the same seed.
struct Random(u64);

impl Random {
    /// The seed is printed, and can be given as `COFFERDAM_CASE_HOTPLUG_SEED`.
    fn new() -> Self {
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
        let seed = setting("COFFERDAM_CASE_HOTPLUG_SEED").unwrap_or_else(clock).max(1);
        println!("COFFERDAM_CASE_HOTPLUG_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: usize) -> usize {
        for shift in [13i32, -7, 17] {
            self.0 ^= if shift > 0 { self.0 << shift } else { self.0 >> -shift };
        }
        usize::try_from(self.0 % end.max(1) as u64).unwrap_or(0)
    }

    /// Takes `count` of `all`.
    fn pick(&mut self, all: &mut Vec<usize>, count: usize) -> Vec<usize> {
        (0..count.min(all.len())).map(|_| all.swap_remove(self.below(all.len()))).collect()
    }
}

fn name(index: usize) -> String {
    format!("disk-{index:02}")
}

fn content(index: usize) -> String {
    format!("content {} of {index}", index * 7919)
}

/// A pod, and which of the images are attached where.
struct Rack {
    live: Live,
    images: Images,
    attached: BTreeMap<usize, Bdf>,
    operations: usize,
}

impl Rack {
    async fn new(count: usize) -> Result<Self> {
        let files: Vec<_> = (0..count).map(|index| (name(index), content(index))).collect();
        let files = files.iter().map(|(name, content)| (name.as_str(), content.as_str()));
        let images = Images::new(files)?;
        let live = Live::start().await?;
        Ok(Self { live, images, attached: BTreeMap::new(), operations: 0 })
    }

    async fn attach(&mut self, wanted: &[usize]) -> Result<Vec<Bdf>> {
        let disk = |index: &usize| Ok(NewDisk { file: self.images.file(*index)?, readonly: true });
        let disks = wanted.iter().map(disk).collect::<Result<_>>()?;
        let attached = self.live.pod.attach(disks).await?;
        let places: Vec<_> = attached.iter().map(|disk| disk.address).collect();
        ensure!(places.len() == wanted.len());
        for (index, place) in wanted.iter().zip(&places) {
            ensure!(!self.attached.values().any(|taken| taken == place), "{place} is taken");
            self.attached.insert(*index, *place);
        }
        self.operations += wanted.len();
        Ok(places)
    }

    async fn detach(&mut self, wanted: &[usize]) -> Result<()> {
        let place = |index| self.attached.remove(index).context("not attached");
        let places = wanted.iter().map(place).collect::<Result<Vec<_>>>()?;
        self.operations += wanted.len();
        Ok(self.live.pod.detach(&places).await?)
    }

    /// Those of the attached disks that `wanted` takes, and no others, are behind their addresses.
    async fn check(&self, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let wanted: Vec<_> = self.attached.iter().filter(|(index, _)| wanted(**index)).collect();
        let places: Vec<_> = wanted.iter().map(|(_, place)| **place).collect();
        let script = "cd /; for f in disk-*; do [ -e $f ] && echo \"$f: $(cat $f)\"; done; true";
        let found = self.live.shell(&places, script).await?;
        let line = |index| format!("{}: {}\n", name(index), content(index));
        let expected: String = wanted.iter().map(|(index, _)| line(**index)).collect();
        ensure!(found == expected, "found {found}\nexpected {expected}");
        Ok(())
    }

    /// Each attached disk is behind its own address: which of the sets it is in, one for each bit of its number, tells
    /// it from every other.
    async fn check_each(&self) -> Result<()> {
        for bit in 0..6 {
            self.check(|index| index >> bit & 1 == 1).await?;
        }
        Ok(())
    }

    fn there(&self) -> Vec<usize> {
        self.attached.keys().copied().collect()
    }
}

/// Attaches all disks, then detaches and attaches as many as chance has it until there were `operations`.
async fn shuffle(rack: &mut Rack, operations: usize) -> Result<BTreeSet<Bdf>> {
    let mut random = Random::new();
    let mut away: Vec<_> = (0..DISKS).collect();
    let mut places = BTreeSet::new();
    while !away.is_empty() {
        places.extend(rack.attach(&random.pick(&mut away, BATCH)).await?);
    }
    rack.check_each().await?;
    while rack.operations + rack.attached.len() < operations {
        let count = 1 + random.below(BATCH);
        let gone = random.pick(&mut rack.there(), count);
        rack.detach(&gone).await?;
        away.extend(gone);
        let count = 1 + random.below(BATCH);
        places.extend(rack.attach(&random.pick(&mut away, count)).await?);
        let half = random.0;
        rack.check(|index| half >> index & 1 == 1).await?;
    }
    rack.check_each().await?;
    while !rack.attached.is_empty() {
        rack.detach(&random.pick(&mut rack.there(), BATCH)).await?;
    }
    Ok(places)
}

fn forty_disks_come_and_go_in_any_order() -> Result<()> {
    run(async {
        let operations = setting("COFFERDAM_CASE_HOTPLUG_OPERATIONS");
        let operations = operations.map_or(Ok(OPERATIONS), usize::try_from)?;
        let mut rack = Rack::new(DISKS).await?;
        // What the agent and the monitor need for the first container stays.
        rack.live.shell(&[], "true").await?;
        let before = rack.live.holdings()?;
        let began = Instant::now();
        let places = shuffle(&mut rack, operations).await?;
        println!("{} operations in {:?}", rack.operations, began.elapsed());
        let after = rack.live.holdings()?;
        ensure!(before == after, "after {} operations: {before:?}, {after:?}", rack.operations);
        ensure!(places.len() == DISKS, "{} places for {DISKS} disks: {places:?}", places.len());
        let again = rack.attach(&[0]).await?;
        ensure!(again.first() == places.first(), "{again:?} first, of {places:?}");
        rack.check_each().await?;
        rack.live.pod.stop().await;
        Ok(())
    })
}

fn a_mounted_disk_is_not_let_go_of() -> Result<()> {
    run(async {
        let mut rack = Rack::new(1).await?;
        let place = rack.attach(&[0]).await?;
        let user = rack.live.hold(&place).await?;
        refuses(&rack.live, &place).await?;
        rack.check_each().await?;
        rack.live.pod.delete(&user, "", true).await?;
        rack.detach(&[0]).await?;
        rack.live.pod.stop().await;
        Ok(())
    })
}

/// The guest keeps the disks, because one is mounted.
async fn refuses(live: &Live, places: &[Bdf]) -> Result<()> {
    let refused = live.pod.detach(places).await.map_err(|error| error.to_string());
    let text = refused.err().context("it was let go of")?;
    ensure!(text.ends_with("is mounted"), "{text}");
    Ok(())
}

/// An ext4 file system with the one file `kept`.
fn writable_disk() -> Result<NamedTempFile> {
    let (root, disk) = (TempDir::with_prefix("root-")?, NamedTempFile::new()?);
    std::fs::write(root.path().join("kept"), content(0))?;
    disk.as_file().set_len(32 << 20)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-d"]).args([root.path(), disk.path()]);
    said(&mut mke2fs)?;
    Ok(disk)
}

/// What a program prints that must succeed.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The file system was unmounted, is whole, and holds what it held at first, and nothing more.
fn is_as_it_was(disk: &Path) -> Result<()> {
    let state = said(Command::new("dumpe2fs").arg("-h").arg(disk))?;
    let clean = |line: &str| line.split_whitespace().eq(["Filesystem", "state:", "clean"]);
    ensure!(state.lines().any(clean), "{state}");
    said(Command::new("e2fsck").arg("-fn").arg(disk))?;
    let kept = said(Command::new("debugfs").args(["-R", "cat kept"]).arg(disk))?;
    ensure!(kept == content(0), "{kept}");
    let names = said(Command::new("debugfs").args(["-R", "ls -p"]).arg(disk))?;
    let names: Vec<_> = names.lines().filter_map(|line| line.split('/').nth(5)).collect();
    ensure!(names == [".", "..", "lost+found", "kept"], "{names:?}");
    Ok(())
}

fn a_disk_that_was_written_to_goes_and_comes_back() -> Result<()> {
    run(async {
        let disk = writable_disk()?;
        let live = Live::start().await?;
        for _ in 0..2 {
            let file = disk.reopen()?;
            let attached = live.pod.attach(vec![NewDisk { file, readonly: false }]).await?;
            let place = attached.first().context("no place")?.address;
            let places = [place];
            let user = live.hold_on(place).await?;
            let script = "[ ! -e /new ] && head -c 4000000 /dev/urandom > /new && stat -c %s /new";
            let text = live.shell_on(place, script).await?;
            ensure!(text == "4000000\n", "{text}");
            refuses(&live, &places).await?;
            live.pod.delete(&user, "", true).await?;
            live.pod.detach(&places).await?;
            is_as_it_was(disk.path())?;
        }
        live.pod.stop().await;
        Ok(())
    })
}

fn a_place_that_the_guest_did_not_leave_is_not_used_again() -> Result<()> {
    run(async {
        let mut rack = Rack::new(2).await?;
        let place = rack.attach(&[0]).await?;
        rack.attached.clear();
        ensure!(rack.live.pod.detach_by_force(&place).await?, "the guest had no driver for it");
        let other = rack.attach(&[1]).await?;
        ensure!(other != place, "{other:?} again");
        rack.check_each().await?;
        let none = rack.live.pod.detach_by_force(&place).await.map_err(|error| error.to_string());
        let text = none.err().unwrap_or_default();
        ensure!(text.contains("no device was attached at"), "{text}");
        rack.live.pod.stop().await;
        Ok(())
    })
}
