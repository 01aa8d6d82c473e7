//! Statistics from files that look like KVM's, and from KVM.

use std::io::Write;

use super::*;

/// A descriptor: flags, exponent and size, offset, bucket size, name.
fn descriptor(flags: u32, size: u32, offset: u32, name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [flags, size << 16, offset, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    bytes.extend(padded);
    bytes
}

fn file(header: [u32; 6], rest: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.write_all(&header).unwrap();
    file.write_all(rest).unwrap();
    file
}

#[test]
fn names_and_values_are_where_the_header_says() {
    let mut rest = descriptor(0, 1, 0, "exits");
    rest.extend(descriptor(2, 1, 16, "most"));
    rest.extend(descriptor(4, 2, 24, "histogram"));
    for value in [7u64, 99, 8, 1, 2] {
        rest.extend(value.to_le_bytes());
    }
    let file = file([0, 16, 3, 0, 24, 24 + 96], &rest);
    let layout = Layout::read(&file).unwrap();
    let all = Statistics { file, layout }.read().unwrap();
    let named: Vec<_> = all.iter().map(|s| (s.name.as_str(), s.values.clone())).collect();
    assert_eq!(named, [("exits", vec![7]), ("most", vec![8]), ("histogram", vec![1, 2])]);
    let twice = total(&[all.clone(), all]);
    let values: Vec<_> = twice.iter().map(|s| s.values.clone()).collect();
    assert_eq!(values, [vec![14], vec![8], vec![2, 4]]);
    assert_eq!(total(&[]), []);
}

#[test]
fn a_layout_without_measure_is_refused() {
    assert!(Layout::read(&file([0, 1 << 20, 1, 0, 24, 40], &[])).is_err());
    assert!(Layout::read(&file([0, 16, 1 << 20, 0, 24, 40], &[])).is_err());
    let rest = descriptor(0, 0xffff, 0, "large");
    assert!(Layout::read(&file([0, 16, 1, 0, 24, 56], &rest)).is_err());
    let rest = descriptor(0, 1, u32::MAX, "far");
    assert!(Layout::read(&file([0, 16, 1, 0, 24, 56], &rest)).is_err());
    assert!(Layout::read(&file([0, 16, 1, 0, 24, 56], &[])).is_err(), "cut off");
}
