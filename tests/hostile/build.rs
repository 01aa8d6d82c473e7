//! Links the kernel by our own script, with nothing of the C library.

fn main() {
    println!("cargo:rerun-if-changed=link.ld");
    if std::env::var_os("CARGO_FEATURE_BARE_METAL").is_none() {
        return;
    }
    let script = concat!("-T", env!("CARGO_MANIFEST_DIR"), "/link.ld");
    for argument in ["-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none", script] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
