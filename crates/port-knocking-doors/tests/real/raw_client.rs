//! A client with a key that can send any request a test needs.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use doors_spa::{
    KNOCK, PORT,
    card::Card,
    identity::{ClientKey, DoorId},
    receipt::{Answer, Receipt, ReceiptKey},
    request::{Operation, Request},
    seal::UnsignedKnock,
};
use ed25519_dalek::{Signer as _, SigningKey};
use rand_core::{Rng as _, UnwrapErr};

use crate::testbed::{PATIENCE, SILENCE, Testbed, server_for};

/// A key, and the card of the gateway.
pub(crate) struct Device {
    pub(crate) key: SigningKey,
    pub(crate) card: Card,
}

/// A sealed knock, and the key for its receipt.
pub(crate) struct Sealed {
    pub(crate) bytes: [u8; KNOCK],
    pub(crate) receipt_key: ReceiptKey,
}

impl Device {
    /// A device; each number has its own key.
    pub(crate) fn new(number: u8, card: &Card) -> Self {
        Self { key: SigningKey::from_bytes(&[number; 32]), card: card.clone() }
    }

    /// The device's public key, which the gateway knows.
    pub(crate) fn client(&self) -> ClientKey {
        ClientKey::new(self.key.verifying_key().as_bytes()).unwrap()
    }

    /// A valid request, which a test may change.
    pub(crate) fn request(&self, operation: Operation) -> Request {
        Request {
            operation,
            time: now(),
            nonce: UnwrapErr(getrandom::SysRng).next_u64().to_be_bytes(),
            client: self.client().id(),
            address: None,
            challenge: [0; 8],
        }
    }

    /// Signs and seals a request.
    pub(crate) fn seal(&self, request: &Request) -> Sealed {
        self.seal_with(request, &self.key)
    }

    /// Seals a request that another key has signed.
    pub(crate) fn seal_with(&self, request: &Request, key: &SigningKey) -> Sealed {
        let mut random = UnwrapErr(getrandom::SysRng);
        let unsigned = UnsignedKnock::new(&self.card, &self.client(), request, &mut random).unwrap();
        let signature = key.sign(unsigned.to_sign()).to_bytes();
        let (bytes, receipt_key) = unsigned.seal(&signature).unwrap();
        Sealed { bytes, receipt_key }
    }

    /// Sends a request, answers the challenge if there is one, and waits for the receipt.
    pub(crate) fn ask(&self, testbed: &Testbed, source: &str, request: &Request) -> Receipt {
        let receipt = self.ask_once(testbed, source, request);
        match receipt.answer {
            Answer::Stale => self.ask_once(testbed, source, &self.again(request, &receipt)),
            _ => receipt,
        }
    }

    /// The same request, with the challenge of this receipt.
    pub(crate) fn again(&self, request: &Request, stale: &Receipt) -> Request {
        Request { challenge: stale.challenge, nonce: self.request(request.operation).nonce, ..*request }
    }

    /// Sends a request once, and waits for the receipt.
    pub(crate) fn ask_once(&self, testbed: &Testbed, source: &str, request: &Request) -> Receipt {
        let sealed = self.seal(request);
        let answer = testbed.spa(source, &sealed.bytes, PATIENCE).expect("a receipt");
        sealed.receipt_key.open(&answer).expect("a receipt for this knock")
    }

    /// Opens a door, and waits for the receipt.
    pub(crate) fn open(&self, testbed: &Testbed, source: &str, door: &str, wanted: u32) -> Receipt {
        self.ask(testbed, source, &self.request(open(door, wanted)))
    }

    /// Opens a door with a knock at this address of the server, and waits for the receipt.
    pub(crate) fn open_at(&self, testbed: &Testbed, source: &str, target: IpAddr, door: &str) -> Receipt {
        let ask = |request: &Request| {
            let sealed = self.seal(request);
            let answer = testbed.spa_at(source, target, &sealed.bytes, PATIENCE).expect("a receipt");
            sealed.receipt_key.open(&answer).expect("a receipt for this knock")
        };
        let request = self.request(open(door, 0));
        let receipt = ask(&request);
        match receipt.answer {
            Answer::Stale => ask(&self.again(&request, &receipt)),
            _ => receipt,
        }
    }
}

impl Testbed {
    /// Sends a datagram to the SPA port, and returns the answer.
    pub(crate) fn spa(&self, source: &str, bytes: &[u8], timeout: Duration) -> Option<Vec<u8>> {
        self.spa_at(source, server_for(source), bytes, timeout)
    }

    /// Like [`Self::spa`], to one of the server's addresses.
    fn spa_at(&self, source: &str, target: IpAddr, bytes: &[u8], timeout: Duration) -> Option<Vec<u8>> {
        let target = SocketAddr::new(target, PORT);
        let source: IpAddr = source.parse().unwrap();
        self.client.enter(|| {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            socket.set_read_timeout(Some(timeout)).unwrap();
            socket.send_to(bytes, target).unwrap();
            let mut buffer = [0; 1500];
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        assert_eq!(from, target, "a receipt comes from where the knock went");
                        return Some(buffer[..length].to_vec());
                    }
                    // No socket is bound there, and the kernel reports that.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                    Err(error) => panic!("{error}"),
                }
            }
        })
    }

    /// Whether a datagram gets no answer at all.
    pub(crate) fn is_silent(&self, source: &str, bytes: &[u8]) -> bool {
        self.spa(source, bytes, SILENCE).is_none()
    }

    /// Generates the gateway's key, and returns its card. Call this before the daemon starts.
    pub(crate) fn card(&self) -> Card {
        let path = self.write(&self.gateway("[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n"));
        let path = path.to_str().unwrap();
        let (status, said) = self.run(&["gateway", "init", "--conf", path]);
        assert!(status.success(), "{said}");
        let (status, card) = self.run(&["gateway", "card", "--conf", path]);
        assert!(status.success(), "{card}");
        card.trim().parse().unwrap()
    }

    /// A configuration whose key and state are in this testbed's directory.
    pub(crate) fn gateway(&self, more: &str) -> String {
        let directory = self.directory.path().display();
        format!(
            "firewall = \"nftables\"\ngateway_key = \"{directory}/gateway.key\"\nstate_dir = \
             \"{directory}/state\"\n{more}\n"
        )
    }
}

impl Testbed {
    /// Writes the file of a client that may open the door `ssh`.
    pub(crate) fn client_file(&self, name: &str, device: &Device, more: &str) -> PathBuf {
        let path = self.place_for(&format!("clients.d/{name}.toml"));
        let key = device.client().to_openssh();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("key = \"{key}\"\ndoors = [\"ssh\"]\n{more}\n")).unwrap();
        path
    }
}

/// A `[[clients]]` table for a client that may open these doors.
pub(crate) fn client(name: &str, device: &Device, doors: &[&str], more: &str) -> String {
    let key = device.client().to_openssh();
    format!("[[clients]]\nname = \"{name}\"\nkey = \"{key}\"\ndoors = {doors:?}\n{more}\n")
}

pub(crate) fn open(door: &str, wanted: u32) -> Operation {
    Operation::Open { door: DoorId::of(door), wanted }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}
