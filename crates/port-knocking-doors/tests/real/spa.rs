//! Clients with keys, before a real kernel.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use doors_spa::{
    identity::DoorId,
    receipt::Answer as Told,
    request::{Operation, Request},
};
use port_knocking_doors::spa::replay_log::ReplayLog;
use rustix::process::Signal;

use crate::{
    raw_client::{Device, client, now, open},
    tampering::in_a_shell,
    testbed::{Answer, CLIENT, PATIENCE, PORT, SERVER, SILENCE, STRANGER, Testbed, server_for},
};

const DOORS: &str = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nopen_for = 30\n\
                     [[doors]]\nname = \"admin\"\nports = [\"8443/tcp\"]\nopen_for = 30\n";

/// A testbed whose daemon runs, with one client that may open the door `ssh`.
fn house_with(top: &str, more: &str) -> (Testbed, Device) {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let text = testbed.gateway(&format!("{top}\n{DOORS}\n{}", client("laptop", &device, &["ssh"], more)));
    testbed.start(&text);
    (testbed, device)
}

#[test]
fn a_key_opens_its_door_for_its_address_and_says_so_over_both_families() {
    for listen in ["capture", "sockets"] {
        let (mut testbed, device) = house_with(&format!("listen = \"{listen}\""), "");
        for (at, source) in CLIENT.into_iter().enumerate() {
            let receipt = device.open(&testbed, source, "ssh", 0);
            assert_eq!((receipt.answer, receipt.seconds), (Told::Granted, 30));
            assert_eq!(receipt.seen.ip().to_string(), source);
            // The receipt comes after the door: nobody has to wait for it.
            assert!(testbed.is_open(source), "{listen}");
            assert!(!testbed.is_open(STRANGER[at]), "{listen}");
            let line = testbed.hear("opened: door ssh for");
            let fingerprint = device.client().fingerprint();
            assert!(line.contains(&format!("for 30 s, by laptop ({fingerprint})")), "{line}");
        }
    }
}

#[test]
fn a_key_extends_for_as_long_as_it_may_and_closes_again() {
    let (mut testbed, device) = house_with("", "max_open_for = 120");
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).seconds, 30);
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 100).seconds, 100);
    testbed.hear("extended: door ssh");
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 100_000).seconds, 120);
    assert!((115..=120).contains(&testbed.grants("ssh")[CLIENT[0]]));
    let close = device.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(device.ask(&testbed, CLIENT[0], &close).answer, Told::Closed);
    testbed.until("the door is closed", |testbed| !testbed.is_open(CLIENT[0]));
    assert!(testbed.hear("closed: door ssh").contains("by laptop"));
}

#[test]
fn a_door_that_could_not_be_closed_and_was_asked_for_again_is_open() {
    let (mut testbed, device) = house_with("", "");
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    testbed.hear("opened: door ssh");
    // A table with an owner can be changed by nobody else, and goes with its owner.
    let over = testbed.place_for("over");
    let owner = format!(
        "(echo 'add table inet port_knocking_doors {{ flags owner; }}'; until [ -e {} ]; do sleep 0.05; done) | nft -i",
        over.display()
    );
    testbed.daemon().signal(Signal::STOP).unwrap();
    testbed.on_server("nft", &["flush", "ruleset"]);
    let mut owner = in_a_shell(&testbed, &owner);
    testbed.until("the table is another's", |testbed| testbed.table().contains("owner"));
    testbed.daemon().signal(Signal::CONT).unwrap();
    let close = device.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(device.ask(&testbed, CLIENT[0], &close).answer, Told::Firewall);
    testbed.hear("cannot close the door ssh");
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Firewall);
    testbed.hear("cannot open the door ssh");
    std::fs::write(over, "").unwrap();
    assert!(owner.finish(PATIENCE).unwrap().is_some_and(|(status, _)| status.success()));
    testbed.until("the gate is back", |testbed| testbed.ask(STRANGER[0], PORT) == Answer::Silence);
    testbed.hear("opened: door ssh");
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn a_client_is_told_what_it_may_open_and_nothing_of_the_rest() {
    let (testbed, device) = house_with("", "");
    let told = device.ask(&testbed, CLIENT[1], &device.request(Operation::Ask { skip: 0 }));
    let doors: Vec<(&str, u32)> = told.doors.iter().map(|door| (door.name.as_str(), door.longest)).collect();
    assert_eq!((told.answer, told.doors_in_all, doors), (Told::Told, 1, vec![("ssh", 3600)]));
    for door in ["admin", "no-such-door"] {
        assert_eq!(device.open(&testbed, CLIENT[0], door, 0).answer, Told::NotAllowed, "{door}");
    }
    assert_eq!(testbed.ask(CLIENT[0], 8443), Answer::Silence);
}

#[test]
fn once_lets_in_the_first_connection_and_no_other() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let door = "[[doors]]\nname = \"web\"\nports = [\"22/tcp\"]\ngrant = \"once\"\n";
    let text = testbed.gateway(&format!("{door}{}", client("phone", &device, &["web"], "")));
    testbed.start(&text);
    for source in CLIENT {
        assert_eq!(device.open(&testbed, source, "web", 0).answer, Told::Granted);
        let mut first = testbed.connect(source, PORT).unwrap();
        assert_eq!(testbed.ask(source, PORT), Answer::Silence);
        assert!(crate::testbed::echoes(&mut first), "the connection itself lives on");
        // Asking again brings another one, at once.
        assert_eq!(device.open(&testbed, source, "web", 0).answer, Told::Granted);
        assert_eq!(testbed.ask(source, PORT), Answer::Accepted);
        assert_eq!(testbed.ask(source, PORT), Answer::Silence);
    }
}

#[test]
fn behind_one_address_two_clients_get_one_connection_each_and_both_are_in_the_log() {
    let mut testbed = Testbed::new();
    let card = testbed.card();
    let (phone, laptop) = (Device::new(1, &card), Device::new(2, &card));
    let door = "[[doors]]\nname = \"web\"\nports = [\"22/tcp\"]\ngrant = \"once\"\n";
    let clients = client("phone", &phone, &["web"], "") + &client("laptop", &laptop, &["web"], "");
    testbed.start(&testbed.gateway(&format!("{door}{clients}")));
    for source in CLIENT {
        for device in [&phone, &laptop] {
            assert_eq!(device.open(&testbed, source, "web", 0).answer, Told::Granted);
        }
        testbed.hear(&format!("opened: door web for {source}, for 10 s, by phone"));
        testbed.hear(&format!("also open: door web for {source}, for 10 s, by laptop"));
        let mut first = testbed.connect(source, PORT).unwrap();
        testbed.hear(&format!("opened: door web for {source}, for 10 s, by laptop"));
        let mut second = testbed.connect(source, PORT).unwrap();
        assert!(crate::testbed::echoes(&mut first) && crate::testbed::echoes(&mut second));
        assert_eq!(testbed.ask(source, PORT), Answer::Silence);
    }
}

/// Ends those who wait for this.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn once_lets_in_one_packet_for_each_grant_however_many_are_under_way() {
    const GRANTS: usize = 250;
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let door = "[[doors]]\nname = \"web\"\nports = [\"6000/udp\"]\ngrant = \"once\"\n";
    testbed.start(&testbed.gateway(&format!("{door}{}", client("phone", &device, &["web"], ""))));
    let target = SocketAddr::new(server_for(CLIENT[0]), 6000);
    // It never answers, so each datagram looks like the first of its connection.
    let listener = testbed.server.enter(|| UdpSocket::bind(target)).unwrap();
    listener.set_read_timeout(Some(SILENCE)).unwrap();
    let is_over = AtomicBool::new(false);
    let let_in = thread::scope(|scope| {
        for _ in 0..2 {
            let sender = testbed.client.enter(|| UdpSocket::bind((CLIENT[0], 0))).unwrap();
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // A full queue is no reason to stop.
                    let _ = sender.send_to(b"me, too", target);
                }
            });
        }
        // Also if something fails here.
        let stop = Stop(&is_over);
        let mut let_in = 0;
        for _ in 0..GRANTS {
            assert_eq!(device.open(&testbed, CLIENT[0], "web", 0).answer, Told::Granted);
            // Whoever comes next is behind the one that has used it up.
            let_in += usize::from(listener.recv(&mut [0; 16]).is_ok());
        }
        drop(stop);
        let_in + std::iter::from_fn(|| listener.recv(&mut [0; 16]).ok()).count()
    });
    assert_eq!(let_in, GRANTS);
}

#[test]
fn a_used_grant_stays_used_whatever_happens_to_the_table() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let door = "[[doors]]\nname = \"web\"\nports = [\"22/tcp\"]\ngrant = \"once\"\nopen_for = 60\n";
    let text = testbed.gateway(&format!(
        "firewall_rules_check_periode_seconds = 1\n{door}{}",
        client("phone", &device, &["web"], "")
    ));
    testbed.start(&text);
    for source in CLIENT {
        assert_eq!(device.open(&testbed, source, "web", 0).answer, Told::Granted);
    }
    testbed.connect(CLIENT[0], PORT).unwrap();
    assert!(testbed.hear("used: door web for").contains("by phone"));
    // The other one is still good after the table was made anew, for another plan.
    testbed.write(&format!("trusted = [\"203.0.113.9/32\"]\n{text}"));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
    assert_eq!(testbed.grants("web").into_keys().collect::<Vec<_>>(), [CLIENT[1]]);
    testbed.on_server("nft", &["flush", "ruleset"]);
    testbed.hear("another program or an administrator has changed the firewall");
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
}

#[test]
fn a_door_may_want_the_address_to_be_named() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let door = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nrequire_address = true\n";
    let text = testbed.gateway(&format!("{door}{}", client("phone", &device, &["ssh"], "")));
    testbed.start(&text);
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Address);
    assert!(!testbed.is_open(CLIENT[0]));
    let mut request = device.request(open("ssh", 0));
    request.address = Some(CLIENT[0].parse().unwrap());
    // Held back, and sent from elsewhere: it opens for the named address, and not for the sender's.
    assert_eq!(device.ask(&testbed, STRANGER[0], &request).answer, Told::Granted);
    assert!(testbed.is_open(CLIENT[0]));
    assert!(!testbed.is_open(STRANGER[0]));
    for none in ["224.0.0.1", "255.255.255.255", "ff02::1"] {
        let mut request = device.request(open("ssh", 0));
        request.address = Some(none.parse().unwrap());
        assert_eq!(device.ask(&testbed, CLIENT[0], &request).answer, Told::Address, "{none}");
    }
}

#[test]
fn no_door_opens_for_an_address_that_can_be_no_clients_and_the_log_says_why() {
    let sequence =
        "[[doors]]\nname = \"web\"\nports = [\"443/tcp\"]\nsequence = [7001, 7002, 7003, 7004, 7006]\n";
    for listen in ["capture", "sockets"] {
        let mut testbed = Testbed::new();
        let device = Device::new(1, &testbed.card());
        let doors = format!("listen = \"{listen}\"\n{DOORS}{sequence}");
        testbed.start(&testbed.gateway(&format!("{doors}{}", client("laptop", &device, &["ssh"], ""))));
        let named = |testbed: &Testbed, address: &str| {
            let mut request = device.request(open("ssh", 0));
            request.address = Some(address.parse().unwrap());
            device.ask(testbed, CLIENT[0], &request).answer
        };
        for (address, why) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            (SERVER[0], "is an address of this machine"),
            (SERVER[1], "is an address of this machine"),
            ("192.0.2.255", "is the broadcast address of a network here"),
            ("255.255.255.255", "limited broadcast (RFC 8190"),
        ] {
            assert_eq!(named(&testbed, address), Told::Address, "{address}");
            testbed.hear(why);
        }
        // An address that comes while the daemon runs.
        assert_eq!(named(&testbed, "192.0.2.99"), Told::Granted);
        testbed.server.address("server", "192.0.2.98/24".parse().unwrap()).unwrap();
        testbed.until("the new address is known", |testbed| named(testbed, "192.0.2.98") == Told::Address);
        // The machine itself, with a key and with a sequence.
        let loopback: std::net::IpAddr = "127.0.0.1".parse().unwrap();
        let socket = testbed.server.enter(|| UdpSocket::bind((loopback, 0))).unwrap();
        socket.set_read_timeout(Some(crate::testbed::PATIENCE)).unwrap();
        let mut request = device.request(open("ssh", 0));
        for answer in [Told::Stale, Told::Address] {
            let sealed = device.seal(&request);
            socket.send_to(&sealed.bytes, (loopback, doors_spa::PORT)).unwrap();
            let mut buffer = [0; 1500];
            let length = loop {
                match socket.recv(&mut buffer) {
                    Ok(length) => break length,
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                    Err(error) => panic!("{error}"),
                }
            };
            let receipt = sealed.receipt_key.open(&buffer[..length]).unwrap();
            assert_eq!(receipt.answer, answer);
            request = device.again(&request, &receipt);
        }
        for port in [7001, 7002, 7003, 7004, 7006] {
            // The kernel may say once that nobody listens there.
            let sent = || socket.send_to(b"knock\n", (loopback, port));
            sent().or_else(|_| sent()).unwrap();
        }
        testbed.hear(
            "not opened: the sequence of 127.0.0.1 is right, and 127.0.0.1 can be no client's: loopback",
        );
        assert_eq!(testbed.grants("ssh").into_keys().collect::<Vec<_>>(), ["192.0.2.99"]);
    }
}

#[test]
fn no_door_opens_for_an_anycast_address_of_this_machine_nor_for_one_that_leads_to_it_through_a_tunnel() {
    for listen in ["capture", "sockets"] {
        let (mut testbed, device) = house_with(&format!("listen = \"{listen}\""), "");
        let named = |testbed: &Testbed, address: &str| {
            let mut request = device.request(open("ssh", 0));
            request.address = Some(address.parse().unwrap());
            device.ask(testbed, CLIENT[0], &request).answer
        };
        for address in ["2002:c000:201::7", "::c000:201"] {
            assert_eq!(named(&testbed, address), Told::Address, "{address}");
            testbed.hear(&format!("{address} stands for 192.0.2.1, which is an address of this machine"));
        }
        assert_eq!(named(&testbed, "2002:c000:207::7"), Told::Granted);
        assert_eq!(named(&testbed, "64:ff9b::c000:207"), Told::Granted);
        // A machine that becomes a router has the anycast address of all routers in each network.
        assert_eq!(named(&testbed, "2001:db8::"), Told::Granted);
        testbed.server.enter(|| std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")).unwrap();
        testbed
            .until("the anycast address is known", |testbed| named(testbed, "2001:db8::") == Told::Address);
        testbed.hear("2001:db8:: is an address of this machine");
        // One that comes by hand, and goes.
        let mut route = ["-6", "route", "add", "anycast", "2001:db8::77", "dev", "lo", "table", "local"];
        testbed.on_server("ip", &route);
        testbed.until("it is known", |testbed| named(testbed, "2001:db8::77") == Told::Address);
        route[2] = "del";
        testbed.on_server("ip", &route);
        testbed.until("it is gone", |testbed| named(testbed, "2001:db8::77") == Told::Granted);
    }
}

#[test]
fn strangers_are_not_answered_and_open_nothing() {
    let (mut testbed, device) = house_with("", "");
    let request = || device.request(open("ssh", 0));
    let other_house = Testbed::new();
    let other_gateway = Device::new(1, &other_house.card());
    let stranger = Device::new(2, &device.card);
    let good = device.seal(&request()).bytes;
    let mut silent: Vec<(&str, Vec<u8>)> = vec![
        ("wrong card", other_gateway.seal(&request()).bytes.to_vec()),
        ("unknown key", stranger.seal(&stranger.request(open("ssh", 0))).bytes.to_vec()),
        ("another's signature", device.seal_with(&request(), &stranger.key).bytes.to_vec()),
        ("longer", [&good[..], &[0]].concat()),
    ];
    silent.extend([0, 1, 100, 191].map(|length| ("truncated", good[..length].to_vec())));
    for (what, bytes) in silent {
        assert!(testbed.is_silent(CLIENT[0], &bytes), "{what}");
    }
    assert!(testbed.grants("ssh").is_empty());
    testbed.hear("in the name of a client that has not signed it");
    // The knock itself was good.
    assert!(!testbed.is_silent(CLIENT[0], &good));
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn a_replay_is_not_answered_and_opens_nothing() {
    let (mut testbed, device) = house_with("", "");
    let stale = device.ask_once(&testbed, CLIENT[0], &device.request(open("ssh", 0)));
    let request = device.again(&device.request(open("ssh", 0)), &stale);
    let sealed = device.seal(&request);
    assert!(!testbed.is_silent(CLIENT[0], &sealed.bytes));
    for source in [CLIENT[0], STRANGER[0], CLIENT[1]] {
        assert!(testbed.is_silent(source, &sealed.bytes), "replayed from {source}");
    }
    for signal in [Signal::TERM, Signal::KILL] {
        testbed.end(signal);
        let text = std::fs::read_to_string(testbed.directory.path().join("doors.toml")).unwrap();
        testbed.start(&text);
        for source in [CLIENT[0], STRANGER[0]] {
            assert!(testbed.is_silent(source, &sealed.bytes), "replayed from {source} after a restart");
        }
        // Whose it is stands beside the grant in the kernel.
        let who = format!("laptop ({})", device.client().fingerprint());
        assert!(testbed.hear("found open: door ssh").ends_with(&format!("by {who}")));
        assert!(testbed.table().contains(&format!("comment \"laptop {}\"", device.client().fingerprint())));
    }
    assert_eq!(testbed.grants("ssh").len(), 1);
    // Another gateway of the same clients, with another card.
    let (other, _) = house_with("", "");
    assert!(other.is_silent(CLIENT[0], &sealed.bytes));
    assert!(other.grants("ssh").is_empty());
}

#[test]
fn no_knock_from_before_a_start_opens_whatever_became_of_the_state() {
    let mut testbed = Testbed::new();
    let state = testbed.directory.path().join("state");
    // Whole and empty: after a first start, no knock is accepted by its time for an hour.
    ReplayLog::open(&state, &[]).unwrap();
    let device = Device::new(1, &testbed.card());
    let laptop = client("laptop", &device, &["ssh"], "");
    let text = testbed.gateway(&format!("spa_window = 5\n{DOORS}\n{laptop}"));
    testbed.start(&text);
    let older = std::fs::read(state.join("knocks")).unwrap();
    // So long after the start, a knock is accepted by its time.
    std::thread::sleep(std::time::Duration::from_secs(6));
    let mut request = device.request(open("ssh", 0));
    request.time = now() + 4_000;
    let sealed = device.seal(&request);
    let answer = testbed.spa(CLIENT[0], &sealed.bytes, crate::testbed::PATIENCE).unwrap();
    assert_eq!(sealed.receipt_key.open(&answer).unwrap().answer, Told::Granted);
    // The state is lost, is of a while ago, is damaged, is as it was.
    type Change = fn(&std::path::Path, &[u8]);
    let changes: [Change; 4] = [
        |state, _| std::fs::remove_dir_all(state).unwrap(),
        |state, older| std::fs::write(state.join("knocks"), older).unwrap(),
        |state, _| {
            let mut bytes = std::fs::read(state.join("knocks")).unwrap();
            bytes[16 + 40] ^= 1;
            std::fs::write(state.join("knocks"), bytes).unwrap();
        },
        |_, _| {},
    ];
    for change in changes {
        testbed.end(Signal::KILL);
        testbed.on_server("nft", &["flush", "ruleset"]);
        change(&state, &older);
        testbed.start(&text);
        let answer = testbed.spa(STRANGER[0], &sealed.bytes, crate::testbed::SILENCE);
        let answer = answer.map(|answer| sealed.receipt_key.open(&answer).unwrap().answer);
        assert!(matches!(answer, None | Some(Told::Stale)), "{answer:?}");
        assert!(testbed.grants("ssh").is_empty());
        // A client gets in all the same.
        assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    }
}

#[test]
fn a_damaged_journal_keeps_no_client_out_and_the_log_says_how_much_is_lost() {
    let (mut testbed, device) = house_with("", "");
    for _ in 0..3 {
        assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    }
    let text = std::fs::read_to_string(testbed.directory.path().join("doors.toml")).unwrap();
    let journal = testbed.directory.path().join("state/knocks");
    testbed.end(Signal::TERM);
    let good = std::fs::read(&journal).unwrap();
    // The second and the third record; the header; the end, with the last record but half of it.
    let mut middle = good.clone();
    middle[16 + 32..16 + 96].fill(7);
    let mut header = good.clone();
    header[9] ^= 4;
    let length = 16 + 32 * 4 + 16;
    let missing = good.len() - length;
    for (bytes, said) in [
        (
            b"something else".to_vec(),
            "its header is damaged, so that nothing in it counts; it is kept as knocks.damaged".to_owned(),
        ),
        (middle, "2 records (64 bytes) are not whole".to_owned()),
        (
            header.clone(),
            "its header is damaged, so that nothing in it counts; it is kept as knocks.damaged".to_owned(),
        ),
        (
            good[..length].to_vec(),
            format!("1 record (16 bytes) is not whole, and at least {missing} bytes are missing at its end"),
        ),
    ] {
        std::fs::write(&journal, bytes).unwrap();
        testbed.start(&text);
        let line = testbed.hear("knocks was damaged");
        assert!(line.contains(&said), "{line}");
        assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
        testbed.end(Signal::TERM);
    }
    assert_eq!(std::fs::read(journal.with_extension("damaged")).unwrap(), header);
}

#[test]
fn a_daemon_that_cannot_hear_clients_guards_all_the_same_and_heals() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let sequence =
        "[[doors]]\nname = \"web\"\nports = [\"443/tcp\"]\nsequence = [7001, 7002, 7003, 7004, 7006]\n";
    let text = testbed.gateway(&format!("{DOORS}{sequence}{}", client("laptop", &device, &["ssh"], "")));
    let state = testbed.directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::create_dir(state.join("knocks")).unwrap();
    testbed.start(&text);
    assert!(testbed.hear("clients with keys are not heard").contains("knocks"));
    assert!(!testbed.is_open(STRANGER[0]));
    assert!(testbed.is_silent(CLIENT[0], &device.seal(&device.request(open("ssh", 0))).bytes));
    // Whoever knocks a sequence still gets in, and the rest heals by itself.
    testbed.knock(CLIENT[0], &[7001, 7002, 7003, 7004, 7006]);
    testbed.hear("opened: door web");
    std::fs::remove_dir(state.join("knocks")).unwrap();
    testbed.hear("clients with keys are heard again");
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
}

#[test]
fn a_failed_reload_leaves_clients_where_they_were() {
    for listen in ["capture", "sockets"] {
        let (mut testbed, device) = house_with(&format!("listen = \"{listen}\""), "");
        let path = testbed.directory.path().join("doors.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        testbed.write(&format!("spa_port = 4711\n{text}"));
        let key = testbed.directory.path().join("gateway.key");
        std::fs::rename(&key, key.with_extension("away")).unwrap();
        testbed.daemon().signal(Signal::HUP).unwrap();
        testbed.hear("the old configuration stays in force");
        assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted, "{listen}");
    }
}

#[test]
fn a_wrong_clock_on_either_side_locks_nobody_out() {
    let (testbed, device) = house_with("", "");
    let years = |years: u64| years * 365 * 24 * 3600 * 1000;
    for time in [0, 1, now() - years(50), now() - 100_000, now() + 100_000, now() + years(50), u64::MAX] {
        let mut request = device.request(open("ssh", 0));
        request.time = time;
        let stale = device.ask_once(&testbed, CLIENT[0], &request);
        assert_eq!((stale.answer, stale.seconds), (Told::Stale, 0), "{time}");
        assert!(stale.time.abs_diff(now()) < 5000);
        request = device.request(open("ssh", 0));
        (request.time, request.challenge) = (time, stale.challenge);
        // From elsewhere the challenge is worth nothing.
        assert_eq!(device.ask_once(&testbed, STRANGER[0], &request).answer, Told::Stale);
        let request = device.again(&request, &stale);
        let sealed = device.seal(&request);
        let answer = testbed.spa(CLIENT[0], &sealed.bytes, crate::testbed::PATIENCE).unwrap();
        assert_eq!(sealed.receipt_key.open(&answer).unwrap().answer, Told::Granted, "{time}");
        assert!(testbed.is_silent(CLIENT[0], &sealed.bytes), "the challenge, replayed");
    }
    assert!(!testbed.is_open(STRANGER[0]));
}

#[test]
fn an_expired_client_or_one_in_the_wrong_network_is_a_stranger() {
    for more in ["until = 2020-12-31", "from = [\"203.0.113.0/24\"]"] {
        let (mut testbed, device) = house_with("", more);
        let sealed = device.seal(&device.request(open("ssh", 0)));
        assert!(testbed.is_silent(CLIENT[0], &sealed.bytes), "{more}");
        assert!(testbed.grants("ssh").is_empty());
        assert!(testbed.hear("not answered").contains("by laptop"));
    }
    let (testbed, device) = house_with("", "from = [\"192.0.2.0/24\"]");
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    // It cannot let in an address from which it may not come.
    let mut request = device.request(open("ssh", 0));
    request.address = Some(STRANGER[0].parse().unwrap());
    assert_eq!(device.ask(&testbed, CLIENT[0], &request).answer, Told::Address);
}

#[test]
fn a_client_is_removed_from_a_daemon_whose_file_was_replaced_meanwhile() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    testbed.client_file("laptop", &device, "");
    testbed.start(&testbed.gateway(DOORS));
    let path = testbed.place_for("doors.toml");
    // As an editor does it.
    let text = std::fs::read_to_string(&path).unwrap() + "# another line\n";
    let new = testbed.place_for("doors.new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, &path).unwrap();
    let (status, said) = testbed.run(&["client", "remove", "laptop", "--conf", path.to_str().unwrap()]);
    assert!(status.success() && said.contains("the running daemon has taken it over"), "{said}");
    assert!(testbed.is_silent(CLIENT[0], &device.seal(&device.request(open("ssh", 0))).bytes));
    testbed.end(rustix::process::Signal::TERM);
}

#[test]
fn a_command_fails_if_the_daemon_refuses_what_it_has_written() {
    let mut testbed = Testbed::new();
    let card = testbed.card();
    let (device, other) = (Device::new(1, &card), Device::new(2, &card));
    testbed.client_file("laptop", &device, "");
    testbed.client_file("phone", &other, "");
    testbed.start(&testbed.gateway(DOORS));
    let path = testbed.place_for("doors.toml");
    let conf = path.to_str().unwrap();
    std::fs::rename(testbed.place_for("gateway.key"), testbed.place_for("away")).unwrap();
    let (status, said) = testbed.run(&["client", "remove", "laptop", "--conf", conf]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains(
            "removed: laptop, but this gateway has no key yet, so that the running daemon goes on with"
        ),
        "{said}"
    );
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted, "as it was said");
    testbed.end(rustix::process::Signal::TERM);
}

#[test]
fn clients_come_and_go_while_the_daemon_runs() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let text = testbed.gateway(&format!("# mine\n{DOORS}"));
    testbed.start(&text);
    let path = testbed.directory.path().join("doors.toml");
    let path = path.to_str().unwrap();
    let key = device.client().to_openssh();
    let (status, said) =
        testbed.run(&["client", "add", "laptop", "--conf", path, "--key", &key, "--door", "ssh"]);
    assert!(status.success() && said.contains("the running daemon has taken it over"), "{said}");
    // The replay log for the very first client is opened beside the reload.
    testbed.until("the client is heard", |testbed| {
        !testbed.is_silent(CLIENT[0], &device.seal(&device.request(open("ssh", 0))).bytes)
    });
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    let (_, said) = testbed.run(&["client", "list", "--conf", path]);
    assert!(said.contains("laptop") && said.contains(&device.client().fingerprint()), "{said}");
    let (status, said) =
        testbed.run(&["client", "add", "other", "--conf", path, "--key", &key, "--door", "ssh"]);
    assert!(!status.success() && said.contains("this is the key of the client `laptop` already"), "{said}");
    let (status, said) = testbed.run(&["client", "remove", "laptop", "--conf", path]);
    assert!(status.success() && said.contains("the running daemon has taken it over"), "{said}");
    testbed.hear(&format!("closed: door ssh for {}, by laptop", CLIENT[0]));
    assert!(!testbed.is_open(CLIENT[0]), "a client that is removed has no open door");
    assert!(testbed.is_silent(CLIENT[0], &device.seal(&device.request(open("ssh", 0))).bytes));
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "nothing of ours writes there");
}

#[test]
fn with_firewalld_a_key_opens_and_closes_and_rich_rules_alone_refuse_once() {
    let mut testbed = Testbed::with_firewalld();
    let device = Device::new(1, &testbed.card());
    let text = testbed.gateway(&format!("{DOORS}\n{}", client("laptop", &device, &["ssh"], "")));
    let text = text.replace("firewall = \"nftables\"", "firewall = \"auto\"");
    testbed.start(&text);
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    assert!(testbed.is_open(CLIENT[0]));
    let close = device.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(device.ask(&testbed, CLIENT[0], &close).answer, Told::Closed);
    assert!(!testbed.is_open(CLIENT[0]), "the receipt comes after the door has closed");
    testbed.end(Signal::TERM);
    let text = text.replace("firewall = \"auto\"", "firewall = \"rich-rules\"");
    let path = testbed.write(&text.replacen("open_for = 30", "grant = \"once\"", 1));
    for command in [&["check", "--conf"][..], &["--conf"]] {
        let (status, said) = testbed.run(&[command, &[path.to_str().unwrap()]].concat());
        assert_eq!(status.code(), Some(2), "trying again is of no use: {said}");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            said.contains("grant = \"once\", which rich rules alone cannot do") && said.contains("\"auto\""),
            "{said}"
        );
    }
}

#[test]
fn check_names_the_clients_and_what_they_lack() {
    let (testbed, device) = house_with("", "");
    let path = testbed.directory.path().join("doors.toml");
    let path = path.to_str().unwrap();
    let (status, said) = testbed.run(&["check", "--conf", path]);
    assert!(status.success(), "{said}");
    assert!(said.contains(&format!("to the client laptop ({})", device.client().fingerprint())), "{said}");
    assert!(said.contains("heard on UDP port 62201"), "{said}");
    std::fs::remove_file(testbed.directory.path().join("gateway.key")).unwrap();
    let (status, said) = testbed.run(&["check", "--conf", path]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("port-knocking-doors gateway init"), "{said}");
}

#[test]
fn after_a_rotation_both_cards_work_and_the_old_one_for_its_time() {
    let (mut testbed, old) = house_with("", "");
    let path = testbed.directory.path().join("doors.toml");
    let path = path.to_str().unwrap().to_owned();
    let (status, said) = testbed.run(&["gateway", "rotate", "--conf", &path]);
    assert!(status.success(), "{said}");
    testbed.hear("the configuration has been read again");
    let (_, card) = testbed.run(&["gateway", "card", "--conf", &path]);
    let new = Device::new(1, &card.trim().parse().unwrap());
    assert_ne!(new.card, old.card);
    for device in [&old, &new] {
        assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    }
    let (status, said) = testbed.run(&["gateway", "rotate", "--keep", "0", "--conf", &path]);
    assert!(!status.success() && said.contains("would be locked out"), "{said}");
    let (status, said) = testbed.run(&["gateway", "rotate", "--keep", "0", "--drop-older", "--conf", &path]);
    assert!(status.success(), "{said}");
    testbed.hear("the configuration has been read again");
    assert!(testbed.is_silent(CLIENT[0], &new.seal(&new.request(open("ssh", 0))).bytes));
}

#[test]
fn on_a_full_disk_nothing_opens_and_the_client_is_told() {
    let mut testbed = Testbed::new();
    let state = FullDisk::at(testbed.directory.path().join("state"));
    let device = Device::new(1, &testbed.card());
    let text = testbed.gateway(&format!("{DOORS}\n{}", client("laptop", &device, &["ssh"], "")));
    testbed.start(&text);
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    state.fill();
    assert_eq!(device.open(&testbed, CLIENT[1], "ssh", 0).answer, Told::NotRecorded);
    assert!(!testbed.is_open(CLIENT[1]));
    assert!(testbed.hear("cannot be remembered").contains("No space left on device"));
    state.empty();
    assert_eq!(device.open(&testbed, CLIENT[1], "ssh", 0).answer, Told::Granted);
}

#[test]
fn what_a_full_disk_did_not_take_is_on_it_once_there_is_room_though_nobody_knocks_and_the_daemon_may_end() {
    for ends in [false, true] {
        let mut testbed = Testbed::new();
        let state = FullDisk::at(testbed.directory.path().join("state"));
        let device = Device::new(1, &testbed.card());
        testbed.start(&testbed.gateway(&format!("{DOORS}\n{}", client("laptop", &device, &["ssh"], ""))));
        // Dated ahead: it would be good after a restart.
        let request = Request { time: now() + 300_000, ..device.request(open("ssh", 0)) };
        state.fill();
        assert_eq!(device.ask_once(&testbed, CLIENT[0], &request).answer, Told::NotRecorded);
        state.empty();
        let floor = (request.time | 1 << 62).to_be_bytes();
        let journal = testbed.directory.path().join("state/knocks");
        let is_there = || std::fs::read(&journal).unwrap().windows(8).any(|window| window == floor);
        if ends {
            testbed.end(Signal::TERM);
            assert!(is_there());
        } else {
            testbed.until("the floor is on the disk", |_| is_there());
        }
    }
}

/// A small file system for the state alone.
struct FullDisk(std::path::PathBuf);

impl FullDisk {
    fn at(place: std::path::PathBuf) -> Self {
        std::fs::create_dir(&place).unwrap();
        let flags = rustix::mount::MountFlags::NOSUID;
        rustix::mount::mount("tmpfs", &place, "tmpfs", flags, c"size=128k,mode=700").unwrap();
        Self(place)
    }

    /// Leaves no room, and takes away what the replay log has reserved.
    fn fill(&self) {
        std::fs::OpenOptions::new().write(true).open(self.0.join("knocks")).unwrap().set_len(0).unwrap();
        let mut all = std::fs::File::create(self.0.join("all")).unwrap();
        while std::io::Write::write_all(&mut all, &[1; 4096]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("all")).unwrap();
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // The daemon may still have a file open there.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_grant_for_one_connection_is_not_used_up_while_a_lasting_one_lets_in() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    // Both have the port; whichever is named first.
    let once = "[[doors]]\nname = \"once\"\nports = [\"22/tcp\"]\ngrant = \"once\"\nopen_for = 60\n";
    let lasting = "[[doors]]\nname = \"lasting\"\nports = [\"22/tcp\"]\nsequence = [7001, 7002, 7003, 7004, 7006]\n\
                   open_for = 60\n";
    testbed.start(&testbed.gateway(&format!("{once}{lasting}{}", client("phone", &device, &["once"], ""))));
    for (source, stranger) in CLIENT.into_iter().zip(STRANGER) {
        testbed.knock(source, &[7001, 7002, 7003, 7004, 7006]);
        testbed.hear("opened: door lasting");
        for address in [source, stranger] {
            assert_eq!(device.open(&testbed, address, "once", 0).answer, Told::Granted);
        }
        for _ in 0..2 {
            assert_eq!(testbed.ask(source, PORT), Answer::Accepted);
        }
        assert!(testbed.grants("once").contains_key(source), "it is there for later");
        // Who has nothing but the one connection, has one.
        assert_eq!(testbed.ask(stranger, PORT), Answer::Accepted);
        assert!(!testbed.grants("once").contains_key(stranger), "it is used up");
        assert_eq!(testbed.ask(stranger, PORT), Answer::Silence);
    }
}
