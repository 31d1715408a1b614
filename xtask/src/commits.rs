//! Whether the messages of the latest commits have the form that CONTRIBUTING.md asks for.

use std::process::Command;

use crate::programs::Failure;

/// Commits up to this one may have any form: the rule came to the branch after some of them.
const BASE: &str = "49c8091";

/// The longest subject, in characters.
const LONGEST: usize = 72;

pub(crate) fn run() -> Result<(), Failure> {
    // A copy without its history, or with the end of it only, has nothing to look at.
    if git(&["cat-file", "-e", &format!("{BASE}^{{commit}}")]).is_none() {
        println!("   not checked: no git here, or a clone without the history since {BASE}");
        return Ok(());
    }
    let range = format!("{BASE}..HEAD");
    let messages =
        git(&["log", "--no-merges", "--format=%h %B%x00", &range]).ok_or("git log does not work")?;
    let wrong: Vec<String> = messages
        .split('\0')
        .filter_map(|commit| commit.trim_start().split_once(' '))
        .filter_map(|(commit, message)| mistake(message).map(|mistake| format!("{commit}: {mistake}")))
        .collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("commit messages (see CONTRIBUTING.md):\n{}", wrong.join("\n")).into()),
    }
}

/// What git prints, if it can do it.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is wrong with a message.
fn mistake(message: &str) -> Option<&'static str> {
    let (subject, rest) = message.trim_end().split_once('\n').unwrap_or((message.trim_end(), ""));
    let Some((areas, what)) = subject.split_once(": ") else {
        return Some("the subject is not `area: what it does`");
    };
    let is_area = |area: &str| {
        !area.is_empty() && area.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if !areas.split(", ").all(is_area) || what.trim().is_empty() {
        return Some("the subject is not `area: what it does`");
    }
    if subject.chars().count() > LONGEST {
        return Some("the subject has more than 72 characters");
    }
    if subject.ends_with('.') {
        return Some("the subject ends with a full stop");
    }
    match rest.split_once('\n') {
        Some(("", why)) if !why.trim().is_empty() => None,
        _ if rest.trim().is_empty() => Some("there is no body that says why"),
        _ => Some("the second line is not empty"),
    }
}

#[test]
fn a_message_has_an_area_what_it_does_and_why() {
    let long = format!("core: {}", "x".repeat(LONGEST));
    let long = format!("{long}\n\nWhy.");
    for (message, expected) in [
        ("core: a knock is judged once\n\nA copy would be judged twice.\n", None),
        ("inbox, core-2: two areas\n\nWhy.", None),
        ("A knock is judged once\n\nWhy.", Some("the subject is not `area: what it does`")),
        ("Core: a knock\n\nWhy.", Some("the subject is not `area: what it does`")),
        ("core: \n\nWhy.", Some("the subject is not `area: what it does`")),
        ("core, : x\n\nWhy.", Some("the subject is not `area: what it does`")),
        (&long, Some("the subject has more than 72 characters")),
        ("core: a knock.\n\nWhy.", Some("the subject ends with a full stop")),
        ("core: a knock\n", Some("there is no body that says why")),
        ("core: a knock\nand more\n\nWhy.", Some("the second line is not empty")),
    ] {
        assert_eq!(mistake(message), expected, "{message:?}");
    }
}
