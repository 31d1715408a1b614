//! In which zone a client's traffic arrives, and what a zone lets through anyway.

use std::{
    collections::HashMap,
    net::{AddrParseError, IpAddr},
};

use doors_core::packet::Link;
use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use zbus::OwnedVariant;

use super::bus::Firewalld;
use crate::firewall::plan::{Plan, Ports, Protocol};

/// The zones that are in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Zones {
    default: String,
    active: HashMap<String, HashMap<String, Vec<String>>>,
}

impl Zones {
    /// Asks firewalld.
    pub(super) async fn ask(firewalld: &Firewalld) -> zbus::Result<Self> {
        Ok(Self { default: firewalld.main.default_zone().await?, active: firewalld.zones.active().await? })
    }

    /// The zone in which packets from `source` arrive that come in on `link`: a zone of the source goes
    /// before the zone of the interface, and that before the default zone.
    pub(super) fn of(&self, source: IpAddr, link: Link) -> String {
        self.of_source(source)
            .or_else(|| self.of_interface(&name_of(link)?))
            .unwrap_or(&self.default)
            .to_owned()
    }

    /// The zones in which anybody's packets may arrive: those of interfaces and of the whole internet, and
    /// the default zone if an interface is in no other.
    pub(super) fn for_everybody(&self) -> Vec<&str> {
        self.for_everybody_on(&interfaces())
    }

    fn for_everybody_on(&self, interfaces: &[String]) -> Vec<&str> {
        let everything = |source: &String| network(source).is_ok_and(|network| network.prefix_len() == 0);
        let is_so = |uses: &HashMap<String, Vec<String>>| {
            !of(uses, "interfaces").is_empty() || of(uses, "sources").iter().any(everything)
        };
        let used = self.active.iter().filter(|(_, uses)| is_so(uses));
        let mut names: Vec<&str> = used.map(|(name, _)| name.as_str()).collect();
        if names.is_empty() || interfaces.iter().any(|interface| self.of_interface(interface).is_none()) {
            names.push(&self.default);
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Sources that are no addresses: sets of addresses, and hardware addresses. With their zones.
    pub(super) fn opaque_sources(&self) -> Vec<(&str, &str)> {
        let sources = self.active.iter().flat_map(|(name, uses)| {
            of(uses, "sources").iter().map(move |source| (name.as_str(), source.as_str()))
        });
        sources.filter(|(_, source)| network(source).is_err()).collect()
    }

    /// All zones in which a grant may be.
    pub(super) fn in_use(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.active.keys().map(String::as_str).collect();
        names.push(&self.default);
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The first zone by name with a source that holds the address: in that order firewalld's nftables
    /// backend asks (`zone_source_index_cache` in nftables.py of 1.3.3), however narrow a source is. Zones of
    /// firewalld 2 have priorities, which go before the name; they are not looked at here.
    fn of_source(&self, source: IpAddr) -> Option<&str> {
        let holds = |text: &String| network(text).is_ok_and(|network| network.contains(&source));
        self.first(|uses| of(uses, "sources").iter().any(holds))
    }

    /// The zone of this very interface, else the first by name with a pattern for it.
    fn of_interface(&self, interface: &str) -> Option<&str> {
        let is_pattern =
            |name: &String| name.strip_suffix('+').is_some_and(|beginning| interface.starts_with(beginning));
        self.first(|uses| of(uses, "interfaces").iter().any(|name| name == interface))
            .or_else(|| self.first(|uses| of(uses, "interfaces").iter().any(is_pattern)))
    }

    /// The first zone by name that is used so.
    fn first(&self, so: impl Fn(&HashMap<String, Vec<String>>) -> bool) -> Option<&str> {
        let used = self.active.iter().filter(|(_, uses)| so(uses));
        used.map(|(name, _)| name.as_str()).min()
    }
}

/// Ports that a zone lets everybody use although a door is before them, and how it comes that it does.
pub(super) async fn open_to_everybody(
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

fn of<'a>(uses: &'a HashMap<String, Vec<String>>, what: &str) -> &'a [String] {
    uses.get(what).map_or(&[], Vec::as_slice)
}

fn network(text: &str) -> Result<IpNet, AddrParseError> {
    match text.parse::<IpNet>() {
        Ok(network) => Ok(network),
        Err(_) => text.parse::<IpAddr>().map(IpNet::from),
    }
}

fn name_of(link: Link) -> Option<String> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::index_to_name(any, link.0).ok()
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

/// The interfaces of this machine, but for the one to itself.
fn interfaces() -> Vec<String> {
    let listed = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names =
        listed.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(active: &[(&str, &str, &[&str])]) -> Zones {
        let uses = |what: &str, names: &[&str]| {
            HashMap::from([(what.to_owned(), names.iter().map(|name| (*name).to_owned()).collect())])
        };
        let active =
            active.iter().map(|(zone, what, names)| ((*zone).to_owned(), uses(what, names))).collect();
        Zones { default: "public".to_owned(), active }
    }

    #[test]
    fn the_first_zone_by_name_that_holds_the_source_decides_then_the_default() {
        let zones = zones(&[
            ("home", "sources", &["192.0.2.0/24", "ipset:friends"]),
            ("work", "sources", &["192.0.2.7", "2001:db8::/32"]),
            ("admin", "sources", &["192.0.2.9"]),
        ]);
        let zone = |source: &str| zones.of(source.parse().unwrap(), Link(0));
        assert_eq!(zone("192.0.2.7"), "home");
        assert_eq!(zone("192.0.2.9"), "admin");
        assert_eq!(zone("2001:db8::8"), "work");
        assert_eq!(zone("198.51.100.1"), "public");
    }

    #[test]
    fn an_interface_goes_before_a_pattern() {
        let zones = zones(&[
            ("dmz", "interfaces", &["eth+", "wlan+"]),
            ("home", "interfaces", &["eth0"]),
            ("drop", "interfaces", &["wlan+"]),
        ]);
        assert_eq!(zones.of_interface("eth0"), Some("home"));
        assert_eq!(zones.of_interface("eth01"), Some("dmz"));
        assert_eq!(zones.of_interface("wlan3"), Some("dmz"));
        assert_eq!(zones.of_interface("ppp0"), None);
    }

    #[test]
    fn everybody_is_in_the_zones_of_interfaces_and_of_the_whole_internet() {
        let interfaces = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let zones = zones(&[
            ("home", "sources", &["192.0.2.0/24"]),
            ("work", "interfaces", &["eth0"]),
            ("world", "sources", &["0.0.0.0/0"]),
        ]);
        assert_eq!(zones.for_everybody_on(&interfaces(&["eth0"])), ["work", "world"]);
        assert_eq!(zones.for_everybody_on(&interfaces(&["eth0", "eth1"])), ["public", "work", "world"]);
    }

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
