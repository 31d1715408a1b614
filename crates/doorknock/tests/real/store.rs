//! What the client trusts, when another hand has been at it.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use doors_spa::gateway::GatewayKey;
use getrandom::SysRng;
use rand_core::UnwrapErr;

use crate::home::{Home, Said, run};

/// A home with the servers `first`, `home` and `last`.
struct Store {
    home: Home,
    card: String,
}

impl Store {
    fn new() -> Self {
        let home = Home::new();
        let card = GatewayKey::generate(&mut UnwrapErr(SysRng)).card().to_text().to_string();
        for name in ["first", "home", "last"] {
            let said = home.doorknock(&["add", name, "door.example.org", &card]);
            assert_eq!(said.code, Some(0), "{said:?}");
        }
        Self { home, card }
    }

    fn directory(&self) -> PathBuf {
        self.home.path(".config/doorknock/servers")
    }

    fn file(&self) -> PathBuf {
        self.directory().join("home.toml")
    }

    /// Writes the file of `home` as another program would.
    fn write(&self, host: &str) {
        fs::write(self.file(), format!("host = \"{host}\"\ncard = \"{}\"\n", self.card)).unwrap();
    }

    /// `home` is named with the way out wherever it is used, and stands in the way of no other.
    fn is_refused(&self, why: &str) {
        let list = self.home.doorknock(&["list"]);
        assert_eq!(list.out, "first  door.example.org  62201\nlast  door.example.org  62201", "{list:?}");
        for arguments in [&["list"][..], &["open", "home", "ssh"], &["ssh-config", "home", "ssh"]] {
            let said = self.home.doorknock(arguments);
            is_told(&said, why);
            assert!(said.err.contains("home.toml"), "{said:?}");
        }
        assert_eq!(self.home.doorknock(&["ssh-config", "last", "ssh"]).code, Some(0));
    }
}

fn is_told(said: &Said, why: &str) {
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains(why), "{why}: {said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(![&said.out, &said.err].iter().any(|text| text.contains(['\u{1b}', '\u{202e}'])), "{said:?}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_stored_host_brings_nothing_into_sshs_configuration_or_onto_the_terminal() {
    let store = Store::new();
    for host in [
        "x\\n    ProxyCommand id",
        "x\\u001b[2J",
        "x\\u202ey",
        "-oProxyCommand=id",
        "a b",
        "a\\\"b",
        "a%h",
        "",
    ] {
        store.write(host);
        store.is_refused("line 1: write a name like door.example.org, or an address; correct the file");
        assert_eq!(store.home.doorknock(&["ssh-config", "home", "ssh"]).out, "");
    }
}

#[test]
fn a_store_that_others_can_change_is_refused_with_the_way_out() {
    let store = Store::new();
    for mode in [0o666, 0o620] {
        set_mode(&store.file(), mode);
        store.is_refused(&format!("can be changed by others (mode {mode:o})"));
        store.is_refused("chmod go-w");
    }
    set_mode(&store.file(), 0o600);
    let directory = store.directory();
    for mode in [0o777, 0o770] {
        set_mode(&directory, mode);
        for arguments in
            [&["list"][..], &["open", "home", "ssh"], &["add", "new", "192.0.2.1", &store.card, "--quiet"]]
        {
            is_told(&store.home.doorknock(arguments), &format!("chmod go-w {}", directory.display()));
        }
    }
    set_mode(&directory, 0o755);
    assert_eq!(store.home.doorknock(&["list"]).code, Some(0));
}

#[test]
fn what_is_no_file_of_a_server_neither_holds_up_nor_fills_the_memory() {
    let store = Store::new();
    let file = store.file();
    fs::remove_file(&file).unwrap();
    run(Command::new("mkfifo").arg("-m").arg("600").arg(&file));
    store.is_refused("is no regular file");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    store.is_refused("is no regular file");
    fs::remove_dir(&file).unwrap();
    File::create(&file).unwrap().set_len(300 << 20).unwrap();
    set_mode(&file, 0o600);
    store.is_refused("is longer than 65536 bytes");
    fs::remove_file(&file).unwrap();
    symlink(store.directory().join("last.toml"), &file).unwrap();
    store.is_refused("is a link");
    fs::remove_file(&file).unwrap();
    fs::write(&file, [0xff, 0xfe]).unwrap();
    store.is_refused("line 1: this is not text");
}

#[test]
fn one_broken_file_is_named_and_all_others_are_listed() {
    let store = Store::new();
    fs::write(store.file(), "host = 1\n").unwrap();
    store.is_refused("correct the file, or remove it");
    let said = store.home.doorknock(&["list", "--json"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!((said.code, said.err.as_str(), lines.len()), (Some(1), "", 3), "{said:?}");
    assert!(lines[1].starts_with("{\"name\":\"home\",\"host\":null,\"port\":null,\"error\":\""), "{said:?}");
    assert!(lines[2].ends_with("\"port\":62201,\"error\":null}"), "{said:?}");

    fs::remove_file(store.file()).unwrap();
    fs::write(store.directory().join("a\u{1b}[2Jb.toml"), "").unwrap();
    is_told(&store.home.doorknock(&["list"]), "is not called like a server; rename it");
}

#[test]
fn a_store_that_is_a_link_is_refused() {
    let store = Store::new();
    let elsewhere = store.home.path("elsewhere");
    fs::rename(store.directory(), &elsewhere).unwrap();
    symlink(&elsewhere, store.directory()).unwrap();
    is_told(&store.home.doorknock(&["list"]), "is a link; put in its place what it leads to");
}

#[test]
fn a_key_is_held_to_the_same_rules() {
    let store = Store::new();
    let open = |key: &Path| store.home.doorknock(&["open", "last", "ssh", "-i", key.to_str().unwrap()]);
    let fifo = store.home.path("fifo");
    run(Command::new("mkfifo").arg("-m").arg("600").arg(&fifo));
    is_told(&open(&fifo), "is no regular file");
    let large = store.home.path("large");
    File::create(&large).unwrap().set_len(300 << 20).unwrap();
    set_mode(&large, 0o600);
    is_told(&open(&large), "is longer than 65536 bytes");
    let key = store.home.key("key", "ed25519", "");
    set_mode(&key.with_extension("pub"), 0o666);
    is_told(&open(&key.with_extension("pub")), "can be changed by others (mode 666)");
    is_told(&open(Path::new("/nowhere/\u{1b}[2J")), "/nowhere/\\u{1b}[2J");

    // The type of a damaged key is looked up beside it.
    let rsa = store.home.key("rsa", "rsa", "");
    fs::remove_file(rsa.with_extension("pub")).unwrap();
    run(Command::new("mkfifo").arg("-m").arg("600").arg(rsa.with_extension("pub")));
    is_told(&open(&rsa), "is a key of type ");

    // As ssh does.
    let link = store.home.path("link");
    symlink(&key, &link).unwrap();
    let said = open(&link);
    assert!(!said.err.contains("cannot use the key"), "{said:?}");
}

#[test]
fn what_is_wrong_on_the_command_line_steers_no_terminal() {
    let home = Home::new();
    for arguments in [
        &["proxy", "x\u{1b}[2J", "22", "--sequence", "1,2,3,4,5"][..],
        &["open", "home", "s\u{1b}[2J"],
        &["open", "home", "s\u{202e}hss"],
        &["remove", "\u{202e}x\u{9b}2J"],
        &["\u{1b}[2J"],
    ] {
        let said = home.doorknock(arguments);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(!said.err.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{said:?}");
    }
}

/// What ssh makes of the lines that are printed for it.
fn ssh(store: &Store, host: &str) -> (Command, String) {
    let said = store.home.doorknock(&["add", "--replace", "home", host, &store.card]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines = store.home.doorknock(&["ssh-config", "home", "ssh"]).out;
    let config = store.home.path("ssh_config");
    fs::write(&config, format!("{lines}\n")).unwrap();
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(&config);
    let asked = Said::of(Command::new("ssh").arg("-F").arg(&config).args(["-G", "home"]));
    assert_eq!(asked.code, Some(0), "{asked:?}");
    let name = asked.out.lines().find_map(|line| line.strip_prefix("hostname ")).unwrap().to_owned();
    (ssh, name)
}

#[test]
fn an_address_with_a_zone_works_in_real_ssh() {
    let store = Store::new();
    for (host, expected) in [
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("door.example.org", "door.example.org"),
    ] {
        let (mut ssh, name) = ssh(&store, host);
        assert_eq!(name, expected);
        // ssh hands it to the proxy as it is: this one writes down what it is given.
        let bin = store.home.path("bin");
        fs::create_dir_all(&bin).unwrap();
        let told = store.home.path("told");
        fs::write(bin.join("doorknock"), format!("#!/bin/sh\necho \"$@\" > {}\n", told.display())).unwrap();
        set_mode(&bin.join("doorknock"), 0o700);
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let said =
            Said::of(ssh.args(["-o", "BatchMode=yes", "home"]).env("PATH", path).env("SHELL", "/bin/sh"));
        assert_ne!(said.code, Some(0));
        let told = fs::read_to_string(told).unwrap();
        assert_eq!(told, format!("proxy {expected} 22 --server home --door ssh\n"), "{said:?}");
    }
}
