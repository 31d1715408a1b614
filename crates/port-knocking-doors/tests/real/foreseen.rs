//! What `check` and the start say of other firewalls, before any packet has come.

use crate::{
    mark::{IPTABLES, container_engine, shell},
    testbed::{CLIENT, SEQUENCE, Testbed, config, gate},
    traced::{NATIVE, contains, nft},
    ufw::Ufw,
};

/// What `check` says of other firewalls, each sentence on one line.
fn foreseen(testbed: &Testbed, text: &str) -> Vec<String> {
    let mut lines = testbed.checked(text);
    lines.retain(|line| line.contains("the chain ") || line.contains("-legacy"));
    lines
}

/// A warning that holds all of this is given, and no other line.
fn is_closed(testbed: &Testbed, parts: &[&str]) {
    match &foreseen(testbed, &gate(""))[..] {
        [line] => {
            assert!(line.starts_with("warning: "), "{line}");
            contains(line, parts);
        }
        lines => panic!("{parts:?}: {lines:#?}"),
    }
}

fn is_open(testbed: &Testbed, what: &str) {
    assert_eq!(foreseen(testbed, &gate("")), Vec::<String>::new(), "{what}");
}

/// The base chain of a table that drops, and its rules.
fn dropping(rules: &str) -> String {
    format!(
        "table inet filter {{\n chain input {{\n type filter hook input priority filter; policy drop;\n iif lo accept\n \
         ct state established,related accept\n{rules}\n }}\n }}"
    )
}

#[test]
fn what_ufw_closes_is_known_before_a_packet_comes() {
    let testbed = Testbed::new();
    let ufw = Ufw::enable(&testbed);
    let lines = foreseen(&testbed, &gate(""));
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for (line, family) in lines.iter().zip(["ip", "ip6"]) {
        contains(
            line,
            &[&format!("warning: the chain {family} filter INPUT drops 22/tcp (its policy is drop)")],
        );
        contains(line, &["no knock can open it", "`ufw allow 22/tcp`", "-before-input -m mark"]);
    }
    ufw.run(&testbed, &["allow", "22/tcp"]);
    is_open(&testbed, "ufw allow");
    ufw.run(&testbed, &["delete", "allow", "22/tcp"]);
    ufw.run(&testbed, &["allow", "from", "203.0.113.0/24", "to", "any", "port", "22", "proto", "tcp"]);
    contains(
        &foreseen(&testbed, &gate(""))[0],
        &["ip filter INPUT lets 22/tcp in for some addresses, and drops the rest"],
    );
    // What counts how often cannot be said.
    ufw.run(&testbed, &["limit", "22/tcp"]);
    let lines = foreseen(&testbed, &gate(""));
    contains(
        &lines[0],
        &["whether 22/tcp gets through the chain ip filter", "cannot be said without a packet"],
    );
    // With the rule for the mark it opens whatever the rest says.
    ufw.add_before(
        &testbed,
        "-A ufw-before-input -m mark --mark 0x20000000/0x20000000 -j ACCEPT",
        "-A ufw6-before-input -m mark --mark 0x20000000/0x20000000 -j ACCEPT",
    );
    assert_eq!(foreseen(&testbed, &gate("mark = 0x20000000")), Vec::<String>::new());
    assert_eq!(foreseen(&testbed, &gate("mark = 0x10000000")).len(), 2);
    let (_, said) = testbed.run(&["check", "--conf", testbed.place_for("doors.toml").to_str().unwrap()]);
    contains(
        &said,
        &["mark = 0x10000000", "granted connections carry the packet mark 0x10000000/0x10000000"],
    );
}

#[test]
fn the_matches_of_iptables_are_understood() {
    let drops = "iptables -P INPUT DROP\n";
    for (rule, open) in [
        ("-p tcp -m multiport --dports 80,443 -j ACCEPT", false),
        ("-p tcp -m multiport --dports 80,20:23 -j ACCEPT", true),
        ("-p tcp -m multiport ! --dports 80,20:23 -j ACCEPT", false),
        ("-p tcp -m multiport ! --dports 80,443 -j ACCEPT", true),
        ("-p tcp --dport 22 -j ACCEPT", true),
        ("-p tcp --dport 20:30 -j ACCEPT", true),
        ("-p tcp ! --dport 22 -j ACCEPT", false),
        ("-p udp --dport 22 -j ACCEPT", false),
        ("-p tcp --syn --dport 22 -j ACCEPT", true),
        ("-p tcp ! --syn --dport 22 -j ACCEPT", false),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", false),
        ("-m state --state RELATED,ESTABLISHED -j ACCEPT", false),
        ("-m conntrack ! --ctstate NEW -j ACCEPT", false),
        ("-m conntrack --ctstate NEW -p tcp --dport 22 -j ACCEPT", true),
        ("-m state --state NEW -p tcp --dport 22 -j ACCEPT", true),
        // A remark names no port.
        ("-p icmp -m comment --comment \"tcp dport 22\" -j ACCEPT", false),
        ("-p tcp --dport 22 -m comment --comment ssh -j ACCEPT", true),
        ("-i lo -j ACCEPT", false),
        ("! -i lo -j ACCEPT", true),
        ("-i server -j ACCEPT", true),
        ("-i serv+ -j ACCEPT", true),
        ("-i docker0 -j ACCEPT", false),
        ("-m addrtype --dst-type LOCAL -p tcp --dport 22 -j ACCEPT", true),
        ("-m addrtype ! --dst-type LOCAL -p tcp --dport 22 -j ACCEPT", false),
        ("-m addrtype --dst-type MULTICAST -j ACCEPT", false),
        ("-m mark --mark 0x80/0x80 -j ACCEPT", false),
        ("-p tcp --dport 22 -j LOG", false),
    ] {
        let testbed = Testbed::new();
        shell(&testbed, &format!("{drops}iptables -A INPUT {rule}"));
        match open {
            true => is_open(&testbed, rule),
            false => is_closed(
                &testbed,
                &["the chain ip filter INPUT drops 22/tcp (its policy is drop)", "`iptables -I"],
            ),
        }
    }
}

#[test]
fn a_rule_that_rejects_is_named() {
    for (rule, words) in [
        ("-j REJECT", ": reject)"),
        ("-p tcp --dport 22 -j REJECT --reject-with tcp-reset", ": tcp dport 22 reject)"),
        ("-p tcp --dport 22 -j DROP", ": tcp dport 22 drop)"),
    ] {
        let testbed = Testbed::new();
        shell(&testbed, &format!("iptables -A INPUT -s 203.0.113.66 -j ACCEPT\niptables -A INPUT {rule}"));
        is_closed(
            &testbed,
            &[
                "the chain ip filter INPUT lets 22/tcp in for some addresses",
                "by its rule with handle",
                words,
            ],
        );
    }
    let testbed = Testbed::new();
    nft(
        &testbed,
        "table inet filter {\n chain input {\n type filter hook input priority filter\n tcp dport 22 reject\n }\n }",
    );
    is_closed(
        &testbed,
        &[
            "the chain inet filter input drops 22/tcp",
            ": tcp dport 22 reject)",
            "`nft insert rule inet filter input",
        ],
    );
}

#[test]
fn a_chain_that_nothing_leads_to_opens_nothing() {
    let testbed = Testbed::new();
    shell(
        &testbed,
        &format!(
            "{IPTABLES}\nip6tables -F; ip6tables -P INPUT ACCEPT\niptables -N old\niptables -A old -p tcp --dport 22 -j ACCEPT"
        ),
    );
    is_closed(&testbed, &["ip filter INPUT drops 22/tcp"]);
    shell(&testbed, "iptables -N between\niptables -A between -g old\niptables -A INPUT -p tcp -j between");
    is_open(&testbed, "through another chain");
    // Who goes to a chain does not come back to the one behind; who jumps does.
    shell(
        &testbed,
        "iptables -F between; iptables -N none; iptables -A between -g none; iptables -A between -j old",
    );
    is_closed(&testbed, &["ip filter INPUT drops 22/tcp"]);
    shell(
        &testbed,
        "iptables -F between; iptables -A between -j none; iptables -A between -p udp -j RETURN; iptables -A between -j old",
    );
    is_open(&testbed, "behind a jump");
    shell(&testbed, "iptables -I between -p tcp -j RETURN");
    is_closed(&testbed, &["ip filter INPUT drops 22/tcp"]);
}

#[test]
fn an_accept_for_some_sources_is_called_so() {
    let testbed = Testbed::new();
    nft(&testbed, NATIVE);
    is_closed(
        &testbed,
        &["inet filter input lets 22/tcp in for some addresses, and drops the rest (its policy is drop)"],
    );
}

#[test]
fn sets_and_maps_of_nftables_are_looked_into() {
    for (rules, open) in [
        ("tcp dport { 22, 443 } accept", true),
        ("tcp dport { 80, 443 } accept", false),
        ("tcp dport { 20-23, 443 } accept", true),
        ("tcp dport { 80-90, 443 } accept", false),
        ("tcp dport != { 80, 443 } accept", true),
        ("tcp dport vmap { 22 : accept, 80 : drop }", true),
        ("tcp dport vmap { 22 : drop, 80 : accept }\ntcp dport 22 accept", false),
        (
            "ct state vmap { established : accept, related : accept, invalid : drop }\ntcp dport 22 accept",
            true,
        ),
        ("ct state new tcp dport 22 accept", true),
        ("ct state invalid drop\nmeta l4proto vmap { tcp : accept, udp : drop }", true),
        ("meta nfproto ipv4 tcp dport 22 accept\nmeta nfproto ipv6 tcp dport 22 accept", true),
        ("meta nfproto ipv4 tcp dport 22 accept", false),
        ("meta mark & 0x80 == 0x80 accept", false),
        ("fib daddr type local tcp dport 22 accept", true),
        ("fib daddr type multicast accept", false),
        ("fib saddr . iif oif missing drop\ntcp dport 22 accept", true),
        ("fib saddr . iif oif 0 drop\ntcp dport 22 accept", true),
        ("fib saddr . iif oif exists accept", true),
    ] {
        let testbed = Testbed::new();
        nft(&testbed, &dropping(rules));
        match open {
            true => is_open(&testbed, rules),
            false => is_closed(&testbed, &["the chain inet filter input drops 22/tcp"]),
        }
    }
}

#[test]
fn where_it_cannot_be_said_one_line_names_the_chain_that_decides() {
    let testbed = Testbed::new();
    shell(
        &testbed,
        "iptables -P INPUT DROP\niptables -N odd\niptables -A INPUT -j odd\niptables -A odd -m pkttype --pkt-type unicast -j ACCEPT",
    );
    match &foreseen(&testbed, &gate(""))[..] {
        [line] => {
            contains(
                line,
                &["whether 22/tcp gets through the chain ip filter odd cannot be said", "with handle"],
            );
            assert!(!line.starts_with("warning"), "{line}");
        }
        lines => panic!("{lines:#?}"),
    }
}

#[test]
fn a_chain_in_front_of_the_gate_is_called_so() {
    let testbed = Testbed::new();
    shell(&testbed, "iptables -t raw -A PREROUTING -p tcp --dport 22 -j DROP");
    is_closed(&testbed, &["the chain ip raw PREROUTING drops 22/tcp", "it comes before the gate"]);
    // What a container engine has there is for the addresses of containers.
    let testbed = Testbed::new();
    shell(&testbed, "iptables -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP");
    is_open(&testbed, "for containers");
}

#[test]
fn a_port_that_is_published_is_not_called_closed_by_what_it_never_meets() {
    let testbed = container_engine();
    shell(&testbed, IPTABLES);
    let lines = foreseen(&testbed, &gate("").replace("[22]", "[8022]"));
    // IPv6 is not published.
    let [closed, translated] = &lines[..] else { panic!("{lines:#?}") };
    contains(closed, &["ip6 filter INPUT drops 8022/tcp"]);
    contains(translated, &["ip nat DOCKER leads 8022/tcp to another port or machine", "tcp dport 8022"]);
    // For one address only.
    let testbed = Testbed::new();
    shell(&testbed, &format!("{IPTABLES}\nip6tables -P INPUT ACCEPT\nip6tables -F"));
    nft(
        &testbed,
        "table ip n {\n chain pre {\n type nat hook prerouting priority dstnat\n ip daddr 203.0.113.9 tcp dport 22 redirect to :80\n }\n }",
    );
    is_closed(&testbed, &["ip filter INPUT drops 22/tcp"]);
    nft(&testbed, "add rule ip n pre tcp dport 22 redirect to :80");
    let lines = foreseen(&testbed, &gate(""));
    assert_eq!(lines.len(), 1);
    contains(&lines[0], &["the chain ip n pre leads 22/tcp to another port"]);
}

#[test]
fn tables_of_legacy_iptables_are_named_as_what_nobody_can_look_into() {
    let testbed = Testbed::new();
    shell(&testbed, "iptables-legacy -P INPUT DROP\nip6tables-legacy -t mangle -A INPUT -j DROP");
    match &foreseen(&testbed, &gate(""))[..] {
        [line] => contains(line, &["iptables-legacy has tables here (filter, mangle)", "is not known"]),
        lines => panic!("{lines:#?}"),
    }
}

#[test]
fn what_firewalld_closes_with_its_iptables_backend_is_not_called_closed() {
    let mut testbed = Testbed::with_firewalld_that_says("FirewallBackend=iptables");
    let text = config("firewall = \"firewalld\"\nmax_opened_door_duration = 60");
    assert_eq!(foreseen(&testbed, &text), Vec::<String>::new());
    testbed.start(&text);
    // A client that is quicker than firewalld.
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.until("it gets in", |testbed| testbed.is_open(CLIENT[0]));
    assert!(!testbed.daemon().lines().iter().any(|line| line.contains("the chain ")));
}

#[test]
fn the_start_says_what_check_says() {
    let mut testbed = Testbed::new();
    shell(&testbed, IPTABLES);
    let lines = foreseen(&testbed, &gate(""));
    assert_eq!(lines.len(), 2);
    testbed.start(&gate(""));
    for line in lines {
        testbed.hear(line.trim_start_matches("warning: "));
    }
}

#[test]
fn several_ports_of_which_the_same_is_to_be_said_stand_in_one_line() {
    let testbed = Testbed::new();
    nft(&testbed, &dropping("tcp dport 80 accept"));
    let text = gate("").replace("[22]", "[22, 80, 443]");
    let lines = foreseen(&testbed, &text);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    contains(&lines[0], &["drops 22/tcp, 443/tcp ("]);
}

/// The base chain of a table that lets everything in, and its rules.
fn passing(family: &str, rules: &str) -> String {
    format!(
        "table {family} filter {{\n set ok {{ type ipv4_addr; elements = {{ 192.0.2.9 }}; }}\n chain input {{\n \
         type filter hook input priority filter; policy accept;\n{rules}\n }}\n }}"
    )
}

#[test]
fn only_what_a_rule_asks_for_is_said_of_it() {
    for (family, rules, parts) in [
        // An offset of the header is an address in one family, and something else in the other.
        (
            "inet",
            "ip ttl < 10 tcp dport 22 drop",
            &["whether 22/tcp", "not understood", "without a packet"][..],
        ),
        ("ip", "ip ttl < 10 drop", &["whether 22/tcp", "not understood", "without a packet"]),
        ("ip", "ip ttl 64 tcp dport 22 drop", &["whether 22/tcp", "not understood"]),
        ("ip6", "ip6 hoplimit 64 tcp dport 22 drop", &["whether 22/tcp", "not understood"]),
        ("ip", "ip saddr . tcp dport { 192.0.2.9 . 22 } drop", &["whether 22/tcp", "not understood"]),
        ("inet", "ip saddr 192.0.2.0-192.0.2.9 tcp dport 22 drop", &["saddr 192.0.2.0-192.0.2.9"]),
        ("inet", "ip saddr != 192.0.2.0-192.0.2.9 tcp dport 22 drop", &["saddr != 192.0.2.0-192.0.2.9"]),
        ("inet", "ip saddr > 192.0.2.9 tcp dport 22 drop", &["saddr > 192.0.2.9"]),
        ("inet", "ip6 saddr 2001::/16 tcp dport 22 drop", &["saddr 2001::/16"]),
        ("inet", "ip saddr { 192.0.2.9, 192.0.2.8 } tcp dport 22 drop", &["saddr { … }"]),
    ] {
        let testbed = Testbed::new();
        nft(&testbed, &passing(family, rules));
        match &foreseen(&testbed, &gate(""))[..] {
            [line] => {
                contains(line, parts);
                assert_eq!(line.contains("saddr"), parts[0].contains("saddr"), "{rules}: {line}");
            }
            lines => panic!("{rules}: {lines:#?}"),
        }
    }
    let testbed = Testbed::new();
    nft(&testbed, &dropping("ip ttl > 0 tcp dport 22 accept"));
    let lines = foreseen(&testbed, &gate(""));
    assert!(!lines.iter().any(|line| line.contains("for some addresses")), "{lines:#?}");
    let of_ipv4 = lines.iter().find(|line| line.contains("cannot be said without a packet"));
    contains(of_ipv4.unwrap(), &["whether 22/tcp gets through", "not understood"]);
}

#[test]
fn what_is_dropped_for_some_addresses_only_has_its_line() {
    let (some, but_some) = ("drops 22/tcp from some addresses", "drops 22/tcp from all but some addresses");
    for (rules, said) in [
        ("ip saddr != 10.0.0.0/8 tcp dport 22 drop", but_some),
        ("tcp dport 22 ip saddr != @ok reject", but_some),
        ("tcp dport 22 ip saddr @ok drop", some),
        ("ip saddr @ok drop", some),
        ("ip saddr 198.51.100.0/24 drop\n ip saddr != 10.0.0.0/8 tcp dport 22 drop", but_some),
    ] {
        let testbed = Testbed::new();
        nft(&testbed, &passing("inet", rules));
        match &foreseen(&testbed, &gate(""))[..] {
            [line] => contains(line, &[said, "inet filter input", "by its rule with handle"]),
            lines => panic!("{rules}: {lines:#?}"),
        }
    }
    for (rules, said) in [
        ("iptables -A INPUT ! -s 10.0.0.0/8 -p tcp --dport 22 -j DROP", but_some),
        ("iptables -A INPUT -s 198.51.100.0/24 -p tcp --dport 22 -j DROP", some),
        ("iptables -N sub\niptables -A INPUT -j sub\niptables -A sub -s 198.51.100.0/24 -j DROP", some),
        ("iptables -N sub\niptables -A INPUT -s 198.51.100.0/24 -j sub\niptables -A sub -j DROP", some),
        ("iptables -N sub\niptables -A INPUT ! -s 198.51.100.0/24 -j sub\niptables -A sub -j DROP", but_some),
    ] {
        let testbed = Testbed::new();
        shell(&testbed, rules);
        match &foreseen(&testbed, &gate(""))[..] {
            [line] => contains(line, &[said, "ip filter "]),
            lines => panic!("{rules}: {lines:#?}"),
        }
    }
    // What is dropped for other ports is nobody's affair here.
    let testbed = Testbed::new();
    nft(&testbed, &passing("inet", "ip saddr 198.51.100.0/24 tcp dport 80 drop"));
    is_open(&testbed, "another port");
}

#[test]
fn a_chain_at_ingress_that_may_drop_is_named_and_not_judged() {
    let ingress = |rule: &str| {
        format!(
            "table netdev early {{\n chain in {{\n type filter hook ingress device \"server\" priority 0;\n {rule}\n }}\n }}"
        )
    };
    let mut testbed = Testbed::new();
    nft(&testbed, &ingress("tcp dport 80 accept"));
    is_open(&testbed, "it drops nothing");
    nft(&testbed, &ingress("tcp dport 22 drop"));
    let said = ["the chain netdev early in sees what arrives at server before everything else", "not judged"];
    match &foreseen(&testbed, &gate(""))[..] {
        [line] => contains(line, &said),
        lines => panic!("{lines:#?}"),
    }
    testbed.start(&gate(""));
    contains(&testbed.hear("the chain netdev early"), &said);
}
