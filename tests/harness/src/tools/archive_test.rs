use super::*;

#[test]
fn sources_are_told_from_binaries() {
    let source = "      runc | 1.3.6+ds1-1 | http://mirror/debian sid/main Sources";
    let binary = "      runc | 1.3.6+ds1-1 | http://mirror/debian sid/main amd64 Packages";
    let runc = |source| Offer { package: "runc", version: "1.3.6+ds1-1", suite: "sid", source };

    assert_eq!(offer(source), Some(runc(true)));
    assert_eq!(offer(binary), Some(runc(false)));
    assert_eq!(offer("N: Unable to locate package runc"), None);
}
