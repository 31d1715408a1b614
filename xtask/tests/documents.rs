//! Holds that what the documents point at is there.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files with this ending in a folder, and in those inside it.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = Vec::new();
    for path in entries {
        match path.is_dir() {
            true => found.extend(files(&path, ending)),
            false if path.extension().is_some_and(|it| it == ending) => found.push(path),
            false => {}
        }
    }
    found
}

/// The documents of the project, with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let beside: Vec<PathBuf> = fs::read_dir(project()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let on_top = beside.into_iter().filter(|path| path.extension().is_some_and(|it| it == "md"));
    let all = on_top.chain(files(&project().join("docs"), "md"));
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// What stands between backquotes in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Whether this looks like a path in the tree: a source file, or anything below a folder that is there.
fn is_path(word: &str) -> bool {
    let first = word.split('/').next().unwrap_or_default();
    let below = word.contains('/') && ["", "crates"].iter().any(|at| project().join(at).join(first).is_dir());
    !first.is_empty()
        && !word.contains([' ', '*', '<', '$', '~'])
        && (below || word.ends_with(".rs") || word.ends_with(".py"))
}

/// Paths in a line that are not there. A path is from the project's folder or from `crates/`; a name alone stands
/// beside what is named before it, or beside its folder.
fn missing_paths(line: &str) -> Vec<String> {
    let (mut folder, mut missing) = (None, Vec::new());
    for word in quoted(line).filter(|word| is_path(word)) {
        let above = folder.as_ref().and_then(|folder: &PathBuf| folder.parent().map(Path::to_owned));
        let roots = [Some(project()), Some(project().join("crates")), folder.clone(), above];
        match roots.into_iter().flatten().map(|root| root.join(word)).find(|path| path.exists()) {
            Some(path) => folder = path.parent().map(Path::to_owned),
            None => missing.push(word.to_owned()),
        }
    }
    missing
}

#[test]
fn each_path_that_a_document_names_is_there() {
    let mut missing = Vec::new();
    for (document, text) in documents() {
        // The history names what was.
        if document.ends_with("CHANGELOG.md") {
            continue;
        }
        for path in text.lines().flat_map(missing_paths) {
            missing.push(format!("{}: {path}", document.display()));
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn paths_are_looked_for_from_three_folders() {
    assert_eq!(
        missing_paths("`xtask/src/main.rs`, `doors-core/src/time.rs`, `limits.rs`, `sequence/trie.rs`"),
        [""; 0]
    );
    assert_eq!(missing_paths("`xtask/src/none.rs` `doors-core/none` `limits.rs`").len(), 3);
    assert_eq!(missing_paths("`/etc/port_knocker.toml` `doorknock open` `22/tcp` `*.rs`"), [""; 0]);
}

#[test]
fn each_link_of_a_document_leads_somewhere() {
    let mut missing = Vec::new();
    for (document, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !document.parent().unwrap().join(target).exists() {
                missing.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn each_page_that_a_source_or_a_document_names_is_there() {
    let mut missing = BTreeSet::new();
    let sources =
        [files(&project().join("crates"), "rs"), files(&project().join("xtask/src"), "rs")].concat();
    let sources = sources.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap()));
    for (path, text) in sources.chain(documents()) {
        for (at, _) in text.match_indices("docs/") {
            let rest = &text.get(at..).unwrap();
            let page =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c))).unwrap_or(rest.len());
            let page = rest.get(..page).unwrap().trim_end_matches('.');
            if page.ends_with(".md") && !project().join(page).exists() {
                missing.insert(format!("{}: {page}", path.display()));
            }
        }
    }
    assert_eq!(missing, BTreeSet::new());
}

#[test]
fn architecture_lists_each_file_with_unsafe_code() {
    let in_crates = files(&project().join("crates"), "rs").into_iter().filter(|path| {
        let code = fs::read_to_string(path).unwrap();
        path.components().any(|part| part.as_os_str() == "src")
            && code.lines().any(|line| {
                let line = line.split("//").next().unwrap_or_default();
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                    .iter()
                    .any(|form| line.contains(form))
            })
    });
    let there: BTreeSet<PathBuf> = in_crates.collect();
    let text = fs::read_to_string(project().join("ARCHITECTURE.md")).unwrap();
    let line = text.lines().find(|line| line.starts_with("| `unsafe` |")).unwrap();
    let mut folder = project();
    let listed = quoted(line).skip(1).map(|word| {
        let path = project().join("crates").join(word);
        let path = if path.exists() { path } else { folder.join(word) };
        folder = path.parent().unwrap().to_owned();
        path
    });
    assert_eq!(listed.collect::<BTreeSet<_>>(), there);
}

#[test]
fn each_decision_has_its_headings_its_number_and_its_line_in_architecture() {
    let architecture = fs::read_to_string(project().join("ARCHITECTURE.md")).unwrap();
    let mut records = files(&project().join("docs/adr"), "md");
    records.retain(|path| !path.ends_with("README.md"));
    records.sort();
    assert!(!records.is_empty());
    for (path, number) in records.iter().zip(1..) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert!(name.starts_with(&format!("{number:04}-")), "{name} is not number {number}");
        let title = text.lines().next().unwrap().trim_start_matches("# ").to_owned();
        let title =
            title.strip_prefix(&format!("{number:04}. ")).unwrap_or_else(|| panic!("{name}: {title}"));
        assert!(
            architecture.contains(&format!("| [{number:04}](docs/adr/{name}) | {title} |")),
            "{name} has no line"
        );
        for heading in ["\nDate: 20", "\n## Context\n", "\n## Decision\n", "\n## Alternatives\n"] {
            assert!(text.contains(heading), "{name} has no {heading:?}");
        }
    }
}
