//! Messages survive the way, descriptors included; nonsense is refused.

use std::os::fd::AsFd;

use super::*;

#[test]
fn a_failure_survives_the_way() {
    let (agent, launcher) = pair().unwrap();
    let failure = Failure::new(ErrorKind::CommandNotFound, "exec: \"x\": not found");
    send(launcher.as_fd(), &Message::Failed(failure)).unwrap();
    let Some(Message::Failed(got)) = receive(agent.as_fd()).unwrap() else { panic!("no failure") };
    assert_eq!(got, Failure::new(ErrorKind::CommandNotFound, "exec: \"x\": not found"));
}

#[test]
fn a_descriptor_survives_the_way() {
    let (agent, launcher) = pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    send(launcher.as_fd(), &Message::Terminal(null.into())).unwrap();
    assert!(matches!(receive(agent.as_fd()).unwrap(), Some(Message::Terminal(_))));
}

#[test]
fn the_end_of_the_other_side_is_none() {
    let (agent, launcher) = pair().unwrap();
    send(agent.as_fd(), &Message::Go).unwrap();
    assert!(matches!(read(launcher.as_fd()).unwrap(), Some(Message::Go)));
    drop(launcher);
    assert!(receive(agent.as_fd()).unwrap().is_none());
}

#[test]
fn nonsense_is_refused() {
    let (agent, launcher) = pair().unwrap();
    nix::unistd::write(&launcher, b"?").unwrap();
    assert_eq!(receive(agent.as_fd()).unwrap_err(), Errno::EBADMSG);
    nix::unistd::write(&launcher, b"T").unwrap();
    assert_eq!(receive(agent.as_fd()).unwrap_err(), Errno::EBADMSG);
    nix::unistd::write(&launcher, b"F12").unwrap();
    assert_eq!(receive(agent.as_fd()).unwrap_err(), Errno::EBADMSG);
}
