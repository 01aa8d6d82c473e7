//! Installations into directories of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

struct Host {
    root: tempfile::TempDir,
    release: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host =
            Self { root: tempfile::tempdir().unwrap(), release: tempfile::tempdir().unwrap() };
        for name in
            ["cofferdam", "cofferdam-vmm", "vmlinux", "vmlinux.json", "initramfs", "initramfs.json"]
        {
            host.release(name, &format!("{name} 1"));
        }
        host
    }

    fn release(&self, name: &str, content: &str) {
        fs::write(self.release.path().join(name), content).unwrap();
    }

    fn sources(&self) -> Sources {
        let of = |name| self.release.path().join(name);
        Sources {
            program: of("cofferdam"),
            monitor: of("cofferdam-vmm"),
            kernel: of("vmlinux"),
            image: of("initramfs"),
        }
    }

    fn request(&self, prefix: &str, containerd: bool) -> Request {
        let containerd = containerd.then(|| "/etc/containerd/config.toml".into());
        let prefix = Prefix::new(Path::new(prefix), self.root.path()).unwrap();
        Request { prefix, containerd, force: false }
    }

    fn install(&self, request: &Request) -> Result<Report> {
        install(request, &self.sources())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    /// Everything that is there, with its content.
    fn everything(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut left = vec![self.root.path().to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_symlink() {
                    found.push((path.clone(), fs::read_link(&path).unwrap().display().to_string()));
                } else if path.is_dir() {
                    found.push((path.clone(), "a directory".into()));
                    left.push(path);
                } else {
                    found.push((path.clone(), fs::read_to_string(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }
}

const LIB: &str = "opt/c/lib/cofferdam";

#[test]
fn it_places_everything_and_removes_just_that() {
    let host = Host::new();
    host.write("etc/containerd/config.toml", "version = 2 # a comment\n");
    host.write("opt/other", "not ours");
    let before = host.everything();
    let request = host.request("/opt/c", true);
    let report = host.install(&request).unwrap();
    assert!(report.lines.iter().any(|line| line.starts_with("restart containerd")), "{report:?}");
    assert_eq!(host.read("opt/c/bin/cofferdam"), "cofferdam 1");
    assert_eq!(host.read(&format!("{LIB}/vmlinux.json")), "vmlinux.json 1");
    assert_eq!(host.read("opt/c/etc/cofferdam/config.toml"), layout::CONFIGURATION);
    let link = fs::read_link(host.path("opt/c/bin/containerd-shim-cofferdam-v2")).unwrap();
    assert_eq!(link, Path::new("cofferdam"));
    let mode = |name: &str| fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("opt/c/bin/cofferdam-vmm"), mode(&format!("{LIB}/vmlinux"))), (0o755, 0o644));
    assert!(
        host.read("etc/containerd/config.toml").contains("/opt/c/bin/containerd-shim-cofferdam-v2")
    );
    assert_eq!(verify(&request.prefix).unwrap(), Some(vec![]));
    // Again changes nothing, also when nobody names containerd.
    let after = host.everything();
    for containerd in [true, false] {
        let again = host.install(&host.request("/opt/c", containerd)).unwrap();
        assert_eq!(again.lines, ["/opt/c is up to date"]);
        assert_eq!(host.everything(), after);
    }
    let report = uninstall(&request).unwrap();
    assert!(report.kept.is_empty(), "{report:?}");
    assert_eq!(host.everything(), before);
    assert_eq!(uninstall(&request).unwrap().lines, ["nothing is installed in /opt/c"]);
}

#[test]
fn an_upgrade_replaces_what_changed_and_whoever_has_a_file_keeps_it() {
    let host = Host::new();
    let request = host.request("/opt/c", false);
    host.install(&request).unwrap();
    let mut open = fs::File::open(host.path("opt/c/bin/cofferdam")).unwrap();
    host.release("cofferdam", "cofferdam 2");
    let report = host.install(&request).unwrap();
    assert_eq!(report.lines, ["placed /opt/c/bin/cofferdam"]);
    assert_eq!(host.read("opt/c/bin/cofferdam"), "cofferdam 2");
    let mut old = String::new();
    std::io::Read::read_to_string(&mut open, &mut old).unwrap();
    assert_eq!(old, "cofferdam 1");
    uninstall(&request).unwrap();
    assert_eq!(host.everything(), []);
}

#[test]
fn what_others_made_or_changed_is_not_touched() {
    let host = Host::new();
    let request = host.request("/opt/c", true);
    host.write("opt/c/bin/cofferdam", "another");
    let before = host.everything();
    let error = host.install(&request).unwrap_err().to_string();
    assert!(error.starts_with("/opt/c/bin/cofferdam is there and was not placed"), "{error}");
    assert_eq!(host.everything(), before);
    host.install(&Request { force: true, ..host.request("/opt/c", true) }).unwrap();
    assert_eq!(host.read("opt/c/bin/cofferdam"), "cofferdam 1");
    // A person changes the settings, somebody a program, and adds to containerd's configuration.
    host.write("opt/c/etc/cofferdam/config.toml", "vcpus = 2\n");
    host.write("opt/c/bin/cofferdam-vmm", "changed");
    let config = host.read("etc/containerd/config.toml") + "[debug]\nlevel = \"debug\"\n";
    host.write("etc/containerd/config.toml", &config);
    assert_eq!(verify(&request.prefix).unwrap().unwrap(), ["/opt/c/bin/cofferdam-vmm was changed"]);
    assert!(host.install(&request).is_err());
    let report = uninstall(&request).unwrap();
    assert_eq!(report.kept, ["/opt/c/bin/cofferdam-vmm: it was changed since"]);
    assert!(report.lines.contains(&"kept /opt/c/etc/cofferdam/config.toml: it was changed".into()));
    assert_eq!(host.read("opt/c/etc/cofferdam/config.toml"), "vcpus = 2\n");
    assert_eq!(host.read("etc/containerd/config.toml"), "[debug]\nlevel = \"debug\"\n");
}

#[test]
fn a_changed_configuration_survives_an_upgrade() {
    let host = Host::new();
    let request = host.request("/usr/local", false);
    host.install(&request).unwrap();
    host.write("etc/cofferdam/config.toml", "vcpus = 2\n");
    let report = host.install(&request).unwrap();
    assert_eq!(report.lines, ["kept /etc/cofferdam/config.toml: it was changed"]);
    assert_eq!(host.read("etc/cofferdam/config.toml"), "vcpus = 2\n");
}

#[test]
fn lines_of_containerd_that_were_changed_stay() {
    let host = Host::new();
    let request = host.request("/opt/c", true);
    host.install(&request).unwrap();
    let changed = host
        .read("etc/containerd/config.toml")
        .replace("host_devices = true", "host_devices = false");
    host.write("etc/containerd/config.toml", &changed);
    let error = format!("{:#}", host.install(&request).unwrap_err());
    assert!(error.contains("were changed: remove them by hand"), "{error}");
    let report = uninstall(&request).unwrap();
    assert!(
        report.kept.iter().any(|kept| kept.starts_with("/etc/containerd/config.toml")),
        "{report:?}"
    );
    assert_eq!(host.read("etc/containerd/config.toml"), changed);
}

#[test]
fn lines_of_containerd_that_are_gone_are_added_again_or_forgotten() {
    let host = Host::new();
    host.write("etc/containerd/config.toml", "version = 2\n");
    let owner = (5, 7);
    let file = host.path("etc/containerd/config.toml");
    let owned = std::os::unix::fs::chown(&file, Some(owner.0), Some(owner.1)).is_ok();
    let request = host.request("/opt/c", true);
    host.install(&request).unwrap();
    let whole = host.read("etc/containerd/config.toml");
    // As if the last time had ended just before, or a person had taken them out.
    fs::write(&file, "version = 2\n").unwrap();
    host.install(&request).unwrap();
    assert_eq!(host.read("etc/containerd/config.toml"), whole);
    if owned {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner);
    }
    fs::write(&file, "version = 2\n").unwrap();
    let report = uninstall(&request).unwrap();
    assert!(report.kept.is_empty(), "{report:?}");
    assert_eq!(host.read("etc/containerd/config.toml"), "version = 2\n");
}

#[test]
fn an_installation_that_was_interrupted_goes_on() {
    let host = Host::new();
    let request = host.request("/opt/c", false);
    host.install(&request).unwrap();
    host.release("cofferdam", "cofferdam 2");
    host.release("cofferdam-vmm", "cofferdam-vmm 2");
    // The link is made last: a directory is in its place.
    fs::remove_file(host.path("opt/c/bin/containerd-shim-cofferdam-v2")).unwrap();
    fs::create_dir(host.path("opt/c/bin/.containerd-shim-cofferdam-v2.new")).unwrap();
    host.install(&request).unwrap_err();
    assert_eq!(host.read("opt/c/bin/cofferdam"), "cofferdam 2");
    fs::remove_dir(host.path("opt/c/bin/.containerd-shim-cofferdam-v2.new")).unwrap();
    host.install(&request).unwrap();
    let report = uninstall(&request).unwrap();
    assert!(report.kept.is_empty(), "{report:?}");
    assert_eq!(host.everything(), []);
}

#[test]
fn nothing_goes_below_a_living_pod() {
    let host = Host::new();
    let request = host.request("/opt/c", false);
    host.install(&request).unwrap();
    let pod = host.path("run/cofferdam-containerd/k8s.io/pod");
    fs::create_dir_all(&pod).unwrap();
    let lock = fs::File::open(&pod).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let error = uninstall(&request).unwrap_err().to_string();
    assert!(error.starts_with("1 containers live on this host (pod)"), "{error}");
    drop(lock);
    uninstall(&request).unwrap();
}

#[test]
fn a_missing_source_changes_nothing() {
    let host = Host::new();
    fs::remove_file(host.release.path().join("initramfs.json")).unwrap();
    let error = format!("{:#}", host.install(&host.request("/opt/c", true)).unwrap_err());
    assert!(error.contains("initramfs.json: No such file"), "{error}");
    assert_eq!(host.everything(), []);
    assert!(Prefix::new(Path::new("opt"), Path::new("/")).is_err());
    assert!(Prefix::new(Path::new("/opt/../etc"), Path::new("/")).is_err());
}

#[test]
fn the_configuration_that_is_placed_says_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, layout::CONFIGURATION).unwrap();
    let overrides = crate::config::Overrides::from_file(&path).unwrap();
    assert_eq!(overrides, crate::config::Overrides::default());
    // What it shows is understood.
    let shown = layout::CONFIGURATION.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(char::is_alphabetic) => setting,
        _ => line,
    });
    fs::write(&path, shown.collect::<Vec<_>>().join("\n")).unwrap();
    let overrides = crate::config::Overrides::from_file(&path).unwrap();
    assert_eq!((overrides.vcpus, overrides.console), (Some(1), Some(true)));
}
