//! A gateway on the loopback interface that answers as it is told.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::mpsc,
    thread,
};

use base64ct::{Base64, Encoding as _};
use doors_spa::{
    gateway::{Gateway, GatewayKey},
    identity::ClientKey,
    receipt::{Answer, Receipt, ToldDoor},
    request::{Operation, Request},
};
use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};

/// The gateway. Its thread ends with the test's process.
pub(crate) struct Testbed {
    pub(crate) address: SocketAddr,
    pub(crate) card: String,
    /// The requests whose client has proven itself.
    pub(crate) heard: mpsc::Receiver<Request>,
}

/// The public key in a file.
pub(crate) fn public_key(path: &Path) -> ClientKey {
    let line = fs::read_to_string(path.with_extension("pub")).unwrap();
    let encoded = Base64::decode_vec(line.split(' ').nth(1).unwrap()).unwrap();
    ClientKey::new(encoded.last_chunk::<32>().unwrap()).unwrap()
}

impl Testbed {
    /// Opens a gateway on a free port of this address, for one client. `answer` gets each request with its
    /// number; without an answer, it stays silent.
    pub(crate) fn new(
        address: &str,
        client: ClientKey,
        mut answer: impl FnMut(usize, &Request) -> Option<Receipt> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        let key = GatewayKey::generate(&mut UnwrapErr(SysRng));
        let (tell, heard) = mpsc::channel();
        let testbed =
            Self { address: socket.local_addr().unwrap(), card: key.card().to_text().to_string(), heard };
        thread::spawn(move || {
            let gateway = Gateway::new(&key).unwrap();
            let mut buffer = [0; 2048];
            let mut number = 0;
            while let Ok((length, source)) = socket.recv_from(&mut buffer) {
                let Ok(knock) = buffer[..length].try_into() else { continue };
                let Some(tagged) = gateway.tag_key(&client).fits(knock) else { continue };
                let Ok(unproven) = gateway.open(tagged) else { continue };
                let Some(proven) = unproven.prove(&client) else { continue };
                let (request, seal) = proven.into_parts();
                let _ = tell.send(request);
                if let Some(receipt) = answer(number, &request) {
                    let mut salt = [0; 16];
                    UnwrapErr(SysRng).fill_bytes(&mut salt);
                    let seen = if receipt.seen == NOBODY { source } else { receipt.seen };
                    let receipt = Receipt { seen, ..receipt };
                    socket.send_to(&seal.seal(&receipt, salt), source).unwrap();
                }
                number += 1;
            }
        });
        testbed
    }

    /// One that grants everything.
    pub(crate) fn friendly(client: ClientKey) -> Self {
        Self::new("127.0.0.1", client, |_, request| {
            Some(match request.operation {
                Operation::Open { wanted, .. } => {
                    let seconds = if wanted == 0 { 30 } else { wanted };
                    Receipt { seconds, ..receipt(Answer::Granted) }
                }
                Operation::Close { .. } => receipt(Answer::Closed),
                Operation::Ask { skip } => {
                    let name = |number| ToldDoor { name: format!("door-{number:02}"), longest: 3600 };
                    Receipt { doors_in_all: 20, ..receipt(Answer::Told) }.with_doors((skip..20).map(name))
                }
            })
        })
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }
}

/// In a receipt, stands for where the knock came from.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);

pub(crate) fn receipt(answer: Answer) -> Receipt {
    Receipt {
        answer,
        seconds: 0,
        time: 1_800_000_000_000,
        seen: NOBODY,
        challenge: [0; 8],
        doors_in_all: 0,
        doors: Vec::new(),
    }
}
