//! An engine with clients, and everything around it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    access::Rules,
    door::{Door, DoorName, GrantKey, Sequence},
    engine::{Change, Engine, Event, Report},
    lease::Lease,
    packet::{AllRoutes, Link, Packet},
    spa::challenge::RunKey,
    spa::client::{Client, Clients},
    spa::prefilter::{ExpiringGateway, Recognition},
    spa::replay::{Record, ReplayGuard},
    spa::server::{ServerConfig, SpaServer},
    time::{Moment, Wall},
};
use doors_spa::{
    PORT,
    gateway::{Gateway, GatewayKey},
    identity::{ClientKey, DoorId},
    receipt::{Answer, Receipt, ReceiptKey},
    request::{Operation, Request},
    seal::UnsignedKnock,
};
use ed25519_dalek::{Signer as _, SigningKey};
use rand_core::{TryCryptoRng, TryRng};

/// Different bytes at each call, the same in every run.
pub(crate) struct Counting(pub(crate) u64);

impl TryRng for Counting {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::try_from(self.try_next_u64()? & 0xffff_ffff).unwrap())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 += 1;
        Ok(self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.try_next_u64()?.to_be_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

/// The date at the start of every scene.
pub(crate) const START: u64 = 1_800_000_000_000;
pub(crate) const SOURCE: &str = "192.0.2.7";
pub(crate) const OTHER: &str = "198.51.100.9";
/// The clients' keys.
pub(crate) const LAPTOP: u8 = 1;
pub(crate) const PHONE: u8 = 2;

/// A sealed knock, and the key that opens its receipt.
pub(crate) struct Sealed {
    pub(crate) bytes: [u8; 192],
    pub(crate) key: ReceiptKey,
}

/// An engine, a disk, a clock and a date. The firewall makes each change at once.
pub(crate) struct Scene {
    pub(crate) engine: Engine,
    pub(crate) gateway: GatewayKey,
    pub(crate) random: Counting,
    pub(crate) now: Moment,
    pub(crate) wall: u64,
    pub(crate) disk: Vec<Record>,
    pub(crate) disk_is_full: bool,
    /// The disk is slow: while this is set, it answers nothing.
    pub(crate) disk_is_slow: bool,
    /// The disk lacks records that it could not take.
    disk_is_behind: bool,
    run: u8,
    /// The date of the start.
    pub(crate) started: u64,
    pub(crate) firewall_works: bool,
    pub(crate) changes: Vec<Change>,
    pub(crate) receipts: Vec<(IpAddr, [u8; 192])>,
}

pub(crate) fn door(name: &str) -> Door {
    Door {
        name: DoorName::new(name).unwrap(),
        sequence: None,
        open_for: Duration::from_secs(30),
        max_open_for: Duration::from_secs(600),
        once: name == "once",
        require_address: name == "named",
    }
}

pub(crate) fn rules() -> Rules {
    Rules {
        doors: ["ssh", "admin", "once", "named"].map(door).into(),
        quiet_after_wrong: Duration::from_secs(5),
        forget_after: Duration::from_secs(30),
        clients: Arc::new(Clients::new([client(LAPTOP), client(PHONE)])),
    }
}

/// Also opens the door `ssh`.
const SEQUENCE: [u16; 5] = [7001, 7002, 7003, 7004, 7005];

pub(crate) fn rules_with_sequence() -> Rules {
    let mut rules = rules();
    rules.doors[0].sequence = Some(Sequence::new(&SEQUENCE).unwrap());
    rules
}

pub(crate) fn client(number: u8) -> Client {
    let key = ClientKey::new(SigningKey::from_bytes(&[number; 32]).verifying_key().as_bytes()).unwrap();
    let doors = ["ssh", "once", "named"].map(|name| DoorName::new(name).unwrap());
    Client::new(if number == LAPTOP { "laptop" } else { "phone" }, key, doors.into())
}

pub(crate) fn config(gateway: &GatewayKey) -> ServerConfig {
    server_config([client(LAPTOP), client(PHONE)], &[lasting(gateway, None)])
}

pub(crate) fn lasting(key: &GatewayKey, until: Option<Wall>) -> ExpiringGateway {
    (Arc::new(Gateway::new(key).unwrap()), until)
}

pub(crate) fn server_config(
    clients: impl IntoIterator<Item = Client>,
    gateways: &[ExpiringGateway],
) -> ServerConfig {
    let clients = Clients::new(clients);
    ServerConfig {
        port: PORT,
        recognition: Recognition::new(gateways, &clients),
        clients: Arc::new(clients),
        window: Duration::from_secs(60),
    }
}

impl Scene {
    /// A daemon that started long enough ago to accept requests by their time.
    pub(crate) fn new() -> Self {
        let mut scene = Self::after(Some(&[]), START - 121_000);
        scene.wait(121);
        scene
    }

    /// A run that finds these records on the disk; with `None`, the disk has lost what it held.
    pub(crate) fn after(records: Option<&[Record]>, wall: u64) -> Self {
        Self::run(1, records, wall)
    }

    fn run(run: u8, records: Option<&[Record]>, wall: u64) -> Self {
        let gateway = GatewayKey::generate(&mut Counting(7));
        let now = Moment::new(Duration::from_secs(5));
        let window = Duration::from_secs(60);
        let disk = records.map_or_else(|| vec![ReplayGuard::lost(Wall(wall))], <[Record]>::to_vec);
        let replay = ReplayGuard::new(window, &disk, now, Wall(wall));
        let mut server = SpaServer::new(RunKey([run; 32]), replay);
        server.set_config(config(&gateway));
        let mut engine = Engine::new(rules()).unwrap();
        engine.set_server(server);
        let mut scene = Self {
            engine,
            gateway,
            random: Counting(100),
            now,
            wall,
            disk,
            disk_is_full: false,
            disk_is_slow: false,
            disk_is_behind: false,
            run,
            started: wall,
            firewall_works: true,
            changes: Vec::new(),
            receipts: Vec::new(),
        };
        scene.work();
        scene
    }

    /// Sets the window, in seconds.
    pub(crate) fn set_window(&mut self, seconds: u64) {
        let config = ServerConfig { window: Duration::from_secs(seconds), ..config(&self.gateway) };
        self.engine.set_server_config(config);
        self.work();
    }

    /// A scene with the laptop as the only client, changed by `change`.
    pub(crate) fn with_laptop(change: impl FnOnce(&mut Client)) -> Self {
        let mut scene = Self::new();
        let mut laptop = client(LAPTOP);
        change(&mut laptop);
        scene.set_clients([laptop]);
        scene
    }

    /// The next run, on the same disk.
    pub(crate) fn restart(&self) -> Self {
        self.restart_with(Some(&self.disk))
    }

    /// The next run, at another date.
    pub(crate) fn restart_at(&self, wall: u64) -> Self {
        self.next(Some(&self.disk), wall)
    }

    /// The next run, with these records on its disk.
    pub(crate) fn restart_with(&self, disk: Option<&[Record]>) -> Self {
        self.next(disk, self.wall)
    }

    fn next(&self, disk: Option<&[Record]>, wall: u64) -> Self {
        let mut next = Self::run(self.run.wrapping_add(1), disk, wall);
        next.random = Counting(self.random.0);
        next
    }

    /// Lets time pass on both clocks.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.wall += seconds * 1000;
        self.engine.handle_timeout(self.now, Wall(self.wall));
        self.work();
    }

    pub(crate) fn request(&mut self, operation: Operation) -> Request {
        let mut nonce = [0; 8];
        self.random.try_fill_bytes(&mut nonce).unwrap();
        let client = client(LAPTOP).key.id();
        Request { operation, time: self.wall, nonce, client, address: None, challenge: [0; 8] }
    }

    pub(crate) fn seal(&mut self, request: &Request, signer: u8) -> Sealed {
        let mut request = *request;
        request.client = client(signer).key.id();
        let key = client(signer).key;
        let unsigned = UnsignedKnock::new(&self.gateway.card(), &key, &request, &mut self.random).unwrap();
        let signature = SigningKey::from_bytes(&[signer; 32]).sign(unsigned.to_sign()).to_bytes();
        let (bytes, key) = unsigned.seal(&signature).unwrap();
        Sealed { bytes, key }
    }

    /// Sends bytes from an address, and returns the answer.
    pub(crate) fn send(&mut self, source: &str, bytes: &[u8]) -> Option<[u8; 192]> {
        let source = source.parse().unwrap();
        self.arrives(source, PORT, bytes);
        self.work();
        let answers: Vec<_> = self.receipts.drain(..).collect();
        assert!(answers.len() <= 1 && answers.iter().all(|(to, _)| *to == source));
        answers.first().map(|(_, bytes)| *bytes)
    }

    /// Knocks the [`SEQUENCE`] of [`rules_with_sequence`] from an address.
    pub(crate) fn knock(&mut self, source: IpAddr) {
        for port in SEQUENCE {
            self.knock_once(source, port);
        }
    }

    pub(crate) fn knock_once(&mut self, source: IpAddr, port: u16) {
        self.arrives(source, port, b"knock\n");
    }

    fn arrives(&mut self, source: IpAddr, port: u16, payload: &[u8]) {
        let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let packet = Packet { source, source_port: 40000, destination, port, link: Link(3), payload };
        self.engine.handle_packet(&packet, self.now, Wall(self.wall), &mut AllRoutes);
    }

    /// Lets disk, firewall and network do their work.
    pub(crate) fn work(&mut self) {
        loop {
            let mut worked = false;
            while !self.disk_is_slow
                && let Some((ticket, record)) = self.engine.poll_record()
            {
                assert_eq!(self.engine.poll_change(), None, "nothing changes before the disk has it");
                match (self.disk_is_full, self.disk_is_behind) {
                    (true, _) => self.disk_is_behind = true,
                    (false, false) => self.disk.push(record),
                    // As the daemon does: records that could not be written are written with the next.
                    (false, true) => {
                        self.disk = self.remembered();
                        self.disk_is_behind = false;
                    }
                }
                self.engine.handle_recorded(ticket, !self.disk_is_full, self.now, Wall(self.wall));
                worked = true;
            }
            while let Some(change) = self.engine.poll_change() {
                let report = match change.clone() {
                    Change::Open(lease) => Some(Report::Done(lease.key)),
                    Change::Close(key) => Some(Report::Closed(key)),
                    Change::Watch(_) => None,
                };
                self.changes.push(change);
                if self.firewall_works
                    && let Some(report) = report
                {
                    self.engine.handle_report(report, self.now, Wall(self.wall));
                }
                worked = true;
            }
            while let Some(outgoing) = self.engine.poll_receipt(self.now, Wall(self.wall)) {
                self.receipts.push((outgoing.way.to.ip(), outgoing.bytes));
                assert_eq!(outgoing.way.from.port(), PORT);
                worked = true;
            }
            if !worked {
                return;
            }
        }
    }

    /// The lease that the firewall holds.
    pub(crate) fn lease(&self, door: &str, source: &str) -> Option<Lease> {
        self.engine.grants().get(&grant_key(door, source)).map(|running| running.lease.clone())
    }

    /// A connection uses up a lease, and the firewall reports it.
    pub(crate) fn use_up(&mut self, door: &str, source: &str) {
        let Some(lease) = self.lease(door, source) else { return };
        self.engine.handle_report(Report::Used(lease), self.now, Wall(self.wall));
        self.work();
    }

    /// Replaces the clients.
    pub(crate) fn set_clients(&mut self, clients: impl IntoIterator<Item = Client>) {
        let config = server_config(clients, &[lasting(&self.gateway, None)]);
        let rules = Rules { clients: Arc::clone(&config.clients), ..self.engine.access().rules().clone() };
        self.engine.change_rules(rules, self.now, Wall(self.wall)).unwrap();
        self.engine.set_server_config(config);
        self.work();
    }

    /// All records that have to be on the disk.
    pub(crate) fn remembered(&self) -> Vec<Record> {
        self.engine.server().unwrap().replay().records().collect()
    }

    /// Knocks with a clock that is off by `off` milliseconds, and answers the challenge if there is one, as a
    /// client does.
    pub(crate) fn gets_in(&mut self, off: i64) -> Answer {
        let time = self.wall.saturating_add_signed(off);
        let request = Request { time, ..self.request(open("ssh", 0)) };
        let receipt = self.ask(SOURCE, &request, LAPTOP).expect("an answer");
        if receipt.answer != Answer::Stale {
            return receipt.answer;
        }
        let challenge = receipt.challenge;
        let request = Request { time, challenge, ..self.request(open("ssh", 0)) };
        self.ask(SOURCE, &request, LAPTOP).expect("an answer").answer
    }

    pub(crate) fn ask(&mut self, source: &str, request: &Request, signer: u8) -> Option<Receipt> {
        let sealed = self.seal(request, signer);
        let answer = self.send(source, &sealed.bytes)?;
        Some(sealed.key.open(&answer).expect("a receipt for this knock"))
    }

    pub(crate) fn open(&mut self, door: &str, wanted: u32) -> Option<Receipt> {
        let request = self.request(open(door, wanted));
        self.ask(SOURCE, &request, LAPTOP)
    }

    pub(crate) fn opens(&mut self, door: &str, wanted: u32) -> Answer {
        self.open(door, wanted).expect("an answer").answer
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.engine.poll_event()).collect()
    }

    pub(crate) fn is_open(&self, door: &str, source: &str) -> bool {
        self.engine.grants().get(&grant_key(door, source)).is_some()
    }
}

pub(crate) fn open(door: &str, wanted: u32) -> Operation {
    Operation::Open { door: DoorId::of(door), wanted }
}

pub(crate) fn grant_key(door: &str, source: &str) -> GrantKey {
    GrantKey { door: DoorName::new(door).unwrap(), source: source.parse().unwrap() }
}
