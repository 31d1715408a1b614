//! What an administrator can do about a firewall that closes a door.

use super::super::abi;
use crate::plan::{Mark, Ports};

/// What is shown where the configuration has no mark: a bit that few programs use.
const EXAMPLE: &str = "0x20000000";

/// Where another firewall closes a door, as far as the remedy depends on it.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    pub(super) family: u8,
    pub(super) table: &'a str,
    /// The chain at which packets come into the table.
    pub(super) entry: &'a str,
    /// The chains of that table.
    pub(super) chains: &'a [String],
}

/// What made the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Maker {
    Ufw,
    Iptables,
    Firewalld,
    Nftables,
}

impl Place<'_> {
    fn maker(&self) -> Maker {
        let has = |name: &str| self.chains.iter().any(|chain| chain == name);
        // Among the makers of these tables only iptables calls its chains so.
        let builtin = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT"].contains(&self.entry);
        match self.family {
            abi::NFPROTO_INET if self.table == super::FIREWALLD => Maker::Firewalld,
            abi::NFPROTO_IPV4 | abi::NFPROTO_IPV6 if builtin => {
                match has(self.ufw("before-input").as_str()) {
                    true => Maker::Ufw,
                    false => Maker::Iptables,
                }
            }
            _ => Maker::Nftables,
        }
    }

    /// The name of a chain of ufw.
    fn ufw(&self, chain: &str) -> String {
        format!("ufw{}-{chain}", if self.is_ipv6() { "6" } else { "" })
    }

    fn is_ipv6(&self) -> bool {
        self.family == abi::NFPROTO_IPV6
    }

    /// How this firewall lets in what carries the mark.
    fn let_in_marked(&self, mark: &str) -> String {
        let six = if self.is_ipv6() { "6" } else { "" };
        let test = format!("-m mark --mark {mark}/{mark}");
        match self.maker() {
            Maker::Ufw => {
                let chain = self.ufw(if self.entry == "FORWARD" { "before-forward" } else { "before-input" });
                format!(
                    "the line `-A {chain} {test} -j ACCEPT` before COMMIT in /etc/ufw/before{six}.rules, then `ufw reload`"
                )
            }
            Maker::Iptables => {
                let table =
                    if self.table == "filter" { String::new() } else { format!("-t {} ", self.table) };
                let of_engine =
                    self.entry == "FORWARD" && self.chains.iter().any(|chain| chain == "DOCKER-USER");
                let chain = if of_engine { "DOCKER-USER" } else { self.entry };
                format!("`ip{six}tables {table}-I {chain} {test} -j ACCEPT`")
            }
            Maker::Firewalld | Maker::Nftables => {
                let (family, table, entry) = (super::family_name(self.family), self.table, self.entry);
                format!("`nft insert rule {family} {table} {entry} meta mark '&' {mark} == {mark} accept`")
            }
        }
    }

    /// The command that lets ports past the rules of a chain; of answers, these are the ports that they come from.
    pub(super) fn past(&self, ports: Ports, answers: bool) -> String {
        let side = if answers { "sport" } else { "dport" };
        let (protocol, numbers) = (ports.protocol, ports.numbers());
        match self.maker() {
            Maker::Ufw | Maker::Iptables => {
                let (six, numbers) = (if self.is_ipv6() { "6" } else { "" }, numbers.replace('-', ":"));
                format!(
                    "`ip{six}tables -t {} -I {} -p {protocol} --{side} {numbers} -j ACCEPT`",
                    self.table, self.entry
                )
            }
            Maker::Firewalld | Maker::Nftables => {
                let (family, table, entry) = (super::family_name(self.family), self.table, self.entry);
                format!("`nft insert rule {family} {table} {entry} {protocol} {side} {numbers} accept`")
            }
        }
    }

    /// What to do, with the mark of the configuration or without one.
    pub(super) fn remedy(&self, ports: Ports, mark: Option<Mark>) -> String {
        let open = match self.maker() {
            Maker::Ufw if self.entry != "FORWARD" => {
                format!("run `ufw allow {}/{}`", ports.numbers().replace('-', ":"), ports.protocol)
            }
            // It owns its table, and has a language of its own.
            Maker::Firewalld => {
                return format!(
                    "let {ports} through in firewalld: firewall-cmd --add-port={ports}; the gate still guards it"
                );
            }
            Maker::Ufw | Maker::Iptables | Maker::Nftables => format!("let {ports} through there"),
        };
        match mark {
            Some(mark) => format!(
                "let in what the gate has marked, with {}; see docs/firewalls.md",
                self.let_in_marked(&mark.to_string())
            ),
            None => format!(
                "{open}, the gate still guards it; or keep it closed there, set mark = {EXAMPLE}, and let in what is \
                 marked, with {}; see docs/firewalls.md",
                self.let_in_marked(EXAMPLE)
            ),
        }
    }
}
