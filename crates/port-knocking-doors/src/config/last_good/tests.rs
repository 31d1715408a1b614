//! What must stay true of what is kept.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    time::Duration,
};

use doors_core::time::Moment;
use proptest::prelude::*;

use super::*;
use crate::config::ClientFiles;

fn texts(path: &str) -> Texts {
    Texts {
        path: PathBuf::from(path),
        text: "ports = []\n".to_owned(),
        keys: None,
        clients: ClientFiles::default(),
    }
}

fn place() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::new(place.path().join("state"));
    (place, store)
}

/// Lets a copy have been written at this time.
fn age(store: &Store, path: &Path, seconds: u64) {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap();
    fs::File::open(store.path_of(path)).unwrap().set_modified(at).unwrap();
}

#[test]
fn what_is_kept_of_a_file_is_read_again_for_that_file_only_and_is_secret() {
    let (_place, store) = place();
    let kept = texts("/etc/one.toml");
    assert_eq!(store.read(&kept.path).unwrap(), None);
    store.write(&kept).unwrap();
    assert_eq!(store.read(&kept.path).unwrap(), Some(kept.clone()));
    assert_eq!(store.read(Path::new("/etc/two.toml")).unwrap(), None);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&store.path_of(&kept.path)), mode(&store.directory)), (0o600, 0o700));

    let keys = Some((PathBuf::from("/etc/keys"), "ssh-ed25519 …".to_owned()));
    let newer = Texts { text: "other\n".to_owned(), keys, ..kept };
    store.write(&newer).unwrap();
    assert_eq!(store.read(&newer.path).unwrap(), Some(newer));
    assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 1, "no draft stays");
}

#[test]
fn a_copy_under_the_name_of_another_files_is_not_that_files() {
    let (_place, store) = place();
    let (one, two) = (texts("/etc/one.toml"), Path::new("/etc/two.toml"));
    store.write(&one).unwrap();
    fs::rename(store.path_of(&one.path), store.path_of(two)).unwrap();
    assert_eq!(store.read(two).unwrap(), None);
}

#[test]
fn a_file_and_a_link_to_it_have_one_copy_which_the_link_finds_when_it_leads_nowhere() {
    let (place, store) = place();
    let (file, link) = (place.path().join("doors.toml"), place.path().join("link.toml"));
    fs::write(&file, "").unwrap();
    symlink("doors.toml", &link).unwrap();
    let of = |path: &Path, text: &str| Texts { text: text.to_owned(), ..texts(path.to_str().unwrap()) };
    store.write(&of(&file, "both\n")).unwrap();
    // A command that names the file by the link changes what a start with the file finds, and the other way round.
    store.follow(&of(&link, "without a\n")).unwrap();
    assert_eq!(store.read(&file).unwrap(), Some(of(&file, "without a\n")));
    store.follow(&of(&file, "without b\n")).unwrap();
    assert_eq!(store.read(&link).unwrap(), Some(of(&link, "without b\n")));

    fs::remove_file(&file).unwrap();
    assert_eq!(store.read(&link).unwrap(), Some(of(&link, "without b\n")));
    assert_eq!(store.read(&file).unwrap(), Some(of(&file, "without b\n")));

    // What was in force by this link counts, also if that leads elsewhere since; until something else is.
    let other = place.path().join("other.toml");
    fs::write(&other, "").unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&other, &link).unwrap();
    assert_eq!(store.read(&link).unwrap(), Some(of(&link, "without b\n")));
    store.follow(&of(&link, "of another\n")).unwrap();
    assert_eq!(store.read(&link).unwrap(), Some(of(&link, "of another\n")));
    assert_eq!(store.read(&file).unwrap(), Some(of(&file, "without b\n")));

    store.forget(&link);
    assert_eq!((store.read(&link).unwrap(), store.read(&other).unwrap()), (None, None));
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let (_place, store) = place();
    let kept = texts("/etc/one.toml");
    store.write(&kept).unwrap();
    let inode = |store: &Store| fs::metadata(store.path_of(&kept.path)).unwrap().ino();
    let first = inode(&store);
    age(&store, &kept.path, 1000);
    store.write(&kept).unwrap();
    assert_eq!(inode(&store), first);
    let modified = fs::metadata(store.path_of(&kept.path)).unwrap().mtime();
    assert!(modified > 1000, "that it was in force later is known all the same");
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_copy_that_others_could_have_written_is_refused() {
    let (place, store) = place();
    let kept = texts("/etc/one.toml");
    store.write(&kept).unwrap();
    let copy = store.path_of(&kept.path);
    let told = || store.read(&kept.path).unwrap_err().to_string();
    for (path, mode, good) in [(&copy, 0o620, 0o600), (&store.directory, 0o777, 0o700)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(told().contains(&format!("(mode {mode:03o})")), "{}", told());
        fs::set_permissions(path, fs::Permissions::from_mode(good)).unwrap();
    }
    std::os::unix::fs::chown(&copy, Some(4242), None).unwrap();
    assert!(told().contains("belongs to another user (4242)"), "{}", told());
    let elsewhere = place.path().join("elsewhere");
    fs::rename(&copy, &elsewhere).unwrap();
    std::os::unix::fs::chown(&elsewhere, Some(0), None).unwrap();
    symlink(&elsewhere, &copy).unwrap();
    assert!(matches!(store.read(&kept.path), Err(CopyError::Read { .. })));
}

#[test]
fn nothing_is_kept_where_others_can_write() {
    let (_place, store) = place();
    fs::create_dir(&store.directory).unwrap();
    fs::set_permissions(&store.directory, fs::Permissions::from_mode(0o777)).unwrap();
    let error = store.write(&texts("/etc/one.toml")).unwrap_err();
    assert!(matches!(error, CopyError::Writable { mode: 0o777, .. }), "{error}");
    assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 0);
}

#[test]
fn a_copy_of_another_version_is_told_from_a_damaged_one() {
    let (_place, store) = place();
    let kept = texts("/etc/one.toml");
    store.write(&kept).unwrap();
    let copy = store.path_of(&kept.path);
    let whole = fs::read(&copy).unwrap();
    let told = |bytes: &[u8]| {
        fs::write(&copy, bytes).unwrap();
        store.read(&kept.path).unwrap_err().to_string()
    };
    let newer = String::from_utf8(whole.clone()).unwrap().replacen("last-good 2", "last-good 3", 1);
    assert!(told(newer.as_bytes()).ends_with("has version 3, and this program knows 2; remove it"));
    for length in 0..whole.len() {
        assert!(told(&whole[..length]).ends_with("is damaged, or something else; remove it"), "{length}");
    }
    for place in (0..whole.len()).filter(|place| !(30..=31).contains(place)) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        assert!(matches!(told(&bytes), told if told.contains("is damaged")), "{place}");
    }
}

#[test]
fn a_copy_from_before_clients_had_files_is_read() {
    let lengths = "4 0 1 0";
    let digest = Sha256::new().chain_update(lengths).chain_update("/one#").finalize();
    let check: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let copy = format!("port-knocking-doors last-good 1\n{lengths} {check}\n/one#");
    let expected = Texts { text: "#".to_owned(), ..texts("/one") };
    assert_eq!(contents::decode(copy.as_bytes()), Ok(expected));
}

#[test]
fn of_two_files_that_are_gone_the_one_that_was_in_force_last_counts() {
    let (_place, store) = place();
    let (home, etc) = (PathBuf::from("/root/.port_knocker.toml"), PathBuf::from("/etc/port_knocker.toml"));
    let both = || [home.clone(), etc.clone()];
    assert_eq!(store.latest(both()), None);
    store.write(&texts("/etc/port_knocker.toml")).unwrap();
    assert_eq!(store.latest(both()), Some(etc.clone()));
    store.write(&texts("/root/.port_knocker.toml")).unwrap();
    for (of_home, of_etc, last) in [(2000, 1000, &home), (1000, 2000, &etc)] {
        age(&store, &home, of_home);
        age(&store, &etc, of_etc);
        assert_eq!(store.latest(both()).as_ref(), Some(last));
    }
}

#[test]
fn what_comes_into_force_is_kept_and_of_several_the_last() {
    let (_place, store) = place();
    let keeper = Keeper::start(store.clone()).unwrap();
    for number in 0..100 {
        keeper.keep(Some(Texts { text: format!("{number}\n"), ..texts("/etc/one.toml") }));
    }
    keeper.keep(None);
    keeper.end(Duration::from_secs(20));
    assert_eq!(store.read(Path::new("/etc/one.toml")).unwrap().unwrap().text, "99\n");
}

#[test]
fn it_is_said_once_a_minute_that_the_file_is_not_in_force_until_it_is() {
    let at = |seconds| Moment::new(Duration::from_secs(seconds));
    let mut reminder = Reminder::new(Some("why".to_owned()), at(10));
    let mut said = Vec::new();
    for now in 10..300 {
        said.extend(reminder.take(at(now)).map(|why| (now, why)));
        assert!(reminder.deadline().unwrap() > at(now));
    }
    let expected = [70, 130, 190, 250].map(|now| (now, "why".to_owned()));
    assert_eq!(said, expected);
    // A machine that has slept says it once.
    assert!(reminder.take(at(100_000)).is_some() && reminder.take(at(100_000)).is_none());
    assert!(reminder.end() && !reminder.end(), "that it has ended is said once");
    assert_eq!((reminder.deadline(), reminder.take(at(200_000))), (None, None));
    let mut none = Reminder::new(None, at(0));
    assert_eq!((none.deadline(), none.take(at(1000))), (None, None));
}

proptest! {
    #[test]
    fn texts_are_read_as_they_were_written(path in "/.{0,40}", text: String, keys in proptest::option::of(("/.{0,40}", ".*")),
        directory in proptest::option::of("/.{0,40}"), clients in proptest::collection::vec(("[a-z]{1,9}", ".*"), 0..4)) {
        let keys = keys.map(|(path, keys)| (PathBuf::from(path), keys));
        let clients = ClientFiles { directory: directory.map(PathBuf::from), texts: clients };
        let texts = Texts { path: PathBuf::from(path), text, keys, clients };
        prop_assert_eq!(contents::decode(&contents::encode(&texts)), Ok(texts));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, rest: String) {
        let _ = contents::decode(&bytes);
        for version in [1, 2] {
            let _ = contents::decode(format!("port-knocking-doors last-good {version}\n{rest}").as_bytes());
        }
    }
}
