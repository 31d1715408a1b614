//! In which zone a client's traffic arrives.

use std::{
    collections::HashMap,
    net::{AddrParseError, IpAddr},
};

use doors_core::packet::Link;
use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::bus::Firewalld;

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
}
