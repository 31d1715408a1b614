//! Containers on this machine that connect to a published port through the machine's own address.

use std::net::{SocketAddr, TcpListener, TcpStream};

use doors_lab::Namespace;

use crate::{
    mark::shell,
    testbed::{Answer, CLIENT, SEQUENCE, SERVER, SILENCE, STRANGER, Testbed, gate},
    traced::contains,
};

/// The words by which every message on this is recognized.
const SAID: &str = "containers on this machine";

/// The published and guarded port.
const PUBLISHED: u16 = 8022;

/// A container, 172.17.0.2, on an engine's bridge, and one on another bridge, 172.18.0.2; each bridge has the first
/// address of its network.
struct Containers([Namespace; 2]);

impl Containers {
    /// Starts both. The port of the first is published as Docker does it: destination NAT for what comes in over any
    /// other interface, and a proxy process on the machine for what comes from the same bridge.
    fn start(testbed: &Testbed) -> Self {
        let containers = [("docker0", "172.17.0"), ("br-other", "172.18.0")].map(|(bridge, network)| {
            let inside = Namespace::new().unwrap();
            let port = format!("v-{bridge}");
            testbed.server.cable(&port, &inside, "eth0").unwrap();
            shell(
                testbed,
                &format!(
                    "ip link add {bridge} type bridge\nip address add {network}.1/16 dev {bridge}\nip link set {port} master {bridge}\n\
                     ip link set {bridge} up"
                ),
            );
            inside.address("eth0", format!("{network}.2/16").parse().unwrap()).unwrap();
            for outside in ["192.0.2.0/24", "198.51.100.0/24", "172.16.0.0/12"] {
                inside.route(outside.parse().unwrap(), format!("{network}.1").parse().unwrap()).unwrap();
            }
            inside
        });
        testbed.server.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
        let [first, _] = &containers;
        accept(&first.enter(|| TcpListener::bind("172.17.0.2:80")).unwrap());
        let proxy = SocketAddr::new(SERVER[0].parse().unwrap(), PUBLISHED);
        accept(&testbed.server.enter(|| TcpListener::bind(proxy)).unwrap());
        publish(testbed);
        Self(containers)
    }

    /// How the published port on the machine's address answers each of them.
    fn ask(&self) -> [Answer; 2] {
        let target = SocketAddr::new(SERVER[0].parse().unwrap(), PUBLISHED);
        self.0.each_ref().map(|inside| {
            inside.enter(|| match TcpStream::connect_timeout(&target, SILENCE) {
                Ok(_) => Answer::Accepted,
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Answer::Silence,
                Err(error) => panic!("{error}"),
            })
        })
    }
}

fn accept(listener: &TcpListener) {
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(drop));
}

fn publish(testbed: &Testbed) {
    shell(
        testbed,
        &format!(
            "iptables -t nat -N DOCKER\niptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
             iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport {PUBLISHED} -j DNAT --to-destination 172.17.0.2:80"
        ),
    );
}

fn doors(more: &str) -> String {
    gate(more).replace("[22]", &format!("[{PUBLISHED}]"))
}

/// The lines of `check` about it.
fn foreseen(testbed: &Testbed, text: &str) -> Vec<String> {
    let mut lines = testbed.checked(text);
    lines.retain(|line| line.contains(SAID));
    lines
}

/// The configuration line in a message.
fn remedy(line: &str) -> &str {
    let begin = line.find("trusted = [").unwrap();
    &line[begin..=begin + line[begin..].find(']').unwrap()]
}

#[test]
fn containers_cannot_reach_a_published_port_until_the_suggested_line_trusts_them() {
    let mut testbed = Testbed::new();
    let containers = Containers::start(&testbed);
    assert_eq!(containers.ask(), [Answer::Accepted; 2], "before there is a gate");
    let lines = foreseen(&testbed, &doors(""));
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    contains(line, &["(172.18.0.0/16, 172.17.0.0/16, on br-other, docker0)", "the published 8022/tcp"]);
    testbed.start(&doors(""));
    let told = testbed.hear(SAID);
    assert!(told.contains("INFO") && told.contains(line.as_str()), "{told}");
    assert_eq!(containers.ask(), [Answer::Silence; 2]);

    testbed.end(rustix::process::Signal::TERM);
    let text = doors(remedy(line));
    assert_eq!(foreseen(&testbed, &text), Vec::<String>::new());
    testbed.start(&text);
    assert_eq!(containers.ask(), [Answer::Accepted; 2]);
    assert_eq!(testbed.ask(STRANGER[0], PUBLISHED), Answer::Silence);
}

#[test]
fn the_suggested_line_keeps_trusted_networks_and_lists_none_twice() {
    let testbed = Testbed::new();
    let _containers = Containers::start(&testbed);
    let lines = foreseen(&testbed, &doors("trusted = [\"203.0.113.9/32\", \"172.17.0.0/16\"]"));
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(remedy(line), "trusted = [\"203.0.113.9/32\", \"172.17.0.0/16\", \"172.18.0.0/16\"]");
    contains(line, &["(172.18.0.0/16, on br-other)"]);
    assert_eq!(foreseen(&testbed, &doors("trusted = [\"172.16.0.0/12\"]")), Vec::<String>::new());
}

#[test]
fn containers_are_not_mentioned_if_no_guarded_port_is_published() {
    let testbed = Testbed::new();
    let _containers = Containers::start(&testbed);
    assert_eq!(foreseen(&testbed, &gate("")), Vec::<String>::new());
    shell(&testbed, "iptables -t nat -F DOCKER");
    assert_eq!(foreseen(&testbed, &doors("")), Vec::<String>::new());
    // For one address of the machine only, as with `-p 192.0.2.1:8022:80`.
    shell(
        &testbed,
        "iptables -t nat -A DOCKER -d 192.0.2.1/32 ! -i docker0 -p tcp --dport 8022 -j DNAT --to 172.17.0.2:80",
    );
    assert_eq!(foreseen(&testbed, &doors("")).len(), 1);
}

#[test]
fn a_bridge_that_leads_outside_is_not_suggested_as_trusted() {
    let testbed = Testbed::new();
    shell(
        &testbed,
        "ip link add br0 type bridge\nip address add 10.0.0.1/24 dev br0\nip link set br0 up\n\
         ip link add link server name card type macvlan\nip link set card master br0",
    );
    publish(&testbed);
    assert_eq!(foreseen(&testbed, &doors("")), Vec::<String>::new());
    shell(&testbed, "ip link set card nomaster");
    let lines = foreseen(&testbed, &doors(""));
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(remedy(line), "trusted = [\"10.0.0.0/24\"]");
}

#[test]
fn networks_of_an_engine_that_starts_later_are_named_once() {
    let mut testbed = Testbed::new();
    testbed.start(&doors(""));
    let _containers = Containers::start(&testbed);
    contains(&testbed.hear(SAID), &["172.17.0.0/16", "172.18.0.0/16"]);
    testbed.daemon().take_lines();
    // The engine stops and starts again. The line about `notrack` shows that the daemon has checked again.
    shell(&testbed, "ip link del br-other\niptables -t nat -F\niptables -t nat -X DOCKER");
    publish(&testbed);
    shell(&testbed, "iptables -t raw -A PREROUTING -p tcp --dport 8022 -j CT --notrack");
    testbed.hear("connections to 8022/tcp die");
    // A line of the same check would have come before this one.
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(!testbed.daemon().lines().iter().any(|line| line.contains(SAID)));
}
