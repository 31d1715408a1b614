//! Holds the order of the modules: each uses only what comes before it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::{fs, path::Path};

const ORDER: [&str; 19] = [
    "time",
    "limits",
    "packet",
    "special_purpose",
    "eligible",
    "knock",
    "door",
    "sequences",
    "knockers",
    "client",
    "challenge",
    "freshness",
    "access",
    "doors",
    "doorbell",
    "reception",
    "events",
    "throttle",
    "doorkeeper",
];

#[test]
fn modules_use_only_what_comes_before_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (place, module) in ORDER.iter().enumerate() {
        let text = fs::read_to_string(src.join(module).with_extension("rs")).unwrap();
        for used in modules_used(&text) {
            let other = ORDER.iter().position(|name| *name == used);
            assert!(other.is_some_and(|other| other < place), "`{module}` must not use `{used}`");
        }
    }
}

#[test]
fn every_module_has_its_place_in_the_order() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<String> = fs::read_dir(src)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "lib")
        .collect();
    files.sort();
    let mut order = ORDER.map(str::to_owned);
    order.sort();
    assert_eq!(files, order);
}

/// The names behind `crate::`, in a `use` of one or of several modules, or in the middle of code.
fn modules_used(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let word = |text: &str| {
            text.trim_start()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect::<String>()
        };
        match rest.strip_prefix('{') {
            None => used.push(word(rest)),
            Some(list) => {
                let mut depth = 0_i32;
                let mut start = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && c.is_alphabetic() => {
                            used.push(word(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used
}

#[test]
fn the_reader_of_uses_sees_lists_and_paths() {
    let text = "use crate::{\n    access::{Grant, Refusal},\n    time::Moment,\n};\nlet x = crate::door::Y;";
    assert_eq!(modules_used(text), ["access", "time", "door"]);
}
