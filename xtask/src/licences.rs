//! Whether every crate that is linked has a licence and a source that `deny.toml` allows.
//!
//! cargo-deny is more thorough, and takes long to build; it is asked as well where it is installed.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::programs::{Failure, cargo, is_installed, succeed};

/// The platform whose crates a build has brought here.
const HERE: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run() -> Result<(), Failure> {
    let rules: toml::Table = fs::read_to_string("deny.toml")?.parse()?;
    let allowed = strings(rules.get("licenses").and_then(|table| table.get("allow")));
    let registries = strings(rules.get("sources").and_then(|table| table.get("allow-registry")));
    if allowed.is_empty() || registries.is_empty() {
        return Err("deny.toml has no licenses.allow or sources.allow-registry".into());
    }
    let metadata = metadata()?;
    let packages = metadata.get("packages").and_then(Value::as_array).ok_or("cargo tells of no packages")?;
    let wrong: Vec<String> =
        packages.iter().filter_map(|package| objection(package, &allowed, &registries)).collect();
    if !wrong.is_empty() {
        return Err(format!("deny.toml does not allow:\n{}", wrong.join("\n")).into());
    }
    println!("   {} crates, each under a licence that deny.toml allows", packages.len());
    if !is_installed("cargo-deny") {
        println!("   not asked: cargo deny, which is not installed");
        return Ok(());
    }
    // Advisories come from the network.
    succeed(cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]))
}

/// What cargo knows of all crates; without the network, of those for this platform.
fn metadata() -> Result<Value, Failure> {
    let every = cargo(&["metadata", "--format-version", "1", "--locked"]).output()?;
    if every.status.success() {
        return Ok(serde_json::from_slice(&every.stdout)?);
    }
    println!("   without the network: only crates for {HERE}");
    let offline = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", HERE];
    let here = cargo(&offline).output()?;
    match here.status.success() {
        true => Ok(serde_json::from_slice(&here.stdout)?),
        false => Err(format!("cargo metadata: {}", String::from_utf8_lossy(&here.stderr)).into()),
    }
}

fn strings(array: Option<&toml::Value>) -> BTreeSet<String> {
    let array = array.and_then(toml::Value::as_array).into_iter().flatten();
    array.filter_map(toml::Value::as_str).map(str::to_owned).collect()
}

/// What speaks against a package.
fn objection(package: &Value, allowed: &BTreeSet<String>, registries: &BTreeSet<String>) -> Option<String> {
    let text = |key: &str| package.get(key).and_then(Value::as_str);
    let name = format!("{} {}", text("name")?, text("version")?);
    // What has no source is in this tree.
    if let Some(source) = text("source") {
        let registry = source.strip_prefix("registry+").filter(|registry| registries.contains(*registry));
        if registry.is_none() {
            return Some(format!("{name}: from {source}"));
        }
    }
    match text("license") {
        None => Some(format!("{name}: no licence")),
        Some(licence) if !is_allowed(licence, allowed) => Some(format!("{name}: {licence}")),
        Some(_) => None,
    }
}

/// Whether an SPDX expression can be met. `/` is how `OR` was written once.
fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let met = any(&mut words, allowed);
    met && words.is_empty()
}

fn any(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut met = all(words, allowed);
    while words.last() == Some(&"OR") {
        words.pop();
        // Both sides are read, whatever the first says.
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.last() == Some(&"AND") {
        words.pop();
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    match words.pop() {
        Some("(") => {
            let met = any(words, allowed);
            words.pop() == Some(")") && met
        }
        Some(name) if words.last() == Some(&"WITH") => {
            words.pop();
            let exception = words.pop().unwrap_or_default();
            allowed.contains(&format!("{name} WITH {exception}"))
        }
        Some(name) => allowed.contains(name),
        None => false,
    }
}

#[test]
fn a_licence_is_allowed_if_some_way_to_meet_it_is() {
    let allowed: BTreeSet<String> =
        ["MIT", "BSD-3-Clause", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for licence in [
        "MIT",
        "Apache-2.0 OR MIT",
        "MIT/Apache-2.0",
        "Apache-2.0 / MIT",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
        "(MIT OR Apache-2.0) AND BSD-3-Clause",
        "MIT OR Apache-2.0 AND Zlib",
    ] {
        assert!(is_allowed(licence, &allowed), "{licence}");
    }
    for licence in [
        "",
        "Apache-2.0",
        "MIT AND Apache-2.0",
        "Apache-2.0 WITH other",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "(MIT OR Apache-2.0",
        "MIT Apache-2.0",
    ] {
        assert!(!is_allowed(licence, &allowed), "{licence}");
    }
}

#[test]
fn a_crate_from_elsewhere_or_without_a_licence_is_not_allowed() {
    let objection = |package: &str| {
        let registries = ["https://here".to_owned()].into();
        objection(&serde_json::from_str(package).unwrap(), &["MIT".to_owned()].into(), &registries)
    };
    let package = |rest: &str| format!(r#"{{"name": "a", "version": "1" {rest}}}"#);
    assert_eq!(objection(&package(r#", "license": "MIT", "source": "registry+https://here""#)), None);
    assert_eq!(objection(&package(r#", "license": "MIT", "source": null"#)), None);
    assert_eq!(objection(&package("")), Some("a 1: no licence".to_owned()));
    assert_eq!(objection(&package(r#", "license": "Zlib""#)), Some("a 1: Zlib".to_owned()));
    let git = package(r#", "license": "MIT", "source": "git+https://there""#);
    assert_eq!(objection(&git), Some("a 1: from git+https://there".to_owned()));
}
