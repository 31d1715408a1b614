//! A grant as firewalld's rich rules.
//!
//! firewalld never changes the time of a rule that it has: adding it again is refused, and the first
//! timer goes on. So there are two texts of each rule, which differ in their priority only. To
//! extend a grant, the text that is not there goes in, and then the other goes out.

use std::net::IpAddr;

use crate::firewall::plan::Ports;

/// Which of the two texts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Text {
    First,
    Second,
}

impl Text {
    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Ours can be told from other people's rules by their priority, which nobody else has a reason to
    /// choose. Below zero: they come before a zone's own denials.
    fn priority(self) -> i32 {
        match self {
            Self::First => -16_411,
            Self::Second => -16_412,
        }
    }
}

/// One rule: who may use which ports.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rule {
    pub(super) source: IpAddr,
    pub(super) ports: Ports,
}

impl Rule {
    /// The rule exactly as firewalld itself writes it, so that it can be found in its lists.
    pub(super) fn text(self, which: Text) -> String {
        let (priority, source) = (which.priority(), self.source);
        let family = if source.is_ipv4() { "ipv4" } else { "ipv6" };
        let (numbers, protocol) = (self.ports.numbers(), self.ports.protocol);
        format!(
            "rule priority=\"{priority}\" family=\"{family}\" source address=\"{source}\" \
             port port=\"{numbers}\" protocol=\"{protocol}\" accept"
        )
    }
}

/// Whether firewalld's text of a rule is one of ours.
pub(super) fn is_ours(text: &str) -> bool {
    [Text::First, Text::Second]
        .iter()
        .any(|which| text.contains(&format!("priority=\"{}\"", which.priority())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_for_one_source_and_its_family() {
        let rule = |source: &str| Rule { source: source.parse().unwrap(), ports: Ports::tcp(22) };
        assert_eq!(
            rule("192.0.2.7").text(Text::First),
            "rule priority=\"-16411\" family=\"ipv4\" source address=\"192.0.2.7\" port port=\"22\" \
             protocol=\"tcp\" accept"
        );
        assert!(
            rule("2001:db8::7").text(Text::Second).contains("family=\"ipv6\" source address=\"2001:db8::7\"")
        );
    }

    #[test]
    fn ours_are_known_among_others() {
        let rule = Rule { source: "192.0.2.7".parse().unwrap(), ports: Ports::tcp(22) };
        assert!(is_ours(&rule.text(Text::First)) && is_ours(&rule.text(Text::Second)));
        assert_ne!(rule.text(Text::First), rule.text(Text::Second));
        assert!(!is_ours("rule family=\"ipv4\" source address=\"192.0.2.7\" accept"));
    }
}
