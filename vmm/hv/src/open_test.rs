//! What is wrong with a host is said by name.

use super::*;

#[test]
fn a_missing_device_node_is_named() {
    let error = open_kvm("/dev/no-such-kvm").unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }));
    assert!(error.to_string().contains("/dev/no-such-kvm does not exist"));
}

#[test]
fn something_that_is_not_kvm_is_refused() {
    let file = std::fs::File::open("/dev/zero").unwrap();
    assert!(matches!(Hypervisor::from_fd(file.into()), Err(OpenError::Version(-1))));
}

#[test]
fn a_path_that_cannot_be_opened_keeps_its_cause() {
    let error = open_kvm("/dev/null/kvm").unwrap_err();
    assert!(matches!(&error, OpenError::Open { path, .. } if path == "/dev/null/kvm"));
    assert!(std::error::Error::source(&error).is_some());
    assert!(matches!(open_kvm("/dev/\0kvm"), Err(OpenError::Open { .. })));
}
