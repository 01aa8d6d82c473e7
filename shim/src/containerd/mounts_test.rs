//! What containerd's snapshotters ask for.

use super::*;

fn wish(kind: &str, source: &str, options: &[&str]) -> Wish {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Wish { kind: kind.into(), source: source.into(), target: String::new(), options }
}

#[test]
fn options_are_flags_or_data() {
    let of = |all: &[&str]| options(&wish("", "", all).options);
    let found = of(&["ro", "nosuid", "rw", "lowerdir=/a:/b", "index=off", "x-gvfs-hide"]);
    assert_eq!(found.flags, MsFlags::MS_NOSUID);
    assert_eq!(found.data, "lowerdir=/a:/b,index=off");
    assert!(!found.is_loop);
    assert_eq!(of(&["rbind"]).flags, MsFlags::MS_BIND | MsFlags::MS_REC);
    assert!(of(&["loop", "ro"]).is_loop);
}

#[test]
fn an_overlay_without_writes_is_its_lower_layers() {
    let directory = tempfile::tempdir().unwrap();
    let upper = directory.path().join("upper");
    std::fs::create_dir(&upper).unwrap();
    let upperdir = format!("upperdir={}", upper.display());
    let two = wish("overlay", "overlay", &["workdir=/w", &upperdir, "lowerdir=/b:/a"]);
    let reading = two.clone().for_reading();
    assert_eq!(reading, wish("overlay", "overlay", &["lowerdir=/b:/a"]));
    let one = wish("overlay", "overlay", &["index=off", "workdir=/w", &upperdir, "lowerdir=/a"]);
    assert_eq!(one.for_reading(), wish("bind", "/a", &["rbind"]));
    std::fs::write(upper.join("file"), "").unwrap();
    assert_eq!(two.clone().for_reading(), two);
    let bind = wish("bind", "/a", &["rbind", "rw"]);
    assert_eq!(bind.clone().for_reading(), bind);
}

#[test]
fn many_layers_are_named_from_where_they_all_are() {
    let layers: Vec<String> = (0..100).map(|n| format!("/var/lib/snapshots/{n}/fs")).collect();
    let data = format!("index=off,lowerdir={}", layers.join(":"));
    let (directory, short) = relative(&data).unwrap();
    assert_eq!(directory, Path::new("/var/lib/snapshots"));
    assert!(short.starts_with("index=off,lowerdir=0/fs:1/fs:"), "{short}");
    assert!(short.len() < data.len() / 2);
    // One layer, or none in common, is left as it is.
    assert_eq!(relative("lowerdir=/a/fs").unwrap(), ("/a".into(), "lowerdir=fs".to_owned()));
    assert_eq!(relative("lowerdir=a:b"), None);
    assert_eq!(relative("index=off"), None);
}

#[test]
fn targets_are_below_the_directory() {
    assert_eq!(place(Path::new("/b/rootfs"), ""), Path::new("/b/rootfs"));
    assert_eq!(place(Path::new("/b/rootfs"), "/data"), Path::new("/b/rootfs/data"));
}
