//! Amounts, and texts that are none.

use super::*;

#[test]
fn amounts_are_read_with_binary_units() {
    for (text, bytes) in [("0", 0), ("4096", 4096), ("64K", 65536), ("512M", 512 << 20)] {
        assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
    }
    assert_eq!("8GiB".parse(), Ok(Bytes(8 << 30)));
    assert_eq!(" 1 t ".parse(), Ok(Bytes(1 << 40)));
}

#[test]
fn what_is_no_amount_is_refused() {
    for text in ["", "M", "-1", "1.5G", "1X", "99999999999999999999", "99999999T"] {
        assert!(text.parse::<Bytes>().is_err(), "{text}");
    }
}
