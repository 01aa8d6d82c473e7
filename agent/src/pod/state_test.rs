//! The whole table of states and edges.

use super::State::{Created, Paused, PausedCreated, Running, Stopped};
use super::*;

const ALL: [State; 5] = [Created, Running, Paused, PausedCreated, Stopped];

/// The state each of [`ALL`] goes to by `edge`.
fn table(edge: impl Fn(State) -> Result<State>) -> [Option<State>; 5] {
    ALL.map(|state| match edge(state) {
        Ok(next) => Some(next),
        Err(failure) => {
            assert_eq!(failure.kind, ErrorKind::WrongState);
            None
        }
    })
}

#[test]
fn edges() {
    assert_eq!(table(State::start), [Some(Running), None, None, None, None]);
    assert_eq!(table(State::pause), [Some(PausedCreated), Some(Paused), None, None, None]);
    assert_eq!(table(State::resume), [None, None, Some(Running), Some(Created), None]);
    assert_eq!(table(|s| Ok(s.ended())), [Some(Stopped); 5]);
}

#[test]
fn what_needs_no_edge() {
    assert_eq!(ALL.map(|s| s.join().is_ok()), [true, true, false, false, false]);
    assert_eq!(ALL.map(|s| s.signal().is_ok()), [true, true, true, true, false]);
    assert_eq!(ALL.map(|s| s.delete(false).ok()), [Some(true), None, None, None, Some(false)]);
    let forced = [Some(true), Some(true), Some(true), Some(true), Some(false)];
    assert_eq!(ALL.map(|s| s.delete(true).ok()), forced);
}

#[test]
fn messages_name_the_state() {
    assert_eq!(Stopped.start().unwrap_err().message, "cannot start a stopped container");
    assert_eq!(Paused.join().unwrap_err().message, "cannot exec in a paused container");
    assert_eq!(PausedCreated.start().unwrap_err().message, "cannot start a paused container");
}
