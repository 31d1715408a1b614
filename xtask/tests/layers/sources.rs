//! A crate as its files show it: its modules, and which of them use which.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Use,
    uses::{Module, read},
};

/// How the root of a crate is called among its modules.
pub(crate) const ROOT: &str = "lib";

/// A crate of the workspace.
#[derive(Debug)]
pub(crate) struct Crate {
    /// Its name.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) folder: PathBuf,
    /// The file of its root.
    pub(crate) root: PathBuf,
    /// The crates of ours that its manifest names, but for tests.
    pub(crate) uses: BTreeSet<String>,
    /// Its modules by their path, the root with an empty one.
    modules: BTreeMap<Vec<String>, Module>,
}

impl Crate {
    /// Reads all of its files.
    pub(crate) fn read(folder: &Path) -> Self {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let library = folder.join("src/lib.rs");
        let root = if library.exists() { library } else { folder.join("src/main.rs") };
        let mut modules = BTreeMap::new();
        read_module(&root, &folder.join("src"), Vec::new(), &mut modules);
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        Self { name, folder: folder.to_owned(), root, uses: ours(&manifest), modules }
    }

    /// The names that the order of this crate has to hold.
    pub(crate) fn modules_in_order(&self) -> BTreeSet<String> {
        let root_is_used = self.uses_in(&[]).iter().any(|(_, used)| used == ROOT);
        let top = self.modules.keys().filter(|path| path.len() == 1).map(|path| path[0].clone());
        top.chain(root_is_used.then(|| ROOT.to_owned())).collect()
    }

    /// Modules that have modules of their own.
    pub(crate) fn folders(&self) -> BTreeSet<Vec<String>> {
        let parents =
            self.modules.keys().filter_map(|path| path.split_last().map(|(_, parent)| parent.to_vec()));
        parents.filter(|parent| !parent.is_empty()).collect()
    }

    /// Which of a folder's modules use which, with all that is inside them. At the top, the root is one of them.
    pub(crate) fn uses_in(&self, folder: &[String]) -> BTreeSet<Use> {
        let mut uses = BTreeSet::new();
        for (path, module) in &self.modules {
            let Some(user) = self.member(folder, path) else { continue };
            for used in module.paths.iter().flat_map(|path| self.meant(path)) {
                let used = self.member(folder, &used).filter(|used| *used != user);
                uses.extend(used.map(|used| (user.clone(), used)));
            }
        }
        // The root holds them all together; that says nothing unless one of them uses the root.
        let root_is_used = uses.iter().any(|(_, used)| used == ROOT);
        uses.into_iter().filter(|(user, _)| user != ROOT || root_is_used).collect()
    }

    /// Which of a folder's own modules this one is, or is in.
    fn member(&self, folder: &[String], path: &[String]) -> Option<String> {
        match path.strip_prefix(folder)? {
            [first, ..] => Some(first.clone()),
            // What the parent holds itself is nobody's sibling; only at the top it counts.
            [] => folder.is_empty().then(|| ROOT.to_owned()),
        }
    }

    /// The module in which the thing stands that a path names, also where it has been imported under that name.
    fn meant(&self, path: &[String]) -> Option<Vec<String>> {
        let mut path = path.to_vec();
        // Each turn follows an import; a few are enough for every code that compiles and is read by people.
        for _ in 0..8 {
            let depth = (0..=path.len()).rev().find(|depth| self.modules.contains_key(&path[..*depth]))?;
            let module = &self.modules[&path[..depth]];
            let Some(imported) = path.get(depth).and_then(|name| module.imports.get(name)) else {
                return Some(path[..depth].to_vec());
            };
            path = [&imported[..], &path[depth.saturating_add(1)..]].concat();
        }
        panic!("{}: imports of imports of imports: {path:?}", self.name);
    }
}

/// Crates of ours that a manifest names, optional ones and those for one system too.
fn ours(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut add = |table: Option<&toml::Value>| {
        let table = table.and_then(toml::Value::as_table);
        names.extend(table.into_iter().flat_map(|table| table.keys().cloned()));
    };
    add(manifest.get("dependencies"));
    for system in
        manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values)
    {
        add(system.get("dependencies"));
    }
    let ours =
        |name: &str| name.starts_with("doors-") || ["doorknock", "port-knocking-doors"].contains(&name);
    names.into_iter().filter(|name| ours(name)).collect()
}

fn read_module(file: &Path, folder: &Path, path: Vec<String>, modules: &mut BTreeMap<Vec<String>, Module>) {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    let module =
        read(&text, &path).unwrap_or_else(|error| panic!("cannot parse {}: {error}", file.display()));
    for child in &module.children {
        let folder = folder.join(child);
        let beside = folder.with_extension("rs");
        let file = if beside.exists() { beside } else { folder.join("mod.rs") };
        read_module(&file, &folder, [&path[..], std::slice::from_ref(child)].concat(), modules);
    }
    modules.insert(path, module);
}
