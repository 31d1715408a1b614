//! The demo, the README's first command.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use doors_lab::{Namespace, Process};
use rustix::process::Signal;

use crate::testbed::PATIENCE;

/// Runs the program in a separate network. Returns its whole output.
fn shown(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
    command.args(arguments).stdin(Stdio::null());
    let network = Namespace::new().unwrap();
    // The demo with firewalld has several parts.
    let ended = Process::start(&network, command).unwrap().finish(4 * PATIENCE).unwrap();
    let (status, text) = ended.expect("it ends");
    assert_eq!(status.code(), Some(0), "{text}");
    text
}

#[test]
fn the_demo_runs_for_every_user_where_users_may_create_namespaces() {
    let network = Namespace::new().unwrap();
    let as_user = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", program]);
        command.args(arguments).stdin(Stdio::null());
        Process::start(&network, command).unwrap().finish(4 * PATIENCE).unwrap().expect("it ends")
    };
    // In a directory from which every user can run it.
    let place = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = place.path().join("port-knocking-doors");
    fs::copy(env!("CARGO_BIN_EXE_port-knocking-doors"), &program).unwrap();
    let (status, text) = as_user(program.to_str().unwrap(), &["demo"]);
    match as_user("unshare", &["--user", "--map-root-user", "--net", "true"]).0.success() {
        true => assert!(status.success() && text.contains("everything was as it must be"), "{text}"),
        false => assert!(text.contains("run it as root, or allow user namespaces"), "{text}"),
    }
}

#[test]
fn the_demo_shows_all_steps_in_eighty_columns() {
    for (arguments, grant) in [
        (&["demo"][..], "set default4 { 192.0.2.7 expires"),
        (&["demo", "--firewalld"], "source address=\"192.0.2.7\""),
    ] {
        let text = shown(arguments);
        for expected in ["accepts connections", grant, "lives on", "everything was as it must be"] {
            assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

#[test]
fn the_readme_names_commands_that_exist() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    for command in ["cargo run --release -- demo", "cargo xtask test"] {
        assert!(readme.contains(command), "{command}");
    }
    let (daemon, client) = (shown(&["--help"]), shown(&["demo-client", "--help"]));
    for line in readme.lines() {
        for (program, help) in [("port-knocking-doors ", &daemon), ("doorknock ", &client)] {
            let rest = line.split_once(program).map(|(before, rest)| (before.trim(), rest));
            // Lines of code that start with the program.
            let Some(("" | "sudo" | "$" | "ProxyCommand", rest)) = rest else { continue };
            let word = rest.split_whitespace().next().unwrap_or_default();
            assert!(help.contains(word), "the README has `{program}{word}`, and the help does not");
        }
    }
}

#[test]
fn a_killed_demo_leaves_no_process() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
    command.arg("demo").stdin(Stdio::null());
    let network = Namespace::new().unwrap();
    let mut demo = Process::start(&network, command).unwrap();
    let begun = Instant::now();
    let wait = |what: &str| {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    };
    let is_daemon = |process: &u32| {
        let line = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        line.contains("--conf") && line.contains("doors.toml")
    };
    while !children(demo.id()).iter().any(is_daemon) {
        wait("the daemon of the demo runs");
    }
    let started = children(demo.id());
    demo.signal(Signal::KILL).unwrap();
    assert!(!demo.wait(PATIENCE).unwrap().expect("it ends").success());
    for process in started {
        // A dead process may be a zombie until its parent collects it.
        while state(process).is_some_and(|(state, _)| state != 'Z') {
            wait("what the demo has started ends");
        }
    }
}

/// The child processes of this process.
fn children(parent: u32) -> Vec<u32> {
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|process| state(*process).is_some_and(|(_, its)| its == parent)).collect()
}

/// The state of a process, and its parent; `None` if there is no such process.
fn state(process: u32) -> Option<(char, u32)> {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // 4711 (name) S 1 …
    let mut fields = status.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
