//! Messages and descriptors arrive together; hostile ones are refused without a leak.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use crate::*;

#[test]
fn a_message_arrives_with_its_descriptors() {
    let (a, b) = Channel::pair().unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    a.send(&ToMonitor::Stop, &[writer.as_fd()]).unwrap();
    let message = b.receive::<ToMonitor>().unwrap();
    assert_eq!(message.body, ToMonitor::Stop);
    File::from(message.fds.into_iter().next().unwrap()).write_all(b"hello").unwrap();
    writer.flush().unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn a_closed_socket_is_told_apart() {
    let (a, b) = Channel::pair().unwrap();
    drop(a);
    assert!(matches!(b.receive::<ToMonitor>(), Err(ChannelError::Closed)));
    assert!(matches!(b.send(&ToMonitor::Stop, &[]), Err(ChannelError::Closed)));
}

#[test]
fn limits_hold_for_the_sender() {
    let (a, _b) = Channel::pair().unwrap();
    let bytes = vec![0; MAX_MESSAGE + 1];
    assert!(matches!(a.send_bytes(&bytes, &[]), Err(ChannelError::TooLong)));
    let fds = vec![a.as_fd(); MAX_FDS + 1];
    assert!(matches!(a.send_bytes(b"x", &fds), Err(ChannelError::TooLong)));
}

#[test]
fn a_message_too_long_for_the_receiver_leaks_no_descriptor() {
    let (a, b) = Channel::pair().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    a.send_bytes(b"longer than the buffer", &[writer.as_fd()]).unwrap();
    drop(writer);
    let mut buffer = [0; 4];
    assert!(matches!(b.receive_bytes(&mut buffer), Err(ChannelError::TooLong)));
    // The pipe ends only when no copy of its writing end is left.
    assert_eq!(reader.read(&mut buffer).unwrap(), 0);
}

#[test]
fn malformed_json_is_an_error() {
    let (a, b) = Channel::pair().unwrap();
    a.send_bytes(b"{\"boot\":", &[]).unwrap();
    assert!(matches!(b.receive::<ToMonitor>(), Err(ChannelError::Malformed(_))));
}
