use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn key(guest_port: u32) -> Key {
    Key { host_port: 1024, guest_port }
}

fn table() -> Table<u32> {
    Table::new()
}

#[test]
fn the_number_of_connections_is_bounded() {
    let mut table = table();
    for port in 0..5000 {
        let promise = table.next_promise();
        let added = table.insert(key(port), promise, port);
        assert_eq!(added.is_some(), port < 4096);
    }
    assert!(table.is_full());
    assert!(table.promised <= 128 << 20, "{}", table.promised);

    table.remove(7);

    assert_eq!(table.insert(key(9999), 1, 0), Some(4096));
}

#[test]
fn the_first_hundreds_get_large_buffers_and_all_get_some() {
    let mut table = table();
    let mut promises = Vec::new();
    for port in 0..4096 {
        promises.push(table.next_promise());
        table.insert(key(port), promises[promises.len() - 1], 0);
    }
    assert!(promises[..200].iter().all(|promise| *promise == MAX_PROMISE));
    assert!(promises.is_sorted_by(|a, b| a >= b));
    assert_eq!(promises[4095], MIN_PROMISE);

    for id in 0..4096 {
        table.remove(id);
    }

    assert_eq!((table.promised, table.next_promise()), (0, MAX_PROMISE));
}

#[test]
fn a_name_is_taken_once() {
    let mut table = table();
    let id = table.insert(key(1), 1, 10).unwrap();
    assert_eq!(table.insert(key(1), 1, 11), None);
    assert_eq!((table.find(key(1)), table.find(key(2))), (Some(id), None));

    table.forget_name(id);

    assert!(!table.has_name(id));
    let other = table.insert(key(1), 1, 12).unwrap();
    assert_eq!((table.get(id).copied(), table.get(other).copied()), (Some(10), Some(12)));
    table.remove(id);
    assert_eq!(table.find(key(1)), Some(other));
}

#[test]
fn free_ports_do_not_collide() {
    let mut table = table();
    let taken = Key { host_port: EPHEMERAL.start + 1, guest_port: 80 };
    table.insert(taken, 1, 0);
    assert_eq!(table.free_key(80).host_port, EPHEMERAL.start);
    assert_eq!(table.free_key(80).host_port, EPHEMERAL.start + 2);
    table.next_port = EPHEMERAL.end - 1;
    assert_eq!(table.free_key(80).host_port, EPHEMERAL.end - 1);
    assert_eq!(table.free_key(80).host_port, EPHEMERAL.start);
}

#[test]
fn turns_go_round_and_each_has_one() {
    let mut table = table();
    let ids: Vec<_> = (0..3).map(|port| table.insert(key(port), 1, port).unwrap()).collect();
    for id in [ids[0], ids[1], ids[0], ids[2], ids[1]] {
        table.give_turn(id);
    }
    assert_eq!(table.take_turn(), Some(ids[0]));
    table.give_turn(ids[0]);
    table.remove(ids[1]);
    assert_eq!((table.take_turn(), table.take_turn()), (Some(ids[2]), Some(ids[0])));
    assert!(!table.has_turns());
    table.forget_name(ids[2]);
    table.give_turn(ids[2]);
    assert_eq!(table.take_turn(), None);
}

#[test]
fn deadlines_pass_in_order_and_can_be_moved() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut table = table();
    let ids: Vec<_> = (0..3).map(|port| table.insert(key(port), 1, port).unwrap()).collect();
    table.set_deadline(ids[0], Some(at(3)));
    table.set_deadline(ids[1], Some(at(1)));
    table.set_deadline(ids[2], Some(at(2)));
    table.set_deadline(ids[1], Some(at(5)));
    assert_eq!((table.next_deadline(), table.expired(at(1))), (Some(at(2)), None));
    assert_eq!(table.expired(at(2)), Some(ids[2]));
    table.remove(ids[2]);
    table.set_deadline(ids[0], None);
    assert_eq!((table.expired(at(4)), table.expired(at(5))), (None, Some(ids[1])));
    table.remove(ids[1]);
    assert_eq!(table.next_deadline(), None);
}

proptest! {
    #[test]
    fn what_is_removed_leaves_nothing(steps in prop::collection::vec((0_u8..6, 0_u64..40), 0..300)) {
        let start = Instant::now();
        let mut table = table();
        for (step, id) in steps {
            let port = u32::try_from(id % 10).unwrap();
            match step {
                0 => drop(table.insert(key(port), 5, port)),
                1 => drop(table.remove(id)),
                2 => table.give_turn(id),
                3 => drop(table.take_turn()),
                4 => table.set_deadline(id, Some(start + Duration::from_secs(id))),
                _ => table.forget_name(id),
            }
            let named = table.entries.values().filter(|entry| entry.key.is_some()).count();
            let waiting = table.entries.values().filter(|entry| entry.waits).count();
            let timed = table.entries.values().filter(|entry| entry.deadline.is_some()).count();
            let sizes = (table.names.len(), table.turns.len(), table.deadlines.len());
            prop_assert_eq!(sizes, (named, waiting, timed));
            prop_assert_eq!(usize::try_from(table.promised).unwrap(), 5 * table.entries.len());
        }
    }
}
