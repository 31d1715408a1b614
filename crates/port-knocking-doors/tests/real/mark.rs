//! `mark`: other firewalls keep the port closed, and accept what the gate has marked.
//!
//! Each one is tested with the commands in `docs/firewalls.md`.

use std::net::TcpListener;

use rustix::process::Signal;

use crate::{
    testbed::{Answer, CLIENT, PORT, SEQUENCE, STRANGER, Testbed, echoes, gate},
    traced::nft,
    ufw::Ufw,
};

const MARK: &str = "mark = 0x20000000\nmax_opened_door_duration = 60";

/// Starts the daemon behind a firewall that keeps the door's port closed. Until `let_in` has added the rule for the
/// mark, no source can connect, knocked or not. After that, only the source that has knocked can. Without our table
/// none can.
fn only_the_mark_lets_in(
    testbed: &mut Testbed,
    configuration: &str,
    sources: &[(&str, &str)],
    let_in: impl Fn(&Testbed),
) {
    let port = if configuration.contains("[8022]") { 8022 } else { PORT };
    let is_in = |testbed: &Testbed, source: &str| testbed.ask(source, port) == Answer::Accepted;
    testbed.start(configuration);
    for (client, stranger) in sources {
        testbed.knock(client, &SEQUENCE);
        testbed.hear(&format!("opened: door default for {client}"));
        for source in [client, stranger] {
            assert!(!is_in(testbed, source), "{source} gets in without the rule");
        }
    }
    let_in(testbed);
    for (client, stranger) in sources {
        let mut session = testbed.connect(client, port).unwrap();
        assert!(echoes(&mut session), "{client}");
        assert!(!is_in(testbed, stranger), "{stranger}");
    }
    assert!(testbed.end(Signal::KILL).code().is_none());
    testbed.on_server("nft", &["delete", "table", "inet", "port_knocking_doors"]);
    for source in sources.iter().flat_map(|(client, stranger)| [client, stranger]) {
        assert!(!is_in(testbed, source), "{source} gets in without our table");
    }
}

fn both_families() -> Vec<(&'static str, &'static str)> {
    CLIENT.into_iter().zip(STRANGER).collect()
}

/// Runs shell commands on the server.
pub(crate) fn shell(testbed: &Testbed, lines: &str) {
    testbed.on_server("sh", &["-e", "-c", lines]);
}

#[test]
fn a_port_closed_by_ufw_opens_to_the_mark_only() {
    let mut testbed = Testbed::new();
    let ufw = Ufw::enable(&testbed);
    only_the_mark_lets_in(&mut testbed, &gate(MARK), &both_families(), |testbed| {
        ufw.add_before(
            testbed,
            "-A ufw-before-input -m mark --mark 0x20000000/0x20000000 -j ACCEPT",
            "-A ufw6-before-input -m mark --mark 0x20000000/0x20000000 -j ACCEPT",
        );
    });
}

/// A common INPUT chain, without a rule for ssh.
pub(crate) const IPTABLES: &str = "
for iptables in iptables ip6tables; do
    $iptables -A INPUT -i lo -j ACCEPT
    $iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $iptables -A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT
done
ip6tables -A INPUT -p ipv6-icmp -j ACCEPT
iptables -P INPUT DROP
ip6tables -P INPUT DROP";

const IPTABLES_LETS_IN: &str = "
iptables -I INPUT -m mark --mark 0x20000000/0x20000000 -j ACCEPT
ip6tables -I INPUT -m mark --mark 0x20000000/0x20000000 -j ACCEPT";

#[test]
fn a_port_dropped_by_the_policy_of_iptables_opens_to_the_mark_only() {
    let mut testbed = Testbed::new();
    shell(&testbed, IPTABLES);
    only_the_mark_lets_in(&mut testbed, &gate(MARK), &both_families(), |testbed| {
        shell(testbed, IPTABLES_LETS_IN)
    });
}

#[test]
fn a_port_rejected_by_the_last_rule_of_iptables_opens_to_the_mark_only() {
    let mut testbed = Testbed::new();
    shell(&testbed, &IPTABLES.replace("iptables -P INPUT DROP", "iptables -A INPUT -j REJECT"));
    only_the_mark_lets_in(&mut testbed, &gate(MARK), &both_families(), |testbed| {
        shell(testbed, IPTABLES_LETS_IN)
    });
}

#[test]
fn a_port_dropped_by_a_policy_of_nftables_opens_to_the_mark_only() {
    let mut testbed = Testbed::new();
    shell(
        &testbed,
        "nft -f - <<'END'
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ip saddr 203.0.113.0/24 tcp dport 22 accept
    }
}
END",
    );
    only_the_mark_lets_in(&mut testbed, &gate(MARK), &both_families(), |testbed| {
        let rule = [
            "insert",
            "rule",
            "inet",
            "filter",
            "input",
            "meta",
            "mark",
            "&",
            "0x20000000",
            "==",
            "0x20000000",
        ];
        testbed.on_server("nft", &[&rule[..], &["accept"]].concat());
    });
}

/// A container engine that publishes port 8022 to all addresses, with the names that Docker uses.
pub(crate) fn container_engine() -> Testbed {
    let testbed = Testbed::new();
    let inside = testbed.machine_behind();
    let listener = inside.enter(|| TcpListener::bind("203.0.113.2:80")).unwrap();
    std::thread::spawn(move || {
        // The network lives as long as its listener.
        let _inside = inside;
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    shell(
        &testbed,
        "
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A DOCKER ! -i bridge -p tcp -m tcp --dport 8022 -j DNAT --to-destination 203.0.113.2:80
iptables -N DOCKER
iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o bridge -j DOCKER
iptables -A FORWARD -i bridge -j ACCEPT
iptables -A DOCKER -d 203.0.113.2/32 ! -i bridge -o bridge -p tcp -m tcp --dport 80 -j ACCEPT
iptables -P FORWARD DROP",
    );
    assert_eq!(
        testbed.ask(STRANGER[0], 8022),
        Answer::Accepted,
        "a container engine opens it to all addresses"
    );
    testbed
}

#[test]
fn a_port_published_by_a_container_engine_opens_to_the_mark_only() {
    let mut testbed = container_engine();
    // The mark must not change the route of the answers.
    shell(
        &testbed,
        "nft -f - <<'END'
table inet others {
    counter answers {}
    chain forward { type filter hook forward priority filter; iifname \"bridge\" meta mark != 0 counter name answers; }
}
END",
    );
    shell(
        &testbed,
        "iptables -I DOCKER-USER -p tcp -m conntrack --ctorigdstport 8022 --ctdir ORIGINAL -j DROP",
    );
    let configuration = gate(MARK).replace("[22]", "[8022]");
    only_the_mark_lets_in(&mut testbed, &configuration, &[(CLIENT[0], STRANGER[0])], |testbed| {
        shell(testbed, "iptables -I DOCKER-USER -m mark --mark 0x20000000/0x20000000 -j RETURN");
    });
    let answers = testbed.on_server("nft", &["list", "counter", "inet", "others", "answers"]);
    assert!(answers.contains("packets 0 "), "{answers}");
}

#[test]
fn a_published_port_closed_by_a_custom_chain_opens_to_the_mark_only() {
    let mut testbed = container_engine();
    let closed = "
        table inet published {
            chain forward {
                type filter hook forward priority filter - 10;
                meta l4proto tcp ct direction original ct original proto-dst 8022 drop
            }
        }";
    shell(&testbed, &format!("nft -f - <<'END'\n{closed}\nEND"));
    let configuration = gate(MARK).replace("[22]", "[8022]");
    only_the_mark_lets_in(&mut testbed, &configuration, &[(CLIENT[0], STRANGER[0])], |testbed| {
        let open = closed.replace("drop", "meta mark & 0x20000000 != 0x20000000 drop");
        shell(testbed, &format!("nft -f - <<'END'\nflush chain inet published forward\n{open}\nEND"));
    });
}

#[test]
fn a_port_closed_by_legacy_iptables_opens_to_the_mark_only() {
    let mut testbed = Testbed::new();
    shell(&testbed, &legacy(IPTABLES));
    only_the_mark_lets_in(&mut testbed, &gate(MARK), &both_families(), |testbed| {
        shell(testbed, &legacy(IPTABLES_LETS_IN));
    });
}

/// The same commands with the iptables that does not use nftables.
fn legacy(lines: &str) -> String {
    format!("iptables() {{ iptables-legacy \"$@\"; }}\nip6tables() {{ ip6tables-legacy \"$@\"; }}\n{lines}")
}

#[test]
fn every_packet_of_a_granted_connection_is_marked_even_after_the_door_has_closed() {
    let mut testbed = Testbed::new();
    // Without a rule for established connections.
    shell(
        &testbed,
        &format!("iptables -A INPUT -i lo -j ACCEPT\niptables -P INPUT DROP\n{IPTABLES_LETS_IN}"),
    );
    testbed.start(&gate("mark = 0x20000000\nmax_opened_door_duration = 1"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let mut session = testbed.connect(CLIENT[0], PORT).unwrap();
    testbed.hear("closed:");
    testbed.until_closed(CLIENT[0]);
    assert!(echoes(&mut session));
}

#[test]
fn the_mark_keeps_bits_that_others_have_set() {
    let mut testbed = Testbed::new();
    shell(
        &testbed,
        "nft -f - <<'END'
table inet others {
    counter both {}
    chain early { type filter hook prerouting priority raw; meta mark set 0x5; }
    chain early_connection { type filter hook prerouting priority -170; ct mark set 0x50; }
    chain input { type filter hook input priority filter; tcp dport 22 meta mark 0x20000005 ct mark 0x20000050 counter name both; }
}
END",
    );
    testbed.start(&gate(MARK));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(echoes(&mut testbed.connect(CLIENT[0], PORT).unwrap()));
    let both = testbed.on_server("nft", &["list", "counter", "inet", "others", "both"]);
    assert!(!both.contains("packets 0 "), "{both}");
}

#[test]
fn untracked_packets_are_accepted_and_marked() {
    let mut testbed = Testbed::new();
    shell(
        &testbed,
        "nft -f - <<'END'
table inet others {
    chain early { type filter hook prerouting priority raw; tcp dport 22 notrack; }
    chain late { type filter hook output priority raw; tcp sport 22 notrack; }
    chain input { type filter hook input priority filter; policy drop; icmpv6 type >= 133 accept; meta mark & 0x20000000 != 0 accept; }
}
END",
    );
    testbed.start(&gate(MARK));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(echoes(&mut testbed.connect(CLIENT[0], PORT).unwrap()));
    assert!(!testbed.is_open(STRANGER[0]));
}

#[test]
fn only_a_grant_marks_the_first_packet_of_a_connection() {
    let mut testbed = Testbed::new();
    testbed.serve(8080);
    // Another table uses the same bit of the connection's mark, and another port is closed, too.
    nft(
        &testbed,
        "table inet others {
    chain early { type filter hook prerouting priority -170; ct mark set 0x20000000; }
    chain input { type filter hook input priority filter; policy drop; icmpv6 type >= 133 accept; meta mark & 0x20000000 != 0 accept; }
}",
    );
    testbed.start(&gate(MARK));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
    assert_eq!(testbed.ask(CLIENT[0], 8080), Answer::Silence);
    assert!(!testbed.is_open(STRANGER[0]));
}

#[test]
fn a_grant_for_one_connection_marks_one() {
    let mut testbed = Testbed::new();
    shell(&testbed, &format!("{IPTABLES}\n{IPTABLES_LETS_IN}"));
    testbed.start(&format!(
        "firewall = \"nftables\"\n{MARK}\n[[doors]]\nname = \"once\"\nports = [\"22/tcp\"]\nsequence = {SEQUENCE:?}\n\
         grant = \"once\"\nopen_for = 60\n"
    ));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let mut session = testbed.connect(CLIENT[0], PORT).unwrap();
    assert!(!testbed.is_open(CLIENT[0]));
    assert!(echoes(&mut session));
}

#[test]
fn a_table_with_a_mark_is_recognized_and_can_be_saved_and_loaded() {
    let mut testbed = Testbed::new();
    testbed.start(&gate(&format!("{MARK}\nfirewall_rules_check_periode_seconds = 3600")));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    for (change, told) in [
        (&["insert", "rule", "inet", "port_knocking_doors", "granted", "drop"][..], "granted was not ours"),
        (&["flush", "chain", "inet", "port_knocking_doors", "granted"], "granted was missing"),
    ] {
        testbed.on_server("nft", change);
        let line = testbed.hear("another program or an administrator has changed the firewall");
        assert!(line.contains(told), "{line}");
        assert!(testbed.is_open(CLIENT[0]));
    }
    let table = testbed.table();
    for expected in ["saddr @default4 goto granted", "meta mark set", "ct mark set", "ct direction original"]
    {
        assert!(table.contains(expected), "{expected:?} is not in:\n{table}");
    }
    let saved = format!("flush ruleset\n{}", testbed.on_server("nft", &["list", "ruleset"]));
    let path = testbed.place_for("saved.nft");
    std::fs::write(&path, &saved).unwrap();
    testbed.on_server("nft", &["--file", path.to_str().unwrap()]);
    assert_eq!(testbed.table().lines().count(), table.lines().count());
    assert!(testbed.is_open(CLIENT[0]));
    // The table that `nft` loads is ours: only the grants can be missing.
    let told = testbed.daemon().take_lines();
    assert!(!told.iter().any(|line| line.contains("chain granted")), "{told:#?}");
}

#[test]
fn a_reload_with_another_mark_reports_what_happens_to_connections_with_the_old_one() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("mark = 0x80"));
    let told = |testbed: &mut Testbed, mark: &str| {
        testbed.write(&gate(mark));
        testbed.daemon().signal(Signal::HUP).unwrap();
        testbed.hear("has been read again");
        testbed.until("the gate follows", |testbed| {
            let marks = testbed.table().contains("meta mark set");
            marks == mark.starts_with("mark")
        });
        testbed.daemon().take_lines()
    };
    let lines = told(&mut testbed, "mark = 0x80\nrefuse = \"reject\"");
    assert!(!lines.iter().any(|line| line.contains("the configuration had mark")), "{lines:#?}");
    testbed.write(&gate("mark = 0x100"));
    testbed.daemon().signal(Signal::HUP).unwrap();
    let line = testbed.hear("the configuration had mark");
    assert!(
        line.contains("had mark = 0x80 and has mark = 0x100")
            && line.contains("not marked any more, and hang"),
        "{line}"
    );
    testbed.write(&gate(""));
    testbed.daemon().signal(Signal::HUP).unwrap();
    assert!(testbed.hear("the configuration had mark").contains("had mark = 0x100 and has no mark"));
}
