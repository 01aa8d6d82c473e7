//! /etc/passwd is read leniently.

use super::*;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x\nnoid:x:abc:0::/x:/y\n\
    app:x:1000:1000:,,,:/home/app:/bin/sh\nempty:x:7:7:::\nlast:x:8:8:::/bin/sh\nshort:x:9:9::/home/short";

#[test]
fn homes() {
    assert_eq!(home_in(PASSWD, 0), Some(&b"/root"[..]));
    assert_eq!(home_in(PASSWD, 1000), Some(&b"/home/app"[..]));
    assert_eq!(home_in(PASSWD, 9), Some(&b"/home/short"[..]));
    for none in [7, 8, 12] {
        assert_eq!(home_in(PASSWD, none), None, "{none}");
    }
}

#[test]
fn any_bytes_are_read() {
    assert_eq!(home_in(&[0xff; 4096], 0), None);
    assert_eq!(home_in(b":::::::\n\n:", 0), None);
}
