use proptest::prelude::*;

use super::*;

const KEY: Key = Key { host_port: 1024, guest_port: 5000 };
const PROMISE: u32 = 1000;

fn packet(op: Op) -> Header {
    Header { op: op as u16, kind: TYPE_STREAM, buf_alloc: 500, ..Header::default() }
}

fn data(len: u32) -> Header {
    Header { len, ..packet(Op::Rw) }
}

fn shutdown(flags: u32) -> Header {
    Header { flags, ..packet(Op::Shutdown) }
}

fn offered() -> Connection {
    Connection::offered(KEY, 3, PROMISE, &packet(Op::Request))
}

fn requesting() -> Connection {
    let mut conn = Connection::requesting(KEY, 3, PROMISE);
    assert_eq!(conn.next_control(false).unwrap().op, Op::Request as u16);
    conn
}

fn open() -> Connection {
    let mut conn = offered();
    conn.accept();
    assert_eq!(conn.next_control(false).unwrap().op, Op::Response as u16);
    conn
}

#[test]
fn each_state_takes_what_belongs_to_it() {
    use Op::*;
    use Verdict::*;
    let all = [Request, Response, Rst, Shutdown, Rw, CreditUpdate, CreditRequest];
    type Row = (&'static str, fn() -> Connection, [Verdict; 7]);
    let table: [Row; 3] = [
        ("offered", offered, [Violation, Violation, Ended, Noted, Violation, Violation, Violation]),
        (
            "requesting",
            requesting,
            [Violation, Established, Ended, Violation, Violation, Violation, Violation],
        ),
        ("open", open, [Violation, Violation, Ended, Noted, Data, Noted, Noted]),
    ];
    for (name, make, verdicts) in table {
        for (op, verdict) in all.into_iter().zip(verdicts) {
            assert_eq!(make().packet(&packet(op)), verdict, "{op:?} when {name}");
        }
        let unknown = Header { op: 8, ..packet(Rw) };
        assert_eq!(make().packet(&unknown), Violation, "{name}");
    }
}

#[test]
fn nothing_is_sent_before_the_answer() {
    let mut conn = offered();
    assert_eq!((conn.credit(), conn.has_control(true)), (0, false));
    conn.accept();
    assert_eq!(conn.credit(), 0);
    let response = conn.next_control(true).unwrap();
    assert_eq!((response.op, response.buf_alloc), (Op::Response as u16, PROMISE));
    assert_eq!(conn.credit(), 500);
    assert!(!conn.has_control(true));
}

#[test]
fn an_answer_carries_the_guests_credit() {
    let mut conn = requesting();
    assert_eq!(conn.credit(), 0);
    assert_eq!(conn.packet(&packet(Op::Response)), Verdict::Established);
    assert_eq!(conn.credit(), 500);
}

#[test]
fn credit_is_spent_asked_for_once_and_renewed() {
    let mut conn = open();
    assert_eq!(conn.send(500).len, 500);
    assert_eq!(conn.credit(), 0);
    assert_eq!(conn.next_control(false), None, "nothing waits to be sent");
    assert_eq!(conn.next_control(true).unwrap().op, Op::CreditRequest as u16);
    assert_eq!(conn.next_control(true), None);

    conn.packet(&Header { fwd_cnt: 200, ..packet(Op::CreditUpdate) });

    assert_eq!(conn.credit(), 200);
    conn.send(200);
    assert_eq!(conn.next_control(true).unwrap().op, Op::CreditRequest as u16);
}

#[test]
fn a_guest_that_lies_about_its_credit_gets_none() {
    for (buf_alloc, fwd_cnt) in [(100, 0), (500, 301), (200, u32::MAX), (0, 299)] {
        let mut conn = open();
        conn.send(300);
        conn.packet(&Header { buf_alloc, fwd_cnt, ..packet(Op::CreditUpdate) });
        assert_eq!(conn.credit(), 0, "{buf_alloc} {fwd_cnt}");
    }
}

#[test]
fn counters_wrap() {
    let mut conn = open();
    let mut total = 0_u32;
    for _ in 0..20 {
        let step = u32::MAX / 10;
        let huge = Header { buf_alloc: u32::MAX, fwd_cnt: total, ..packet(Op::CreditUpdate) };
        assert_eq!(conn.packet(&huge), Verdict::Noted);
        assert_eq!(conn.credit(), u32::MAX);
        conn.send(step);
        total = total.wrapping_add(step);
    }
}

#[test]
fn more_than_was_promised_is_a_violation() {
    let mut conn = open();
    assert_eq!(conn.packet(&data(600)), Verdict::Data);
    assert_eq!(conn.packet(&data(401)), Verdict::Violation);

    let mut conn = open();
    assert_eq!(conn.packet(&data(600)), Verdict::Data);
    conn.forwarded(200);
    assert_eq!(conn.packet(&data(600)), Verdict::Data);
    assert_eq!(conn.packet(&data(1)), Verdict::Violation);
    assert_eq!(open().packet(&data(u32::MAX)), Verdict::Violation);
}

#[test]
fn the_guest_hears_of_room_when_it_sees_less_than_half() {
    let mut conn = open();
    conn.packet(&data(500));
    conn.forwarded(500);
    assert_eq!(conn.next_control(false), None);

    conn.packet(&data(1));
    let update = conn.next_control(false).unwrap();

    assert_eq!((update.op, update.fwd_cnt), (Op::CreditUpdate as u16, 500));
    assert_eq!(conn.next_control(false), None);
    conn.packet(&packet(Op::CreditRequest));
    assert_eq!(conn.next_control(false).unwrap().op, Op::CreditUpdate as u16);
    assert_eq!(conn.next_control(false), None);
}

#[test]
fn directions_end_one_by_one() {
    let mut conn = open();
    conn.packet(&data(10));
    conn.packet(&shutdown(SHUTDOWN_SEND));
    assert!(conn.guest_sends_no_more() && !conn.incoming_done() && !conn.guest_is_done());
    conn.forwarded(10);
    assert!(conn.incoming_done() && !conn.outgoing_done());
    assert_eq!(conn.credit(), 500);

    conn.host_sends_no_more();

    assert!(conn.outgoing_done());
    assert_eq!(conn.credit(), 0);
    let told = conn.next_control(true).unwrap();
    assert_eq!((told.op, told.flags), (Op::Shutdown as u16, SHUTDOWN_SEND));
    assert_eq!(conn.next_control(true), None);
    conn.host_receives_no_more();
    assert_eq!(conn.next_control(true).unwrap().flags, SHUTDOWN_BOTH);
}

#[test]
fn flags_of_a_shutdown_add_up_and_others_are_ignored() {
    let mut conn = open();
    conn.packet(&shutdown(0xffff_fffc));
    assert!(!conn.guest_sends_no_more() && !conn.guest_receives_no_more());
    conn.packet(&shutdown(SHUTDOWN_RECEIVE));
    assert!(!conn.guest_is_done() && conn.outgoing_done());
    conn.packet(&shutdown(SHUTDOWN_SEND));
    assert!(conn.guest_is_done());
    assert_eq!(conn.packet(&data(1)), Verdict::Violation);
}

#[test]
fn what_the_host_takes_no_more_is_discarded() {
    let mut conn = open();
    conn.host_receives_no_more();
    for _ in 0..10 {
        assert_eq!(conn.packet(&data(PROMISE)), Verdict::Discard);
    }
}

/// What may happen to an open connection.
#[derive(Clone, Debug)]
enum Event {
    Packet(Header),
    /// The host takes some of what is held.
    Forward(u32),
    /// As much data as the credit allows, at most this.
    Send(u32),
    /// The guest honestly consumes some of what it got.
    Consume(u32),
    Control,
    HostEnds,
    HostGone,
}

fn event() -> impl Strategy<Value = Event> {
    let len = prop_oneof![4 => 0_u32..2000, 1 => any::<u32>()];
    let wild = (0_u16..10, len, any::<u32>()).prop_map(|(op, len, flags)| {
        Event::Packet(Header { op, len, flags, buf_alloc: 500, ..Header::default() })
    });
    prop_oneof![
        6 => wild,
        4 => (0_u32..1500).prop_map(Event::Forward),
        4 => (0_u32..1500).prop_map(Event::Send),
        4 => (0_u32..600).prop_map(Event::Consume),
        3 => Just(Event::Control),
        1 => Just(Event::HostEnds),
        1 => Just(Event::HostGone),
    ]
}

proptest! {
    /// A model with wide counters never sees the credit of either side exceeded.
    #[test]
    fn credit_holds_both_ways(events in prop::collection::vec(event(), 0..300)) {
        let mut conn = open();
        let (mut sent, mut consumed) = (0_u64, 0_u64);
        let (mut received, mut forwarded) = (0_u64, 0_u64);
        for event in events {
            match event {
                Event::Packet(mut header) => {
                    header.fwd_cnt = u32::try_from(consumed & 0xffff_ffff).unwrap();
                    match conn.packet(&header) {
                        Verdict::Data => received += u64::from(header.len),
                        Verdict::Noted | Verdict::Discard => {}
                        Verdict::Established => prop_assert!(false, "established twice"),
                        Verdict::Ended | Verdict::Violation => return Ok(()),
                    }
                    prop_assert!(received - forwarded <= u64::from(PROMISE));
                }
                Event::Forward(len) => {
                    let len = u64::from(len).min(received - forwarded);
                    forwarded += len;
                    conn.forwarded(u32::try_from(len).unwrap());
                }
                Event::Send(len) => {
                    let len = len.min(conn.credit());
                    sent += u64::from(len);
                    conn.send(len);
                    prop_assert!(sent - consumed <= 500);
                }
                Event::Consume(len) => consumed += u64::from(len).min(sent - consumed),
                Event::Control => {
                    let mut packets = 0;
                    while conn.next_control(true).is_some() {
                        packets += 1;
                        prop_assert!(packets <= 3, "no end of packets");
                    }
                }
                Event::HostEnds => conn.host_sends_no_more(),
                Event::HostGone => {
                    conn.host_receives_no_more();
                    conn.forwarded(u32::try_from(received - forwarded).unwrap());
                    forwarded = received;
                }
            }
        }
    }
}
