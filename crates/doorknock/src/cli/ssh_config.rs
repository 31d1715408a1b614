//! `doorknock ssh-config`
//!
//! ssh takes the first value that it finds for each setting, and gives commands to a shell. So all that stands in
//! them is made of words: the names of servers and doors, addresses, and what [`Jump`] lets by.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    str::FromStr,
};

use super::Failure;
use crate::servers::{ServerName, Servers};

/// The machine that ssh jumps over, as in its own `ProxyJump`.
#[derive(Clone, Debug)]
pub(super) struct Jump(String);

impl FromStr for Jump {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "._-@:[],/".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '[');
        match begins && text.chars().all(is_word) && text != "none" {
            true => Ok(Self(text.to_owned())),
            false => Err("write it as for ssh -J: a host, user@host or user@host:port"),
        }
    }
}

/// Prints the lines. Over another machine, the door is opened for the address that this one connects from.
pub(super) fn print(
    server: &ServerName,
    door: &str,
    wanted: Option<u32>,
    over: Option<(&Jump, IpAddr)>,
) -> Result<(), Failure> {
    let host = Servers::of_user()?.get(server)?.host.in_ssh_config();
    let server = server.as_str();
    let wanted = wanted.map(|seconds| format!(" --for {seconds}s")).unwrap_or_default();
    let lines = match over {
        None => format!(
            "Host {server}\n    HostName {host}\n    ProxyCommand doorknock proxy %h %p --server {server} --door {door}{wanted}"
        ),
        // A command of its own in place of ProxyJump would be what ssh starts instead of a shell, so that it
        // could not be two programs. If the knock is refused, ssh ends here instead of before a closed port.
        Some((Jump(jump), address)) => format!(
            "Match originalhost {server} !exec \"doorknock open {server} {door} --address {address}{wanted} --quiet\"\n    \
             ProxyCommand false\nHost {server}\n    HostName {host}\n    ProxyJump {jump}"
        ),
    };
    // Lines of a file, and each is made of words.
    writeln!(io::stdout(), "{lines}").map_err(Failure::Print)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_jumped_over_is_a_word_of_ssh_and_nothing_else() {
        for word in
            ["bastion", "me@bastion", "me@bastion.example:2222", "[2001:db8::1]:22", "a,b", "ssh://a:1"]
        {
            assert!(word.parse::<Jump>().is_ok(), "{word}");
        }
        for wrong in ["", "none", "-oX", "a b", "a\n    ProxyCommand id", "a;id", "a$b", "a%h", "\"a\""] {
            assert!(wrong.parse::<Jump>().is_err(), "{wrong:?}");
        }
    }
}
