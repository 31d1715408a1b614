//! Holds what ARCHITECTURE.md says under "Who may use whom": which crate uses which, and in which order a crate's
//! modules stand. The text there is what is checked, so it cannot be out of date.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

mod circles;
mod picture;
mod sources;
mod uses;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use self::{
    circles::breaks_every_circle,
    picture::Picture,
    sources::{Crate, ROOT},
};

/// A module, or a crate, that uses another.
type Use = (String, String);

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn picture() -> Picture {
    Picture::read(&fs::read_to_string(project().join("ARCHITECTURE.md")).unwrap())
}

/// Every crate of the workspace, by its name. Read once.
static CRATES: LazyLock<BTreeMap<String, Crate>> = LazyLock::new(crates);

fn crates() -> BTreeMap<String, Crate> {
    let in_crates = fs::read_dir(project().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let folders =
        in_crates.chain([project().join("xtask")]).filter(|folder| folder.join("Cargo.toml").is_file());
    folders.map(|folder| Crate::read(&folder)).map(|read| (read.name.clone(), read)).collect()
}

#[test]
fn the_crates_use_what_the_picture_says_and_nothing_else() {
    let manifests: BTreeMap<_, _> = CRATES.iter().map(|(name, read)| (name, &read.uses)).collect();
    let picture = picture();
    assert_eq!(picture.crates.iter().map(|(name, uses)| (name, uses)).collect::<BTreeMap<_, _>>(), manifests);
}

#[test]
fn no_arrow_between_crates_runs_upward() {
    let mut above = BTreeSet::new();
    for (name, uses) in &picture().crates {
        let upward: Vec<_> = uses.iter().filter(|used| !above.contains(used)).collect();
        assert!(upward.is_empty(), "`{name}` stands above {upward:?}, which it uses");
        above.insert(name);
    }
}

#[test]
fn every_module_has_its_place_in_the_order_of_its_crate() {
    let picture = picture();
    let wrong = CRATES.iter().filter_map(|(name, read)| {
        let order = picture.order(name);
        let listed: BTreeSet<_> = order.iter().cloned().collect();
        assert_eq!(listed.len(), order.len(), "a module of `{name}` has two places");
        let there = read.modules_in_order();
        (listed != there).then(|| format!("{name}: listed are {listed:?}, and there are {there:?}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let picture = picture();
    let wrong = CRATES.iter().filter_map(|(name, read)| {
        let order = picture.order(name);
        let place = |module: &String| order.iter().position(|listed| listed == module);
        let uses = read.uses_in(&[]).into_iter();
        let upward: BTreeSet<Use> = uses.filter(|(user, used)| place(used) >= place(user)).collect();
        let known = picture.exceptions.get(name).cloned().unwrap_or_default();
        (upward != known).then(|| format!("{name}: upward go {upward:?}, and excepted are {known:?}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn no_folder_has_a_circle_among_its_modules() {
    let picture = picture();
    let mut places: BTreeSet<_> = picture.exceptions.keys().cloned().collect();
    let mut wrong = Vec::new();
    for (name, read) in &*CRATES {
        places.remove(name);
        for folder in read.folders() {
            let place = format!("{name}/{}", folder.join("/"));
            let known = picture.exceptions.get(&place).cloned().unwrap_or_default();
            let broken = breaks_every_circle(&read.uses_in(&folder), &known);
            wrong.extend(broken.err().map(|why| format!("{place}: {why}")));
            places.remove(&place);
        }
    }
    wrong.extend(places.into_iter().map(|place| format!("{place}: is excepted, and is no folder")));
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_program_beside_a_library_has_no_modules_of_its_own() {
    for (name, read) in &*CRATES {
        let main = read.folder.join("src/main.rs");
        if read.root.file_name() != main.file_name() && main.exists() {
            let text = fs::read_to_string(main).unwrap();
            assert!(
                !text.lines().any(|line| line.starts_with("mod ")),
                "the main.rs of `{name}` has modules"
            );
        }
    }
}

#[test]
fn the_root_of_a_crate_is_a_module_too_if_another_uses_it() {
    let root = |name: &str| CRATES.get(name).unwrap().modules_in_order().contains(ROOT);
    assert!(root("doors-spa"), "its modules use the length of a knock");
    assert!(!root("doors-core"));
}
