//! What may name a volume.

use super::*;

#[test]
fn a_name_is_letters_and_digits() {
    assert_eq!(name(b"m17").unwrap(), "m17");
    for wrong in [&b""[..], b".", b"..", b"a/b", b"a\0", b"a b", &[b'1'; 33], b"\xc3\xa9"] {
        assert!(name(wrong).is_err(), "{wrong:?}");
    }
}
