//! The hidden command line, and how a proxy ends. What it passes on is tested with the program itself.

use super::*;

fn line(arguments: &[&str]) -> bool {
    requested(arguments.iter().map(std::ffi::OsString::from))
}

#[test]
fn only_the_hidden_command_is_a_proxy() {
    assert!(line(&["cofferdam", "proxy"]));
    assert!(line(&["cofferdam", "proxy", "sleep", "1000"]));
    assert!(!line(&["cofferdam", "run"]));
    assert!(!line(&["cofferdam"]));
}

#[test]
fn the_end_that_comes_is_the_end() {
    let (supervisor, proxy) = Channel::pair().unwrap();
    supervisor.send(&End { result: Ok((3, 0)), at_ns: 0, stages: Vec::new() }, &[]).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let end = std::thread::spawn(move || serve(&proxy, null.as_fd())).join().unwrap().unwrap();
    assert_eq!(end.result, Ok((3, 0)));
    let (supervisor, proxy) = Channel::pair().unwrap();
    drop(supervisor);
    let null = std::fs::File::open("/dev/null").unwrap();
    std::thread::spawn(move || serve(&proxy, null.as_fd())).join().unwrap().unwrap_err();
}
