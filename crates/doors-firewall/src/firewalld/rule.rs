//! A grant as firewalld's rich rules.
//!
//! firewalld never changes the time of a rule that it has: adding it again is refused, and the first
//! timer goes on. Even after a reload, which takes the rule away, its timer runs, and takes out whatever
//! then has the same text. So every addition has a text of its own, which differs from the others in its
//! priority only. To extend a grant, a new text goes in, and then the former goes out.

use std::{
    net::IpAddr,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use crate::plan::{Ports, Protocol};

/// The priorities of our rules, of all from -32768 to 32767. Below zero: they come before a zone's own
/// denials. They come round after 3,589 additions.
const OURS: RangeInclusive<i16> = -19_999..=-16_411;

/// Which of the texts of a rule: its priority.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Text(i16);

/// Gives every addition another text. Copies of it agree.
#[derive(Clone, Debug)]
pub(super) struct Texts(Arc<AtomicU16>);

impl Texts {
    /// Begins somewhere. Timers of an earlier run may still run, so it is best to begin elsewhere.
    pub(super) fn from(number: u64) -> Self {
        let last = OURS.start().abs_diff(*OURS.end());
        let number = number.checked_rem(u64::from(last)).and_then(|number| u16::try_from(number).ok());
        Self(Arc::new(AtomicU16::new(number.unwrap_or_default())))
    }

    /// The next.
    pub(super) fn next(&self) -> Text {
        let last = OURS.start().abs_diff(*OURS.end());
        let next = |number: u16| Some(if number >= last { 0 } else { number.saturating_add(1) });
        let number = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        Text(OURS.end().saturating_sub_unsigned(number))
    }
}

/// One rule: who may use which ports.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rule {
    pub(super) source: IpAddr,
    pub(super) ports: Ports,
}

impl Rule {
    /// Reads one of our rules, as firewalld writes it. `None` for a rule of another program, even if it has a
    /// priority of ours.
    pub(super) fn read(written: &str) -> Option<(Self, Text)> {
        let quoted: Vec<&str> = written.split('"').skip(1).step_by(2).collect();
        let [priority, _, source, numbers, protocol] = quoted[..] else { return None };
        let text = Text(priority.parse().ok().filter(|priority| OURS.contains(priority))?);
        let protocol =
            [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.to_string() == protocol)?;
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let ports = Ports { protocol, first: first.parse().ok()?, last: last.parse().ok()? };
        let rule = Self { source: source.parse().ok()?, ports };
        (rule.text(text) == written).then_some((rule, text))
    }

    /// The rule exactly as firewalld itself writes it, so that it can be found in its lists.
    pub(super) fn text(self, which: Text) -> String {
        let (priority, source) = (which.0, self.source);
        let family = if source.is_ipv4() { "ipv4" } else { "ipv6" };
        let (numbers, protocol) = (self.ports.numbers(), self.ports.protocol);
        format!(
            "rule priority=\"{priority}\" family=\"{family}\" source address=\"{source}\" \
             port port=\"{numbers}\" protocol=\"{protocol}\" accept"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(source: &str) -> Rule {
        Rule { source: source.parse().unwrap(), ports: Ports::tcp(22) }
    }

    #[test]
    fn a_rule_is_for_one_source_and_its_family() {
        assert_eq!(
            rule("192.0.2.7").text(Text(-16_411)),
            "rule priority=\"-16411\" family=\"ipv4\" source address=\"192.0.2.7\" port port=\"22\" \
             protocol=\"tcp\" accept"
        );
        let v6 = rule("2001:db8::7").text(Text(-16_412));
        assert!(v6.contains("family=\"ipv6\" source address=\"2001:db8::7\""), "{v6}");
    }

    #[test]
    fn no_text_comes_again_before_all_others_were_there() {
        let texts = Texts::from(0);
        let mut seen: Vec<Text> = (0..3_589).map(|_| texts.next()).collect();
        assert_eq!(seen[..2], [Text(-16_411), Text(-16_412)]);
        assert_eq!(seen.last(), Some(&Text(-19_999)));
        assert_eq!(texts.clone().next(), seen[0]);
        assert_eq!(texts.next(), seen[1]);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3_589);
    }

    #[test]
    fn ours_are_known_among_others() {
        for source in ["192.0.2.7", "2001:db8::7"] {
            for ports in [Ports::tcp(22), Ports { protocol: Protocol::Udp, first: 60_000, last: 60_010 }] {
                for text in [Text(-16_411), Text(-16_412), Text(-19_999)] {
                    let rule = Rule { source: source.parse().unwrap(), ports };
                    assert_eq!(Rule::read(&rule.text(text)), Some((rule, text)));
                }
            }
        }
        let ours = rule("192.0.2.7").text(Text(-16_411));
        let different = [
            ("-16411", "-16410"),
            ("-16411", "-20000"),
            ("192.0.2.7", "192.0.2.0/24"),
            ("accept", "log accept"),
            ("accept", "drop"),
            ("port port", "source-port port"),
            ("source address", "source NOT address"),
        ];
        for (from, to) in different {
            assert_eq!(Rule::read(&ours.replace(from, to)), None, "{to}");
        }
        assert_eq!(Rule::read("rule family=\"ipv4\" source address=\"192.0.2.7\" accept"), None);
    }
}
