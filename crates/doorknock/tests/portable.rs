//! The client builds on Linux, macOS and Windows.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path};

#[test]
fn nothing_is_used_that_only_one_system_has() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for only in ["std::os::", "libc", "rustix", "cfg(unix", "cfg(target_os", "/proc", "/dev"] {
            assert!(!text.contains(only), "{} has {only}", path.display());
        }
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split('[').next().unwrap();
    let names: Vec<&str> = dependencies.lines().filter_map(|line| line.split(['.', ' ']).next()).collect();
    assert_eq!(names.concat(), "clapthiserror", "a new dependency has to build everywhere, too");
}
