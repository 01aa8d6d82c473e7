//! Ids through the map of a user namespace.

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
