//! Messages with descriptors by a name that is longer than an address.

use super::*;

#[tokio::test]
async fn a_long_path_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(200));
    std::fs::create_dir(&deep).unwrap();
    let listener = Listener::new(&deep, "s").unwrap();
    let client = Socket::connect(&deep, "s").unwrap();
    let server = listener.accept().await.unwrap();
    let file = tempfile::tempfile().unwrap();
    client.send(&"hello", &[file.as_fd()]).await.unwrap();
    let message = server.receive::<String>().await.unwrap();
    assert_eq!((message.body.as_str(), message.fds.len()), ("hello", 1));
    drop(client);
    assert!(matches!(server.receive::<String>().await, Err(ChannelError::Closed)));
}

#[tokio::test]
async fn a_name_that_nobody_listens_at_is_refused_and_can_be_taken() {
    let directory = tempfile::tempdir().unwrap();
    let error = Socket::connect(directory.path(), "s").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    drop(Listener::new(directory.path(), "s").unwrap());
    let error = Socket::connect(directory.path(), "s").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    Listener::new(directory.path(), "s").unwrap();
}
