//! Scenes with clients that have keys: who, whether fresh, and what for.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    access::Rules,
    challenge::RunKey,
    client::{Client, Clients},
    door::{Admission, Door, DoorName, Sequence},
    doorkeeper::{Change, Doorkeeper, Event, Report},
    freshness::{Freshness, Record},
    limits,
    packet::{Link, Packet},
    reception::{Audience, Reception, Stranger},
    time::{Moment, Wall},
};
use doors_spa::{
    PORT,
    gateway::{Gateway, GatewayKey},
    identity::{ClientKey, DoorId},
    letter::Letter,
    receipt::{Answer, Receipt, ReceiptKey},
    request::{Operation, Request},
};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use rand_core::{TryCryptoRng, TryRng};

/// Other bytes every time, the same in every run.
struct Counting(u64);

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
const START: u64 = 1_800_000_000_000;
const SOURCE: &str = "192.0.2.7";
const OTHER: &str = "198.51.100.9";
/// The clients' keys.
const LAPTOP: u8 = 1;
const PHONE: u8 = 2;

/// A knock on its way, and what opens its receipt.
struct Sealed {
    bytes: [u8; 192],
    key: ReceiptKey,
}

/// A doorkeeper, a disk, a clock and a date. The firewall does at once what it is asked.
struct Scene {
    keeper: Doorkeeper,
    gateway: GatewayKey,
    random: Counting,
    now: Moment,
    wall: u64,
    disk: Vec<Record>,
    disk_is_full: bool,
    firewall_works: bool,
    changes: Vec<Change>,
    receipts: Vec<(IpAddr, [u8; 192])>,
}

fn door(name: &str) -> Door {
    Door {
        name: DoorName::new(name).unwrap(),
        sequence: None,
        open_for: Duration::from_secs(30),
        max_open_for: Duration::from_secs(600),
        once: name == "once",
        require_address: name == "named",
    }
}

fn rules() -> Rules {
    Rules {
        doors: ["ssh", "admin", "once", "named"].map(door).into(),
        quiet_after_wrong: Duration::from_secs(5),
        forget_after: Duration::from_secs(30),
    }
}

fn client(number: u8) -> Client {
    let key = ClientKey::new(SigningKey::from_bytes(&[number; 32]).verifying_key().as_bytes()).unwrap();
    let doors = ["ssh", "once", "named"].map(|name| DoorName::new(name).unwrap());
    Client::new(if number == LAPTOP { "laptop" } else { "phone" }, key, doors.into())
}

fn audience(gateway: &GatewayKey) -> Audience {
    Audience {
        port: PORT,
        clients: Clients::new([client(LAPTOP), client(PHONE)]),
        gateways: vec![(Arc::new(Gateway::new(gateway).unwrap()), None)],
        window: Duration::from_secs(60),
    }
}

impl Scene {
    fn new() -> Self {
        Self::after(Some(&[]), START)
    }

    /// A run that finds this on the disk.
    fn after(records: Option<&[Record]>, wall: u64) -> Self {
        let gateway = GatewayKey::generate(&mut Counting(7));
        let now = Moment::new(Duration::from_secs(5));
        let freshness = Freshness::new(Duration::from_secs(60), records, now, Wall(wall));
        let disk = freshness.records().collect();
        let mut reception = Reception::new(RunKey([9; 32]), freshness);
        reception.listen_to(audience(&gateway));
        let mut keeper = Doorkeeper::new(rules()).unwrap();
        keeper.receive_clients(reception);
        Self {
            keeper,
            gateway,
            random: Counting(100),
            now,
            wall,
            disk,
            disk_is_full: false,
            firewall_works: true,
            changes: Vec::new(),
            receipts: Vec::new(),
        }
    }

    /// The next run, on the same disk.
    fn restart(&self) -> Self {
        let mut next = Self::after(Some(&self.disk), self.wall);
        next.random = Counting(self.random.0);
        next
    }

    /// Lets time pass, by both clocks.
    fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.wall += seconds * 1000;
        self.keeper.handle_timeout(self.now);
        self.work();
    }

    fn request(&mut self, operation: Operation) -> Request {
        let mut nonce = [0; 8];
        self.random.try_fill_bytes(&mut nonce).unwrap();
        let client = client(LAPTOP).key.id();
        Request { operation, time: self.wall, nonce, client, address: None, challenge: [0; 8] }
    }

    fn seal(&mut self, request: &Request, signer: u8) -> Sealed {
        let mut request = *request;
        request.client = client(signer).key.id();
        let letter = Letter::new(&self.gateway.card(), &request, &mut self.random).unwrap();
        let signature = SigningKey::from_bytes(&[signer; 32]).sign(letter.to_sign()).to_bytes();
        let (bytes, key) = letter.seal(&signature).unwrap();
        Sealed { bytes, key }
    }

    /// Sends bytes from an address, and gives what comes back.
    fn send(&mut self, source: &str, bytes: &[u8]) -> Option<[u8; 192]> {
        let source = source.parse().unwrap();
        let packet = Packet {
            source,
            source_port: 40000,
            destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            port: PORT,
            link: Link(3),
            payload: bytes,
        };
        self.keeper.handle_packet(&packet, self.now, Wall(self.wall));
        self.work();
        let answers: Vec<_> = self.receipts.drain(..).collect();
        assert!(answers.len() <= 1 && answers.iter().all(|(to, _)| *to == source));
        answers.first().map(|(_, bytes)| *bytes)
    }

    /// Disk, firewall and network do their work.
    fn work(&mut self) {
        loop {
            let mut worked = false;
            while let Some(record) = self.keeper.poll_record() {
                assert_eq!(self.keeper.poll_change(), None, "nothing changes before the disk has it");
                if !self.disk_is_full {
                    self.disk.push(record);
                }
                self.keeper.handle_recorded(!self.disk_is_full, self.now, Wall(self.wall));
                worked = true;
            }
            while let Some(change) = self.keeper.poll_change() {
                let report = match change.clone() {
                    Change::Open { admission, .. } => Report::Done { admission },
                    Change::Close { admission } => Report::Closed { admission },
                };
                self.changes.push(change);
                if self.firewall_works {
                    self.keeper.handle_report(report, self.now);
                }
                worked = true;
            }
            while let Some(outgoing) = self.keeper.poll_receipt(self.now, Wall(self.wall)) {
                self.receipts.push((outgoing.way.to.ip(), outgoing.bytes));
                assert_eq!(outgoing.way.from.port(), PORT);
                worked = true;
            }
            if !worked {
                return;
            }
        }
    }

    fn ask(&mut self, source: &str, request: &Request, signer: u8) -> Option<Receipt> {
        let sealed = self.seal(request, signer);
        let answer = self.send(source, &sealed.bytes)?;
        Some(sealed.key.open(&answer).expect("a receipt for this knock"))
    }

    fn open(&mut self, door: &str, wanted: u32) -> Option<Receipt> {
        let request = self.request(open(door, wanted));
        self.ask(SOURCE, &request, LAPTOP)
    }

    fn opens(&mut self, door: &str, wanted: u32) -> Answer {
        self.open(door, wanted).expect("an answer").answer
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.keeper.poll_event()).collect()
    }

    fn is_open(&self, door: &str, source: &str) -> bool {
        self.keeper.doors().get(&admission(door, source)).is_some()
    }
}

fn open(door: &str, wanted: u32) -> Operation {
    Operation::Open { door: DoorId::of(door), wanted }
}

fn admission(door: &str, source: &str) -> Admission {
    Admission { door: DoorName::new(door).unwrap(), source: source.parse().unwrap() }
}

#[test]
fn a_request_opens_its_door_and_says_for_how_long() {
    let mut scene = Scene::new();
    let receipt = scene.open("ssh", 0).unwrap();
    assert_eq!((receipt.answer, receipt.seconds, receipt.time), (Answer::Granted, 30, START));
    let until = scene.now.after(Duration::from_secs(30));
    let by = Some(client(LAPTOP).who);
    let opened = Change::Open { admission: admission("ssh", SOURCE), link: Link(3), until, by: by.clone() };
    assert_eq!(scene.changes, [opened]);
    let admission = admission("ssh", SOURCE);
    assert_eq!(
        scene.events(),
        [
            Event::Granted(admission.clone()),
            Event::Opened { admission: admission.clone(), until, by: by.clone() }
        ]
    );
    scene.wait(30);
    assert_eq!(scene.events(), [Event::Closed { admission, by }]);
}

#[test]
fn nobody_gets_more_time_than_door_and_client_allow() {
    let mut scene = Scene::new();
    assert_eq!(scene.open("ssh", 100).unwrap().seconds, 100);
    assert_eq!(scene.open("ssh", u32::MAX).unwrap().seconds, 600);
    // Less than what runs is no shortening.
    assert_eq!(scene.open("ssh", 5).unwrap().seconds, 600);
    let mut audience = audience(&scene.gateway);
    let mut short = client(LAPTOP);
    short.max_open_for = Some(Duration::from_secs(20));
    audience.clients = Clients::new([short]);
    let mut scene = Scene::new();
    scene.keeper.change_audience(audience);
    assert_eq!(scene.open("ssh", 0).unwrap().seconds, 20);
    assert_eq!(scene.open("ssh", 100).unwrap().seconds, 20);
}

#[test]
fn a_door_that_is_not_for_this_client_looks_like_none() {
    let mut scene = Scene::new();
    for door in ["admin", "none"] {
        assert_eq!(scene.opens(door, 0), Answer::NotAllowed);
    }
    assert!(scene.changes.is_empty());
    let request = scene.request(Operation::Ask { skip: 1 });
    let told = scene.ask(SOURCE, &request, LAPTOP).unwrap();
    let doors: Vec<&str> = told.doors.iter().map(|door| door.name.as_str()).collect();
    assert_eq!((told.answer, told.doors_in_all, doors), (Answer::Told, 3, vec!["once", "named"]));
}

#[test]
fn nothing_happens_before_the_disk_has_it_and_nothing_if_it_cannot() {
    let mut scene = Scene::new();
    scene.disk_is_full = true;
    assert_eq!(scene.opens("ssh", 0), Answer::NotRecorded);
    assert!(scene.changes.is_empty());
    scene.disk_is_full = false;
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn granted_is_said_only_when_the_firewall_has_said_so() {
    let mut scene = Scene::new();
    scene.firewall_works = false;
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert_eq!(scene.send(SOURCE, &sealed.bytes), None);
    // Whoever asks again waits with it.
    assert_eq!(scene.open("ssh", 0), None);
    scene.now = scene.now.after(limits::PATIENCE_WITH_FIREWALL);
    scene.keeper.handle_timeout(scene.now);
    scene.work();
    assert_eq!(scene.receipts.len(), 2);
    let (_, answer) = scene.receipts[0];
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Firewall);
}

#[test]
fn a_client_closes_what_it_has_opened_and_nothing_else() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, PHONE).unwrap().answer, Answer::NotAllowed);
    assert!(scene.is_open("ssh", SOURCE));
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, LAPTOP).unwrap().answer, Answer::Closed);
    assert!(!scene.is_open("ssh", SOURCE));
    assert_eq!(scene.changes.last(), Some(&Change::Close { admission: admission("ssh", SOURCE) }));
}

#[test]
fn a_knock_counts_once_from_wherever_and_whenever_it_comes_again() {
    let mut scene = Scene::new();
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    for source in [SOURCE, OTHER] {
        assert_eq!(scene.send(source, &sealed.bytes), None);
    }
    assert!(matches!(scene.events().last(), Some(Event::Stranger { why: Stranger::Copied, .. })));
    let mut next = scene.restart();
    assert_eq!(next.send(SOURCE, &sealed.bytes), None);
    assert!(matches!(next.events().last(), Some(Event::Stranger { why: Stranger::Replayed, .. })));
    let mut next = next.restart();
    // When it is forgotten, though its time is still within the window, it is stale; and its challenge is for
    // whoever can read it.
    for _ in 0..limits::KNOCKS_REMEMBERED + 1 {
        next.wait(1);
        assert_eq!(next.opens("ssh", 0), Answer::Granted);
    }
    let stale = next.send(OTHER, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&stale).unwrap().answer, Answer::Stale);
    assert!(!next.is_open("ssh", OTHER));
}

#[test]
fn a_wrong_clock_costs_one_challenge_and_the_challenge_is_for_one_place() {
    for time in [0, START - 61_000, START + 61_000, u64::MAX] {
        let mut scene = Scene::new();
        let mut request = scene.request(open("ssh", 0));
        request.time = time;
        let stale = scene.ask(SOURCE, &request, LAPTOP).unwrap();
        assert_eq!((stale.answer, stale.time), (Answer::Stale, START), "{time}");
        let again =
            |scene: &mut Scene| Request { time, challenge: stale.challenge, ..scene.request(open("ssh", 0)) };
        let request = again(&mut scene);
        assert_eq!(scene.ask(OTHER, &request, LAPTOP).unwrap().answer, Answer::Stale);
        let request = again(&mut scene);
        assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, Answer::Stale);
        let request = again(&mut scene);
        let sealed = scene.seal(&request, LAPTOP);
        assert!(scene.send(SOURCE, &sealed.bytes).is_some());
        assert!(scene.is_open("ssh", SOURCE));
        assert_eq!(scene.send(SOURCE, &sealed.bytes), None, "replayed");
        assert_eq!(scene.restart().send(SOURCE, &sealed.bytes), None, "replayed after a restart");
        scene.wait(90);
        let request = again(&mut scene);
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Stale, "too late");
    }
}

#[test]
fn no_challenge_is_answered_so_often_that_one_could_be_forgotten() {
    let mut scene = Scene::new();
    let mut request = scene.request(open("ssh", 0));
    request.time = 0;
    let challenge = scene.ask(SOURCE, &request, LAPTOP).unwrap().challenge;
    for number in 0..limits::CHALLENGES_USED + 3 {
        let request = Request { challenge, time: 0, ..scene.request(open("ssh", 0)) };
        let answer = scene.ask(SOURCE, &request, LAPTOP).unwrap().answer;
        let expected = if number < limits::CHALLENGES_USED { Answer::Granted } else { Answer::TooMany };
        assert_eq!(answer, expected, "{number}");
    }
    // The other client has its own.
    let mut request = scene.request(open("ssh", 0));
    request.time = 0;
    let challenge = scene.ask(SOURCE, &request, PHONE).unwrap().challenge;
    let request = Request { challenge, time: 0, ..scene.request(open("ssh", 0)) };
    assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, Answer::Granted);
}

#[test]
fn a_clock_that_was_wrong_and_is_right_again_needs_no_challenge() {
    let mut scene = Scene::new();
    for _ in 0..100 {
        scene.wait(10);
        let mut request = scene.request(open("ssh", 0));
        request.time = START + 50 * 365 * 24 * 3_600_000;
        let stale = scene.ask(SOURCE, &request, LAPTOP).unwrap();
        let challenge = stale.challenge;
        let request = Request { challenge, time: request.time, ..scene.request(open("ssh", 0)) };
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Granted);
    }
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    assert_eq!(scene.restart().opens("ssh", 0), Answer::Granted);
}

#[test]
fn without_the_memory_of_before_the_start_is_the_floor_over_every_later_restart() {
    let mut before = Scene::new();
    let mut request = before.request(open("ssh", 0));
    request.time = before.wall + 60_000;
    let sealed = before.seal(&request, LAPTOP);
    assert!(before.send(SOURCE, &sealed.bytes).is_some());

    let mut lost = Scene::after(None, START + 1000);
    for _ in 0..3 {
        lost.wait(1);
        let answer = lost.send(SOURCE, &sealed.bytes).unwrap();
        assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
        lost = lost.restart();
    }
    // A date that is set only after the start brings nothing back.
    let mut early = Scene::after(None, 0);
    early.wall = START + 2000;
    let answer = early.send(SOURCE, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
    // And it passes.
    lost.wait(130);
    assert_eq!(lost.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_client_fills_its_own_share_and_nobody_elses() {
    let mut scene = Scene::new();
    scene.firewall_works = false;
    for number in 0..limits::WAITING_PER_CLIENT + 5 {
        let mut request = scene.request(open("ssh", 0));
        request.address = Some(IpAddr::V4(Ipv4Addr::from(0xc633_6400 + u32::try_from(number).unwrap())));
        let told = scene.ask(SOURCE, &request, PHONE).map(|receipt| receipt.answer);
        // Whoever is refused is told so; the others wait for the firewall.
        assert_eq!(told, (number >= limits::WAITING_PER_CLIENT).then_some(Answer::TooMany), "{number}");
    }
    assert_eq!(scene.changes.len(), limits::WAITING_PER_CLIENT);
    scene.firewall_works = true;
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);

    let mut scene = Scene::new();
    let mut refused = 0;
    for number in 0..limits::GRANTS_PER_CLIENT + 5 {
        let mut request = scene.request(open("ssh", 0));
        request.address = Some(IpAddr::V4(Ipv4Addr::from(0xc633_0000 + u32::try_from(number).unwrap())));
        let answer = scene.ask(SOURCE, &request, PHONE).unwrap().answer;
        refused += usize::from(answer == Answer::TooMany);
        scene.now = scene.now.after(Duration::from_millis(2));
        scene.wall += 2;
    }
    assert_eq!(refused, 5);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn the_address_is_the_named_one_and_one_that_a_client_can_have() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("named", 0), Answer::Address);
    for none in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "ff02::1"] {
        let mut request = scene.request(open("ssh", 0));
        request.address = Some(none.parse().unwrap());
        let answer = scene.ask(SOURCE, &request, LAPTOP).unwrap().answer;
        // All zeroes are no address at all.
        assert_eq!(answer, Answer::Address, "{none}");
    }
    let mut request = scene.request(open("named", 0));
    request.address = Some(OTHER.parse().unwrap());
    assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Granted);
    assert!(scene.is_open("named", OTHER) && !scene.is_open("named", SOURCE));
}

#[test]
fn expired_and_misplaced_clients_are_strangers() {
    let restrictions: [fn(&mut Client); 2] = [
        |client| client.until = Some(Wall(START)),
        |client| client.from = vec!["198.51.100.0/24".parse().unwrap()],
    ];
    for restrict in restrictions {
        let mut scene = Scene::new();
        let mut audience = audience(&scene.gateway);
        let mut restricted = client(LAPTOP);
        restrict(&mut restricted);
        audience.clients = Clients::new([restricted]);
        scene.keeper.change_audience(audience);
        assert_eq!(scene.open("ssh", 0), None);
        assert!(scene.disk.is_empty() && scene.changes.is_empty());
        assert!(matches!(&scene.events()[..], [Event::Stranger { who: Some(_), .. }]));
    }
}

#[test]
fn a_grant_for_one_connection_that_is_used_up_can_be_had_again_at_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 0), Answer::Granted);
    let until = scene.keeper.doors().get(&admission("once", SOURCE)).unwrap().until;
    let used = Report::Used { admission: admission("once", SOURCE), until };
    // It is asked for again before the firewall says that it is used up.
    scene.wait(1);
    assert_eq!(scene.opens("once", 0), Answer::Granted);
    assert_eq!(scene.changes.len(), 2);
    scene.keeper.handle_report(used, scene.now);
    assert!(scene.is_open("once", SOURCE), "the later grant is not meant");
    let until = scene.keeper.doors().get(&admission("once", SOURCE)).unwrap().until;
    // Asked for again, for a shorter time, it is another grant all the same.
    assert_eq!(scene.opens("once", 1), Answer::Granted);
    scene.keeper.handle_report(Report::Used { admission: admission("once", SOURCE), until }, scene.now);
    assert!(scene.is_open("once", SOURCE));
    let until = scene.keeper.doors().get(&admission("once", SOURCE)).unwrap().until;
    scene.events();
    scene.keeper.handle_report(Report::Used { admission: admission("once", SOURCE), until }, scene.now);
    assert!(matches!(&scene.events()[..], [Event::Used { by: Some(_), .. }]));
}

#[test]
fn what_two_clients_have_opened_is_nobodys_to_close() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    let mut request = scene.request(open("ssh", 600));
    request.address = Some(SOURCE.parse().unwrap());
    assert_eq!(scene.ask(OTHER, &request, PHONE).unwrap().answer, Answer::Granted);
    for signer in [LAPTOP, PHONE] {
        let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
        assert_eq!(scene.ask(SOURCE, &close, signer).unwrap().answer, Answer::NotAllowed);
    }
    assert!(scene.is_open("ssh", SOURCE));
    // What was there before the start is closed by whoever may open it.
    let mut scene = Scene::new();
    let found = Report::Found {
        admission: admission("ssh", SOURCE),
        until: scene.now.after(Duration::from_secs(9)),
        by: None,
    };
    scene.keeper.handle_report(found, scene.now);
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, LAPTOP).unwrap().answer, Answer::Closed);
}

#[test]
fn what_a_sequence_has_opened_is_no_clients_to_close() {
    let mut scene = Scene::new();
    let mut with_sequence = rules();
    with_sequence.doors[0].sequence = Some(Sequence::new(&[1, 2, 3, 4, 6]).unwrap());
    scene.keeper.change_rules(with_sequence).unwrap();
    for port in [1, 2, 3, 4, 6] {
        let packet = Packet {
            source: SOURCE.parse().unwrap(),
            source_port: 40000,
            destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            port,
            link: Link(3),
            payload: b"knock\n",
        };
        scene.keeper.handle_packet(&packet, scene.now, Wall(scene.wall));
    }
    scene.work();
    assert!(scene.is_open("ssh", SOURCE));
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, LAPTOP).unwrap().answer, Answer::NotAllowed);
    assert!(scene.is_open("ssh", SOURCE));
}

#[test]
fn a_copy_from_where_the_client_may_not_be_does_not_take_the_originals_place() {
    let mut scene = Scene::new();
    let mut audience = audience(&scene.gateway);
    let mut restricted = client(LAPTOP);
    restricted.from = vec!["192.0.2.0/24".parse().unwrap()];
    audience.clients = Clients::new([restricted]);
    scene.keeper.change_audience(audience);
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
}

#[test]
fn a_flood_in_one_clients_name_pushes_no_other_clients_copies_out() {
    let mut scene = Scene::new();
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    // Whoever knows the card and the phone's public key makes these by the thousand.
    let tagged = scene.seal(&request, PHONE).bytes;
    for _ in 0..4 * limits::OPENINGS_AT_ONCE {
        let forged = scene.seal(&request, PHONE);
        scene.send(OTHER, &forged.bytes);
    }
    assert_eq!(scene.send(OTHER, &tagged), None);
    assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    assert!(matches!(scene.events().last(), Some(Event::Stranger { why: Stranger::Copied, .. })));
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn two_clients_together_fill_no_more_than_their_shares() {
    let mut scene = Scene::new();
    for number in 0..2 * limits::GRANTS_PER_CLIENT + 20 {
        for (signer, wanted) in [(LAPTOP, 500), (PHONE, 600)] {
            let mut request = scene.request(open("ssh", wanted));
            request.address = Some(IpAddr::V4(Ipv4Addr::from(0xc633_0000 + u32::try_from(number).unwrap())));
            scene.ask(SOURCE, &request, signer);
            scene.now = scene.now.after(Duration::from_millis(4));
            scene.wall += 4;
        }
    }
    assert!(scene.keeper.doors().iter().count() <= 2 * limits::GRANTS_PER_CLIENT);
}

#[test]
fn no_grant_outlives_its_client() {
    let mut scene = Scene::new();
    let mut audience = audience(&scene.gateway);
    let mut short = client(LAPTOP);
    short.until = Some(Wall(START + 7_000));
    audience.clients = Clients::new([short]);
    scene.keeper.change_audience(audience);
    assert_eq!(scene.open("ssh", 0).unwrap().seconds, 7);
}

#[test]
fn a_copy_is_silent_and_costs_no_keys_even_of_a_knock_that_was_stale() {
    let mut scene = Scene::new();
    let mut request = scene.request(open("ssh", 0));
    request.time = 0;
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    for _ in 0..3 * limits::OPENINGS_AT_ONCE {
        assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    }
    // The client's own budget is untouched by copies.
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_floor_that_rises_with_the_date_is_on_disk_before_anything_is_done() {
    let mut before = Scene::new();
    let request = before.request(open("ssh", 0));
    let sealed = before.seal(&request, LAPTOP);
    assert!(before.send(SOURCE, &sealed.bytes).is_some());
    // The memory is lost, and so is the date; then the date comes back, and somebody knocks.
    let mut early = Scene::after(None, 0);
    early.wall = START + 1000;
    assert_eq!(early.opens("ssh", 0), Answer::Stale);
    // And after another restart, nothing of before is fresh.
    let mut next = early.restart();
    let answer = next.send(OTHER, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
}

#[test]
fn a_client_lets_in_no_address_from_which_it_may_not_come() {
    let mut scene = Scene::new();
    let mut audience = audience(&scene.gateway);
    let mut restricted = client(LAPTOP);
    restricted.from = vec!["192.0.2.0/24".parse().unwrap()];
    audience.clients = Clients::new([restricted]);
    scene.keeper.change_audience(audience);
    let mut request = scene.request(open("ssh", 0));
    request.address = Some(OTHER.parse().unwrap());
    assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Address);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn an_old_gateway_key_works_until_its_date() {
    let mut scene = Scene::new();
    let old = scene.gateway.clone();
    let mut audience = audience(&GatewayKey::generate(&mut Counting(77)));
    audience.gateways.push((Arc::new(Gateway::new(&old).unwrap()), Some(Wall(START + 10_000))));
    scene.keeper.change_audience(audience);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    scene.wait(10);
    assert_eq!(scene.open("ssh", 0), None);
}

#[test]
fn no_salt_is_used_twice() {
    let mut scene = Scene::new();
    let mut salts = BTreeSet::new();
    for number in 0..100_u32 {
        let request = scene.request(open("ssh", number));
        let sealed = scene.seal(&request, LAPTOP);
        let answer = scene.send(SOURCE, &sealed.bytes).unwrap();
        assert!(salts.insert(answer[..16].to_vec()));
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Wait(u64),
    SetDate(i64),
    Restart,
    LoseDisk,
    /// A knock whose clock is off by so many milliseconds, with a challenge or without.
    Knock {
        off: i64,
        challenge: bool,
    },
    /// One of the knocks of before.
    Replay(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        (0_u64..100).prop_map(Deed::Wait),
        (-200_000_i64..200_000).prop_map(Deed::SetDate),
        Just(Deed::Restart),
        Just(Deed::LoseDisk),
        (-90_000_i64..90_000, any::<bool>()).prop_map(|(off, challenge)| Deed::Knock { off, challenge }),
        any::<usize>().prop_map(Deed::Replay),
        any::<usize>().prop_map(Deed::Replay),
    ];
    proptest::collection::vec(deed, 1..60)
}

proptest! {
    /// Behind the signature, too: whatever 64 bytes a client signs, it opens its own doors only, for no longer
    /// than it may, and nothing panics.
    #[test]
    fn whatever_a_client_signs_opens_no_more_than_it_may(
        mut bytes in any::<[u8; 64]>(),
        shaped in any::<bool>(),
        operation in 0_u8..5,
        door in prop_oneof![Just("ssh"), Just("once"), Just("named"), Just("admin"), Just("none")],
    ) {
        let mut scene = Scene::new();
        let laptop = client(LAPTOP);
        if shaped {
            [bytes[0], bytes[1], bytes[2], bytes[3]] = [operation, 0, 0, 0];
            bytes[8..16].copy_from_slice(&scene.wall.to_be_bytes());
            bytes[24..32].copy_from_slice(&laptop.key.id().0);
            bytes[32..40].copy_from_slice(&DoorId::of(door).0);
            bytes[56..].fill(0);
        }
        let card = scene.gateway.card();
        let letter = Letter::of_bytes(&card, laptop.key.id(), bytes, &mut scene.random).unwrap();
        let signature = SigningKey::from_bytes(&[LAPTOP; 32]).sign(letter.to_sign()).to_bytes();
        let (knock, key) = letter.seal(&signature).unwrap();
        if let Some(answer) = scene.send(SOURCE, &knock) {
            prop_assert!(key.open(&answer).is_some());
        }
        for (admission, running) in scene.keeper.doors().iter() {
            prop_assert!(laptop.doors.contains(&admission.door));
            prop_assert!(running.until <= scene.now.after(Duration::from_secs(600)));
        }
    }

    #[test]
    fn no_bytes_from_anybody_are_answered_or_change_anything(
        bytes in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        let mut scene = Scene::new();
        prop_assert_eq!(scene.send(SOURCE, &bytes), None);
        prop_assert!(scene.disk.is_empty() && scene.changes.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to clocks, disk and daemon: no knock ever opens a door twice, and whoever answers a
    /// challenge gets in.
    #[test]
    fn no_knock_ever_counts_twice_and_a_challenge_always_helps(deeds in deeds()) {
        let mut scene = Scene::new();
        let mut accepted: Vec<Sealed> = Vec::new();
        let mut floor_of_date = scene.wall;
        for deed in deeds {
            match deed {
                Deed::Wait(seconds) => scene.wait(seconds),
                Deed::SetDate(by) => scene.wall = scene.wall.saturating_add_signed(by).max(1_000_000_000),
                Deed::Restart => scene = scene.restart(),
                Deed::LoseDisk => {
                    // Lost at a moment whose date is no earlier than any before: a clock that goes back *and* a
                    // disk that is lost cannot be told from a first start.
                    scene.wall = scene.wall.max(floor_of_date);
                    let random = Counting(scene.random.0);
                    scene = Scene::after(None, scene.wall);
                    scene.random = random;
                }
                Deed::Knock { off, challenge } => {
                    let mut request = scene.request(open("ssh", 0));
                    request.time = scene.wall.saturating_add_signed(off);
                    let mut sealed = scene.seal(&request, LAPTOP);
                    let mut answer = sealed.key.open(&scene.send(SOURCE, &sealed.bytes).unwrap()).unwrap();
                    if answer.answer == Answer::Stale && challenge {
                        let time = request.time;
                        request = scene.request(open("ssh", 0));
                        (request.time, request.challenge) = (time, answer.challenge);
                        sealed = scene.seal(&request, LAPTOP);
                        answer = sealed.key.open(&scene.send(SOURCE, &sealed.bytes).unwrap()).unwrap();
                        prop_assert!([Answer::Granted, Answer::TooMany].contains(&answer.answer));
                    }
                    if answer.answer == Answer::Granted {
                        accepted.push(sealed);
                    }
                }
                Deed::Replay(which) => {
                    if let Some(sealed) = which.checked_rem(accepted.len()).map(|which| &accepted[which]) {
                        let answer = scene.send(OTHER, &sealed.bytes);
                        let answer = answer.map(|answer| sealed.key.open(&answer).unwrap().answer);
                        prop_assert!(matches!(answer, None | Some(Answer::Stale)), "{answer:?}");
                        prop_assert!(!scene.is_open("ssh", OTHER));
                    }
                }
            }
            floor_of_date = floor_of_date.max(scene.wall);
        }
    }
}
