//! Disks and network cards that come to and go from a running pod.
//!
//! ```text
//! attach:  monitor: on the bus ──► agent: found, serial number or address right ──► usable
//! detach:  agent: not mounted, let go of ──► monitor: off the bus
//! ```
//!
//! Invariant: one change of the bus at a time; a device that was not found by the guest, or is not the one it was
//! told to expect, is off the bus again when [`Pod::attach`] or [`Pod::attach_nets`] returns.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use cofferdam_agent_protocol::{DeviceNumber, Found, request, response};
use cofferdam_vmm_api::{
    Bdf, DiskSpec, FdSlot, FromMonitor, FsSpec, Mac, NetSpec, NewDevice, ToMonitor,
};
use serde::{Deserialize, Serialize};

use super::{Cause, Pod, PodError, in_time, stream};

/// How long the guest may take for a change of the bus. Its agent gives up after ten seconds.
const WITHIN: Duration = Duration::from_secs(60);

/// Longest name of a network interface, in bytes (`IFNAMSIZ` less its NUL).
const MAX_INTERFACE: usize = 15;

/// A disk to be attached.
#[derive(Debug)]
pub struct NewDisk {
    /// A regular file or block device, of whole sectors.
    pub file: File,
    /// The guest may not write.
    pub readonly: bool,
}

/// A disk that the guest has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedDisk {
    /// Where it is on the bus.
    pub address: Bdf,
    /// Its device number in the guest.
    pub number: (u32, u32),
}

/// A network card to be attached.
#[derive(Debug)]
pub struct NewNet {
    /// The queues of one tap, opened and set up as [`NetSpec::taps`] has it.
    pub taps: Vec<OwnedFd>,
    /// Its address, which no other card of the pod has.
    pub mac: Mac,
    /// The MTU that the guest is told, the tap's own; without it the guest takes 1500.
    pub mtu: Option<u16>,
}

/// A network card that the guest has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedNet {
    /// Where it is on the bus.
    pub address: Bdf,
    /// What the guest's kernel calls it.
    pub interface: String,
}

/// What goes to the monitor for a device.
struct Parcel {
    device: NewDevice,
    fds: Vec<OwnedFd>,
}

/// What is on the bus, and what the guest has to find.
#[derive(Default)]
struct There {
    addresses: Vec<Bdf>,
    expected: request::Expect,
}

impl Pod {
    /// Attaches disks to the running machine, and waits until the guest has found them all: where they are, in
    /// order. If one cannot be had, none is attached.
    ///
    /// Not to be cancelled: disks that are on the bus by then would stay there.
    ///
    /// # Errors
    /// [`Cause::Plug`] says which step failed and why.
    pub async fn attach(&self, disks: Vec<NewDisk>) -> Result<Vec<AttachedDisk>, PodError> {
        let parcels = disks.into_iter().map(NewDisk::parcel).collect::<io::Result<_>>();
        let unfit = |error: io::Error| failed(Cause::Unfit(error.to_string()));
        let parcels = parcels.map_err(unfit).map_err(plug("looking at a disk"))?;
        let (addresses, found) = self.plug_in(parcels).await?;
        let attached = |(address, number): (Bdf, &DeviceNumber)| AttachedDisk {
            address,
            number: (number.major, number.minor),
        };
        Ok(addresses.into_iter().zip(&found.disks).map(attached).collect())
    }

    /// Attaches network cards in the same way; what the guest calls them, too.
    ///
    /// # Errors
    /// As [`Pod::attach`].
    pub async fn attach_nets(&self, nets: Vec<NewNet>) -> Result<Vec<AttachedNet>, PodError> {
        let parcels = nets.into_iter().map(NewNet::parcel).collect();
        let (addresses, found) = self.plug_in(parcels).await?;
        let attached = |(address, interface)| AttachedNet { address, interface };
        Ok(addresses.into_iter().zip(found.interfaces).map(attached).collect())
    }

    /// Attaches the file system of a file server in the same way, for the guest to mount as `tag`. `descriptors` are
    /// those that [`FsSpec`] names, in its order. It stays for the life of the pod.
    ///
    /// # Errors
    /// As [`Pod::attach`].
    pub async fn attach_fs(&self, tag: &str, descriptors: Vec<OwnedFd>) -> Result<(), PodError> {
        let [memory, kick, call, end] = [0, 1, 2, 3].map(FdSlot);
        let fs = FsSpec { tag: tag.to_owned(), memory, kick, call, end };
        let parcel = Parcel { device: NewDevice::Fs(fs), fds: descriptors };
        self.plug_in(vec![parcel]).await.map(drop)
    }

    /// Detaches disks, none of which may be mounted, and network cards from guest and machine.
    ///
    /// # Errors
    /// [`Cause::Plug`]. If the guest does not let go of all of them, all stay.
    pub async fn detach(&self, devices: &[Bdf]) -> Result<(), PodError> {
        let mut plugged = self.plugged.lock().await;
        all_of(devices, &plugged)?;
        self.let_go(devices).await?;
        self.take_away(devices, &mut plugged).await.map(drop)
    }

    /// Takes devices away from a guest that does not let go of them: what it reads and writes there from now on it
    /// waits for in vain, and the addresses of those that it uses are not used again. Whether it used any.
    ///
    /// # Errors
    /// [`Cause::Plug`].
    pub async fn detach_by_force(&self, devices: &[Bdf]) -> Result<bool, PodError> {
        let mut plugged = self.plugged.lock().await;
        all_of(devices, &plugged)?;
        self.take_away(devices, &mut plugged).await
    }

    /// Puts devices on the bus and waits until the guest has found them; all or none. Their addresses, and
    /// what the guest tells of them.
    async fn plug_in(&self, parcels: Vec<Parcel>) -> Result<(Vec<Bdf>, Found), PodError> {
        let mut plugged = self.plugged.lock().await;
        let mut there = There::default();
        let found = match self.attach_to_machine(parcels, &mut there).await {
            Ok(()) => self.found(&there.expected).await,
            Err(error) => Err(error),
        };
        let addresses = there.addresses;
        plugged.extend(&addresses);
        if found.is_err() && !addresses.is_empty() {
            // The failure to tell is the first one.
            let _ = self.let_go(&addresses).await;
            let _ = self.take_away(&addresses, &mut plugged).await;
        }
        found.map(|found| (addresses, found))
    }

    /// Puts devices on the bus; in `there` is what is on it also after a failure half-way.
    async fn attach_to_machine(
        &self,
        parcels: Vec<Parcel>,
        there: &mut There,
    ) -> Result<(), PodError> {
        let step = "attaching a device to the machine";
        for Parcel { device, fds } in parcels {
            let message = ToMonitor::Attach(device.clone());
            match self.tell(message, fds).await.map_err(plug(step))? {
                FromMonitor::Attached(address) => there.add(address, &device),
                other => return Err(plug(step)(refused(other))),
            }
        }
        Ok(())
    }

    /// Waits until the guest has found what is `expected`; what it tells of each.
    async fn found(&self, expected: &request::Expect) -> Result<Found, PodError> {
        let asked = self.request(request::Body::Expect(expected.clone()));
        let found = async {
            match asked.await? {
                response::Body::Found(found)
                    if found.disks.len() == expected.disks.len()
                        && found.interfaces.len() == expected.nets.len()
                        && found.interfaces.iter().all(|name| is_interface(name)) =>
                {
                    Ok(found)
                }
                _ => Err(failed(Cause::WrongAnswer("expect"))),
            }
        };
        let found = in_time(WITHIN, found, Cause::AgentLost).await;
        found.map_err(plug("waiting for the guest to find a device"))
    }

    async fn let_go(&self, devices: &[Bdf]) -> Result<(), PodError> {
        let addresses = devices.iter().map(|address| address.0.into()).collect();
        let release = request::Release { addresses };
        let released = self.done(request::Body::Release(release), "release");
        let released = in_time(WITHIN, released, Cause::AgentLost).await;
        released.map_err(plug("waiting for the guest to let go of a device"))
    }

    /// Takes devices off the bus, all that it can; whether the guest used any.
    async fn take_away(
        &self,
        devices: &[Bdf],
        plugged: &mut BTreeSet<Bdf>,
    ) -> Result<bool, PodError> {
        let step = "detaching a device from the machine";
        let mut used = Ok(false);
        for address in devices {
            match self.tell(ToMonitor::Detach(*address), Vec::new()).await.map_err(plug(step))? {
                FromMonitor::Detached { in_use, .. } => {
                    plugged.remove(address);
                    used = used.map(|used| used || in_use);
                }
                other => used = used.and(Err(plug(step)(refused(other)))),
            }
        }
        used
    }
}

/// That each of `devices` was attached, so that nothing that a machine needs is taken away from the guest.
fn all_of(devices: &[Bdf], plugged: &BTreeSet<Bdf>) -> Result<(), PodError> {
    match devices.iter().find(|address| !plugged.contains(address)) {
        Some(address) => Err(failed(Cause::Unfit(format!("no device was attached at {address}")))),
        None => Ok(()),
    }
}

impl There {
    fn add(&mut self, place: Bdf, device: &NewDevice) {
        self.addresses.push(place);
        let address = place.0.into();
        match device {
            NewDevice::Disk { disk, .. } => {
                self.expected.disks.push(request::Disk { address, serial: disk.serial.clone() });
            }
            NewDevice::Net(net) => {
                let mac = net.mac.map(|mac| mac.to_string()).unwrap_or_default();
                self.expected.nets.push(request::Net { address, mac });
            }
            NewDevice::Fs(fs) => {
                self.expected.filesystems.push(request::Fs { address, tag: fs.tag.clone() });
            }
        }
    }
}

impl NewDisk {
    /// With a serial number that no other disk has.
    fn parcel(mut self) -> io::Result<Parcel> {
        let bytes = size(&mut self.file)?;
        let serial = format!("hot-{:016x}", stream::token()?);
        let disk = DiskSpec { file: FdSlot(0), readonly: self.readonly, serial };
        Ok(Parcel { device: NewDevice::Disk { disk, bytes }, fds: vec![self.file.into()] })
    }
}

impl NewNet {
    fn parcel(self) -> Parcel {
        let taps = (0..).zip(&self.taps).map(|(slot, _)| FdSlot(slot)).collect();
        let net = NetSpec { taps, mac: Some(self.mac), mtu: self.mtu };
        Parcel { device: NewDevice::Net(net), fds: self.taps }
    }
}

/// The size in bytes of a regular file or block device, which a confined monitor could not ask for.
fn size(file: &mut File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else if metadata.file_type().is_block_device() {
        file.seek(SeekFrom::End(0))
    } else {
        Err(io::Error::other("a disk must be a regular file or a block device"))
    }
}

/// Whether a guest's text can be the name of an interface.
fn is_interface(name: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    (1..=MAX_INTERFACE).contains(&name.len())
        && name.bytes().all(byte)
        && !matches!(name, "." | "..")
}

fn plug(step: &'static str) -> impl Fn(PodError) -> PodError {
    move |PodError { stage, cause }| PodError {
        stage,
        cause: Cause::Plug { step, cause: Box::new(cause) },
    }
}

fn refused(answer: FromMonitor) -> PodError {
    failed(match answer {
        FromMonitor::Refused(why) => Cause::Unfit(format!("the monitor refused it: {why}")),
        other => Cause::Monitor(format!("it answers {other:?}")),
    })
}

fn failed(cause: Cause) -> PodError {
    PodError { stage: None, cause }
}
