//! Blocks in configurations of several kinds.

use super::*;

const SHIM: &str = "/opt/c/bin/containerd-shim-cofferdam-v2";

fn added(text: &str) -> Table {
    let block = block(text, Path::new(SHIM)).unwrap();
    let whole = format!("{text}{block}");
    assert_eq!(without(&whole, &block).unwrap(), text);
    assert!(block.trim_start().starts_with(BEGIN) && block.ends_with(&format!("{END}\n")));
    whole.parse().unwrap()
}

fn runtimes(document: &Table, plugin: &str) -> Table {
    let of = |table: &Table, key: &str| table[key].as_table().unwrap().clone();
    of(&of(&of(&of(document, "plugins"), plugin), "containerd"), "runtimes")
}

const V2: &str = "io.containerd.grpc.v1.cri";
const V3: &str = "io.containerd.cri.v1.runtime";

#[test]
fn the_version_of_the_file_decides() {
    for (text, plugin) in [
        ("", V2),
        ("# nothing but words", V2),
        ("version = 2\n", V2),
        ("version = 3\nroot = \"/r\"", V3),
        (
            "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/b\"\n",
            V2,
        ),
    ] {
        let document = added(text);
        assert_eq!(
            document["version"].as_integer(),
            Some(if plugin == V3 { 3 } else { 2 }),
            "{text}"
        );
        let runtimes = runtimes(&document, plugin);
        let ours = runtimes["cofferdam"].as_table().unwrap();
        assert_eq!(ours["runtime_type"].as_str(), Some("io.containerd.cofferdam.v2"));
        assert_eq!(ours["runtime_path"].as_str(), Some(SHIM));
        assert_eq!(
            runtimes["runc"]["runtime_type"].as_str(),
            Some("io.containerd.runc.v2"),
            "{text}"
        );
    }
}

#[test]
fn a_runc_that_is_there_stays_as_it_is() {
    let text = format!(
        "version = 2\n[plugins.\"{V2}\".containerd.runtimes.runc]\nruntime_type = \"other\"\n"
    );
    let runtimes = runtimes(&added(&text), V2);
    assert_eq!(runtimes["runc"]["runtime_type"].as_str(), Some("other"));
    assert_eq!(runtimes.len(), 2);
}

#[test]
fn what_cannot_be_added_to_is_refused() {
    let fails = |text: &str| format!("{:#}", block(text, Path::new(SHIM)).unwrap_err());
    assert!(fails("root = \"/r\"\n").contains("neither 2 nor 3"));
    assert!(fails("version = 1\n").contains("containerd config migrate"));
    assert!(fails("version = ").contains("not TOML"));
    // A table that is closed.
    let text = format!("version = 2\n[plugins.\"{V2}\".containerd]\nruntimes = {{}}\n");
    let block = block(&text, Path::new(SHIM)).unwrap();
    check(&format!("{text}{block}")).unwrap_err();
}
