//! In which zone a client's traffic arrives.

use std::{
    collections::HashMap,
    net::{AddrParseError, IpAddr},
};

use doors_core::packet::Link;
use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use zbus::OwnedVariant;

use super::{
    bus::Firewalld,
    open_ports::{HostPolicy, OpenPorts},
    settings::integer,
};
use crate::plan::Ports;

/// The zones that are in use, and what they let through for certain.
#[derive(Clone, Debug, Default)]
pub(super) struct Zones {
    default: String,
    active: HashMap<String, HashMap<String, Vec<String>>>,
    /// In which order zones are asked; empty before firewalld 2, which has no such order.
    priorities: HashMap<String, i32>,
    open: HashMap<String, OpenPorts>,
    policies: Vec<HostPolicy>,
}

impl Zones {
    /// Asks firewalld which there are.
    pub(super) async fn ask(firewalld: &Firewalld) -> zbus::Result<Self> {
        let (default, active) = (firewalld.main.default_zone().await?, firewalld.zones.active().await?);
        let mut zones = Self { default, active, ..Self::default() };
        for name in zones.names(None) {
            let settings = firewalld.zones.settings(&name).await?;
            zones.note_priority(&name, &settings);
        }
        Ok(zones)
    }

    /// Asks firewalld which there are, and what they and this one let through.
    pub(super) async fn ask_with_ports(firewalld: &Firewalld, fixed: Option<&str>) -> zbus::Result<Self> {
        let (default, active) = (firewalld.main.default_zone().await?, firewalld.zones.active().await?);
        let mut zones = Self { default, active, ..Self::default() };
        let policies = HostPolicy::ask(firewalld).await?;
        for name in zones.names(fixed) {
            let settings = firewalld.zones.settings(&name).await?;
            zones.note_priority(&name, &settings);
            let open = OpenPorts::ask(firewalld, &name, &settings, &policies).await?;
            zones.open.insert(name, open);
        }
        zones.policies = policies;
        Ok(zones)
    }

    fn names(&self, fixed: Option<&str>) -> Vec<String> {
        self.in_use().into_iter().chain(fixed).map(str::to_owned).collect()
    }

    fn note_priority(&mut self, zone: &str, settings: &HashMap<String, OwnedVariant>) {
        if let Some(priority) = integer(settings, "ingress_priority") {
            self.priorities.insert(zone.to_owned(), priority);
        }
    }

    /// A default zone, and what it lets through.
    #[cfg(test)]
    pub(super) fn letting_through(zone: &str, ports: Vec<Ports>) -> Self {
        let open = HashMap::from([(zone.to_owned(), OpenPorts::new(ports))]);
        Self { default: zone.to_owned(), open, ..Self::default() }
    }

    /// The policies that may drop what a rule in this zone lets in.
    pub(super) fn policies_before<'a>(&'a self, zone: &'a str) -> impl Iterator<Item = &'a str> {
        self.policies
            .iter()
            .filter(move |policy| policy.stands_before(zone))
            .map(|policy| policy.name.as_str())
    }

    /// Whether a zone lets everybody use these ports, for certain.
    pub(super) fn lets_through(&self, zone: &str, ports: Ports) -> bool {
        self.open.get(zone).is_some_and(|open| open.hold(ports))
    }

    /// Whether packets from `source` that come in on `link` get through to these ports, for certain. If a zone names
    /// its sources by a set or by hardware addresses, every source may be one of them.
    pub(super) fn let_in(&self, source: IpAddr, link: Link, fixed: Option<&str>, ports: Ports) -> bool {
        match fixed {
            Some(zone) => self.lets_through(zone, ports),
            None => {
                self.lets_through(&self.of(source, link), ports)
                    && self.opaque_sources().iter().all(|(zone, _)| self.lets_through(zone, ports))
            }
        }
    }

    /// The zone in which packets from `source` arrive that come in on `link`. The default zone comes last.
    pub(super) fn of(&self, source: IpAddr, link: Link) -> String {
        self.of_named(source, name_of(link).as_deref())
    }

    fn of_named(&self, source: IpAddr, link: Option<&str>) -> String {
        let zone = match self.priorities.is_empty() {
            true => self.of_source(source).or_else(|| self.of_interface(link?)),
            false => self.by_priority(source, link),
        };
        zone.unwrap_or(&self.default).to_owned()
    }

    /// In firewalld 2, the zone with the lowest priority; of those with the same, one of a source goes before
    /// one of an interface, and then the name decides, also between an interface and a pattern for it
    /// (`_policy_dispatch_sort_key` in nftables.py of 2.3.1).
    fn by_priority(&self, source: IpAddr, link: Option<&str>) -> Option<&str> {
        let arrives = self.active.iter().filter_map(|(name, uses)| {
            let by_source = holds(uses, source);
            let by_link = || link.is_some_and(|link| names(uses, link) || has_pattern(uses, link));
            (by_source || by_link()).then_some((
                self.priorities.get(name).copied()?,
                !by_source,
                name.as_str(),
            ))
        });
        arrives.min().map(|(_, _, name)| name)
    }

    /// The zones in which packets from any source may arrive: those of interfaces and of the whole internet, and
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

    /// The interfaces of a zone, if all of them lead to containers or virtual machines on this machine, by the
    /// names that engines give; `None` if not, or if the zone has no interfaces.
    pub(super) fn inhabitants(&self, zone: &str) -> Option<String> {
        const ENGINES: [&str; 9] =
            ["docker", "br-", "virbr", "podman", "cni", "lxdbr", "lxcbr", "incusbr", "vnet"];
        let links = of(self.active.get(zone)?, "interfaces");
        let is_one = |link: &String| ENGINES.iter().any(|engine| link.starts_with(engine));
        (!links.is_empty() && links.iter().all(is_one)).then(|| links.join(", "))
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
    /// backend asks (`zone_source_index_cache` in nftables.py of 1.3.3), however narrow a source is.
    fn of_source(&self, source: IpAddr) -> Option<&str> {
        self.first(|uses| holds(uses, source))
    }

    /// The zone of this very interface, else the first by name with a pattern for it.
    fn of_interface(&self, interface: &str) -> Option<&str> {
        self.first(|uses| names(uses, interface)).or_else(|| self.first(|uses| has_pattern(uses, interface)))
    }

    /// The first zone by name that is used in this way.
    fn first(&self, so: impl Fn(&HashMap<String, Vec<String>>) -> bool) -> Option<&str> {
        let used = self.active.iter().filter(|(_, uses)| so(uses));
        used.map(|(name, _)| name.as_str()).min()
    }
}

/// Whether a zone has a source that holds the address.
fn holds(uses: &HashMap<String, Vec<String>>, source: IpAddr) -> bool {
    of(uses, "sources").iter().any(|text| network(text).is_ok_and(|network| network.contains(&source)))
}

/// Whether a zone has this very interface.
fn names(uses: &HashMap<String, Vec<String>>, interface: &str) -> bool {
    of(uses, "interfaces").iter().any(|name| name == interface)
}

/// Whether a zone has a pattern for the interface.
fn has_pattern(uses: &HashMap<String, Vec<String>>, interface: &str) -> bool {
    let beginnings = of(uses, "interfaces").iter().filter_map(|name| name.strip_suffix('+'));
    beginnings.into_iter().any(|beginning| interface.starts_with(beginning))
}

pub(super) fn of<'a>(uses: &'a HashMap<String, Vec<String>>, what: &str) -> &'a [String] {
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
        Zones { default: "public".to_owned(), active, ..Zones::default() }
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
    fn in_firewalld_2_the_priority_decides_then_the_source_then_the_name() {
        let mut zones = zones(&[
            ("dmz", "interfaces", &["eth+"]),
            ("home", "interfaces", &["eth0"]),
            ("work", "sources", &["192.0.2.0/24"]),
        ]);
        for (name, priority) in [("dmz", 0), ("home", 0), ("work", 0), ("public", 0)] {
            zones.priorities.insert(name.to_owned(), priority);
        }
        let of = |zones: &Zones, source: &str| zones.of_named(source.parse().unwrap(), Some("eth0"));
        assert_eq!(of(&zones, "192.0.2.7"), "work");
        assert_eq!(of(&zones, "198.51.100.7"), "dmz", "a pattern counts like a name");
        zones.priorities.insert("home".to_owned(), -5);
        assert_eq!(of(&zones, "192.0.2.7"), "home");
        zones.priorities.insert("work".to_owned(), -10);
        assert_eq!(of(&zones, "192.0.2.7"), "work");
        assert_eq!(of(&zones, "2001:db8::7"), "home");
        assert_eq!(zones.of_named("2001:db8::7".parse().unwrap(), Some("wlan0")), "public");
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
}
