//! Everything that reads bytes from an untrusted source. The first byte selects what.
//!
//! ```text
//!   0  a datagram from the network
//!   1  64 bytes that a client has signed
//!   2  a receipt at the client, sealed and decrypted
//!   3  a card, a gateway key, a public key, a configuration
//! ```
#![no_main]

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use doors_core::{
    access::Rules,
    door::{Door, DoorName},
    engine::Engine,
    packet::{AllRoutes, Link, Packet},
    spa::{
        challenge::RunKey,
        client::{Client, Clients},
        prefilter::Recognition,
        replay::ReplayGuard,
        server::{ServerConfig, SpaServer},
    },
    time::{Moment, Wall},
};
use doors_spa::{
    card::Card,
    gateway::{Gateway, GatewayKey},
    identity::ClientKey,
    seal::UnsignedKnock,
};
use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use port_knocking_doors::config::Config;
use rand_core::{TryCryptoRng, TryRng};

struct Counting(u8);

impl TryRng for Counting {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(7)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(7)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(3);
            *byte = self.0;
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

const WALL: Wall = Wall(1_800_000_000_000);

fn engine(gateway: &GatewayKey, client: Client) -> Engine {
    let door = |name: &str| Door {
        name: DoorName::new(name).unwrap(),
        sequence: None,
        open_for: Duration::from_secs(30),
        max_open_for: Duration::from_secs(600),
        once: name == "once",
        require_address: false,
    };
    let clients = Arc::new(Clients::new([client]));
    let rules = Rules {
        doors: vec![door("ssh"), door("once"), door("admin")],
        quiet_after_wrong: Duration::from_secs(5),
        forget_after: Duration::from_secs(30),
        clients: Arc::clone(&clients),
    };
    let mut engine = Engine::new(rules).unwrap();
    let window = Duration::from_secs(60);
    // Started long enough ago to accept requests by their time.
    let replay = ReplayGuard::new(window, &[], Moment::default(), Wall(WALL.0 - 121_000));
    let mut server = SpaServer::new(RunKey([9; 32]), replay);
    let gateways = [(Arc::new(Gateway::new(gateway).unwrap()), None)];
    let recognition = Recognition::new(&gateways, &clients);
    server.set_config(ServerConfig { port: doors_spa::PORT, clients, recognition, window });
    engine.set_server(server);
    engine
}

fn send(engine: &mut Engine, payload: &[u8]) -> bool {
    let address = IpAddr::from([192, 0, 2, 7]);
    let packet = Packet {
        source: address,
        source_port: 40000,
        destination: IpAddr::from([192, 0, 2, 1]),
        port: doors_spa::PORT,
        link: Link(1),
        payload,
    };
    let now = Moment::new(Duration::from_secs(121));
    engine.handle_packet(&packet, now, WALL, &mut AllRoutes);
    while let Some((ticket, _)) = engine.poll_record() {
        engine.handle_recorded(ticket, true, now, WALL);
    }
    while engine.poll_event().is_some() {}
    engine.poll_receipt(now, WALL).is_some()
}

fuzz_target!(|data: &[u8]| {
    let Some((target, bytes)) = data.split_first() else { return };
    let gateway = GatewayKey::generate(&mut Counting(1));
    let signer = SigningKey::from_bytes(&[3; 32]);
    let key = ClientKey::new(signer.verifying_key().as_bytes()).unwrap();
    let doors = ["ssh", "once"].map(|name| DoorName::new(name).unwrap());
    let mut engine = engine(&gateway, Client::new("laptop", key, doors.into()));
    let unsigned = |bytes| UnsignedKnock::of_bytes(&gateway.card(), &key, bytes, &mut Counting(2)).unwrap();
    match target % 4 {
        0 => {
            assert!(!send(&mut engine, bytes), "without a key there is no answer");
            assert_eq!(engine.poll_change(), None);
        }
        1 => {
            let Ok(request) = bytes.try_into() else { return };
            let unsigned = unsigned(request);
            let signature = signer.sign(unsigned.to_sign()).to_bytes();
            let (knock, _) = unsigned.seal(&signature).unwrap();
            send(&mut engine, &knock);
            while let Some(change) = engine.poll_change() {
                assert_ne!(change.key().door.as_str(), "admin");
            }
        }
        2 => {
            let (_, receipt_key) = unsigned([0; 64]).seal(&[0; 64]).unwrap();
            assert_eq!(receipt_key.open(bytes), None);
            let _ = doors_spa::receipt::Receipt::decode(bytes);
        }
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let _ = text.parse::<Card>();
            let _ = text.parse::<GatewayKey>();
            let _ = ClientKey::from_openssh(text);
            let _ = Config::parse(Path::new("fuzz"), text);
        }
    }
});
