//! Which files are trusted, and which are not.

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};

use super::*;

const PUBLIC: Demands = Demands::public(10);
const SECRET: Demands = Demands::secret(10);
const OLD: Demands = Demands { own_group: true, ..Demands::public(10) };

/// A directory, and a file in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    fs::write(&path, "text").unwrap();
    (place, path)
}

fn own(path: &Path, owner: u32, group: u32, mode: u32) {
    chown(path, Some(owner), Some(group)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_read(path: &Path, demands: &Demands) -> bool {
    match read(path, demands) {
        Ok(file) => file.bytes[..] == *b"text",
        Err(_) => false,
    }
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_file_is_trusted_only_if_root_or_our_own_user_can_have_written_it() {
    let (_place, path) = place();
    // Owner, group, mode; and whether it is read as public, as secret, as an old configuration.
    for (owner, group, mode, expected) in [
        (0, 0, 0o600, [true, true, true]),
        (0, 0, 0o644, [true, false, true]),
        (0, 4242, 0o640, [true, false, true]),
        (0, 0, 0o664, [false, false, true]),
        (0, 4242, 0o664, [false, false, false]),
        (0, 0, 0o602, [false, false, false]),
        (0, 0, 0o666, [false, false, false]),
        (4242, 4242, 0o600, [false, false, false]),
    ] {
        own(&path, owner, group, mode);
        let found = [PUBLIC, SECRET, OLD].map(|demands| is_read(&path, &demands));
        assert_eq!(found, expected, "{owner} {group} {mode:o}");
    }
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_user_may_read_a_file_of_their_own() {
    let (place, path) = place();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    own(&path, 4242, 4242, 0o664);
    let as_user = |user| {
        let path = &path;
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(user)).unwrap();
                [is_read(path, &OLD), is_read(path, &PUBLIC)]
            });
            read.join().unwrap()
        })
    };
    assert_eq!(as_user(4242), [true, false]);
    assert_eq!(as_user(4243), [false, false]);
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_user_in_the_access_control_list_is_another_user() {
    let (_place, path) = place();
    own(&path, 0, 0, 0o664);
    assert!(is_read(&path, &OLD));
    // Version 2; owner rw, user 4242 rw, group r, mask rw, others r. The mode stays 664, whose middle is the mask.
    let entry = |tag: u16, rights: u16, id: u32| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries = [(1, 6, none), (2, 6, 4242), (4, 4, none), (0x10, 6, none), (0x20, 4, none)];
    let list: Vec<u8> = entries.iter().flat_map(|(tag, rights, id)| entry(*tag, *rights, *id)).collect();
    let list = [&2_u32.to_le_bytes()[..], &list].concat();
    rustix::fs::setxattr(&path, "system.posix_acl_access", &list, XattrFlags::empty()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o664);
    assert!(matches!(read(&path, &OLD), Err(Untrusted::Mode(0o664))));
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_path_that_is_not_a_regular_file_is_refused_at_once() {
    let (place, path) = place();
    let pipe = place.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for path in [&*pipe, place.path(), Path::new("/dev/null")] {
        assert!(matches!(read(path, &PUBLIC), Err(Untrusted::Kind)), "{}", path.display());
    }
    let missing = place.path().join("missing");
    assert!(matches!(read(&missing, &PUBLIC), Err(Untrusted::Missing)));
    assert!(matches!(read(&path.join("below"), &PUBLIC), Err(Untrusted::Missing)));
    symlink(&missing, place.path().join("link")).unwrap();
    assert!(matches!(read(&place.path().join("link"), &PUBLIC), Err(Untrusted::Dangling)));
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn the_owner_of_the_target_counts_and_not_of_the_link() {
    let (place, path) = place();
    let link = place.path().join("link");
    symlink(&path, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(4242), Some(4242)).unwrap();
    assert!(is_read(&link, &PUBLIC));
    own(&path, 4242, 0, 0o600);
    assert!(matches!(read(&link, &PUBLIC), Err(Untrusted::Owner { owner: 4242, we: 0 })));
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_file_may_reach_its_maximum_length_and_not_exceed_it() {
    let (_place, path) = place();
    for (length, fits) in [(10, true), (11, false), (5000, false)] {
        fs::write(&path, vec![b'x'; length]).unwrap();
        own(&path, 0, 0, 0o600);
        for demands in [PUBLIC, SECRET] {
            match read(&path, &demands) {
                Ok(file) => assert!(fits && file.bytes.len() == length, "{length}"),
                Err(Untrusted::Long) => assert!(!fits, "{length}"),
                Err(other) => panic!("{length}: {other:?}"),
            }
        }
    }
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn the_directory_in_which_another_user_can_replace_the_file_is_reported() {
    let place = tempfile::tempdir().unwrap();
    let (above, below) = (place.path().join("above"), place.path().join("above/below"));
    fs::create_dir_all(&below).unwrap();
    let path = below.join("file");
    fs::write(&path, "text").unwrap();
    let link = place.path().join("link");
    symlink(&path, &link).unwrap();
    for (owner, group, mode, named) in [
        (0, 0, 0o755, false),
        (0, 0, 0o775, false),
        (0, 0, 0o777, true),
        (0, 4242, 0o775, true),
        (0, 0, 0o1777, false),
        (4242, 4242, 0o755, true),
        (4242, 4242, 0o1755, true),
    ] {
        own(&above, owner, group, mode);
        let expected = named.then(|| above.clone());
        for path in [&path, &link] {
            let found = replaceable(path).map(|found| found.directory);
            assert_eq!(found, expected, "{owner} {group} {mode:o}");
        }
    }
}
