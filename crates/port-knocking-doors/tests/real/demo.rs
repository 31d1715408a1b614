//! The README's first command.

use std::process::{Command, Stdio};

use port_knocking_doors::lab::{Namespace, Process};

use crate::house::PATIENCE;

/// Runs the program in a network of its own, whatever it takes its arguments for. Gives all that it prints.
fn shown(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
    command.args(arguments).stdin(Stdio::null());
    let network = Namespace::new().unwrap();
    // The story with firewalld has several parts.
    let ended = Process::start(&network, command).unwrap().finish(4 * PATIENCE).unwrap();
    let (status, text) = ended.expect("it ends");
    assert_eq!(status.code(), Some(0), "{text}");
    text
}

#[test]
fn the_demo_shows_a_whole_story_on_eighty_columns() {
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
            // Lines of code that begin with the program.
            let Some(("" | "sudo" | "$" | "ProxyCommand", rest)) = rest else { continue };
            let word = rest.split_whitespace().next().unwrap_or_default();
            assert!(help.contains(word), "the README has `{program}{word}`, and the help does not");
        }
    }
}
