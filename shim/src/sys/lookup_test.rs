//! Connections to loopback addresses, in a network namespace of the test's own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs `test` in a network namespace of its own, on a thread that ends; says so if this machine cannot.
fn alone(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let apart = unshare(CloneFlags::CLONE_NEWNET).is_ok();
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            if apart && up.is_ok_and(|status| status.success()) {
                test();
            } else {
                eprintln!("SKIPPED: needs root and iproute2");
            }
        });
    });
}

#[test]
fn one_listener_takes_every_port_of_the_loopback_interface() {
    alone(|| {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let network = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let link = match take_loopback((v4.as_fd(), Some(v6.as_fd())), network.as_fd()) {
            Ok(link) => link,
            Err(error)
                if [Some(libc::EPERM), Some(libc::EINVAL)].contains(&error.raw_os_error()) =>
            {
                eprintln!("SKIPPED: this kernel has no programs for it: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        for address in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
            SocketAddr::from((Ipv4Addr::new(127, 9, 9, 9), 65535)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 1)),
        ] {
            let mut client = TcpStream::connect(address).unwrap();
            let listener = if address.is_ipv4() { &v4 } else { &v6 };
            let (mut server, _) = listener.accept().unwrap();
            assert_eq!(server.local_addr().unwrap().port(), address.port());
            client.write_all(b"word").unwrap();
            drop(client);
            let mut text = String::new();
            server.read_to_string(&mut text).unwrap();
            assert_eq!(text, "word");
        }
        // An address of another interface is none of its business.
        let add = ["addr", "add", "192.0.2.1/32", "dev", "lo"];
        assert!(Command::new("ip").args(add).status().unwrap().success());
        assert!(TcpStream::connect((Ipv4Addr::new(192, 0, 2, 1), 80)).is_err());
        // Without the link it is as it was.
        drop(link);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, 80)).is_err());
    });
}

#[test]
fn an_instruction_is_eight_bytes() {
    assert_eq!(size_of::<Instruction>(), 8);
    // A jump stays within the program.
    let program = program(0);
    for (place, Instruction(operation, _, offset, _)) in program.iter().enumerate() {
        if operation & 0x07 == 0x05 && ![CALL, EXIT].contains(operation) {
            let target = place + 1 + usize::try_from(*offset).unwrap();
            assert!([11, 20, 33].contains(&target), "{place} jumps to {target}");
        }
    }
}
