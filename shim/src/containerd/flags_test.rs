//! Command lines as containerd writes them.

use super::*;

fn parse(line: &str) -> Result<Flags> {
    Flags::parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn containerds_command_lines_are_understood() {
    let flags = parse(
        "-namespace k8s.io -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd \
         -id abc -debug start",
    );
    let flags = flags.unwrap();
    assert_eq!(flags.action, Action::Start);
    assert_eq!((&*flags.namespace, &*flags.id), ("k8s.io", "abc"));
    assert_eq!(flags.address, "/run/containerd/containerd.sock");
    assert!(flags.debug && flags.bundle.is_none());
    let flags = parse("-namespace=n --id=c -bundle /b -debug=false delete").unwrap();
    assert_eq!((flags.action, flags.bundle), (Action::Delete, Some("/b".into())));
    assert!(!flags.debug);
    assert_eq!(parse("-v").unwrap().action, Action::Version);
    assert_eq!(parse("-info").unwrap().action, Action::Info);
    assert_eq!(parse("-namespace n -id c -socket /s").unwrap().socket, Some("/s".into()));
}

#[test]
fn nonsense_is_named() {
    let wrong = |line: &str| parse(line).unwrap_err().to_string();
    assert!(wrong("-namespace n -id c -what 1 start").contains("-what"));
    assert!(wrong("-namespace n -id").contains("-id"));
    assert!(wrong("-namespace n -id c stop").contains("stop"));
    assert!(wrong("-id c start").contains("-namespace"));
    assert!(wrong("-namespace n -id c -debug=perhaps start").contains("perhaps"));
}
