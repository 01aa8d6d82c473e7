//! Devices that come to and go from a running machine, asked for over the control socket.

use super::*;

/// Boots a machine of `code` that can serve `spare_queues` queues more.
fn running(code: &[u8], spare_queues: u8) -> Supervisor {
    let supervisor = Supervisor::new();
    supervisor.boot(&pvh_elf(code), |spec, _| spec.spare_queues = spare_queues);
    while !matches!(supervisor.hear(), FromMonitor::Booted(_)) {}
    supervisor
}

/// A request for a disk of `bytes`.
fn disk(serial: &str, bytes: u64) -> ToMonitor {
    let disk = DiskSpec { file: FdSlot(0), readonly: false, serial: serial.into() };
    ToMonitor::Attach(NewDevice::Disk { disk, bytes })
}

impl Supervisor {
    fn attach(&self, serial: &str, bytes: u64) -> FromMonitor {
        self.channel.send(&disk(serial, bytes), &[file(&[0; 512]).as_fd()]).unwrap();
        self.hear()
    }

    fn detach(&self, address: Bdf) -> FromMonitor {
        self.channel.send(&ToMonitor::Detach(address), &[]).unwrap();
        self.hear()
    }

    /// Stops the machine, which has not ended before.
    fn stopped(&self) {
        self.channel.send(&ToMonitor::Stop, &[]).unwrap();
        let last = self.hear_all().2;
        assert!(kvm_failed(&last) || last == FromMonitor::Exited(ExitReason::Stopped), "{last:?}");
    }
}

fn refused(text: &str) -> FromMonitor {
    FromMonitor::Refused(text.into())
}

#[test]
fn kvm_disks_come_and_go_while_the_machine_runs() {
    if !has_kvm() {
        return;
    }
    let supervisor = running(&SPIN, 41);
    let there: Vec<_> = (0..40).map(|i| supervisor.attach(&format!("hot{i}"), 512)).collect();
    // The entropy device has number 1, the balloon number 2.
    assert_eq!(there[0], FromMonitor::Attached(Bdf(0x18)));
    assert_eq!(there[39], FromMonitor::Attached(Bdf(0x3f)));
    let gone = Bdf(0x23);
    let detached = FromMonitor::Detached { address: gone, in_use: false };
    assert_eq!(supervisor.detach(gone), detached);
    assert_eq!(supervisor.attach("again", 512), FromMonitor::Attached(gone));
    // Far more than there are interrupt vectors: they are given back.
    let next = Bdf(0x40);
    for _ in 0..1200 {
        assert_eq!(supervisor.attach("next", 512), FromMonitor::Attached(next));
        let detached = FromMonitor::Detached { address: next, in_use: false };
        assert_eq!(supervisor.detach(next), detached);
    }
    let names = supervisor.stats().devices;
    assert_eq!(names.iter().filter(|device| device.kind == "block").count(), 40);
    supervisor.stopped();
}

#[test]
fn kvm_what_cannot_be_plugged_in_is_refused_and_changes_nothing() {
    if !has_kvm() {
        return;
    }
    let supervisor = running(&SPIN, 2);
    assert_eq!(
        supervisor.attach("odd", 513),
        refused("the disk: disk of 513 bytes: the size must be a multiple of 512 bytes")
    );
    let long = "x".repeat(21);
    let text = format!("disk serial {long:?} is longer than 20 bytes");
    assert_eq!(supervisor.attach(&long, 512), refused(&text));
    supervisor.channel.send(&disk("none", 512), &[]).unwrap();
    let text = "descriptor 0 is missing or used twice: 0 came with the message";
    assert_eq!(supervisor.hear(), refused(text));
    let net = NetSpec { taps: vec![FdSlot(0)], mac: None, mtu: None };
    let net = ToMonitor::Attach(NewDevice::Net(net));
    supervisor.channel.send(&net, &[file(&[]).as_fd()]).unwrap();
    let answer = supervisor.hear();
    let text = "the network card: telling a tap which offloads are taken: ";
    assert!(matches!(&answer, FromMonitor::Refused(why) if why.starts_with(text)), "{answer:?}");

    assert_eq!(supervisor.attach("one", 512), FromMonitor::Attached(Bdf(0x18)));
    assert_eq!(supervisor.attach("one", 512), refused("the disk one is plugged in already"));
    assert_eq!(supervisor.attach("two", 512), FromMonitor::Attached(Bdf(0x19)));
    let text = "it needs 1 of the machine's spare threads, and 0 are free";
    assert_eq!(supervisor.attach("three", 512), refused(text));

    assert_eq!(supervisor.detach(Bdf(0x20)), refused("there is no device at 00:04.0"));
    assert_eq!(supervisor.detach(Bdf(0)), refused("there is no device at 00:00.0"));
    let text = "the rng device at 00:01.0 cannot be taken away";
    assert_eq!(supervisor.detach(Bdf(8)), refused(text));
    assert!(matches!(supervisor.detach(Bdf(0x19)), FromMonitor::Detached { .. }));
    assert_eq!(supervisor.detach(Bdf(0x19)), refused("there is no device at 00:03.1"));
    assert_eq!(supervisor.attach("three", 512), FromMonitor::Attached(Bdf(0x19)));
    supervisor.stopped();
}

#[test]
fn kvm_a_disk_of_the_boot_goes_and_its_place_serves_again() {
    if !has_kvm() {
        return;
    }
    let supervisor = Supervisor::new();
    supervisor.boot(&pvh_elf(&SPIN), |spec, fds| {
        spec.spare_queues = 1;
        spec.disks.push(DiskSpec { file: FdSlot(1), readonly: false, serial: "d".into() });
        fds.push(file(&[0; 512]).into());
    });
    while !matches!(supervisor.hear(), FromMonitor::Booted(_)) {}
    let place = Bdf(0x10);
    let detached = FromMonitor::Detached { address: place, in_use: false };
    assert_eq!(supervisor.detach(place), detached);
    for _ in 0..2 {
        assert_eq!(supervisor.attach("d", 512), FromMonitor::Attached(place));
        assert_eq!(supervisor.detach(place), detached);
    }
    supervisor.stopped();
}

#[test]
fn kvm_a_paused_machine_is_plugged_into_and_one_that_stops_answers_first() {
    if !has_kvm() {
        return;
    }
    let supervisor = running(&SPIN, 2);
    assert_eq!(supervisor.ask(&ToMonitor::Pause), FromMonitor::Paused);
    let place = Bdf(0x18);
    assert_eq!(supervisor.attach("one", 512), FromMonitor::Attached(place));
    assert!(supervisor.stats().paused);
    assert!(matches!(supervisor.detach(place), FromMonitor::Detached { in_use: false, .. }));
    assert_eq!(supervisor.attach("one", 512), FromMonitor::Attached(place));
    assert_eq!(supervisor.ask(&ToMonitor::Resume), FromMonitor::Resumed);
    let fd = file(&[0; 512]);
    supervisor.channel.send(&disk("two", 512), &[fd.as_fd()]).unwrap();
    supervisor.channel.send(&ToMonitor::Stop, &[]).unwrap();
    assert_eq!(supervisor.hear(), FromMonitor::Attached(Bdf(0x19)));
    let last = supervisor.hear_all().2;
    assert!(kvm_failed(&last) || last == FromMonitor::Exited(ExitReason::Stopped), "{last:?}");
}

#[test]
fn kvm_a_guest_that_touches_what_comes_and_goes_harms_nobody() {
    if !has_kvm() {
        return;
    }
    // Reads and writes the BAR of the first place and the configuration space of its function, for ever:
    // mov ebx, BAR; mov ecx, ECAM; l: mov eax, [ebx]; mov [ebx], eax; mov eax, [ecx]; mov [ecx + 4], 7; jmp l
    let touch = [
        &[0xbb, 0x00, 0x00, 0x80, 0xc1][..],
        &[0xb9, 0x00, 0x80, 0x01, 0xe0],
        &[0x8b, 0x03, 0x89, 0x03, 0x8b, 0x01, 0xc6, 0x41, 0x04, 0x07, 0xeb, 0xf4],
    ]
    .concat();
    let supervisor = running(&touch, 1);
    let place = Bdf(0x18);
    let accesses = |stats: &Stats| stats.vcpus[0].get("mmio_reads").copied();
    let before = supervisor.stats();
    for _ in 0..300 {
        assert_eq!(supervisor.attach("one", 512), FromMonitor::Attached(place));
        assert!(matches!(supervisor.detach(place), FromMonitor::Detached { in_use: false, .. }));
    }
    let after = supervisor.stats();
    assert!(accesses(&before).is_some() && accesses(&before) < accesses(&after), "{after:?}");
    supervisor.stopped();
}
