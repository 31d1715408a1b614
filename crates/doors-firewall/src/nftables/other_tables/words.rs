//! A rule of another table in words, as far as it is understood.

use std::{fmt::Write as _, ops::RangeInclusive};

use super::super::abi;
use super::rule::{Rule, Test, Verdict, What};

const STATES: [(u32, &str); 5] = [
    (abi::NF_CT_STATE_INVALID_BIT, "invalid"),
    (abi::CT_STATE_ESTABLISHED, "established"),
    (abi::CT_STATE_RELATED, "related"),
    (abi::CT_STATE_NEW, "new"),
    (abi::NF_CT_STATE_UNTRACKED_BIT, "untracked"),
];
impl Rule {
    /// The rule as `nft` writes it; `None` if something in it is not understood.
    pub(in super::super) fn words(&self) -> Option<String> {
        let mut words = Vec::new();
        let mut protocol = None;
        for Test { what, not } in &self.tests {
            let not = if *not { "!= " } else { "" };
            words.push(match what {
                What::Protocol(number @ (6 | 17)) if not.is_empty() => {
                    protocol = Some(if *number == 6 { "tcp" } else { "udp" });
                    continue;
                }
                What::Protocol(number) => format!("meta l4proto {not}{number}"),
                What::Family(number) => {
                    format!("meta nfproto {not}{}", if *number == 2 { "ipv4" } else { "ipv6" })
                }
                What::Port(ranges) => {
                    format!("{} dport {not}{}", protocol.take().unwrap_or("th"), ports_in_words(ranges))
                }
                What::PortIn(set) if set.starts_with("__") => return None,
                What::PortIn(set) => format!("{} dport {not}@{set}", protocol.take().unwrap_or("th")),
                What::SourcePort(ranges) => {
                    format!("{} sport {not}{}", protocol.take().unwrap_or("th"), ports_in_words(ranges))
                }
                What::SourcePortIn(set) if set.starts_with("__") => return None,
                What::SourcePortIn(set) => format!("{} sport {not}@{set}", protocol.take().unwrap_or("th")),
                What::Source(source) => format!("saddr {not}{source}"),
                What::Destination(target) => format!("daddr {not}{target}"),
                What::Mark { mask: u32::MAX, value } => format!("meta mark {not}{value:#x}"),
                What::Mark { mask, value } => {
                    format!("meta mark & {mask:#x} {} {value:#x}", if not.is_empty() { "==" } else { "!=" })
                }
                What::State(bits) => {
                    let names = STATES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name);
                    format!("ct state {not}{}", names.collect::<Vec<_>>().join(","))
                }
                What::Flags { mask, value } => format!("tcp flags & {mask:#x} {not}{value:#x}"),
                What::Interface { name, .. } => format!("iifname {not}{name}"),
                What::OutInterface { name, .. } => format!("oifname {not}{name}"),
                What::ToThisMachine { exact: true } => format!("fib daddr type {not}local"),
                What::Remark(_) => continue,
                What::ToThisMachine { exact: false } | What::Unusual | What::Unknown(_) => return None,
            });
        }
        if let Some(protocol) = protocol {
            words.insert(0, format!("meta l4proto {protocol}"));
        }
        if self.untracks {
            words.push("notrack".to_owned());
        }
        words.push(match &self.verdict {
            Verdict::Continue if self.untracks => String::new(),
            Verdict::Continue => "continue".to_owned(),
            Verdict::Accept => "accept".to_owned(),
            Verdict::Drop => "drop".to_owned(),
            Verdict::Reject => "reject".to_owned(),
            Verdict::Return => "return".to_owned(),
            Verdict::Jump(chain) => format!("jump {chain}"),
            Verdict::Goto(chain) => format!("goto {chain}"),
            Verdict::Translate => "to another destination".to_owned(),
            Verdict::Map { .. } | Verdict::Unknown(_) => return None,
        });
        words.retain(|word| !word.is_empty());
        let mut text = words.join(" ");
        for test in &self.tests {
            if let What::Remark(remark) = &test.what {
                // Others have written it; it must not steer a terminal or a log.
                let _ = write!(text, " comment \"{}\"", remark.escape_debug());
            }
        }
        Some(text)
    }

    /// What of it is not understood, as the kernel calls it.
    pub(super) fn not_understood(&self) -> Option<String> {
        let of_tests = self.tests.iter().filter_map(|test| match &test.what {
            What::Unknown(name) => Some(name.as_str()),
            _ => None,
        });
        let of_verdict = match &self.verdict {
            Verdict::Unknown(name) => Some(name.as_str()),
            Verdict::Map { map, .. } => Some(map.as_str()),
            _ => None,
        };
        let names: Vec<&str> = of_tests.chain(of_verdict).collect();
        (!names.is_empty()).then(|| format!("not understood: {}", names.join(", ").escape_debug()))
    }
}

fn ports_in_words(ranges: &[RangeInclusive<u16>]) -> String {
    let one = |range: &RangeInclusive<u16>| match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    };
    match ranges {
        [range] => one(range),
        several => format!("{{ {} }}", several.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}
