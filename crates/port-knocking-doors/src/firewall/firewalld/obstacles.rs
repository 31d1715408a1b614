//! What makes knocking pointless: ports that firewalld leaves open to everybody, or keeps closed.

use std::collections::HashMap;

use zbus::OwnedVariant;

use super::{
    bus::{Bus, Firewalld},
    said::{fit, in_one_line},
    zones::{Zones, of},
};
use crate::firewall::plan::{Plan, Ports, Protocol};

/// What makes knocking pointless with firewalld: ports that are open to everybody.
pub(super) async fn obstacles(firewalld: &Firewalld, plan: &Plan) -> Vec<String> {
    let asked = async {
        let zones = Zones::ask(firewalld).await?;
        let mut found = Vec::new();
        for (zone, source) in zones.opaque_sources() {
            found.push(format!(
                "firewalld's zone {zone} has the source {source}, which we cannot look into: for clients of \
                 that zone, doors would open in another; if there are such clients, set zone = \"{zone}\""
            ));
        }
        for zone in zones.for_everybody() {
            for (ports, how) in open_to_everybody(firewalld, zone, plan).await? {
                found.push(format!(
                    "{ports} is open to everybody in firewalld's zone {zone}, so its door keeps nobody out: {how}"
                ));
            }
        }
        zbus::Result::Ok(found.iter().map(|warning| fit(warning)).collect())
    };
    asked.await.unwrap_or_else(|error| {
        vec![format!("cannot see which ports firewalld leaves open to everybody: {}", in_one_line(&error))]
    })
}

/// The same, for somebody who is not connected yet.
pub(crate) async fn obstacles_with_firewalld(plan: &Plan) -> Vec<String> {
    let connected = async { Bus::connect().await?.firewalld().await };
    match connected.await {
        Ok(firewalld) => obstacles(&firewalld, plan).await,
        Err(error) => vec![format!("cannot reach firewalld: {}", in_one_line(&error))],
    }
}

/// What makes knocking pointless with the gate while firewalld runs beside it: ports that it closes.
pub(crate) async fn obstacles_beside_firewalld(plan: &Plan) -> Vec<String> {
    let asked = async {
        let firewalld = Bus::connect().await?.firewalld().await?;
        let mut found = Vec::new();
        for zone in Zones::ask(&firewalld).await?.for_everybody() {
            let open = open_to_everybody(&firewalld, zone, plan).await?;
            for ports in plan.doors.iter().flat_map(|door| &door.ports) {
                if !open.iter().any(|(other, _)| other == ports) {
                    found.push(format!(
                        "firewalld's zone {zone} closes {ports}, so no knock can open it; try: firewall-cmd \
                         --zone={zone} --add-port={ports}, and again with --permanent, or set firewall = \"firewalld\""
                    ));
                }
            }
        }
        zbus::Result::Ok(found.iter().map(|warning| fit(warning)).collect())
    };
    asked.await.unwrap_or_else(|error| {
        vec![format!("cannot see whether firewalld closes the doors: {}", in_one_line(&error))]
    })
}

/// Ports that a zone lets everybody use although a door is before them, and how it comes that it does.
async fn open_to_everybody(
    firewalld: &Firewalld,
    zone: &str,
    plan: &Plan,
) -> zbus::Result<Vec<(Ports, String)>> {
    let settings = firewalld.zones.settings(zone).await?;
    let mut ways: Vec<(Ports, String)> = Vec::new();
    let target = text(&settings, "target").unwrap_or_default();
    if target == "ACCEPT" {
        let how = format!(
            "its target is ACCEPT; try: firewall-cmd --permanent --zone={zone} --set-target=default, and then \
             firewall-cmd --reload"
        );
        ways.extend(EVERYTHING.map(|ports| (ports, how.clone())));
    }
    for policy in policies_that_accept(firewalld, zone).await {
        let how = format!(
            "the target of the policy {policy} is ACCEPT; try: firewall-cmd --permanent --policy={policy} \
             --set-target=CONTINUE, and then firewall-cmd --reload"
        );
        ways.extend(EVERYTHING.map(|ports| (ports, how.clone())));
    }
    let remove =
        |what: &str| format!("firewall-cmd --zone={zone} --remove-{what}, and again with --permanent");
    for ports in port_list(&settings, "ports") {
        ways.push((ports, format!("try: {}", remove(&format!("port={ports}")))));
    }
    for protocol in list::<String>(&settings, "protocols") {
        let how = format!("protocol {protocol}; try: {}", remove(&format!("protocol={protocol}")));
        ways.extend(all_of(&protocol).map(|ports| (ports, how)));
    }
    for from in port_list(&settings, "source_ports") {
        let how = format!("to whoever comes from {from}; try: {}", remove(&format!("source-port={from}")));
        ways.extend(all_of(&from.protocol.to_string()).map(|ports| (ports, how)));
    }
    for service in list::<String>(&settings, "services") {
        let how = format!("service {service}; try: {}", remove(&format!("service={service}")));
        ways.extend(service_ports(firewalld, &service).await?.into_iter().map(|ports| (ports, how.clone())));
    }
    for written in list::<String>(&settings, "rules_str") {
        let how = format!("a rich rule; try: {}", remove(&format!("rich-rule='{written}'")));
        let ports = match accepted(&written) {
            None => Vec::new(),
            Some(Accepted::Ports(ports)) => vec![ports],
            Some(Accepted::Service(service)) => service_ports(firewalld, service).await?,
            Some(Accepted::Everything) => EVERYTHING.to_vec(),
        };
        ways.extend(ports.into_iter().map(|ports| (ports, how.clone())));
    }
    let guarded = plan.doors.iter().flat_map(|door| &door.ports);
    let mut open: Vec<(Ports, String)> = guarded
        .flat_map(|ports| {
            let of_these = ways.iter().filter(|(way, _)| overlap(*way, *ports));
            of_these.map(|(_, how)| (*ports, how.clone()))
        })
        .collect();
    open.sort_unstable();
    open.dedup();
    Ok(open)
}

/// The ports of a service and of those that it includes, one level deep, as firewalld allows.
async fn service_ports(firewalld: &Firewalld, service: &str) -> zbus::Result<Vec<Ports>> {
    let settings = firewalld.main.service(service).await?;
    let mut ports = port_list(&settings, "ports");
    for included in list::<String>(&settings, "includes") {
        ports.extend(port_list(&firewalld.main.service(&included).await?, "ports"));
    }
    Ok(ports)
}

/// All ports.
const EVERYTHING: [Ports; 2] = [
    Ports { protocol: Protocol::Tcp, first: 1, last: u16::MAX },
    Ports { protocol: Protocol::Udp, first: 1, last: u16::MAX },
];

fn all_of(protocol: &str) -> Option<Ports> {
    EVERYTHING.into_iter().find(|all| all.protocol.to_string() == protocol)
}

/// The policies that let everything from a zone reach this machine. Before firewalld 0.9 there are none.
async fn policies_that_accept(firewalld: &Firewalld, zone: &str) -> Vec<String> {
    let mut accepting = Vec::new();
    for (policy, uses) in firewalld.policies.active().await.unwrap_or_default() {
        let from_zone = of(&uses, "ingress_zones").iter().any(|from| from == "ANY" || from == zone);
        if from_zone && of(&uses, "egress_zones").iter().any(|to| to == "HOST") {
            let settings = firewalld.policies.settings(&policy).await.unwrap_or_default();
            if text(&settings, "target").as_deref() == Some("ACCEPT") {
                accepting.push(policy);
            }
        }
    }
    accepting
}

/// What a rich rule lets in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Accepted<'a> {
    Ports(Ports),
    Service(&'a str),
    Everything,
}

/// What a rich rule lets everybody use, wherever they come from; `None` for nothing that is known.
fn accepted(written: &str) -> Option<Accepted<'_>> {
    // In turn what is not between quotes, which has no spaces that we need, and what is.
    let parts: Vec<&str> = written.split('"').collect();
    let words = || parts.iter().step_by(2).flat_map(|part| part.split_whitespace());
    if words().any(|word| word == "source") || !words().any(|word| word == "accept") {
        return None;
    }
    let value = |element: &str| {
        let mut pairs = parts.chunks_exact(2);
        pairs.find_map(|pair| pair.first()?.ends_with(element).then(|| pair.last().copied())?)
    };
    let protocol = value("protocol=");
    if let Some(service) = value("service name=") {
        Some(Accepted::Service(service))
    } else if words().any(|word| word == "source-port") {
        all_of(protocol?).map(Accepted::Ports)
    } else if let Some(numbers) = value("port port=") {
        ports(numbers, protocol?).map(Accepted::Ports)
    } else if let Some(protocol) = value("protocol value=") {
        all_of(protocol).map(Accepted::Ports)
    } else {
        let other =
            |word: &str| word.starts_with("icmp") || word.starts_with("forward") || word == "masquerade";
        (!words().any(other)).then_some(Accepted::Everything)
    }
}

fn overlap(a: Ports, b: Ports) -> bool {
    a.protocol == b.protocol && a.first <= b.last && b.first <= a.last
}

fn text(settings: &HashMap<String, OwnedVariant>, key: &str) -> Option<String> {
    settings.get(key)?.try_clone().ok()?.try_into().ok()
}

fn list<T>(settings: &HashMap<String, OwnedVariant>, key: &str) -> Vec<T>
where
    Vec<T>: TryFrom<OwnedVariant>,
{
    let value = settings.get(key).and_then(|value| value.try_clone().ok());
    value.and_then(|value| value.try_into().ok()).unwrap_or_default()
}

/// A list of pairs of port or range, and protocol.
fn port_list(settings: &HashMap<String, OwnedVariant>, key: &str) -> Vec<Ports> {
    let pairs = list::<(String, String)>(settings, key).into_iter();
    pairs.filter_map(|(numbers, protocol)| ports(&numbers, &protocol)).collect()
}

fn ports(numbers: &str, protocol: &str) -> Option<Ports> {
    let protocol = all_of(protocol)?.protocol;
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    Some(Ports { protocol, first: first.parse().ok()?, last: last.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rich_rule_for_everybody_is_known_from_others() {
        let everything = |protocol| Some(Accepted::Ports(all_of(protocol).unwrap()));
        let cases = [
            ("rule service name=\"ssh\" accept", Some(Accepted::Service("ssh"))),
            ("rule service name=\"ssh\" log prefix=\"a source\" accept", Some(Accepted::Service("ssh"))),
            ("rule priority=\"3\" family=\"ipv4\" port port=\"22\" protocol=\"tcp\" accept", {
                Some(Accepted::Ports(Ports::tcp(22)))
            }),
            ("rule protocol value=\"tcp\" accept", everything("tcp")),
            ("rule source-port port=\"53\" protocol=\"udp\" accept", everything("udp")),
            ("rule priority=\"-3\" accept", Some(Accepted::Everything)),
            ("rule service name=\"ssh\" drop", None),
            ("rule icmp-type name=\"echo-request\" accept", None),
            ("rule family=\"ipv4\" source address=\"192.0.2.7\" service name=\"ssh\" accept", None),
        ];
        for (written, lets_in) in cases {
            assert_eq!(accepted(written), lets_in, "{written}");
        }
    }
}
