//! Devices that come and go, against a fake monitor and agent.

use cofferdam_agent_protocol::{AgentError, DeviceNumber, ErrorKind, Found, request, response};
use cofferdam_vmm_api::{FdSlot, FromMonitor, Mac, NewDevice, ToMonitor};

use super::fake_test::{Agent, Guest, with};
use super::*;

fn disks(count: usize) -> Vec<NewDisk> {
    let file = || {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1024).unwrap();
        file
    };
    (0..count).map(|_| NewDisk { file: file(), readonly: true }).collect()
}

/// The monitor is told to attach a disk, and does; the serial number.
fn attaches(guest: &Guest, address: u16) -> String {
    let message = guest.control.receive::<ToMonitor>().unwrap();
    let ToMonitor::Attach(NewDevice::Disk { disk, bytes }) = message.body else {
        panic!("{:?}", message.body)
    };
    assert!(message.fds.len() == 1 && disk.readonly && bytes == 1024);
    guest.tell(&FromMonitor::Attached(Bdf(address)));
    disk.serial
}

fn detaches(guest: &Guest, address: u16, in_use: bool) {
    let message = guest.control.receive::<ToMonitor>().unwrap();
    assert_eq!(message.body, ToMonitor::Detach(Bdf(address)));
    guest.tell(&FromMonitor::Detached { address: Bdf(address), in_use });
}

fn finds(agent: &mut Agent) -> (u64, Vec<(u32, String)>) {
    let (id, request::Body::Expect(expect)) = agent.request() else { panic!("not expect") };
    (id, expect.disks.into_iter().map(|disk| (disk.address, disk.serial)).collect())
}

fn found(agent: &mut Agent, id: u64, interfaces: &[&str]) {
    let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
    agent.answer(id, response::Body::Found(Found { interfaces, disks: vec![] }));
}

/// The guest has found disks, and gives them these minor numbers.
fn found_disks(agent: &mut Agent, id: u64, minors: &[u32]) {
    let disks = minors.iter().map(|minor| DeviceNumber { major: 254, minor: *minor }).collect();
    agent.answer(id, response::Body::Found(Found { interfaces: vec![], disks }));
}

fn lets_go(agent: &mut Agent, addresses: &[u32]) -> u64 {
    let (id, request::Body::Release(release)) = agent.request() else { panic!("not release") };
    assert_eq!(release.addresses, addresses);
    id
}

fn done(agent: &mut Agent, id: u64) {
    agent.answer(id, response::Body::Done(response::Done {}));
}

fn error(agent: &mut Agent, id: u64, message: &str) {
    let error = AgentError { kind: ErrorKind::Other.into(), message: message.into() };
    agent.answer(id, response::Body::Error(error));
}

#[test]
fn disks_are_found_by_the_guest_under_their_serial_numbers_and_let_go_of_first() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        let (first, second) = (attaches(&guest, 0x20), attaches(&guest, 0x21));
        assert!(first != second && first.len() == 20, "{first} {second}");
        let (id, expected) = finds(&mut agent);
        assert_eq!(expected, [(0x20, first), (0x21, second)]);
        found_disks(&mut agent, id, &[16, 32]);
        let id = lets_go(&mut agent, &[0x21]);
        done(&mut agent, id);
        detaches(&guest, 0x21, false);
        detaches(&guest, 0x20, true);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let attached = pod.attach(disks(2)).await.unwrap();
        let at = |address, minor| AttachedDisk { address: Bdf(address), number: (254, minor) };
        assert_eq!(attached, [at(0x20, 16), at(0x21, 32)]);
        pod.detach(&[Bdf(0x21)]).await.unwrap();
        assert!(pod.detach_by_force(&[Bdf(0x20)]).await.unwrap());
    };
    with(guest, host);
}

#[test]
fn a_disk_that_the_guest_does_not_find_is_taken_away_again() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        attaches(&guest, 0x20);
        let (id, _) = finds(&mut agent);
        error(&mut agent, id, "no such disk");
        let id = lets_go(&mut agent, &[0x20]);
        done(&mut agent, id);
        detaches(&guest, 0x20, false);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        pod.attach(disks(1)).await.unwrap_err()
    };
    let text = with(guest, host).0.to_string();
    assert_eq!(text, "waiting for the guest to find a device: no such disk");
}

#[test]
fn what_the_monitor_refuses_takes_the_others_along() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        attaches(&guest, 0x20);
        guest.control.receive::<ToMonitor>().unwrap();
        guest.tell(&FromMonitor::Refused("no place".into()));
        let id = lets_go(&mut agent, &[0x20]);
        done(&mut agent, id);
        detaches(&guest, 0x20, false);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        pod.attach(disks(3)).await.unwrap_err()
    };
    let text = with(guest, host).0.to_string();
    assert_eq!(text, "attaching a device to the machine: the monitor refused it: no place");
}

#[test]
fn what_is_no_disk_reaches_no_monitor() {
    let guest = |guest: Guest| {
        guest.boot();
        let _agent = guest.agent();
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        pod.attach(vec![NewDisk { file, readonly: true }]).await.unwrap_err()
    };
    let text = with(guest, host).0.to_string();
    let why = "a disk must be a regular file or a block device";
    assert_eq!(text, format!("looking at a disk: {why}"));
}

#[test]
fn an_attachment_that_is_given_up_does_not_keep_the_pod_from_stopping() {
    let guest = |guest: Guest| {
        guest.boot();
        let _agent = guest.agent();
        // It is told to attach, and never answers.
        guest.control.receive::<ToMonitor>().unwrap();
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, pod.attach(disks(1))).await.is_err());
    };
    with(guest, host);
}

#[test]
fn a_disk_that_the_guest_keeps_stays() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        attaches(&guest, 0x20);
        let (id, _) = finds(&mut agent);
        found_disks(&mut agent, id, &[16]);
        let id = lets_go(&mut agent, &[0x20]);
        error(&mut agent, id, "it is mounted");
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let attached = pod.attach(disks(1)).await.unwrap();
        pod.detach(&[attached[0].address]).await.unwrap_err()
    };
    let text = with(guest, host).0.to_string();
    assert_eq!(text, "waiting for the guest to let go of a device: it is mounted");
}

#[test]
fn a_guest_that_does_not_number_its_disks_has_none() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        attaches(&guest, 0x20);
        let (id, _) = finds(&mut agent);
        found_disks(&mut agent, id, &[16, 32]);
        let id = lets_go(&mut agent, &[0x20]);
        done(&mut agent, id);
        detaches(&guest, 0x20, false);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        pod.attach(disks(1)).await.unwrap_err()
    };
    let text = with(guest, host).0.to_string();
    assert!(text.contains("answered expect with something else"), "{text}");
}

#[test]
fn what_was_not_attached_is_neither_let_go_of_nor_taken_away() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        attaches(&guest, 0x20);
        let (id, _) = finds(&mut agent);
        found_disks(&mut agent, id, &[16]);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        pod.attach(disks(1)).await.unwrap();
        let error = pod.detach(&[Bdf(0x20), Bdf(0x08)]).await.unwrap_err();
        assert_eq!(error.to_string(), "no device was attached at 00:01.0");
        assert_eq!(pod.detach_by_force(&[Bdf(0x08)]).await.unwrap_err(), error);
    };
    with(guest, host);
}

#[test]
fn what_the_monitor_keeps_does_not_keep_the_others() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        attaches(&guest, 0x20);
        attaches(&guest, 0x21);
        let (id, _) = finds(&mut agent);
        found_disks(&mut agent, id, &[16, 32]);
        guest.control.receive::<ToMonitor>().unwrap();
        guest.tell(&FromMonitor::Refused("not this one".into()));
        detaches(&guest, 0x21, false);
        detaches(&guest, 0x20, false);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let attached = pod.attach(disks(2)).await.unwrap();
        let attached: Vec<Bdf> = attached.iter().map(|disk| disk.address).collect();
        let error = pod.detach_by_force(&attached).await.unwrap_err();
        assert!(error.to_string().contains("not this one"), "{error}");
        pod.detach_by_force(&attached[..1]).await.unwrap();
        assert!(pod.detach_by_force(&attached[1..]).await.is_err(), "it is gone");
    };
    with(guest, host);
}

#[test]
fn a_machine_that_ends_meanwhile_is_the_failure() {
    let guest = |guest: Guest| {
        guest.boot();
        let _agent = guest.agent();
        guest.control.receive::<ToMonitor>().unwrap();
        guest.tell(&FromMonitor::Exited(cofferdam_vmm_api::ExitReason::Panic));
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        pod.attach(disks(1)).await.unwrap_err()
    };
    let error = with(guest, host).0;
    assert!(
        matches!(&error.cause, Cause::Plug { cause, .. } if matches!(**cause, Cause::Ended(_)))
    );
    assert!(error.cause.is_guest_failure());
}

fn card(last: u8) -> NewNet {
    let taps = vec![tempfile::tempfile().unwrap().into(), tempfile::tempfile().unwrap().into()];
    NewNet { taps, mac: Mac([2, 0, 0, 0, 0, last]), mtu: Some(1400) }
}

/// The monitor is told to attach a network card, and does.
fn attaches_card(guest: &Guest, address: u16) {
    let message = guest.control.receive::<ToMonitor>().unwrap();
    let ToMonitor::Attach(NewDevice::Net(net)) = message.body else { panic!("{:?}", message.body) };
    assert_eq!((net.taps, net.mtu), (vec![FdSlot(0), FdSlot(1)], Some(1400)));
    assert_eq!(message.fds.len(), 2);
    guest.tell(&FromMonitor::Attached(Bdf(address)));
}

#[test]
fn network_cards_are_found_by_their_addresses_and_named_by_the_guest() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        attaches_card(&guest, 0x20);
        attaches_card(&guest, 0x21);
        let (id, request::Body::Expect(expect)) = agent.request() else { panic!("not expect") };
        let nets: Vec<_> = expect.nets.iter().map(|net| (net.address, net.mac.as_str())).collect();
        assert_eq!(nets, [(0x20, "02:00:00:00:00:01"), (0x21, "02:00:00:00:00:02")]);
        assert_eq!(expect.disks, []);
        found(&mut agent, id, &["eth0", "eth1"]);
        let id = lets_go(&mut agent, &[0x20, 0x21]);
        done(&mut agent, id);
        detaches(&guest, 0x20, false);
        detaches(&guest, 0x21, false);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let attached = pod.attach_nets(vec![card(1), card(2)]).await.unwrap();
        let named =
            |address, name: &str| AttachedNet { address: Bdf(address), interface: name.to_owned() };
        assert_eq!(attached, [named(0x20, "eth0"), named(0x21, "eth1")]);
        pod.detach(&[Bdf(0x20), Bdf(0x21)]).await.unwrap();
    };
    with(guest, host);
}

#[test]
fn names_that_no_interface_can_have_are_not_believed() {
    for names in
        [&[][..], &["eth0", "eth1"], &[""], &["a/b"], &[".."], &["e h"], &["0123456789abcdef"]]
    {
        let guest = |guest: Guest| {
            guest.boot();
            let mut agent = guest.agent();
            attaches_card(&guest, 0x20);
            let (id, _) = agent.request();
            found(&mut agent, id, names);
            let id = lets_go(&mut agent, &[0x20]);
            done(&mut agent, id);
            detaches(&guest, 0x20, false);
            guest.end();
        };
        let host = async |pod: &Pod| {
            pod.ready().await.unwrap();
            pod.attach_nets(vec![card(1)]).await.unwrap_err()
        };
        let text = with(guest, host).0.to_string();
        assert!(text.contains("answered expect with something else"), "{names:?}: {text}");
    }
}
