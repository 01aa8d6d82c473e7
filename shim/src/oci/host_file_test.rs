//! What is found, and what can be made of it.

use super::*;

fn server() -> Result<PathBuf, String> {
    Ok("/server".into())
}

#[test]
fn small_regular_files_are_read_and_all_others_are_volumes() {
    let directory = tempfile::tempdir().unwrap();
    let small = directory.path().join("small");
    std::fs::write(&small, vec![0; MAX_FILE]).unwrap();
    let read = HostFile::read(&small, &server()).unwrap();
    assert_eq!(read.content.len(), MAX_FILE);
    assert!(matches!(read.live, Live::Can(_)));
    let large = directory.path().join("large");
    std::fs::write(&large, vec![0; MAX_FILE + 1]).unwrap();
    for path in [&large, directory.path()] {
        let read = HostFile::read(path, &server()).unwrap();
        assert!(read.content.is_empty() && matches!(read.live, Live::Must(_)), "{path:?}");
    }
}

#[test]
fn what_cannot_be_a_volume_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let of = |path: &Path, server| HostFile::read(path, &server).unwrap_err().to_string();
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(of(&socket, server()).starts_with("it is a socket"));
    assert!(of(Path::new("/dev/kmsg"), server()).contains("neither a directory nor a regular"));
    assert!(of(&directory.path().join("absent"), server()).contains("No such file"));
    let lacking = || Err("this host lacks it".to_owned());
    assert_eq!(of(directory.path(), lacking()), "it is a directory, and this host lacks it");
    let small = directory.path().join("small");
    std::fs::write(&small, "x").unwrap();
    let read = HostFile::read(&small, &lacking()).unwrap();
    assert_eq!(read.live, Live::Cannot("this host lacks it".to_owned()));
}

#[test]
fn files_without_an_end_are_not_read() {
    for path in ["/proc/kmsg", "/proc/self/status"] {
        let read = HostFile::read(Path::new(path), &server()).unwrap();
        assert!(read.content.is_empty() && matches!(read.live, Live::Must(_)), "{path}");
    }
}

#[test]
fn a_device_that_every_machine_has_is_the_machine_s() {
    let null = HostFile::read(Path::new("/dev/null"), &Err("none is needed".into())).unwrap();
    assert_eq!(null.live, Live::Machines("/dev/null"));
}

#[test]
fn the_owner_is_looked_at() {
    assert!(HostFile::read(Path::new("/etc/passwd"), &server()).unwrap().of_root);
    let file = tempfile::NamedTempFile::new().unwrap();
    if std::os::unix::fs::chown(file.path(), Some(7), None).is_err() {
        return println!("SKIPPED: only root gives files away");
    }
    assert!(!HostFile::read(file.path(), &server()).unwrap().of_root);
}
