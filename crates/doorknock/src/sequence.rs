//! Sends knocks.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

/// What a knock is, byte for byte.
pub const PAYLOAD: &[u8; 6] = b"knock\n";

/// Ports from a text like `16001,16002`; spaces around them do not matter.
///
/// # Errors
/// A message that names the part that is no port.
pub fn parse_ports(text: &str) -> Result<Vec<u16>, String> {
    let port = |part: &str| {
        let port = part.trim().parse::<u16>().ok().filter(|port| *port != 0);
        port.ok_or_else(|| {
            format!("\"{}\" is no port; write numbers from 1 to 65535 with commas between", part.trim())
        })
    };
    text.split(',').map(port).collect()
}

/// Sends one knock to each port in order, with `delay` between them.
///
/// # Errors
/// What the system says if a datagram cannot be sent.
pub fn send(address: SocketAddr, ports: &[u16], delay: Duration) -> io::Result<()> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    for (number, port) in ports.iter().enumerate() {
        if number > 0 && !delay.is_zero() {
            thread::sleep(delay);
        }
        let mut target = address;
        target.set_port(*port);
        socket.send_to(PAYLOAD, target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_with_or_without_spaces() {
        assert_eq!(parse_ports("16001, 16002,16003"), Ok(vec![16001, 16002, 16003]));
        for bad in ["", "1,,2", "0", "65536", "ssh", "1;2"] {
            assert!(parse_ports(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_knocks_go_to_the_ports_in_order() {
        let sockets: Vec<UdpSocket> = (0..5).map(|_| UdpSocket::bind(("127.0.0.1", 0)).unwrap()).collect();
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        send(([127, 0, 0, 1], 0).into(), &ports, Duration::ZERO).unwrap();
        for socket in sockets {
            let mut buffer = [0; 16];
            let received = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..received], PAYLOAD);
        }
    }
}
