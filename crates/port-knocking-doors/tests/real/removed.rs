//! What happens to the doors of a removed client in the kernel.

use std::time::Duration;

use doors_spa::receipt::Answer as Told;
use rustix::process::Signal;

use crate::{
    raw_client::{Device, client},
    testbed::{CLIENT, Testbed},
};

/// A door, and a phone and a laptop that may open it.
fn two_clients(testbed: &Testbed) -> (Device, Device, String, String) {
    let card = testbed.card();
    let (phone, laptop) = (Device::new(1, &card), Device::new(2, &card));
    let door = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nmax_open_for = 3600\n".to_owned();
    let for_phone = testbed.gateway(&(door.clone() + &client("phone", &phone, &["ssh"], "")));
    let for_both = for_phone.clone() + &client("laptop", &laptop, &["ssh"], "");
    (phone, laptop, for_both, for_phone)
}

#[test]
fn removing_a_client_ends_its_grants_and_keeps_those_of_other_clients() {
    let mut testbed = Testbed::new();
    let (phone, laptop, both, without) = two_clients(&testbed);
    testbed.start(&both);
    for source in CLIENT {
        assert_eq!(phone.open(&testbed, source, "ssh", 300).answer, Told::Granted);
        assert_eq!(laptop.open(&testbed, source, "ssh", 3000).answer, Told::Granted);
        assert!(testbed.grants("ssh")[source] > 2000);
    }
    testbed.write(&without);
    testbed.daemon().signal(Signal::HUP).unwrap();
    for source in CLIENT {
        testbed.hear(&format!("taken back: door ssh for {source}, by laptop"));
        testbed.until("the phone's own time", |testbed| {
            testbed.grants("ssh").get(source).is_some_and(|left| *left <= 300)
        });
        assert!(testbed.is_open(source));
        assert!(testbed.table().contains("phone SHA256:") && !testbed.table().contains("laptop SHA256:"));
    }
}

#[test]
fn removing_a_client_ends_its_grants_in_firewalld_too() {
    let mut testbed = Testbed::with_firewalld();
    let (phone, laptop, both, without) = two_clients(&testbed);
    let [both, without] =
        [both, without].map(|text| text.replace("firewall = \"nftables\"", "firewall = \"auto\""));
    testbed.start(&both);
    assert_eq!(phone.open(&testbed, CLIENT[0], "ssh", 8).answer, Told::Granted);
    assert_eq!(laptop.open(&testbed, CLIENT[0], "ssh", 3000).answer, Told::Granted);
    testbed.write(&without);
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("taken back: door ssh for 192.0.2.7, by laptop");
    testbed.until("no rule of the laptop's is left", |testbed| !testbed.is_open(CLIENT[0]));
    testbed
        .until("nor in firewalld", |testbed| testbed.firewall_cmd(&["--list-rich-rules"]).trim().is_empty());
}

#[test]
fn grants_of_a_client_removed_while_no_daemon_ran_are_closed_at_the_start() {
    let mut testbed = Testbed::new();
    let (phone, laptop, both, without) = two_clients(&testbed);
    testbed.start(&both);
    assert_eq!(phone.open(&testbed, CLIENT[0], "ssh", 300).answer, Told::Granted);
    assert_eq!(laptop.open(&testbed, CLIENT[1], "ssh", 300).answer, Told::Granted);
    testbed.end(Signal::KILL);
    testbed.start(&without);
    testbed.hear(&format!("found open, and closed: door ssh for {}, by laptop", CLIENT[1]));
    testbed.until("it is closed", |testbed| !testbed.is_open(CLIENT[1]));
    assert!(testbed.is_open(CLIENT[0]), "the phone is a client as before");
    assert!(testbed.grants("ssh")[CLIENT[0]] > Duration::from_secs(200).as_secs());
}
