//! Cards and sequences, and who can see them.

use std::{
    fs::{self, File, Permissions},
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use doors_spa::gateway::GatewayKey;
use getrandom::SysRng;
use rand_core::UnwrapErr;

use crate::home::{Home, Said};

const WARNING: &str = "doorknock: other users of this machine can read the ";

/// A file that only its owner can read.
fn file(home: &Home, name: &str, text: &str) -> PathBuf {
    let path = home.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// Runs the client with the file as its input.
fn with_input(home: &Home, arguments: &[&str], input: &Path) -> Said {
    Said::of(home.command(arguments).stdin(File::open(input).unwrap()))
}

#[test]
fn a_card_on_the_command_line_is_warned_of_with_the_way_out() {
    let home = Home::new();
    let card = GatewayKey::generate(&mut UnwrapErr(SysRng)).card().to_text();
    let said = home.doorknock(&["add", "a", "192.0.2.1", &card]);
    let expected = format!("{WARNING}card in the list of processes; better: doorknock add a 192.0.2.1 -");
    assert_eq!((said.code, said.err), (Some(0), expected));
    let said = home.doorknock(&["add", "b", "192.0.2.1", &card, "--quiet"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let input = file(&home, "card", &format!("{}\n", *card));
    let said = with_input(&home, &["add", "c", "192.0.2.1", "-"], &input);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(home.doorknock(&["list"]).out.lines().count(), 3);
}

#[test]
fn a_sequence_is_read_where_other_users_cannot_see_it() {
    let home = Home::new();
    let ears: Vec<UdpSocket> = (0..5).map(|_| UdpSocket::bind(("127.0.0.1", 0)).unwrap()).collect();
    let ports: Vec<String> = ears.iter().map(|ear| ear.local_addr().unwrap().port().to_string()).collect();
    let ports = ports.join(",");
    let path = file(&home, "sequence", &format!("{ports}\n"));
    let by_file = ["sequence", "127.0.0.1", "--sequence-file", path.to_str().unwrap()];
    let by_input = ["sequence", "127.0.0.1", "-"];
    let here = ["sequence", "127.0.0.1", &ports];
    let warning = format!(
        "{WARNING}sequence in the list of processes; better: doorknock sequence 127.0.0.1 -, or --sequence-file FILE"
    );
    for (said, told) in [
        (home.doorknock(&by_file), ""),
        (with_input(&home, &by_input, &path), ""),
        (home.doorknock(&here), &warning),
    ] {
        assert_eq!((said.code, said.out.as_str()), (Some(0), "sent 5 knocks to 127.0.0.1"), "{said:?}");
        assert_eq!(said.err, told);
        for ear in &ears {
            ear.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(ear.recv(&mut [0; 16]).unwrap(), 6);
        }
    }
    let said = home.doorknock(&[&here[..], &["--quiet"]].concat());
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    for arguments in [&by_file[..2], &[&by_file[..], &here[2..]].concat()] {
        assert_eq!(home.doorknock(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn a_file_with_a_sequence_is_read_only_if_it_is_secret() {
    let home = Home::new();
    let path = file(&home, "sequence", "16001,16002,16003,16004,16005");
    let knock = || home.doorknock(&["sequence", "127.0.0.1", "--sequence-file", path.to_str().unwrap()]);
    for (mode, why) in [(0o644, "can be read by others (mode 644); try: chmod 600 "), (0o622, "chmod go-w ")]
    {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let said = knock();
        assert_eq!(
            (said.code, said.err.contains(why), said.err.lines().count()),
            (Some(1), true, 1),
            "{said:?}"
        );
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "16001,x").unwrap();
    let said = knock();
    assert!(said.code == Some(1) && said.err.contains("\"x\" is no port"), "{said:?}");
}

#[test]
fn a_proxy_takes_its_sequence_from_a_file_and_warns_of_one_that_can_be_seen() {
    let home = Home::new();
    let path = file(&home, "sequence", "16001,16002,16003,16004,16005");
    let proxy = ["proxy", "127.0.0.1", "9", "--timeout", "1"];
    let said = home.doorknock(&[&proxy[..], &["--sequence-file", path.to_str().unwrap()]].concat());
    assert!(said.err.contains("127.0.0.1 port 9 does not accept connections"), "{said:?}");
    assert!(!said.err.contains(WARNING), "{said:?}");
    let here = [&proxy[..], &["--sequence", "16001,16002,16003,16004,16005"]].concat();
    assert!(home.doorknock(&here).err.starts_with(WARNING));
    assert!(!home.doorknock(&[&here[..], &["--quiet"]].concat()).err.contains(WARNING));
    let said = home.doorknock(&[&proxy[..], &["--sequence", "-"]].concat());
    assert_eq!((said.code, said.err.contains("--sequence-file")), (Some(2), true), "{said:?}");
}

#[test]
fn the_help_shows_first_how_nobody_else_sees_a_secret() {
    let home = Home::new();
    let words =
        |command| home.doorknock(&[command, "--help"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words("add").contains("Its card: \"-\" reads it from standard input"), "{}", words("add"));
    assert!(
        words("sequence").contains("in order: \"-\" reads them from standard input"),
        "{}",
        words("sequence")
    );
}
