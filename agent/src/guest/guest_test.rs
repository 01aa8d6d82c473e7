//! Names of kernel parameters.

use super::*;

#[test]
fn names_become_paths() {
    for (name, path) in [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
    ] {
        assert_eq!(sysctl_path(name), Some(PathBuf::from(path)), "{name}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["", "..", "kernel/../../x", "/etc/passwd", "a..b", "kernel."] {
        assert_eq!(sysctl_path(name), None, "{name}");
    }
}
