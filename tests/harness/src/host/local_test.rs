use super::*;

#[test]
fn staged_files_are_laid_over_the_places_of_an_installation() {
    let stage = Stage::new().unwrap();
    stage.add(Path::new("/etc/os-release"), "/usr/local/bin/x").unwrap();
    let top = stage.tree().join("usr/local/bin");
    let local = Local { stage: Some(stage), rootfs: None };

    let script = local.script(&Options::default(), Some(Path::new("/it's")));

    let overlay = format!("lowerdir='{}':/usr/local/bin overlay /usr/local/bin", top.display());
    assert!(script.contains(&overlay), "{script}");
    assert!(!script.contains("/usr/lib"), "{script}");
    assert!(script.contains(r"--rbind '/it'\''s' /mnt/share"), "{script}");
    assert!(script.ends_with("exec \"$@\"\n"), "{script}");
}

#[test]
fn this_machine_gets_no_program_that_an_emulated_host_lacks() {
    let emulated = include_str!("../../image/packages");

    let lacking: Vec<_> =
        PACKAGES.iter().filter(|package| !emulated.lines().any(|line| line == **package)).collect();

    assert!(lacking.is_empty(), "{lacking:?}");
}
