//! Sends knocks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

/// What a knock is, byte for byte.
pub const PAYLOAD: &[u8; 6] = b"knock\n";

/// How many knocks a sequence has. No server takes fewer or more, so a user who writes another number has
/// forgotten something.
const LENGTH: RangeInclusive<usize> = 5..=20;

/// A sequence from a text like `16001,16002,16003,16004,16005`; spaces around the ports do not matter.
///
/// # Errors
/// A message that names the part that is no port, or says how many there have to be.
pub fn parse_ports(text: &str) -> Result<Vec<u16>, String> {
    let port = |part: &str| {
        let port = part.trim().parse::<u16>().ok().filter(|port| *port != 0);
        port.ok_or_else(|| {
            format!("\"{}\" is no port; write numbers from 1 to 65535 with commas between", part.trim())
        })
    };
    let ports = text.split(',').map(port).collect::<Result<Vec<u16>, String>>()?;
    match (ports.len(), LENGTH.contains(&ports.len())) {
        (_, true) => Ok(ports),
        (1, false) => Err("this is 1 port; a sequence has 5 to 20".to_owned()),
        (number, false) => Err(format!("these are {number} ports; a sequence has 5 to 20")),
    }
}

/// A knock could not leave, and those after it would have been in vain.
#[derive(Debug, thiserror::Error)]
#[error("cannot send knocks to {address} port {port}")]
pub struct Unsent {
    /// The address.
    pub address: IpAddr,
    /// The port on which it failed.
    pub port: u16,
    /// What the system says.
    pub source: io::Error,
}

/// Sends one knock to each port in order, with `delay` between them, at every address. Gives for each address
/// when its last knock left.
///
/// A port is knocked on at all addresses before the next port is at any: a server opens one of its addresses
/// when that has heard the last knock, and must not wait there until the others have been knocked at, too.
#[must_use]
pub fn send(addresses: &[SocketAddr], ports: &[u16], delay: Duration) -> Vec<Result<Instant, Unsent>> {
    let first = ports.first().copied().unwrap_or_default();
    let mut lines: Vec<Result<Line, Unsent>> = addresses
        .iter()
        .map(|address| Line::to(*address).map_err(|source| unsent(*address, first, source)))
        .collect();
    for (number, port) in ports.iter().enumerate() {
        if number > 0 && !delay.is_zero() && lines.iter().any(Result::is_ok) {
            thread::sleep(delay);
        }
        for line in &mut lines {
            let knocked = line.as_mut().ok().and_then(|line| line.knock(*port).err());
            if let Some(error) = knocked {
                *line = Err(error);
            }
        }
    }
    lines.into_iter().map(|line| line.map(|line| line.last)).collect()
}

/// The way to an address.
struct Line {
    address: SocketAddr,
    socket: UdpSocket,
    last: Instant,
}

impl Line {
    fn to(address: SocketAddr) -> io::Result<Self> {
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        Ok(Self { address, socket: UdpSocket::bind(local)?, last: Instant::now() })
    }

    fn knock(&mut self, port: u16) -> Result<(), Unsent> {
        let mut target = self.address;
        target.set_port(port);
        self.socket.send_to(PAYLOAD, target).map_err(|source| unsent(self.address, port, source))?;
        self.last = Instant::now();
        Ok(())
    }
}

fn unsent(address: SocketAddr, port: u16, source: io::Error) -> Unsent {
    Unsent { address: address.ip(), port, source }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_with_or_without_spaces() {
        assert_eq!(parse_ports("16001, 16002,16003, 1,65535"), Ok(vec![16001, 16002, 16003, 1, 65535]));
        for bad in ["", "1,,2,3,4", "0,1,2,3,4", "65536,1,2,3,4", "ssh,1,2,3,4", "1;2,3,4,5,6"] {
            assert!(parse_ports(bad).unwrap_err().contains("is no port"), "{bad:?}");
        }
    }

    #[test]
    fn a_sequence_has_as_many_ports_as_a_server_can_ask_for() {
        for number in 1..30 {
            let ports = parse_ports(&vec!["16001"; number].join(","));
            assert_eq!(ports.is_ok(), (5..=20).contains(&number), "{number}");
        }
        assert_eq!(parse_ports("22").unwrap_err(), "this is 1 port; a sequence has 5 to 20");
        assert_eq!(parse_ports("1,2,3,4").unwrap_err(), "these are 4 ports; a sequence has 5 to 20");
    }

    const HERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    fn ears(address: IpAddr, number: usize) -> (Vec<UdpSocket>, Vec<u16>) {
        let ears: Vec<UdpSocket> = (0..number).map(|_| UdpSocket::bind((address, 0)).unwrap()).collect();
        let ports = ears.iter().map(|ear| ear.local_addr().unwrap().port()).collect();
        (ears, ports)
    }

    #[test]
    fn every_port_is_knocked_on_once() {
        for address in HERE {
            let (ears, ports) = ears(address, 5);
            let sent = send(&[(address, 0).into()], &ports, Duration::ZERO);
            assert!(matches!(sent[..], [Ok(_)]));
            for ear in ears {
                let mut buffer = [0; 16];
                ear.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let received = ear.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..received], PAYLOAD);
                ear.set_nonblocking(true).unwrap();
                assert_eq!(ear.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            }
        }
    }

    #[test]
    fn the_delay_lies_between_two_knocks_and_all_addresses_are_knocked_at_in_the_same_time() {
        let (_ears, ports) = ears(HERE[0], 5);
        let delay = Duration::from_millis(150);
        let start = Instant::now();
        let sent = send(&HERE.map(|address| (address, 0).into()), &ports, delay);
        let lasts = sent.into_iter().map(|sent| sent.unwrap() - start);
        assert!(start.elapsed() < 8 * delay, "one address after the other");
        for last in lasts {
            assert!(last >= 4 * delay, "{last:?}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_reached_is_named_with_the_port_and_stops_no_other() {
        let (ears, ports) = ears(HERE[0], 5);
        // No program may send to all machines without asking for it.
        let refused = IpAddr::V4(Ipv4Addr::BROADCAST);
        let sent = send(&[(refused, 0).into(), (HERE[0], 0).into()], &ports, Duration::ZERO);
        let [Err(unsent), Ok(_)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(unsent.to_string(), format!("cannot send knocks to 255.255.255.255 port {}", ports[0]));
        for ear in ears {
            ear.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            ear.recv(&mut [0; 16]).unwrap();
        }
    }
}
