//! Ids through the map of a user namespace, and groups below that of a container.

use super::*;

#[test]
fn ids_are_mapped() {
    let map = [
        IdMap { container: 0, host: 100_000, size: 1000 },
        IdMap { container: 5000, host: u32::MAX - 1, size: 10 },
    ];
    assert_eq!(host_uid(&map, 0), Some(100_000));
    assert_eq!(host_uid(&map, 999), Some(100_999));
    assert_eq!(host_uid(&map, 1000), None);
    assert_eq!(host_uid(&map, 5001), Some(u32::MAX));
    assert_eq!(host_uid(&map, 5002), None);
    assert_eq!(host_uid(&[], 0), None);
}

#[test]
fn a_group_below_is_found_by_any_name() {
    let of = |text: &[u8]| below_group(text, b"c").to_vec();
    assert_eq!(of(b"1:cpu:/x\n0::/pod/c/a\xff/b\n"), b"a\xff/b");
    assert_eq!(of(b"0::/pod/c\n"), b"");
    assert_eq!(of(b"0::/pod/cc/a\n"), b"");
    assert_eq!(of(b""), b"");
}
