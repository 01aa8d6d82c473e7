//! What can be mounted and what is refused, by name.

use serde_json::json;

use super::*;

fn plan(mount: serde_json::Value) -> Result<protocol::Mount, String> {
    let mount: Mount = serde_json::from_value(mount).unwrap();
    let read = |path: &Path| match path.to_str().unwrap() {
        "/etc/hosts" | "/bundle/hosts" => {
            Ok(HostFile { content: b"127.0.0.1".into(), mode: 0o644, memory: None })
        }
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let mut plans =
        mounts(&[mount], Path::new("/bundle"), &read).map_err(|error| error.to_string())?;
    Ok(plans.remove(0))
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
    assert!(error.starts_with("mount of /no/such on /data: "), "{error}");
    let nfs = plan(json!({"destination": "/data", "type": "nfs", "source": "server:/x"}));
    assert!(nfs.unwrap_err().contains("\"nfs\""));
    let mapped = plan(json!({"destination": "/data", "type": "tmpfs", "options": ["idmap"]}));
    assert!(mapped.unwrap_err().contains("id-mapped"));
}

#[test]
fn only_small_regular_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let error = HostFile::read(directory.path()).unwrap_err();
    assert_eq!(error.to_string(), "it is a directory");
    assert!(HostFile::read(Path::new("/dev/null")).unwrap_err().to_string().contains("regular"));
    let large = directory.path().join("large");
    std::fs::write(&large, vec![0; MAX_FILE + 1]).unwrap();
    assert!(HostFile::read(&large).unwrap_err().to_string().contains("2048 KiB"));
    std::fs::write(&large, vec![0; MAX_FILE]).unwrap();
    assert_eq!(HostFile::read(&large).unwrap().content.len(), MAX_FILE);
}

#[test]
fn an_empty_directory_in_memory_becomes_memory_of_the_pod() {
    let memory =
        |_: &Path| Ok(HostFile { content: Vec::new(), mode: 0o1777, memory: Some(65_536_000) });
    let mount: Mount = serde_json::from_value(serde_json::json!({
        "destination": "/dev/shm", "source": "/run/pod/shm", "type": "bind",
        "options": ["bind", "nosuid"],
    }))
    .unwrap();
    let plan = mounts(&[mount], Path::new("/b"), &memory).unwrap().remove(0);
    assert_eq!(plan.kind(), protocol::MountKind::Shared);
    assert_eq!(
        (plan.source, plan.data),
        (b"/run/pod/shm".to_vec(), b"mode=1777,size=65536000".to_vec())
    );
}
