//! Options of the runtime.

use std::path::Path;

use super::*;

#[test]
fn options_may_name_a_configuration() {
    let any = |kind: &str, options: &RuntimeOptions| Any {
        type_url: kind.into(),
        value: options.encode_to_vec(),
        ..Default::default()
    };
    let named = RuntimeOptions { type_url: "t".into(), config_path: "/c.toml".into() };
    let of = |any: &Any| configuration(Some(any)).unwrap();
    assert_eq!(of(&any("runtimeoptions.v1.Options", &named)), Path::new("/c.toml"));
    assert_eq!(
        of(&any("type.googleapis.com/runtimeoptions.v1.Options", &named)),
        Path::new("/c.toml")
    );
    assert_eq!(of(&any("containerd.runc.v1.Options", &named)), Path::new(config::CONFIG));
    let unnamed = RuntimeOptions::default();
    assert_eq!(of(&any("runtimeoptions.v1.Options", &unnamed)), Path::new(config::CONFIG));
    assert_eq!(configuration(None).unwrap(), Path::new(config::CONFIG));
    let broken = Any { type_url: TYPE.into(), value: vec![0x12, 0xff], ..Default::default() };
    configuration(Some(&broken)).unwrap_err();
}
