//! How ports are cut into pieces.

use super::{guarded::pieces, *};
use crate::plan::{Protocol, Refuse};

fn ports(protocol: Protocol, first: u16, last: u16) -> Ports {
    Ports { protocol, first, last }
}

fn plan(doors: &[(&str, &[Ports])]) -> Plan {
    Plan {
        doors: doors
            .iter()
            .map(|(name, ports)| PlannedDoor {
                name: DoorName::new(name).unwrap(),
                ports: ports.to_vec(),
                open_for: Duration::from_secs(10),
                max_open_for: Duration::from_secs(10),
                once: false,
            })
            .collect(),
        trusted: Vec::new(),
        refuse: Refuse::Drop,
        mark: None,
        zone: None,
        check_every: Duration::from_secs(10),
        clean_every: Duration::from_secs(10),
        remove_on_exit: false,
    }
}

fn text(plan: &Plan) -> Vec<String> {
    pieces(plan)
        .iter()
        .map(|(ports, doors)| {
            let doors: Vec<&str> = doors.iter().map(|door| door.name.as_str()).collect();
            format!("{ports} {}", doors.join("+"))
        })
        .collect()
}

#[test]
fn ports_of_several_doors_are_cut_into_pieces() {
    use Protocol::{Tcp, Udp};
    let plan = plan(&[
        ("ssh", &[ports(Tcp, 22, 22), ports(Udp, 100, 200)]),
        ("web", &[ports(Tcp, 20, 30), ports(Udp, 150, 65535)]),
    ]);
    assert_eq!(
        text(&plan),
        [
            "20-21/tcp web",
            "22/tcp ssh+web",
            "23-30/tcp web",
            "100-149/udp ssh",
            "150-200/udp ssh+web",
            "201-65535/udp web"
        ]
    );
}

#[test]
fn ports_listed_one_by_one_are_one_range_to_the_kernel() {
    use Protocol::{Tcp, Udp};
    let plan = plan(&[
        ("a", &[ports(Tcp, 5, 5), ports(Tcp, 3, 4), ports(Tcp, 7, 7)]),
        ("b", &[ports(Tcp, 6, 6), ports(Udp, 7, 7)]),
    ]);
    let ranges = |plan| guarded(plan).ports.iter().map(|(ports, _)| ports.to_string()).collect::<Vec<_>>();
    assert_eq!(ranges(&plan), ["3-5/tcp", "6/tcp", "7/tcp", "7/udp"]);
}

#[test]
fn pieces_cover_exactly_the_ports_of_the_doors() {
    use Protocol::Tcp;
    let plan = plan(&[
        ("a", &[ports(Tcp, 1, 10), ports(Tcp, 5, 7), ports(Tcp, 65535, 65535)]),
        ("b", &[ports(Tcp, 11, 11), ports(Tcp, 65530, 65535)]),
    ]);
    let pieces = pieces(&plan);
    for port in 0..=u16::MAX {
        let wanted: Vec<&DoorName> = plan
            .doors
            .iter()
            .filter(|door| door.ports.iter().any(|ports| ports.range().contains(&port)))
            .map(|door| &door.name)
            .collect();
        let got: Vec<&DoorName> = pieces
            .iter()
            .filter(|(ports, _)| ports.range().contains(&port))
            .flat_map(|(_, doors)| doors.iter().map(|door| &door.name))
            .collect();
        assert_eq!(got, wanted, "{port}");
    }
}
