//! What can be mounted and what is refused, by name.

use serde_json::json;

use super::*;

fn plan(mount: serde_json::Value) -> Result<protocol::Mount, String> {
    let mount: Mount = serde_json::from_value(mount).unwrap();
    let read = |path: &Path| match path.to_str().unwrap() {
        "/etc/hosts" | "/bundle/hosts" => Ok(HostFile {
            content: b"127.0.0.1".into(),
            mode: 0o644,
            of_root: true,
            memory: None,
            live: Live::Cannot("it is a test".into()),
        }),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let map = [protocol::IdMap { container: 0, host: 100_000, size: 10 }];
    let user_namespace = Some((map.as_slice(), map.as_slice()));
    let around = Around {
        bundle: Path::new("/bundle"),
        rootfs: Path::new("/bundle/rootfs"),
        read: &read,
        user_namespace,
        room: Cell::new(MAX_FILES),
    };
    let mut warnings = Vec::new();
    let plans = mounts(std::slice::from_ref(&mount), &around, &mut warnings);
    let of_destination = warnings.iter().any(|warning| warning.contains(".destination: "));
    assert_ne!(of_destination, mount.destination().is_absolute(), "{warnings:?}");
    Ok(plans.map_err(|error| error.to_string())?.0.remove(0))
}

#[test]
fn a_relative_destination_is_taken_from_the_root_with_a_warning() {
    let plan = plan(json!({"destination": "dev/shm", "type": "tmpfs"})).unwrap();
    assert_eq!(plan.destination, b"/dev/shm");
}

#[test]
fn recursive_attributes_and_unknown_options_are_passed_on() {
    let plan = plan(json!({"destination": "/tmp", "type": "tmpfs",
        "options": ["rro", "rnoatime", "size=1m", "huge=never", "runbindable"]}))
    .unwrap();
    assert_eq!(plan.recursive_set, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME);
    assert_eq!(plan.recursive_clear, libc::MOUNT_ATTR__ATIME);
    assert_eq!((plan.flags, plan.data.as_slice()), (0, b"size=1m,huge=never".as_slice()));
    assert_eq!(plan.propagation, libc::MS_UNBINDABLE | libc::MS_REC);
}

#[test]
fn id_maps_are_the_mount_s_own_or_those_of_the_user_namespace() {
    let bind = |options: serde_json::Value, own: bool| {
        let mut mount = json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts",
            "options": options});
        if own {
            mount["uidMappings"] = json!([{"containerID": 1, "hostID": 2, "size": 3}]);
            mount["gidMappings"] = json!([{"containerID": 4, "hostID": 5, "size": 6}]);
        }
        plan(mount).unwrap()
    };
    let map = |container, host, size| vec![protocol::IdMap { container, host, size }];
    let plain = bind(json!(["bind"]), false);
    assert!(plain.uid_map.is_empty() && plain.gid_map.is_empty());
    let container = bind(json!(["bind", "idmap"]), false);
    assert_eq!((container.uid_map, container.map_recursively), (map(0, 100_000, 10), false));
    let own = bind(json!(["bind", "ridmap"]), true);
    assert_eq!((own.uid_map, own.gid_map, own.map_recursively), (map(1, 2, 3), map(4, 5, 6), true));
    assert_eq!(bind(json!(["bind"]), true).gid_map, map(4, 5, 6));
    let half = json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts",
        "uidMappings": [{"containerID": 1, "hostID": 2, "size": 3}]});
    assert!(plan(half).unwrap_err().starts_with("mounts[0]: an id-mapped mount needs"));
    let empty = json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts",
        "uidMappings": [{"containerID": 1, "hostID": 2, "size": 0}]});
    assert!(plan(empty).unwrap_err().starts_with("mounts[0].uidMappings: "));
}

#[test]
fn what_hides_proc_is_refused_as_by_runc() {
    let at = |destination: &str, fstype: &str| {
        plan(json!({"destination": destination, "type": fstype, "source": "/etc/hosts"}))
    };
    assert!(at("/proc", "proc").is_ok());
    assert!(at("/proc/uptime", "bind").is_ok());
    assert!(at("/process", "tmpfs").is_ok());
    for destination in ["/proc", "/x/../proc/", "/proc/self", "proc/../proc/sys/kernel"] {
        for fstype in ["tmpfs", "bind"] {
            let mount = json!({"destination": destination, "type": fstype, "source": "/etc/hosts"});
            let mount: Mount = serde_json::from_value(mount).unwrap();
            let read = |_: &Path| {
                Ok(HostFile {
                    content: Vec::new(),
                    mode: 0,
                    of_root: true,
                    memory: None,
                    live: Live::Cannot("it is a test".into()),
                })
            };
            let around = Around {
                rootfs: Path::new("/b/rootfs"),
                bundle: Path::new("/"),
                read: &read,
                user_namespace: None,
                room: Cell::new(MAX_FILES),
            };
            let error = mounts(&[mount], &around, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.starts_with("mounts[0].destination: \"/proc"), "{error}");
        }
    }
}

#[test]
fn a_file_system_of_the_kernel() {
    let plan = plan(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "gid=5"]}))
    .unwrap();
    assert_eq!(plan.kind(), protocol::MountKind::Filesystem);
    assert_eq!(plan.flags, libc::MS_NOSUID | libc::MS_NOEXEC);
    assert_eq!(plan.data, b"newinstance,ptmxmode=0666,gid=5");
}

#[test]
fn a_small_file_is_brought_along() {
    for source in ["/etc/hosts", "hosts"] {
        let plan = plan(json!({"destination": "/etc/hosts", "type": "bind", "source": source,
            "options": ["rbind", "ro", "rprivate"]}))
        .unwrap();
        assert_eq!(plan.kind(), protocol::MountKind::File);
        assert_eq!((plan.content.as_slice(), plan.mode), (b"127.0.0.1".as_slice(), 0o644));
        assert_eq!(plan.flags, libc::MS_RDONLY);
        assert!(plan.source.is_empty());
    }
}

#[test]
fn other_sources_are_refused_by_name() {
    let error = plan(json!({"destination": "/data", "source": "/no/such", "options": ["bind"]}));
    let error = error.unwrap_err();
    assert!(error.starts_with("mounts[0]: mount of /no/such on /data: "), "{error}");
    let nfs = plan(json!({"destination": "/data", "type": "nfs", "source": "server:/x"}));
    let nfs = nfs.unwrap_err();
    assert!(nfs.starts_with("mounts[0].type ") && nfs.contains("\"nfs\""), "{nfs}");
    let mapped = plan(json!({"destination": "/data", "type": "tmpfs", "options": ["idmap"]}));
    assert_eq!(mapped.unwrap_err(), "mounts[0]: only a bind mount can be id-mapped");
}

#[test]
fn a_file_is_a_volume_if_somebody_may_write_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::find(directory.path()).unwrap();
    let kind = |live: Live, destination: &str, options: &[&str]| {
        let read = |_: &Path| {
            Ok(HostFile {
                content: b"x".into(),
                mode: 0o644,
                of_root: true,
                memory: None,
                live: live.clone(),
            })
        };
        let mount = json!({"destination": destination, "source": "/x", "options": options});
        let mount: Mount = serde_json::from_value(mount).unwrap();
        let around = Around {
            bundle: Path::new("/b"),
            rootfs: Path::new("/b/rootfs"),
            read: &read,
            user_namespace: None,
            room: Cell::new(MAX_FILES),
        };
        let mut warnings = Vec::new();
        let (mut plans, volumes) = mounts(&[mount], &around, &mut warnings).unwrap();
        let wishes: Vec<Wish> = volumes.into_iter().map(|volume| volume.wish).collect();
        (plans.remove(0).kind(), wishes, warnings.len())
    };
    use protocol::MountKind::{File, Volume};
    let can = || Live::Can(place.clone());
    let must = || Live::Must(place.clone());
    let wish = Wish::default();
    assert_eq!(kind(can(), "/data", &["bind"]), (Volume, vec![wish], 0));
    assert_eq!(kind(can(), "/data", &["bind", "ro"]), (File, vec![], 0));
    assert_eq!(kind(can(), "/etc/hosts", &["bind"]), (File, vec![], 0));
    assert_eq!(kind(can(), "/etc/./resolv.conf", &["bind"]), (File, vec![], 0));
    let none = || Live::Cannot("there is none".into());
    assert_eq!(kind(none(), "/data", &["bind"]), (File, vec![], 1), "it is told");
    assert_eq!(kind(none(), "/data", &["bind", "ro"]), (File, vec![], 0));
    let readonly = Wish { readonly: true, ..wish };
    assert_eq!(kind(must(), "/data", &["bind", "ro"]), (Volume, vec![readonly], 0));
    let deep = Wish { deep: true, follow: true, ..wish };
    assert_eq!(kind(must(), "/data", &["rbind", "rslave"]), (Volume, vec![deep], 0));
    let all = Wish { deep: true, readonly: true, all_readonly: true, follow: false };
    assert_eq!(kind(must(), "/data", &["rbind", "rro", "rprivate"]), (Volume, vec![all], 0));
}

#[test]
fn an_empty_directory_in_memory_becomes_memory_of_the_pod() {
    let memory = |_: &Path| {
        Ok(HostFile {
            content: Vec::new(),
            mode: 0o1777,
            of_root: true,
            memory: Some(65_536_000),
            live: Live::Cannot(String::new()),
        })
    };
    let mount: Mount = serde_json::from_value(serde_json::json!({
        "destination": "/dev/shm", "source": "/run/pod/shm", "type": "bind",
        "options": ["bind", "nosuid"],
    }))
    .unwrap();
    let around = Around {
        bundle: Path::new("/b"),
        rootfs: Path::new("/b/rootfs"),
        read: &memory,
        user_namespace: None,
        room: Cell::new(MAX_FILES),
    };
    let plan = mounts(&[mount], &around, &mut Vec::new()).unwrap().0.remove(0);
    assert_eq!(plan.kind(), protocol::MountKind::Shared);
    assert_eq!(
        (plan.source, plan.data),
        (b"/run/pod/shm".to_vec(), b"mode=1777,size=65536000".to_vec())
    );
}

#[test]
fn a_bind_mount_has_no_options_of_a_file_system() {
    for option in ["mode=0600", "r0", "readonly"] {
        let error =
            plan(json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts",
            "options": ["rbind", option]}))
            .unwrap_err();
        assert!(error.starts_with("mounts[0].options: bind mounts cannot have any"), "{error}");
        assert!(error.contains(option), "{error}");
    }
}

#[test]
fn what_every_machine_has_is_the_machine_s() {
    let bound = |path: &str, destination: &str| {
        plan(json!({"source": path, "destination": destination, "type": "none",
            "options": ["rbind", "nosuid"]}))
    };
    let proc = bound("/proc", "/proc").unwrap();
    assert_eq!((proc.kind(), proc.fstype.as_str()), (protocol::MountKind::Filesystem, "proc"));
    assert_eq!(bound("/sys/", "/sys").unwrap().fstype, "sysfs");
    let dev = bound("/dev", "/dev").unwrap();
    assert_eq!(
        (dev.kind(), dev.source.as_slice()),
        (protocol::MountKind::Bind, b"/dev".as_slice())
    );
    assert_eq!(dev.flags, libc::MS_REC | libc::MS_NOSUID);
    assert!(bound("/dev", "/host/dev").is_err());
    assert!(bound("/tmp", "/proc").is_err());
}

#[test]
fn what_is_mounted_below_is_a_volume_of_its_own_where_it_must_be() {
    let root = Place::find(Path::new("/")).unwrap();
    let mut below = root.mounted_below().unwrap();
    below.retain(|(_, place)| {
        matches!(
            FileType::from_raw_mode(fstat(place).unwrap().st_mode),
            FileType::Directory | FileType::RegularFile
        )
    });
    let read = |path: &Path| {
        let live = if path == Path::new("/tree") {
            Live::Must(root.clone())
        } else {
            Live::Cannot("it is a test".into())
        };
        Ok(HostFile { content: b"x".into(), mode: 0o644, of_root: true, memory: None, live })
    };
    let map = [protocol::IdMap { container: 0, host: 100_000, size: 10 }];
    let user_namespace = Some((map.as_slice(), map.as_slice()));
    let around = Around {
        bundle: Path::new("/b"),
        rootfs: Path::new("/b/rootfs"),
        read: &read,
        user_namespace,
        room: Cell::new(MAX_FILES),
    };
    let planned = |options: &[&str]| {
        let mounts = json!([
            {"destination": "/data", "source": "/tree", "options": options},
            {"destination": "/etc/hosts", "source": "/file", "options": ["bind"]},
        ]);
        let list: Vec<Mount> = serde_json::from_value(mounts).unwrap();
        super::mounts(&list, &around, &mut Vec::new()).unwrap()
    };
    for one in [&["rbind", "idmap"][..], &["rbind", "ro", "rro"], &["rbind", "ro", "rslave"]] {
        let (plans, volumes) = planned(one);
        assert_eq!((plans.len(), volumes.len(), volumes[0].wish.deep), (2, 1, true), "{one:?}");
        assert!(plans.iter().all(|plan| plan.number.is_none()));
    }
    let (plans, volumes) = planned(&["rbind", "ro"]);
    assert_eq!(volumes.len(), 1 + below.len());
    assert_eq!((plans[0].flags, plans[1].flags), (libc::MS_RDONLY, 0));
    assert_eq!((volumes[0].wish.readonly, volumes[1].wish.readonly), (true, false));
    assert!(!volumes[1].mapped);
    assert_eq!(planned(&["bind", "ro"]).1.len(), 1, "what is mounted below is not seen");
    let (plans, volumes) = planned(&["rbind", "ridmap"]);
    assert_eq!((plans.len(), volumes.len()), (2 + below.len(), 1 + below.len()));
    for (index, (path, place)) in below.iter().enumerate() {
        let (plan, volume) = (&plans[1 + index], &volumes[1 + index]);
        assert_eq!(plan.destination, Path::new("/data").join(path).as_os_str().as_bytes());
        assert_eq!((volume.mount, volume.wish.deep, volume.mapped), (1 + index, false, true));
        assert_eq!(fstat(&volume.place).unwrap().st_ino, fstat(place).unwrap().st_ino);
    }
    // What is told of a file by its number in the configuration reaches it.
    let numbers: Vec<usize> = (0..).zip(&plans).map(|(at, plan)| plan.number_at(at)).collect();
    assert_eq!(numbers.last(), Some(&1));
    let all: std::collections::BTreeSet<_> = numbers.iter().collect();
    assert_eq!(all.len(), numbers.len(), "{numbers:?}");
}

#[test]
fn what_is_in_the_root_file_system_is_the_container_s_own() {
    let inner = plan(json!({"destination": "/bundle/rootfs/to/it", "type": "bind",
        "source": "rootfs/from/../here", "options": ["rbind"]}))
    .unwrap();
    assert_eq!(inner.kind(), protocol::MountKind::Inner);
    assert_eq!(
        (inner.source.as_slice(), inner.destination.as_slice()),
        (&b"/here"[..], &b"/to/it"[..])
    );
    assert_eq!(inner.flags, libc::MS_REC);
    for source in ["/bundle/rootfs", "/bundle/rootfsx/file", "rootfs/../hosts"] {
        let mount = json!({"destination": "/x", "type": "bind", "source": source});
        let kind = plan(mount).map(|plan| plan.kind());
        assert_ne!(kind, Ok(protocol::MountKind::Inner), "{source}");
    }
}
