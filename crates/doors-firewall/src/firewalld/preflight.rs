//! What firewalld does with the doors' ports, and what makes knocking pointless: ports that it leaves open to
//! everybody, or keeps closed.

use std::collections::HashMap;

use ipnet::IpNet;
use zbus::OwnedVariant;

use super::{
    bus::{Bus, Firewalld},
    sanitize::{fit, in_one_line},
    settings::{Destinations, EVERYTHING, all_of, list, port_list, ports, service_ports, text},
    zones::{Zones, of},
};
use crate::{
    Obstacle,
    plan::{Plan, Ports},
};

/// What there is to say of zones beside the gate.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Explained {
    /// What is good to know.
    pub lines: Vec<String>,
    /// What may keep a client out.
    pub warnings: Vec<String>,
}

impl Explained {
    /// What the zones do with the doors' ports.
    pub(super) fn of(zones: &Zones, plan: &Plan) -> Self {
        let mut said = Self::default();
        let guarded: Vec<Ports> = plan.doors.iter().flat_map(|door| door.ports.iter().copied()).collect();
        let arriving = match &plan.zone {
            Some(zone) => vec![zone.as_str()],
            None => zones.for_everybody(),
        };
        for zone in arriving {
            let (through, closed): (Vec<Ports>, Vec<Ports>) =
                guarded.iter().partition(|ports| zones.lets_through(zone, **ports));
            if !through.is_empty() {
                let ports = in_words(&through);
                said.lines.push(fit(&format!(
                    "firewalld's zone {zone} lets {ports} through, and the gate alone keeps it closed"
                )));
            }
            if !closed.is_empty() {
                let ports = in_words(&closed);
                said.lines.push(fit(&format!(
                    "firewalld's zone {zone} closes {ports}, so each grant gets a rich rule there, too, which takes \
                     firewalld some milliseconds; the gate guards it in any case, so the port may as well be opened \
                     in firewalld"
                )));
            }
        }
        let arriving = match &plan.zone {
            Some(zone) => vec![zone.as_str()],
            None => zones.in_use(),
        };
        let mut policies: Vec<&str> = arriving.iter().flat_map(|zone| zones.policies_before(zone)).collect();
        policies.sort_unstable();
        policies.dedup();
        for policy in policies {
            said.warnings.push(fit(&format!(
                "firewalld's policy {policy} comes before every zone and denies something: a door may be called open \
                 here, and closed by that policy; try: firewall-cmd --permanent --policy={policy} --set-priority=10; \
                 firewall-cmd --reload"
            )));
        }
        for (zone, source) in zones.opaque_sources() {
            if plan.zone.is_none() && guarded.iter().any(|ports| !zones.lets_through(zone, *ports)) {
                said.warnings.push(opaque(zone, source));
            }
        }
        said
    }
}

/// The same, for a caller without a connection.
pub async fn explained(plan: &Plan) -> Explained {
    let asked = async {
        let firewalld = Bus::connect().await?.firewalld().await?;
        Zones::ask_with_ports(&firewalld, plan.zone.as_deref()).await
    };
    match asked.await {
        Ok(zones) => Explained::of(&zones, plan),
        Err(error) => {
            let warning = format!("cannot see what firewalld closes: {}", in_one_line(&error));
            Explained { lines: Vec::new(), warnings: vec![warning] }
        }
    }
}

fn opaque(zone: &str, source: &str) -> String {
    fit(&format!(
        "firewalld's zone {zone} has the source {source}, which we cannot look into: for clients of that zone, \
         doors would open in another; if there are such clients, set zone = \"{zone}\""
    ))
}

fn in_words(all: &[Ports]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What makes knocking pointless with rich rules alone: ports that are open to everybody.
pub(super) async fn obstacles(firewalld: &Firewalld, plan: &Plan) -> Vec<Obstacle> {
    let asked = async {
        let zones = Zones::ask(firewalld).await?;
        let sources = zones.opaque_sources().into_iter();
        let mut found: Vec<Obstacle> =
            sources.map(|(zone, source)| Obstacle::closed(opaque(zone, source))).collect();
        for zone in zones.for_everybody() {
            // A zone with inhabitants is open to containers and virtual machines of this machine only.
            let keeps_no_stranger_out = zones.inhabitants(zone).is_none();
            for (ports, how) in open_to_everybody(firewalld, &zones, zone, plan).await? {
                let said = fit(&format!(
                    "{ports} is open to everybody in firewalld's zone {zone}, so its door keeps no stranger out: {how}"
                ));
                found.push(Obstacle { said, keeps_no_stranger_out });
            }
        }
        zbus::Result::Ok(found)
    };
    asked.await.unwrap_or_else(|error| {
        let why = in_one_line(&error);
        vec![Obstacle::closed(format!("cannot see which ports firewalld leaves open to everybody: {why}"))]
    })
}

/// The same, for a caller without a connection.
pub async fn obstacles_with_rich_rules(plan: &Plan) -> Vec<Obstacle> {
    let connected = async { Bus::connect().await?.firewalld().await };
    match connected.await {
        Ok(firewalld) => obstacles(&firewalld, plan).await,
        Err(error) => vec![Obstacle::closed(format!("cannot reach firewalld: {}", in_one_line(&error)))],
    }
}

/// What makes knocking pointless with the gate alone while firewalld runs: ports that it closes.
pub async fn obstacles_beside_firewalld(plan: &Plan) -> Vec<String> {
    let asked = async {
        let firewalld = Bus::connect().await?.firewalld().await?;
        let mut found = Vec::new();
        let zones = Zones::ask(&firewalld).await?;
        for zone in zones.for_everybody() {
            // A zone of containers and virtual machines does not lead outside, and may be closed on purpose.
            if zones.inhabitants(zone).is_some() {
                continue;
            }
            let open = open_to_everybody(&firewalld, &zones, zone, plan).await?;
            for ports in plan.doors.iter().flat_map(|door| &door.ports) {
                if !open.iter().any(|(other, _)| other == ports) {
                    found.push(format!(
                        "firewalld's zone {zone} closes {ports}, so no knock can open it; try: firewall-cmd \
                         --zone={zone} --add-port={ports}, and again with --permanent, or set firewall = \"auto\""
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

/// Ports of doors that a zone leaves open to everybody, and which of its settings does that.
async fn open_to_everybody(
    firewalld: &Firewalld,
    zones: &Zones,
    zone: &str,
    plan: &Plan,
) -> zbus::Result<Vec<(Ports, String)>> {
    let settings = firewalld.zones.settings(zone).await?;
    let mut ways: Vec<(Ports, String)> = Vec::new();
    if text(&settings, "target").as_deref() == Some("ACCEPT") {
        let how = match zones.inhabitants(zone) {
            Some(links) => format!(
                "its target is ACCEPT, as containers and virtual machines behind {links} need it; they alone \
                 reach the port without a knock through this zone"
            ),
            None => "its target is ACCEPT; let through by name what has to stay reachable, and then try: \
                     firewall-cmd --permanent --zone={zone} --set-target=default; firewall-cmd --reload"
                .replace("{zone}", zone),
        };
        ways.extend(EVERYTHING.map(|ports| (ports, how.clone())));
    }
    ways.extend(let_through(firewalld, &settings, "rules_str", &format!("--zone={zone}")).await?);
    for (policy, settings) in policies_from(firewalld, zone).await {
        if text(&settings, "target").as_deref() == Some("ACCEPT") {
            let how = format!(
                "the target of the policy {policy} is ACCEPT; try: firewall-cmd --permanent --policy={policy} \
                 --set-target=CONTINUE, and then firewall-cmd --reload"
            );
            ways.extend(EVERYTHING.map(|ports| (ports, how.clone())));
        }
        let way = format!("--policy={policy}");
        ways.extend(let_through(firewalld, &settings, "rich_rules", &way).await?);
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

/// What the settings of a zone or a policy let through by name. `place` is how `firewall-cmd` names it.
async fn let_through(
    firewalld: &Firewalld,
    settings: &HashMap<String, OwnedVariant>,
    rich_rules: &str,
    place: &str,
) -> zbus::Result<Vec<(Ports, String)>> {
    let mut ways: Vec<(Ports, String)> = Vec::new();
    let remove = |what: &str| format!("firewall-cmd {place} --remove-{what}, and again with --permanent");
    for ports in port_list(settings, "ports") {
        ways.push((ports, format!("try: {}", remove(&format!("port={ports}")))));
    }
    for protocol in list::<String>(settings, "protocols") {
        let how = format!("protocol {protocol}; try: {}", remove(&format!("protocol={protocol}")));
        ways.extend(all_of(&protocol).map(|ports| (ports, how)));
    }
    for from in port_list(settings, "source_ports") {
        let how = format!(
            "to clients with the source port {from}; try: {}",
            remove(&format!("source-port={from}"))
        );
        ways.extend(all_of(&from.protocol.to_string()).map(|ports| (ports, how)));
    }
    for (numbers, protocol, ..) in list::<(String, String, String, String)>(settings, "forward_ports") {
        let how = format!("it is forwarded, which no rich rule can stop; set firewall = \"auto\" ({place})");
        ways.extend(ports(&numbers, &protocol).map(|ports| (ports, how)));
    }
    for service in list::<String>(settings, "services") {
        let how = format!("service {service}; try: {}", remove(&format!("service={service}")));
        let ports = service_ports(firewalld, &service, Destinations::AlsoSome).await?;
        ways.extend(ports.into_iter().map(|ports| (ports, how.clone())));
    }
    for written in list::<String>(settings, rich_rules) {
        let how = format!("a rich rule; try: {}", remove(&format!("rich-rule='{written}'")));
        let ports = match accepted(&written) {
            None => Vec::new(),
            Some(Accepted::Ports(ports)) => vec![ports],
            Some(Accepted::Service(service)) => {
                service_ports(firewalld, service, Destinations::AlsoSome).await?
            }
            Some(Accepted::Everything) => EVERYTHING.to_vec(),
        };
        ways.extend(ports.into_iter().map(|ports| (ports, how.clone())));
    }
    Ok(ways)
}

/// The policies for what goes from a zone to this machine, with their settings. firewalld before 0.9 does
/// not have them.
async fn policies_from(firewalld: &Firewalld, zone: &str) -> Vec<(String, HashMap<String, OwnedVariant>)> {
    let mut found = Vec::new();
    for (policy, uses) in firewalld.policies.active().await.unwrap_or_default() {
        let from_zone = of(&uses, "ingress_zones").iter().any(|from| from == "ANY" || from == zone);
        if from_zone && of(&uses, "egress_zones").iter().any(|to| to == "HOST") {
            let settings = firewalld.policies.settings(&policy).await.unwrap_or_default();
            found.push((policy, settings));
        }
    }
    found
}

/// What a rich rule lets in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Accepted<'a> {
    Ports(Ports),
    Service(&'a str),
    Everything,
}

/// What a rich rule lets everybody use, or everybody but a few; `None` if that is not known.
fn accepted(written: &str) -> Option<Accepted<'_>> {
    // In turn what is not between quotes, which has no spaces that we need, and what is.
    let parts: Vec<&str> = written.split('"').collect();
    let words = || parts.iter().step_by(2).flat_map(|part| part.split_whitespace());
    let value = |element: &str| {
        let mut pairs = parts.chunks_exact(2);
        pairs.find_map(|pair| pair.first()?.ends_with(element).then(|| pair.last().copied())?)
    };
    let is_everything = |text: &str| text.parse::<IpNet>().is_ok_and(|network| network.prefix_len() == 0);
    let from_few = words().any(|word| word == "source")
        && !words().any(|word| word == "NOT")
        && !value("source address=").is_some_and(is_everything);
    if from_few || !words().any(|word| word == "accept") {
        return None;
    }
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
            ("rule family=\"ipv4\" source address=\"0.0.0.0/0\" service name=\"ssh\" accept", {
                Some(Accepted::Service("ssh"))
            }),
            ("rule family=\"ipv4\" source NOT address=\"192.0.2.7\" service name=\"ssh\" accept", {
                Some(Accepted::Service("ssh"))
            }),
        ];
        for (written, lets_in) in cases {
            assert_eq!(accepted(written), lets_in, "{written}");
        }
    }
}
