//! Tests of the options of the guest kernel.

use super::*;

#[test]
fn fragment_gives_values_and_unset_options_and_skips_comments() {
    let text = "# A reason.\n\nCONFIG_A=y\nCONFIG_B=\"x y\"\n# CONFIG_C is not set\n";

    let options = parse_fragment("f", text).unwrap();

    let found: Vec<_> = options.iter().map(|o| (o.name.as_str(), o.value.as_deref())).collect();
    assert_eq!(found, [("A", Some("y")), ("B", Some("\"x y\"")), ("C", None)]);
}

#[test]
fn fragment_with_another_line_is_refused_with_its_place() {
    let error = parse_fragment("f.config", "CONFIG_A=y\nFOO=y\n").unwrap_err();

    assert!(error.to_string().starts_with("f.config:2:"), "{error}");
}

#[test]
fn option_in_two_fragments_is_refused() {
    let mut options = parse_fragment("a", "CONFIG_A=y\n").unwrap();
    options.extend(parse_fragment("b", "# CONFIG_A is not set\n").unwrap());

    let error = reject_duplicates(&options).unwrap_err();

    assert_eq!(error.to_string(), "CONFIG_A stands in a and again in b");
}

#[test]
fn dropped_changed_and_forced_options_are_refused_and_others_not() {
    let text = "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\nCONFIG_E=1\n";
    let wanted = parse_fragment("f", text).unwrap();
    let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_E=2\nCONFIG_F=y\n";

    let refused = refused(&wanted, config);

    assert_eq!(
        refused,
        [
            "CONFIG_B: f asks for y, it is not set",
            "CONFIG_C: f asks for n, it is y",
            "CONFIG_E: f asks for 1, it is 2",
        ]
    );
}

#[test]
fn merged_text_parses_back() {
    let wanted = wanted(&directory(), Variant::Default).unwrap();

    let again = parse_fragment("merged", &merged(&wanted)).unwrap();

    assert!(wanted.len() > 300);
    assert!(wanted.iter().zip(&again).all(|(a, b)| (&a.name, &a.value) == (&b.name, &b.value)));
}

#[test]
fn trusted_variant_only_turns_mitigations_off() {
    let default = wanted(&directory(), Variant::Default).unwrap();
    let trusted = wanted(&directory(), Variant::Trusted).unwrap();

    let changed: Vec<_> = trusted.iter().filter(|option| option.file == "trusted.config").collect();

    assert!(changed.iter().all(|option| option.name.contains("MITIGATION")));
    let kept = default.iter().filter(|option| option.name.contains("MITIGATION_"));
    // `CPU_MITIGATIONS` is one more; and one of the others is off in both.
    assert_eq!(kept.count(), changed.len());
}

#[test]
fn every_device_of_the_vmm_has_its_driver_built_in() {
    for variant in [Variant::Default, Variant::Trusted] {
        let wanted = wanted(&directory(), variant).unwrap();

        let faults = uncovered_devices(&directory(), &wanted).unwrap();

        assert_eq!(faults, [""; 0]);
    }
}

#[test]
fn device_without_its_driver_or_with_a_wrong_id_is_named() {
    let wanted = parse_fragment("f", "CONFIG_A=y\n# CONFIG_B is not set\n").unwrap();
    let device = Device {
        name: "net".to_owned(),
        virtio: Some(1),
        pci: Some("1af4:1000".to_owned()),
        acpi: None,
        options: vec!["A".to_owned(), "B".to_owned(), "C".to_owned()],
    };

    let faults = device_faults(&device, &wanted);

    assert_eq!(faults.len(), 3);
    assert!(faults[0].contains("CONFIG_B") && faults[1].contains("CONFIG_C"));
}
