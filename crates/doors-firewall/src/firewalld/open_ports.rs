//! Which ports a zone of firewalld lets everybody use, for certain.
//!
//! Beside the gate, a grant needs a rich rule unless firewalld lets its ports through anyway. A rule too many
//! costs a call; one too few leaves a door closed that the log calls open. So what is in doubt counts as
//! closed: a zone that denies anything by a rich rule, or meets a policy that does, lets nothing through here.

use std::collections::HashMap;

use zbus::OwnedVariant;

use super::{
    bus::Firewalld,
    settings::{Destinations, EVERYTHING, all_of, integer, list, port_list, service_ports, text},
    zones::of,
};
use crate::plan::{Ports, cover};

/// Ports, by protocol and number.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct OpenPorts(Vec<Ports>);

/// A policy for what goes to this machine: the zones that it is for, whether it may deny something, and whether
/// it comes before the zones, as one with a priority below zero does. Then no rule in a zone helps.
#[derive(Clone, Debug)]
pub(super) struct HostPolicy {
    pub(super) name: String,
    from: Vec<String>,
    may_deny: bool,
    comes_first: bool,
}

impl HostPolicy {
    /// Asks for those that are in force. firewalld before 0.9 does not have them.
    pub(super) async fn ask(firewalld: &Firewalld) -> zbus::Result<Vec<Self>> {
        let mut policies = Vec::new();
        for (policy, uses) in firewalld.policies.active().await.unwrap_or_default() {
            if of(&uses, "egress_zones").iter().any(|to| to == "HOST") {
                let settings = firewalld.policies.settings(&policy).await?;
                let denies = text(&settings, "target").is_some_and(|target| is_denial(&target));
                let from = of(&uses, "ingress_zones").to_vec();
                let may_deny = denies || has_denials(&settings, "rich_rules");
                let comes_first = integer(&settings, "priority").is_some_and(|priority| priority < 0);
                policies.push(Self { name: policy, from, may_deny, comes_first });
            }
        }
        Ok(policies)
    }

    /// Whether it may drop what a rule in this zone lets in.
    pub(super) fn stands_before(&self, zone: &str) -> bool {
        self.may_deny && self.comes_first && self.concerns(zone)
    }

    fn concerns(&self, zone: &str) -> bool {
        self.from.iter().any(|from| from == "ANY" || from == zone)
    }
}

impl OpenPorts {
    /// Asks what a zone lets through.
    pub(super) async fn ask(
        firewalld: &Firewalld,
        zone: &str,
        settings: &HashMap<String, OwnedVariant>,
        policies: &[HostPolicy],
    ) -> zbus::Result<Self> {
        if policies.iter().any(|policy| policy.may_deny && policy.concerns(zone))
            || has_denials(settings, "rules_str")
        {
            return Ok(Self::default());
        }
        let mut open = Self::of_settings(settings);
        for service in list::<String>(settings, "services") {
            open.0.extend(service_ports(firewalld, &service, Destinations::All).await?);
        }
        Ok(open)
    }

    #[cfg(test)]
    pub(super) fn new(ports: Vec<Ports>) -> Self {
        Self(ports)
    }

    /// What stands in the settings of a zone itself.
    fn of_settings(settings: &HashMap<String, OwnedVariant>) -> Self {
        let mut open = port_list(settings, "ports");
        if text(settings, "target").as_deref() == Some("ACCEPT") {
            open.extend(EVERYTHING);
        }
        open.extend(list::<String>(settings, "protocols").iter().filter_map(|protocol| all_of(protocol)));
        Self(open)
    }

    /// Whether all of these ports are among them.
    pub(super) fn hold(&self, wanted: Ports) -> bool {
        let of_protocol = self.0.iter().filter(|open| open.protocol == wanted.protocol);
        cover(of_protocol.map(|open| open.range()), wanted.range())
    }
}

fn has_denials(settings: &HashMap<String, OwnedVariant>, key: &str) -> bool {
    list::<String>(settings, key).iter().any(|written| {
        // What is between quotes are names and numbers.
        let words = written.split('"').step_by(2).flat_map(str::split_whitespace);
        words.into_iter().any(|word| is_denial(&word.to_uppercase()))
    })
}

fn is_denial(word: &str) -> bool {
    ["DROP", "REJECT", "%%REJECT%%"].contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Protocol;

    fn open(ranges: &[(u16, u16)]) -> OpenPorts {
        let range =
            |(first, last): &(u16, u16)| Ports { protocol: Protocol::Tcp, first: *first, last: *last };
        OpenPorts(ranges.iter().map(range).collect())
    }

    #[test]
    fn a_range_is_open_when_every_port_of_it_is() {
        let wanted = |protocol, first, last| Ports { protocol, first, last };
        let parts = open(&[(30, 40), (10, 20), (21, 29), (15, 18)]);
        assert!(parts.hold(wanted(Protocol::Tcp, 10, 40)));
        assert!(parts.hold(wanted(Protocol::Tcp, 22, 22)));
        assert!(!parts.hold(wanted(Protocol::Tcp, 9, 40)));
        assert!(!parts.hold(wanted(Protocol::Tcp, 10, 41)));
        assert!(!parts.hold(wanted(Protocol::Udp, 22, 22)));
        assert!(!open(&[(10, 20), (22, 40)]).hold(wanted(Protocol::Tcp, 10, 40)));
        assert!(open(&[(1, u16::MAX)]).hold(wanted(Protocol::Tcp, 1, u16::MAX)));
        assert!(!OpenPorts::default().hold(wanted(Protocol::Tcp, 22, 22)));
    }

    fn rules(key: &str, rules: &[&str]) -> HashMap<String, OwnedVariant> {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        HashMap::from([(key.to_owned(), zbus::Variant::from(rules).try_into().unwrap())])
    }

    #[test]
    fn a_rule_that_denies_is_told_from_one_that_names_something_so() {
        for (rule, denies) in [
            ("rule family=\"ipv4\" source address=\"192.0.2.0/24\" drop", true),
            ("rule service name=\"ssh\" reject type=\"icmp-port-unreachable\"", true),
            ("rule service name=\"ssh\" log prefix=\"drop or reject\" accept", false),
            ("rule family=\"ipv6\" icmp-type name=\"redirect\" accept", false),
        ] {
            assert_eq!(has_denials(&rules("rules_str", &[rule]), "rules_str"), denies, "{rule}");
        }
    }
}
