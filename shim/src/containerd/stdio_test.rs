//! Streams, opened as containerd names them.

use std::io::Write;

use super::*;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const OWNER: Owner<'static> = Owner { namespace: "n", container: "c" };

fn open(stdio: &Stdio) -> Result<Opened, StdioError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let opened = runtime.block_on(stdio.open(OWNER));
    runtime.shutdown_background();
    opened
}

fn stdio(stdin: &str, stdout: &str) -> Stdio {
    Stdio { stdin: stdin.into(), stdout: stdout.into(), stderr: String::new(), terminal: false }
}

#[test]
fn pipes_are_opened_without_their_other_end() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, stdout) = (directory.path().join("in"), directory.path().join("out"));
    for path in [&stdin, &stdout] {
        mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    }
    let opened = open(&stdio(stdin.to_str().unwrap(), stdout.to_str().unwrap())).unwrap();
    let [input, output, _] = opened.streams.map(File::from);
    let mut writer = File::options().write(true).open(&stdin).unwrap();
    writer.write_all(b"typed").unwrap();
    drop(writer);
    let mut bytes = [0; 8];
    assert_eq!((&input).read(&mut bytes).unwrap(), 5);
    // The client's end is closed; ours is not, so this is no end of file.
    assert_eq!((&input).read(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(opened.open);
    assert_eq!((&input).read(&mut bytes).unwrap(), 0);
    let mut reader =
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&stdout).unwrap();
    (&output).write_all(b"said").unwrap();
    drop(output);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "said");
}

#[test]
fn files_are_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/a b");
    let uri = format!("file://{}/logs/a%20b", directory.path().display());
    for _ in 0..2 {
        let [_, stdout, _] = open(&stdio("", &uri)).unwrap().streams;
        File::from(stdout).write_all(b"line\n").unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), "line\nline\n");
}

#[test]
fn a_logger_gets_the_streams_and_says_when_it_is_ready() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("logger");
    let script = "#!/bin/sh\necho \"$CONTAINER_NAMESPACE $CONTAINER_ID $*\" > \"$2\"\nexec 5>&-\n\
                  cat <&3 >> \"$2\"\ncat <&4 >> \"$2\"\nmv \"$2\" \"$2.done\"\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = directory.path().join("log");
    let uri = format!("binary://{}?to={}", program.display(), log.display());
    let [_, stdout, stderr] = open(&stdio("", &uri)).unwrap().streams;
    File::from(stdout).write_all(b"out\n").unwrap();
    File::from(stderr).write_all(b"err\n").unwrap();
    let done = directory.path().join("log.done");
    for _ in 0..1000 {
        if done.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let text = std::fs::read_to_string(done).unwrap();
    assert_eq!(text, format!("n c to {}\nout\nerr\n", log.display()));
}

#[test]
fn what_cannot_be_opened_is_named() {
    let error = open(&stdio("", "npipe://x")).unwrap_err().to_string();
    assert!(error.contains("standard output") && error.contains("npipe://x"), "{error}");
    let error = open(&stdio("/no/such/pipe", "")).unwrap_err().to_string();
    assert!(error.contains("/no/such/pipe"), "{error}");
    assert_eq!(
        Logger::of("/bin/log?a=1&b=x+y%21&c"),
        Logger {
            program: "/bin/log".into(),
            arguments: ["a", "1", "b", "x y!", "c"].map(String::from).into(),
        }
    );
}
