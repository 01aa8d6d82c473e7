use super::*;

#[test]
fn a_process_is_not_left_behind_where_there_is_no_way_back() {
    let child = Command::new("sleep").arg("60").spawn().unwrap();
    let process = format!("/proc/{}", child.id());
    let nowhere = File::open("/dev/null").unwrap();
    let error = go_back(&nowhere, Ok(child)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EINVAL));
    assert!(!std::path::Path::new(&process).exists(), "it lives, or was not waited for");
}

#[test]
fn an_error_of_the_start_is_told() {
    let home = File::open("/dev/null").unwrap();
    assert!(go_back(&home, Err(io::ErrorKind::NotFound.into())).is_err());
}
