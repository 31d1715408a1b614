//! What is printed of the keys: the help, the files that are written, the manual.

use std::fmt::Write as _;

use doors_text::wrap::wrap;

use super::{CLIENT, DOOR, Described, TOP, described};

/// The longest line of the help.
const WIDTH: usize = 78;

/// The help for the configuration file, as text for a terminal.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "The configuration file is TOML. It is looked for in this order:\n\
         \n    the file that --conf names\n    .port_knocker.toml in the home directory\n    \
         /etc/port_knocker.toml\n\nWithout a file, default values are used. All times are in seconds.\n",
    );
    for (title, keys) in [
        ("Keys at the top of the file:", described(TOP)),
        ("Keys of each [[doors]]:", described(DOOR)),
        ("Keys of each [[clients]]:", described(CLIENT)),
    ] {
        let _ = write!(text, "\n{title}\n");
        for key in keys {
            let default =
                key.default.as_ref().map_or("required".to_owned(), |default| format!("default {default}"));
            let _ = write!(text, "\n  {}\n    = {}; {default}\n", key.name, key.shape);
            for line in wrap(key.help, WIDTH.saturating_sub(6)) {
                let _ = writeln!(text, "      {line}");
            }
        }
    }
    text.push_str("\nAn example with a door of its own:\n\n");
    for line in EXAMPLE_DOOR.lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// The file that `--set-configuration-file-in-home` writes.
#[must_use]
pub fn default_file() -> String {
    let mut text = String::from(TITLE);
    text.push_str(&keys_with_defaults(|key| Some(format!("{} = {}", key.name, key.default.as_ref()?))));
    text.push_str("\n# A door of its own. It stays at the end of the file.\n#\n");
    text.push_str(&commented(EXAMPLE_DOOR));
    text
}

/// The file that the installation copies. It has no door: one that opens to a sequence that everybody knows would
/// be worse than none.
#[must_use]
pub fn installed_file() -> String {
    let mut text = String::from(TITLE);
    text.push_str(
        "#\n# There is no door in here yet, so nothing is guarded. For clients with a key, take\n# the comment signs from \
         the last lines of this file; for a sequence, write\n# ports_to_controls and opening_sequence. Then look at it with \
         `port-knocking-doors\n# check`, and start or reload the daemon.\n",
    );
    text.push_str(&keys_with_defaults(|key| match key.name {
        "opening_sequence" => Some("# opening_sequence = [] # 5 to 20 ports of your own".to_owned()),
        "ports_to_controls" => Some(format!("# {} = {}", key.name, key.default.as_ref()?)),
        _ => None,
    }));
    text.push_str("\n# A door for clients with a key. It stays at the end of the file.\n#\n");
    text.push_str(&commented(KEY_DOOR));
    text
}

const TITLE: &str = "# Configuration of port-knocking-doors.\n# Explained by: port-knocking-doors \
                     --show-configuration-file-help\n";

fn commented(lines: &str) -> String {
    lines.lines().map(|line| format!("# {line}\n")).collect()
}

/// The keys at the top with what they mean. `line` writes the two that make the door `default`; the others are there as
/// comments.
fn keys_with_defaults(line: impl Fn(&Described) -> Option<String>) -> String {
    let mut text = String::new();
    for key in described(TOP) {
        if ["doors", "clients"].contains(&key.name) {
            continue;
        }
        text.push('\n');
        for line in wrap(key.help, WIDTH) {
            let _ = writeln!(text, "# {line}");
        }
        let of_default_door = ["ports_to_controls", "opening_sequence"].contains(&key.name);
        let written = if of_default_door { line(&key) } else { None };
        let value = match key.example {
            Some(example) => format!("{example} # an example"),
            None => key.default.unwrap_or_default(),
        };
        let _ = writeln!(text, "{}", written.unwrap_or_else(|| format!("# {} = {value}", key.name)));
    }
    text
}

/// The keys as a page of the manual, in Markdown.
#[must_use]
pub fn manual() -> String {
    let mut text = String::new();
    // Keys of two tables may have one name, and only the first of such headings has the anchor that is made of it.
    for (title, of, keys) in [
        ("Keys at the top of the file", "", described(TOP)),
        ("Keys of each `[[doors]]`", "doors-", described(DOOR)),
        ("Keys of each `[[clients]]`, and of a file in `clients_dir`", "clients-", described(CLIENT)),
    ] {
        let _ = write!(text, "## {title}\n\n| key | value | default |\n|---|---|---|\n");
        for key in &keys {
            let default =
                key.default.as_ref().map_or("required".to_owned(), |default| format!("`{default}`"));
            let _ = writeln!(text, "| [`{0}`](#{of}{0}) | {1} | {default} |", key.name, key.shape);
        }
        for key in &keys {
            let anchor =
                if of.is_empty() { String::new() } else { format!("<a id=\"{of}{}\"></a>\n\n", key.name) };
            let _ = write!(text, "\n{anchor}### `{}`\n\n", key.name);
            for line in wrap(key.help, 100) {
                let _ = writeln!(text, "{line}");
            }
        }
        text.push('\n');
    }
    let _ = write!(text, "## An example\n\n```toml\n{EXAMPLE_DOOR}```\n");
    text
}

/// The sequence of the example, which everybody can read, too.
pub(in crate::config) const EXAMPLE_SEQUENCE: [u16; 6] = [40871, 12903, 55012, 7741, 31337, 20666];

/// A door as an administrator might write it.
const EXAMPLE_DOOR: &str = "\
[[doors]]
name = \"office\"
ports = [\"22/tcp\", \"60000-60010/udp\"]
sequence = [40871, 12903, 55012, 7741, 31337, 20666] # choose your own
open_for = 30
";

/// A door for clients with a key.
const KEY_DOOR: &str = "\
[[doors]]
name = \"ssh\"
ports = [\"22/tcp\"]
open_for = 30
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_has_the_sequence_that_is_warned_of() {
        assert!(EXAMPLE_DOOR.contains(&format!("sequence = {EXAMPLE_SEQUENCE:?}")));
    }
}
