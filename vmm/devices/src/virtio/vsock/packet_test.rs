use proptest::prelude::*;

use super::*;

#[test]
fn each_field_is_where_the_specification_has_it() {
    let mut bytes = [0; HEADER_LEN];
    for (value, byte) in (0..).zip(&mut bytes) {
        *byte = value;
    }

    let header = Header::parse(&bytes);

    assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
    assert_eq!(header.dst_cid, 0x0f0e_0d0c_0b0a_0908);
    assert_eq!(header.src_port, 0x1312_1110);
    assert_eq!(header.dst_port, 0x1716_1514);
    assert_eq!(header.len, 0x1b1a_1918);
    assert_eq!(header.kind, 0x1d1c);
    assert_eq!(header.op, 0x1f1e);
    assert_eq!(header.flags, 0x2322_2120);
    assert_eq!(header.buf_alloc, 0x2726_2524);
    assert_eq!(header.fwd_cnt, 0x2b2a_2928);
    assert_eq!(header.encode(), bytes);
}

#[test]
fn operations_have_their_numbers() {
    for number in 0..=u16::MAX {
        let op = Op::parse(number);
        assert_eq!(op.is_some(), (1..=7).contains(&number));
        assert!(op.is_none_or(|op| op as u16 == number));
    }
}

#[test]
fn a_refusal_goes_back_and_never_answers_a_reset() {
    let header = Header {
        src_cid: 3,
        dst_cid: 9,
        src_port: 1,
        dst_port: 2,
        kind: 2,
        op: 1,
        len: 7,
        ..Header::default()
    };

    let refusal = header.refusal(3).unwrap();

    assert_eq!((refusal.src_cid, refusal.dst_cid), (9, 3));
    assert_eq!((refusal.src_port, refusal.dst_port), (2, 1));
    assert_eq!((refusal.kind, refusal.op, refusal.len), (2, 3, 0));
    assert_eq!(refusal.refusal(3), None);
}

proptest! {
    #[test]
    fn every_header_survives(bytes in any::<[u8; 32]>(), rest in any::<[u8; 12]>()) {
        let mut whole = [0; HEADER_LEN];
        whole[..32].copy_from_slice(&bytes);
        whole[32..].copy_from_slice(&rest);
        prop_assert_eq!(Header::parse(&whole).encode(), whole);
    }
}
