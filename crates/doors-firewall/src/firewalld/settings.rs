//! What firewalld tells of zones, policies and services, read.

use std::collections::HashMap;

use zbus::OwnedVariant;

use super::bus::Firewalld;
use crate::plan::{Ports, Protocol};

/// Which services are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Destinations {
    /// Those for every address of this machine.
    All,
    /// Also those for some of its addresses only.
    AlsoSome,
}

/// The ports of a service and of those that it includes, one level deep, as firewalld allows.
pub(super) async fn service_ports(
    firewalld: &Firewalld,
    service: &str,
    destinations: Destinations,
) -> zbus::Result<Vec<Ports>> {
    let own = |settings: &HashMap<String, OwnedVariant>| {
        let for_some = !dictionary(settings, "destination").is_empty();
        match destinations {
            Destinations::All if for_some => Vec::new(),
            Destinations::All | Destinations::AlsoSome => port_list(settings, "ports"),
        }
    };
    let settings = firewalld.main.service(service).await?;
    let mut ports = own(&settings);
    for included in list::<String>(&settings, "includes") {
        ports.extend(own(&firewalld.main.service(&included).await?));
    }
    Ok(ports)
}

/// All ports.
pub(super) const EVERYTHING: [Ports; 2] = [
    Ports { protocol: Protocol::Tcp, first: 1, last: u16::MAX },
    Ports { protocol: Protocol::Udp, first: 1, last: u16::MAX },
];

pub(super) fn all_of(protocol: &str) -> Option<Ports> {
    EVERYTHING.into_iter().find(|all| all.protocol.to_string() == protocol)
}

pub(super) fn text(settings: &HashMap<String, OwnedVariant>, key: &str) -> Option<String> {
    settings.get(key)?.try_clone().ok()?.try_into().ok()
}

pub(super) fn integer(settings: &HashMap<String, OwnedVariant>, key: &str) -> Option<i32> {
    settings.get(key)?.try_clone().ok()?.try_into().ok()
}

pub(super) fn list<T>(settings: &HashMap<String, OwnedVariant>, key: &str) -> Vec<T>
where
    Vec<T>: TryFrom<OwnedVariant>,
{
    let value = settings.get(key).and_then(|value| value.try_clone().ok());
    value.and_then(|value| value.try_into().ok()).unwrap_or_default()
}

fn dictionary(settings: &HashMap<String, OwnedVariant>, key: &str) -> HashMap<String, String> {
    let value = settings.get(key).and_then(|value| value.try_clone().ok());
    value.and_then(|value| value.try_into().ok()).unwrap_or_default()
}

/// A list of pairs of port or range, and protocol.
pub(super) fn port_list(settings: &HashMap<String, OwnedVariant>, key: &str) -> Vec<Ports> {
    let pairs = list::<(String, String)>(settings, key).into_iter();
    pairs.filter_map(|(numbers, protocol)| ports(&numbers, &protocol)).collect()
}

pub(super) fn ports(numbers: &str, protocol: &str) -> Option<Ports> {
    let protocol = all_of(protocol)?.protocol;
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    Some(Ports { protocol, first: first.parse().ok()?, last: last.parse().ok()? })
}
