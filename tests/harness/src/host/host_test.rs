use super::Kind;

#[test]
fn choice_overrides_the_probe() {
    assert_eq!(Kind::parse(Some("local"), || false).unwrap(), Kind::Local);
    assert_eq!(Kind::parse(Some("emulated"), || true).unwrap(), Kind::Emulated);
}

#[test]
fn without_a_choice_the_probe_decides() {
    assert_eq!(Kind::parse(None, || true).unwrap(), Kind::Local);
    assert_eq!(Kind::parse(None, || false).unwrap(), Kind::Emulated);
}

#[test]
fn an_unknown_choice_is_named() {
    let error = Kind::parse(Some("qemu"), || true).unwrap_err().to_string();
    assert!(error.contains("COFFERDAM_TEST_HOST=qemu"), "{error}");
}
