use super::*;

const LOG: &str = "INFO: seed corpus: files: 3\n#4\tINITED cov: 10 ft: 11\n#128\tNEW    cov: 20 ft: 30\n\
    thread panicked at 'x'\nartifact_prefix='/t/crashes/a/'; Test unit written to /t/crashes/a/crash-1\nBase64: AA==\n\
    ###### End of recommended dictionary. ######\n";

#[test]
fn a_log_tells_how_far_it_got_and_what_was_kept() {
    assert_eq!(summary(LOG), "#128 NEW cov: 20 ft: 30");
    assert_eq!(kept(LOG), Some("/t/crashes/a/crash-1"));
    assert_eq!((summary("cannot start").as_str(), kept("cannot start")), ("no progress", None));
}

#[test]
fn every_target_has_its_corpus_and_nothing_else_is_a_target() {
    let home = artefacts::root().join("tests/fuzz");
    let targets = chosen(&home, None).unwrap();
    assert!(targets.len() >= 8);
    for target in &targets {
        assert!(home.join("corpus").join(target).is_dir(), "{target}");
    }
    assert_eq!(chosen(&home, Some("pci_config")).unwrap(), ["pci_config"]);
    let error = chosen(&home, Some("pci")).unwrap_err().to_string();
    assert!(error.contains("pci_config"), "{error}");
}
