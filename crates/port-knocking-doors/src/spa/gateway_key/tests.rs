//! The promises of the gateway key file.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use proptest::prelude::*;

use super::*;

fn random() -> impl CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn same(left: &GatewayKey, right: &GatewayKey) -> bool {
    left.to_text() == right.to_text()
}

/// A directory, and the path of a key in a subdirectory that does not exist.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("made").join("key");
    (place, path)
}

#[test]
fn a_new_key_is_read_again_and_only_its_owner_may_read_it() {
    let (_place, path) = place();
    let key = init(&path, &mut random()).unwrap();
    let keys = load(&path).unwrap();
    assert!(same(&keys.current, &key) && keys.previous.is_none());
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(card_text(&keys), key.card().to_text());
}

#[test]
fn an_existing_key_is_never_overwritten() {
    let (_place, path) = place();
    init(&path, &mut random()).unwrap();
    let before = fs::read(&path).unwrap();
    let error = init(&path, &mut random()).unwrap_err();
    assert!(error.to_string().ends_with("port-knocking-doors gateway rotate"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);

    let link = path.with_file_name("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert!(matches!(init(&link, &mut random()), Err(KeyError::Exists { .. })));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
}

#[test]
fn rotation_keeps_the_previous_key_until_the_stated_time_and_drops_the_one_before_it() {
    let (_place, path) = place();
    let first = init(&path, &mut random()).unwrap();
    rotate(&path, &mut random(), 1_000, Duration::from_secs(60)).unwrap();
    let second = load(&path).unwrap();
    let (previous, until) = second.previous.unwrap();
    assert!(same(&previous, &first) && !same(&second.current, &first));
    assert_eq!(until, 1_060);

    let third = rotate(&path, &mut random(), u64::MAX, Duration::from_secs(60)).unwrap();
    let (previous, until) = load(&path).unwrap().previous.unwrap();
    assert!(same(&previous, &second.current) && !same(&third.current, &second.current));
    assert_eq!(until, u64::MAX);

    rotate(&path, &mut random(), 1_000, Duration::ZERO).unwrap();
    assert!(load(&path).unwrap().previous.is_none());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_failed_rotation_keeps_the_key() {
    let (_place, path) = place();
    init(&path, &mut random()).unwrap();
    let before = fs::read(&path).unwrap();
    // A directory with the draft's name.
    fs::create_dir(path.with_file_name(".key.new")).unwrap();
    let error = rotate(&path, &mut random(), 0, Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, KeyError::Write { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn an_unusable_key_file_is_refused_and_the_error_says_what_to_do() {
    let (_place, path) = place();
    let message = || load(&path).unwrap_err().to_string();
    assert!(message().ends_with("make one: port-knocking-doors gateway init"), "{}", message());
    init(&path, &mut random()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(message().contains("(mode 640); try: chmod go= "), "{}", message());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(4242), None).unwrap();
    assert!(message().contains("(4242); try: chown 0 "), "{}", message());
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(message().ends_with("it is not a regular file"), "{}", message());
    fs::remove_dir(&path).unwrap();

    fs::write(&path, vec![b'#'; 20_000]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(message().ends_with("it is larger than 16 kilobytes"), "{}", message());
    fs::write(&path, [0xff]).unwrap();
    assert!(message().ends_with("it is not UTF-8 text"), "{}", message());
}

#[test]
fn each_invalid_entry_is_reported_with_its_line_and_never_quoted() {
    let key = GatewayKey::generate(&mut random()).to_text();
    let wrong = format!("{}!", *key);
    for (text, expected) in [
        ("", "key:1: `current` is missing here"),
        ("#\ncurrent = 1", "key:2: `current` is not a string"),
        ("#\ncurrent = \"WRONG\"", "key:2: `current` is not a gateway key: it is truncated"),
        ("\ncurrent = 'WRONG", "key:2: this is not TOML"),
        ("current = 'KEY'\ncurrent = 'KEY'", "key:2: this is not TOML: duplicate key"),
        ("current = 'KEY'\nprevius = 1", "key:2: there is something else than current and previous"),
        ("current = 'KEY'\nprevious = 1", "key:2: `previous` is not a table"),
        ("current = 'KEY'\n\n[previous]\nkey = 'KEY'", "key:3: `until` is missing here"),
        ("current = 'KEY'\n[previous]\nuntil = 1", "key:2: `key` is missing here"),
        (
            "current = 'KEY'\n[previous]\nkey = 'x'\nuntil = 1",
            "key:3: `key` is not a gateway key: it does not begin",
        ),
        ("current = 'KEY'\n[previous]\nkey = 'KEY'\nuntil = -1", "key:4: `until` is not a time"),
        ("current = 'KEY'\n[previous]\nkey = 'KEY'\nuntil = 1.5", "key:4: `until` is not a time"),
    ] {
        let text = text.replace("KEY", &key).replace("WRONG", &wrong);
        let error = file::parse(Path::new("key"), &text).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(&key[14..30]), "{shown}");
    }
}

#[test]
fn a_card_fits_into_a_terminal_and_has_a_quiet_zone() {
    let keys = Keys { current: GatewayKey::generate(&mut random()), previous: None };
    let picture = qr(&card_text(&keys)).unwrap();
    let plain = picture.replace("\u{1b}[38;5;231;48;5;16m", "").replace("\u{1b}[0m", "");
    let lines: Vec<&str> = plain.lines().collect();
    assert_eq!(lines.len(), 23);
    assert!(lines.iter().all(|line| line.chars().count() == 45), "\n{plain}");
    assert!(lines[..22].iter().all(|line| line.starts_with("████") && line.ends_with("████")), "\n{plain}");
    assert!(lines[..2].iter().all(|line| line.chars().all(|pixel| pixel == '█')), "\n{plain}");
    assert!(lines[2].starts_with("████ ▄▄▄▄▄ █"), "\n{plain}");
    assert_eq!(qr(&"x".repeat(3000)), None);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        let _ = file::parse(Path::new("key"), &text);
        let _ = file::parse(Path::new("key"), &format!("current = {text}"));
    }
}
