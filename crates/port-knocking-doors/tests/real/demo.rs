//! The README's first command.

use std::process::Command;

fn shown(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
    let output = command.arg("demo").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_demo_shows_a_whole_story_on_eighty_columns() {
    for (arguments, grant) in
        [(&[][..], "set default4 { 192.0.2.7 expires"), (&["--firewalld"], "source address=\"192.0.2.7\"")]
    {
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
    let help = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_port-knocking-doors")).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (daemon, client) = (help(&["--help"]), help(&["demo-client", "--help"]));
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
