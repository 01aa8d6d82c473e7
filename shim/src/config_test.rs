//! Which source wins, and how mistakes are reported.

use super::*;

fn file(text: &str) -> Result<Overrides, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    Overrides::from_file(&path).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

fn annotations(list: &[(&str, &str)]) -> Result<Overrides, String> {
    let map = list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Overrides::from_annotations(&map).map_err(|error| error.to_string())
}

#[test]
fn later_sources_win() {
    let config = file("vcpus = 2\nmemory = \"1G\"\nscratch = \"tmpfs\"").unwrap();
    let notes = annotations(&[("io.cofferdam.memory", "2G"), ("org.other", "x")]).unwrap();
    let flags = Overrides { scratch: Some(Scratch::Disk(Bytes(1 << 30))), ..Default::default() };
    let settings = Settings::new(config.then(notes).then(flags), None);
    assert_eq!(settings.vcpus, Some(2));
    assert_eq!(settings.memory, Some(Bytes(2 << 30)));
    assert_eq!(settings.scratch, Scratch::Disk(Bytes(1 << 30)));
    let config = file("max_vcpus = 4\nmax_memory = \"8G\"").unwrap();
    let notes = annotations(&[("io.cofferdam.max_vcpus", "6")]).unwrap();
    let settings = Settings::new(config.then(notes), None);
    assert_eq!((settings.max_vcpus, settings.max_memory), (Some(6), Some(Bytes(8 << 30))));
}

#[test]
fn everything_has_a_default() {
    let settings = Settings::new(file("").unwrap(), None);
    assert_eq!(settings.kernel, PathBuf::from("/usr/lib/cofferdam/vmlinux"));
    assert_eq!(settings.scratch, Scratch::Disk(Bytes(8 << 30)));
    assert!(settings.console);
    assert_eq!(settings.uids.to_string(), "2000000000-2000065535");
    let elsewhere = Settings::new(Overrides::default(), Some("/opt/c".into()));
    assert_eq!(elsewhere.image, PathBuf::from("/opt/c/initramfs"));
}

#[test]
fn the_jail_has_a_table() {
    let settings = Settings::new(file("[jail]\nuids = \"70000-70009\"").unwrap(), None);
    assert_eq!(settings.uids.to_string(), "70000-70009");
}

#[test]
fn a_mistake_is_told_in_one_line_with_its_place() {
    for text in
        ["vcpus = 1\n\nvcpu = 2\n", "vcpus = 1\n\nmemory = \"much\"", "console = true\n\nvcpus"]
    {
        let told = file(text).unwrap_err();
        assert!(told.contains("config.toml, line 3: ") && !told.contains('\n'), "{told:?}");
    }
}

#[test]
fn mistakes_are_named() {
    assert!(file("vcpu = 2").unwrap_err().contains("unknown field `vcpu`"));
    assert!(file("memory = \"much\"").unwrap_err().contains("\"much\""));
    assert!(file("vcpus = 300").is_err());
    assert!(file("[jail]\nuid = 7").unwrap_err().contains("unknown field `uid`"));
    assert!(file("[jail]\nuids = \"0-7\"").unwrap_err().contains("range of user ids"));
    assert!(annotations(&[("io.cofferdam.jail", "x")]).is_err(), "who runs is the host's to say");
    let unknown = annotations(&[("io.cofferdam.cpus", "2")]).unwrap_err();
    assert!(unknown.contains("io.cofferdam.cpus=\"2\": unknown"), "{unknown}");
    assert!(annotations(&[("io.cofferdam.kernel", "/x")]).is_err());
    assert!(annotations(&[("io.cofferdam.max_vcpus", "x")]).unwrap_err().contains("of CPUs"));
    assert!(annotations(&[("io.cofferdam.scratch", "1K")]).unwrap_err().contains("16M"));
    // Only a file that nobody named may be missing.
    let missing = Overrides::from_file(Path::new("/no/such/file")).unwrap_err();
    assert_eq!(missing.to_string(), "reading the configuration /no/such/file");
    assert!(Path::new(CONFIG).exists() || Overrides::from_file(&usual()).is_ok());
}
