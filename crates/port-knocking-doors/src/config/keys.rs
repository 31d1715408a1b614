//! Every key of the configuration file, in one place.
//!
//! The parser knows a key only from here, and the help, the default file and the manual are printed
//! from here.

use std::fmt::Write as _;

use doors_text::wrap::wrap;

/// The largest configuration file, and the largest file of public keys, in bytes: more than 300 for each of the
/// most clients. A larger one is something else.
pub const LARGEST_FILE: usize = 32 << 20;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, as it is written in the file.
    pub name: &'static str,
    /// What stands behind it, for a person.
    pub shape: &'static str,
    /// The value if it is left out, as TOML; `None` if it cannot be left out.
    pub default: Option<&'static str>,
    /// What it means.
    pub help: &'static str,
}

/// The keys at the top of the file.
pub const TOP: &[Key] = &[
    Key {
        name: "ports_to_controls",
        shape: "list of TCP ports",
        default: Some("[22]"),
        help: "The TCP ports that are opened for those who knock. Together with opening_sequence this is \
               the door called \"default\". A file names both or neither; the defaults are for when there is no file. \
               Where the file names neither, --ports and --magic-seq are given together.",
    },
    Key {
        name: "opening_sequence",
        shape: "list of 5 to 20 UDP ports",
        default: Some("[16001, 16002, 16003, 16004, 16005]"),
        help: "The UDP ports to send \"knock\\n\" to, in this order. Choose your own, and do not choose \
               neighbours: everybody knows the default.",
    },
    Key {
        name: "firewall_rules_check_periode_seconds",
        shape: "seconds, 1 to 31536000",
        default: Some("10"),
        help: "The firewall's rules are checked this often, and put back if somebody has changed them. \
               This is the safety net: changes that the kernel or firewalld announces are repaired at once.",
    },
    Key {
        name: "ignoring_period_after_knock_error",
        shape: "seconds, 0 to 31536000",
        default: Some("5"),
        help: "After a wrong knock, a knocker must be quiet this long before its knocks count again. Each \
               knock during that time starts it anew.",
    },
    Key {
        name: "max_knocker_live_time",
        shape: "seconds, 1 to 31536000",
        default: Some("30"),
        help: "This long after its last knock, a knocker is forgotten and must start again.",
    },
    Key {
        name: "max_opened_door_duration",
        shape: "seconds, 1 to 31536000",
        default: Some("10"),
        help: "How long a door stays open. Connections that were made in that time live on, so a few \
               seconds are enough for most services.",
    },
    Key {
        name: "doors_cleanup_periode",
        shape: "seconds, 1 to 31536000",
        default: Some("10"),
        help: "The open doors are compared with what is open in the firewall this often. Doors close by \
               themselves, whether or not this program runs.",
    },
    Key {
        name: "firewall",
        shape: "\"auto\", \"firewalld\", \"nftables\" or \"rich-rules\"",
        default: Some("\"auto\""),
        help: "What keeps the doors closed and opens them. Our own gate in nftables guards them in any case but \
               the last. \"auto\" also opens them in firewalld where that runs and would keep them closed; with \
               \"firewalld\" it is an error if there is no system bus to reach it; \"nftables\" asks firewalld \
               for nothing. \"rich-rules\" is for kernels without nf_tables: firewalld alone, no gate, and \
               strangers get in wherever firewalld lets them.",
    },
    Key {
        name: "listen",
        shape: "\"capture\" or \"sockets\"",
        default: Some("\"capture\""),
        help: "How knocks are heard. \"capture\" sees packets before any firewall: no port needs opening, and \
               a knock on any other port counts as wrong. \"sockets\" binds the knock ports, for places \
               without CAP_NET_RAW: it hears no wrong knocks on other ports, so use 15 ports or more. It \
               cannot see whether a datagram came in fragments, or was broadcast on the link with the address \
               of this machine; \"capture\" hears neither.",
    },
    Key {
        name: "zone",
        shape: "\"auto\" or the name of a firewalld zone",
        default: Some("\"auto\""),
        help: "Where firewalld runs: the zone in which doors open. \"auto\" takes the zone that the client's \
               traffic arrives in.",
    },
    Key {
        name: "refuse",
        shape: "\"drop\" or \"reject\"",
        default: Some("\"drop\""),
        help: "What happens to a connection to a closed door. \"drop\" does not answer; \
               \"reject\" answers like a port where nothing listens.",
    },
    Key {
        name: "trusted",
        shape: "list of networks",
        default: Some("[]"),
        help: "Networks that always pass the gate without knocking, for example \"192.168.1.0/24\" or \
               \"2001:db8::/32\". What firewalld closes, it closes to them, too.",
    },
    Key {
        name: "mark",
        shape: "number, 0x1 to 0xffffffff",
        default: Some("none"),
        help: "Bits of the packet mark that every packet of a granted connection carries, for example 0x20000000. \
               With one rule in another firewall that accepts this mark, its port stays closed to everybody else, \
               also if the gate is gone: docs/firewalls.md has that rule for ufw, iptables, nftables and container \
               engines. Choose bits that nothing else here uses, as `ip rule` and the other firewall's rules show. \
               Not with firewall = \"rich-rules\", where no gate could mark anything.",
    },
    Key {
        name: "on_exit",
        shape: "\"keep\" or \"remove\"",
        default: Some("\"keep\""),
        help: "What happens to the gate when the daemon is stopped in order. \"keep\" leaves it: \
               open doors close on time, and nobody gets in. \"remove\" takes it away: the ports are then as \
               open as the rest of the firewall leaves them.",
    },
    Key {
        name: "spa_port",
        shape: "UDP port",
        default: Some("62201"),
        help: "The port to which clients with a key send. Nothing answers there to anybody else.",
    },
    Key {
        name: "spa_window",
        shape: "seconds, 1 to 3600",
        default: Some("60"),
        help: "How far a client's clock may be from this machine's. A client further away still gets in, a \
               moment later: it is asked to prove in another way that its knock is fresh.",
    },
    Key {
        name: "gateway_key",
        shape: "path",
        default: Some("\"/etc/port-knocking-doors/gateway.key\""),
        help: "The file of this machine's own key, which `port-knocking-doors gateway init` makes. Needed as \
               soon as there are clients with keys.",
    },
    Key {
        name: "state_dir",
        shape: "path",
        default: Some("\"/var/lib/port-knocking-doors\""),
        help: "Where the daemon keeps what it must remember over a restart: which knocks it has seen, so \
               that nobody can use them again.",
    },
    Key {
        name: "authorized_keys",
        shape: "path",
        default: Some("none"),
        help: "A file of public keys as sshd has it, each of which is a client. Beside sshd's own options \
               from=\"…\" and expiry-time=\"…\", a line may begin with name=\"…\", doors=\"ssh,web\" and \
               max_open_for=\"600\". What else sshd knows is not for us, and keys of other types are named in \
               the log and left out. The file has to belong to root, or to the user that the daemon runs as, and nobody else may write to it.",
    },
    Key {
        name: "authorized_keys_doors",
        shape: "list of doors",
        default: Some("[]"),
        help: "The doors for lines of authorized_keys that have no doors=\"…\" of their own.",
    },
    Key {
        name: "doors",
        shape: "tables [[doors]]",
        default: Some("[]"),
        help: "More doors, each with its own sequence, or for clients with a key; their keys follow.",
    },
    Key {
        name: "clients",
        shape: "tables [[clients]]",
        default: Some("[]"),
        help: "Devices with a key, and the doors that they may open; their keys follow. \
               `port-knocking-doors client add` writes one.",
    },
];

/// The keys of a table `[[doors]]`.
pub const DOOR: &[Key] = &[
    Key {
        name: "name",
        shape: "text like \"ssh\"",
        default: None,
        help: "What the door is called in the log and in the firewall: a letter, then letters, digits, _ \
               and -.",
    },
    Key {
        name: "ports",
        shape: "list of texts like \"22/tcp\" and \"60000-60010/udp\"",
        default: None,
        help: "The ports that the door opens.",
    },
    Key {
        name: "sequence",
        shape: "list of 5 to 20 UDP ports",
        default: Some("none"),
        help: "The UDP ports to send \"knock\\n\" to, in this order. No door's sequence may begin with \
               the whole of another's. A door without a sequence opens to clients with a key only.",
    },
    Key {
        name: "open_for",
        shape: "seconds, 1 to 31536000",
        default: Some("max_opened_door_duration"),
        help: "How long this door stays open.",
    },
    Key {
        name: "max_open_for",
        shape: "seconds, 1 to 31536000",
        default: Some("3600"),
        help: "For how long a client with a key may have this door open, if it asks for more than open_for. \
               Never shorter than open_for.",
    },
    Key {
        name: "grant",
        shape: "\"address\" or \"once\"",
        default: Some("\"address\""),
        help: "nftables only: \"address\" lets the client's address connect until the time is over; \"once\" lets \
               in the first new connection, and no other. For clients whose address is shared by many.",
    },
    Key {
        name: "require_address",
        shape: "true or false",
        default: Some("false"),
        help: "Whether a client with a key has to name the address that is let in, under its signature. Then \
               nobody on the way can hold its knock back and send it from elsewhere. Clients behind an \
               address translator have to be told their outer address with --address.",
    },
];

/// The keys of a table `[[clients]]`.
pub const CLIENT: &[Key] = &[
    Key {
        name: "name",
        shape: "text like \"laptop\"",
        default: None,
        help: "What the client is called in the log: letters, digits, and . _ - @ between.",
    },
    Key {
        name: "key",
        shape: "text like \"ssh-ed25519 AAAA… comment\"",
        default: None,
        help: "Its public key, as in authorized_keys. One key for each device: to lock a device out, take its \
               client away.",
    },
    Key {
        name: "doors",
        shape: "list of doors like [\"ssh\"]",
        default: None,
        help: "The doors that it may open, by their names.",
    },
    Key {
        name: "max_open_for",
        shape: "seconds, 1 to 31536000",
        default: Some("what each door allows"),
        help: "The longest time for which it may have a door open.",
    },
    Key {
        name: "from",
        shape: "list of networks",
        default: Some("everywhere"),
        help: "From where it may knock, and which addresses it may let in.",
    },
    Key {
        name: "until",
        shape: "date like 2026-12-31, or date and time with offset",
        default: Some("for ever"),
        help: "The last day, in UTC, on which its key is worth something; or the moment from which on it is \
               not.",
    },
];

/// The longest line of the help.
const WIDTH: usize = 78;

/// The key of this name.
pub(super) fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}

/// Where a key of this name belongs, for somebody who has written it elsewhere.
pub(super) fn place(name: &str) -> Option<&'static str> {
    match (find(TOP, name), find(DOOR, name), find(CLIENT, name)) {
        (Some(_), _, _) => Some("at the top of the file, before the first [[doors]] or [[clients]]"),
        (None, Some(_), Some(_)) => Some("below a line [[doors]] or [[clients]]"),
        (None, Some(_), None) => Some("below a line [[doors]]"),
        (None, None, Some(_)) => Some("below a line [[clients]]"),
        (None, None, None) => None,
    }
}

/// The key whose name is most like `name`, if one is like it at all.
pub(super) fn nearest(keys: &'static [Key], name: &str) -> Option<&'static str> {
    let likeness = |key: &Key| strsim::jaro_winkler(key.name, name);
    let best = keys.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then_some(best.name)
}

/// The help for the configuration file, as text for a terminal.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "The configuration file is TOML. It is looked for in this order:\n\
         \n    the file that --conf names\n    .port_knocker.toml in the home directory\n    \
         /etc/port_knocker.toml\n\nWithout a file, default values are used. All times are in seconds.\n",
    );
    for (title, keys) in [
        ("Keys at the top of the file:", TOP),
        ("Keys of each [[doors]]:", DOOR),
        ("Keys of each [[clients]]:", CLIENT),
    ] {
        let _ = write!(text, "\n{title}\n");
        for key in keys {
            let default = key.default.map_or("required".to_owned(), |default| format!("default {default}"));
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
    text.push_str(&keys_with_defaults(|key| Some(format!("{} = {}", key.name, key.default?))));
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
        "ports_to_controls" => Some(format!("# {} = {}", key.name, key.default?)),
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
fn keys_with_defaults(line: impl Fn(&Key) -> Option<String>) -> String {
    let mut text = String::new();
    for key in TOP {
        let Some(default) =
            key.default.filter(|_| !["mark", "authorized_keys", "doors", "clients"].contains(&key.name))
        else {
            continue;
        };
        text.push('\n');
        for line in wrap(key.help, WIDTH) {
            let _ = writeln!(text, "# {line}");
        }
        let of_default_door = ["ports_to_controls", "opening_sequence"].contains(&key.name);
        let written = if of_default_door { line(key) } else { None };
        let _ = writeln!(text, "{}", written.unwrap_or_else(|| format!("# {} = {default}", key.name)));
    }
    text
}

/// The keys as a page of the manual, in Markdown.
#[must_use]
pub fn manual() -> String {
    let mut text = String::new();
    for (title, keys) in [
        ("Keys at the top of the file", TOP),
        ("Keys of each `[[doors]]`", DOOR),
        ("Keys of each `[[clients]]`", CLIENT),
    ] {
        let _ = write!(text, "## {title}\n\n| key | value | default |\n|---|---|---|\n");
        for key in keys {
            let default = key.default.map_or("required".to_owned(), |default| format!("`{default}`"));
            let _ = writeln!(text, "| [`{0}`](#{0}) | {1} | {default} |", key.name, key.shape);
        }
        for key in keys {
            let _ = write!(text, "\n### `{}`\n\n", key.name);
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
pub(super) const EXAMPLE_SEQUENCE: [u16; 6] = [40871, 12903, 55012, 7741, 31337, 20666];

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

    #[test]
    fn the_widest_window_is_the_one_after_which_a_loss_is_over() {
        let told = format!("seconds, 1 to {}", doors_core::limits::WIDEST_WINDOW.as_secs());
        assert!(TOP.iter().any(|key| key.name == "spa_window" && key.shape == told));
    }
}
