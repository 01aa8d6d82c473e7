use super::*;

#[test]
fn a_tap_has_a_name_and_options() {
    let plain = TapArg { name: "tap0".into(), queues: 1, mac: None, mtu: None };
    assert_eq!("tap0".parse(), Ok(plain.clone()));
    let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    let all = TapArg { queues: 2, mac, mtu: Some(1400), ..plain };
    assert_eq!("tap0,mac=02:00:00:00:00:01,queues=2,mtu=1400".parse(), Ok(all));
    for wrong in
        ["tap0,", "tap0,queues", "tap0,queues=300", "tap0,mac=1", "tap0,mtu=-1", "tap0,x=1"]
    {
        assert!(wrong.parse::<TapArg>().is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_tap_is_told_by_name() {
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(sys::attach_tap(&null, "tap0", false, HEADER).is_err());
    for name in ["", "sixteen-letters-"] {
        let error = sys::attach_tap(&null, name, false, HEADER).unwrap_err();
        assert!(error.to_string().contains("1 to 15 bytes"), "{error}");
    }
}
