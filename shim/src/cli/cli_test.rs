//! What the command line accepts, and the specification it makes.

use clap::CommandFactory;

use super::*;
use crate::oci::{Bundle, translate};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
    let help = Cli::command().render_long_help().to_string();
    for word in ["run", "spec", "doctor", "--root", "--log-format", "--version"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[test]
fn options_are_accepted_before_and_after_the_id() {
    for line in [
        "cofferdam --root /r run --bundle /b c",
        "cofferdam run c --bundle /b --root /r",
        "cofferdam run c -b /b --log /l --log-format json --debug",
        "cofferdam run --rootfs /r -- true",
        "cofferdam --criu /usr/sbin/criu create --pidfd-socket /s --bundle /b c",
        "cofferdam run --pidfd-socket /s c",
        "cofferdam exec --pidfd-socket /s c true",
        "cofferdam run --rootfs /r c -t -i --env A=b -- sh -c true --bundle",
        "cofferdam spec --bundle /b",
        "cofferdam doctor",
        "cofferdam install --prefix /opt/cofferdam --destdir /host --containerd",
        "cofferdam install --containerd /etc/containerd/other.toml --force",
        "cofferdam uninstall --prefix /opt/cofferdam --destdir /host",
        "cofferdam --version",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "cofferdam run --bundle /b --rootfs /r -- true",
        "cofferdam run c -- true",
        "cofferdam run --tty c",
        "cofferdam run --rootfs /r --scratch little -- true",
        "cofferdam run --rootfs /r --memory much -- true",
        "cofferdam fly",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

fn request<'a>(command: &'a [String], env: &'a [String]) -> rootfs::Request<'a> {
    rootfs::Request {
        rootfs: std::path::Path::new("/r"),
        command,
        tty: false,
        env,
        cwd: Some("/tmp"),
        user: Some("5:6"),
        memory: Some(crate::units::Bytes(1 << 20)),
        cpus: Some(1.5),
        hostname: Some("h"),
        read_only: false,
    }
}

#[test]
fn a_root_file_system_alone_becomes_a_specification() {
    let command = ["echo".to_owned(), "hi".to_owned()];
    let env = ["PATH=/x".to_owned(), "A=b".to_owned()];
    let spec = rootfs::spec(&request(&command, &env)).unwrap();
    let bundle = Bundle { directory: "/".into(), rootfs: "/r".into(), spec, warnings: vec![] };
    let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let translated = translate("c", &bundle, &none, &|_| None).unwrap();
    let process = translated.container.process.unwrap();
    assert_eq!(process.args, [b"echo".to_vec(), b"hi".to_vec()]);
    assert_eq!(process.env, [b"HOME=/root".to_vec(), b"PATH=/x".to_vec(), b"A=b".to_vec()]);
    assert_eq!((process.uid, process.gid, process.cwd), (5, 6, b"/tmp".to_vec()));
    assert_eq!(translated.needs.memory, Some(1 << 20));
    assert_eq!(translated.needs.millicpus, Some(1500));
    assert!(!translated.terminal && !translated.container.rootfs.unwrap().readonly);
    assert!(translated.warnings.is_empty());
}

#[test]
fn a_missing_command_and_odd_limits_are_named() {
    assert!(rootfs::spec(&request(&[], &[])).unwrap_err().to_string().contains("command"));
    let command = ["true".to_owned()];
    let odd = rootfs::Request { cpus: Some(-1.0), ..request(&command, &[]) };
    assert!(rootfs::spec(&odd).unwrap_err().to_string().contains("--cpus"));
}

#[test]
fn a_specification_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    write_spec(directory.path(), false).unwrap();
    let error = write_spec(directory.path(), false).unwrap_err();
    assert!(format!("{error:#}").contains("config.json: File exists"), "{error:#}");
}

#[test]
fn the_log_is_found_in_a_command_line_that_makes_no_sense() {
    let of = |line: &str| log_of(line.split(' ').map(OsString::from));
    let json = (Some(PathBuf::from("/l")), Format::Json);
    assert_eq!(of("cofferdam --log /l --log-format json fly"), json);
    assert_eq!(of("cofferdam fly --log-format=json --log=/l"), json);
    assert_eq!(of("cofferdam --log /l run --nonsense"), (Some("/l".into()), Format::Text));
    assert_eq!(of("cofferdam run c -- --log /l"), (None, Format::Text));
    assert_eq!(of("cofferdam --log"), (None, Format::Text));
}
