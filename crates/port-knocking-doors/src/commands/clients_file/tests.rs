//! What must stay true when clients are added and removed.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::*;

const FILE: &str = "\
# The doors of this machine.
trusted = [ '192.0.2.0/24' ]  # the office

[[doors]]
name   =   'ssh'
ports = [22]

# Alice.
# Her laptop.
[[clients]] # first
name = 'alice'
doors = [
  'ssh', # why not
] # all of them
# stays

# Bob's comment
[[clients]]
name = 'bob'
key.type = 'x'

# The end.
";

fn carol() -> NewClient {
    let [name, key] = ["carol", "ssh-ed25519 AAAA carol@example"].map(str::to_owned);
    NewClient { name, key, doors: vec!["ssh".to_owned()], ..NewClient::default() }
}

#[test]
fn a_client_is_added_at_the_end_and_nothing_else_changes() {
    let new = add(FILE, &carol()).unwrap();
    let expected = "
[[clients]]
name = \"carol\"
key = \"ssh-ed25519 AAAA carol@example\"
doors = [\"ssh\"]
";
    assert_eq!(new, [FILE, expected].concat());
    let full = NewClient {
        max_open_for: Some(600),
        from: vec!["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()],
        until: Some("2030-01-01".to_owned()),
        ..carol()
    };
    let more = "\
max_open_for = 600
from = [\"192.0.2.0/24\", \"2001:db8::/32\"]
until = \"2030-01-01\"
";
    assert_eq!(add(FILE, &full).unwrap(), [FILE, expected, more].concat());
    assert_eq!(add("", &carol()).unwrap(), expected.trim_start());
    assert_eq!(add("a = 1", &carol()).unwrap(), ["a = 1\n", expected].concat());
}

#[test]
fn a_client_is_removed_with_the_comment_above_it_and_nothing_else_changes() {
    let alice = "\
# Alice.
# Her laptop.
[[clients]] # first
name = 'alice'
doors = [
  'ssh', # why not
] # all of them
";
    assert_eq!(remove(FILE, "alice").unwrap(), FILE.replace(alice, ""));
    let bob = "# Bob's comment\n[[clients]]\nname = 'bob'\nkey.type = 'x'\n\n";
    assert_eq!(remove(FILE, "bob").unwrap(), FILE.replace(bob, ""));
    assert_eq!(remove("[[clients]]\nname = 'a'", "a").unwrap(), "");
    assert_eq!(remove("[[clients]]\nname = 'a'\n[x]\n", "a").unwrap(), "[x]\n");
}

#[test]
fn what_only_looks_like_a_comment_stays() {
    let text = "x = '''\n# not one\n# nor this'''\n[[clients]]\nname = 'a'\n";
    assert_eq!(remove(text, "a").unwrap(), "x = '''\n# not one\n# nor this'''\n");
    let text = "[x] # stays\n  # goes\n  [[clients]]\nname = 'a' # goes\n# stays\n[y]\n";
    assert_eq!(remove(text, "a").unwrap(), "[x] # stays\n# stays\n[y]\n");
}

#[test]
fn the_ends_of_lines_stay_as_they_are() {
    let file = ["\u{feff}", &FILE.replace('\n', "\r\n")].concat();
    let new = add(&file, &carol()).unwrap();
    assert!(new.starts_with(&file));
    assert_eq!(new.matches('\n').count(), new.matches("\r\n").count());
    assert_eq!(remove(&new, "carol").unwrap(), file);
    let without = remove(FILE, "alice").unwrap().replace('\n', "\r\n");
    assert_eq!(remove(&file, "alice").unwrap(), ["\u{feff}", &without].concat());
}

#[test]
fn an_unknown_name_is_answered_with_the_names_that_there_are() {
    let message = |text: &str, name: &str| remove(text, name).unwrap_err().to_string();
    assert_eq!(message(FILE, "alcie"), "there is no client \"alcie\"; did you mean \"alice\"?");
    assert_eq!(message(FILE, "x"), "there is no client \"x\"; there are: alice, bob");
    let none = "there is no client \"x\"; the file has no [[clients]] with a name";
    assert_eq!(message("", "x"), none);
}

#[test]
fn what_would_not_be_removed_whole_is_refused() {
    let twice = "[[clients]]\nname = 'a'\n[[clients]]\nname = 'a'\n";
    assert_eq!(remove(twice, "a"), Err(EditError::Twice { name: "a".to_owned() }));
    let scattered = "[[clients]]\nname = 'a'\n[x]\n[clients.more]\n";
    assert_eq!(remove(scattered, "a"), Err(EditError::Scattered { name: "a".to_owned() }));
}

#[test]
fn what_does_not_fit_is_refused_with_its_line() {
    let taken = NewClient { name: "bob".to_owned(), ..carol() };
    assert_eq!(add(FILE, &taken), Err(EditError::Exists { name: "bob".to_owned() }));
    for text in ["\nclients = [{ name = 'a' }]", "\nclients = []", "\nclients.a = 1", "\n[clients]"] {
        assert_eq!(add(text, &carol()), Err(EditError::NoTables { line: 2 }), "{text}");
        assert_eq!(remove(text, "a"), Err(EditError::NoTables { line: 2 }), "{text}");
    }
    assert!(matches!(add("\n\n= 1", &carol()), Err(EditError::NoToml { line: 3, .. })));
}

/// A file in a directory of its own.
fn file() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("doors.toml");
    fs::write(&path, "old").unwrap();
    (place, path)
}

fn agree(_: &Path, _: &str) -> Result<(), std::fmt::Error> {
    Ok(())
}

fn alone(path: &Path) -> bool {
    fs::read_dir(path.parent().unwrap()).unwrap().count() == 1
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_replaced_file_keeps_its_mode_and_its_owner() {
    let (_place, path) = file();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(4242), Some(4343)).unwrap();
    let check = |checked: &Path, text: &str| {
        assert_eq!((checked, text), (path.as_path(), "new"));
        agree(checked, text)
    };
    replace(&path, "old", "new", check).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o640, 4242, 4343));
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert!(alone(&path));
}

#[test]
fn a_check_that_fails_leaves_the_old_file() {
    let (_place, path) = file();
    let before = fs::metadata(&path).unwrap().ino();
    let error = replace(&path, "old", "new", |_, _| Err(std::fmt::Error)).unwrap_err();
    assert!(matches!(error, ReplaceError::Check(std::fmt::Error)));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    assert!(alone(&path));
}

#[test]
fn what_somebody_else_has_written_meanwhile_is_kept() {
    let (_place, path) = file();
    let result = replace(&path, "ol", "new", agree);
    assert!(matches!(result, Err(ReplaceError::Changed { .. })));
    let result = replace(&path, "old", "new", |path, _| {
        fs::write(path, "theirs").unwrap();
        Ok::<_, std::fmt::Error>(())
    });
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with("somebody has changed "), "{message}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    assert!(alone(&path));
}

#[test]
fn a_second_editor_is_told_to_wait() {
    let (_place, path) = file();
    let check = |path: &Path, _: &str| {
        let second = replace(path, "old", "second", agree);
        assert!(matches!(second, Err(ReplaceError::InUse { .. })));
        Ok::<_, std::fmt::Error>(())
    };
    replace(&path, "old", "first", check).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "first");
}

#[test]
fn of_many_editors_at_once_none_undoes_what_another_has_done() {
    let (_place, path) = file();
    let path = path.as_path();
    let edit = |name: usize| {
        loop {
            let old = fs::read_to_string(path).unwrap();
            let done = replace(path, &old, &format!("{old} {name}"), agree);
            match done {
                Ok(()) => break,
                Err(ReplaceError::Changed { .. } | ReplaceError::InUse { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    std::thread::scope(|scope| {
        for name in 0..8 {
            scope.spawn(move || edit(name));
        }
    });
    let text = fs::read_to_string(path).unwrap();
    assert!((0..8).all(|name| text.contains(&format!(" {name}"))), "{text}");
    assert!(alone(path));
}

#[test]
fn a_symbolic_link_stays_and_its_target_is_replaced() {
    let (place, path) = file();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(&path, &link).unwrap();
    replace(&link, "old", "new", agree).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), path);
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert!(alone(&path) && alone(&link));
    drop(place);
    assert!(matches!(replace(&link, "new", "newer", agree), Err(ReplaceError::Read { .. })));
    assert!(alone(&link));
}

/// A text of lines that may stand in a file, with comments and blank lines anywhere.
fn lines() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "",
        "  ",
        "# a comment",
        "[[doors]]",
        "[[clients]]\nname = 'a'",
        "[[doors]]\nx = '''\n# no comment'''",
        "[[clients]] # b\nkey = [\n 'x', # y\n]",
        "[x]",
    ]);
    (prop::collection::vec(line, 0..12), any::<bool>())
        .prop_map(|(lines, windows)| {
            let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            if windows {
                text = text.replace('\n', "\r\n");
            }
            text
        })
        .prop_filter("some are no TOML", |text| Document::parse(text.as_str()).is_ok())
}

proptest! {
    #[test]
    fn who_is_added_and_removed_leaves_no_trace(text in lines(), name: String, key: String, doors: Vec<String>) {
        let client = NewClient { name, key, doors, ..NewClient::default() };
        prop_assume!(client.name != "a");
        let new = add(&text, &client).unwrap();
        let table: toml::Table = new.parse().unwrap();
        let last = table["clients"].as_array().unwrap().last().unwrap();
        prop_assert_eq!(last["name"].as_str(), Some(client.name.as_str()));
        prop_assert_eq!(last["key"].as_str(), Some(client.key.as_str()));
        prop_assert_eq!(remove(&new, &client.name).unwrap(), text.as_str());
        let cut = text.trim_end_matches('\n').trim_end_matches('\r');
        if !cut.is_empty() {
            let new = add(cut, &client).unwrap();
            let again = remove(&new, &client.name).unwrap();
            prop_assert_eq!(again.trim_end(), cut.trim_end());
        }
    }

    #[test]
    fn who_is_removed_takes_nothing_of_others_along(before in lines(), after in lines()) {
        let text = format!("{before}\n# above\n[[clients]]\nname = 'me'\nx = 1 # y\n\n{after}");
        prop_assume!(Document::parse(text.as_str()).is_ok());
        let new = remove(&text, "me").unwrap();
        prop_assert_eq!(new, format!("{before}\n{after}"));
    }

    #[test]
    fn no_text_makes_an_edit_panic(text: String, name: String) {
        let _ = remove(&text, &name);
        let _ = add(&text, &NewClient { name, ..carol() });
    }
}
