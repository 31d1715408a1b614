//! The client builds on Linux, macOS and Windows.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The modules that may know which system this is. Each has to know what to do on all others.
const SYSTEM: [&str; 4] = ["agent_socket.rs", "private_file.rs", "standard_output.rs", "trusted_file.rs"];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn nothing_is_used_that_only_one_system_has() {
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        if SYSTEM.iter().any(|file| path.ends_with(file)) {
            let branches =
                |condition: &str| text.matches(&format!("#[cfg({condition})]\nmod system")).count();
            assert_eq!((branches("unix"), branches("not(unix)")), (1, 1), "{}", path.display());
            continue;
        }
        for only in ["std::os::", "libc", "rustix", "cfg(unix", "cfg(target_os", "/proc", "/dev"] {
            assert!(!text.contains(only), "{} has {only}", path.display());
        }
    }
}

#[test]
fn the_dependencies_are_those_that_build_everywhere() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let names = |section: &str| -> Vec<String> {
        let dependencies = manifest.split(section).nth(1).unwrap().split("\n[").next().unwrap();
        let names = dependencies.lines().filter_map(|line| line.split(['.', ' ']).next());
        names.filter(|name| !name.is_empty() && *name != "#").map(str::to_owned).collect()
    };
    let agreed = [
        "clap",
        "doors-spa",
        "doors-text",
        "ed25519-dalek",
        "etcetera",
        "getrandom",
        "jiff",
        "mio",
        "rand_core",
        "rpassword",
        "serde",
        "serde_json",
        "ssh-key",
        "thiserror",
        "toml",
        "zeroize",
    ];
    assert_eq!(names("\n[dependencies]"), agreed, "a new dependency has to build everywhere, too");
    assert_eq!(names("\n[target.'cfg(unix)'.dependencies]"), ["rustix"], "one has to be enough");
    assert_eq!(manifest.matches("\n[target.").count(), 1, "no other system gets anything of its own");
}
