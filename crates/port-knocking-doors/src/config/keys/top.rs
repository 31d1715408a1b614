//! The keys at the top of the file.

use std::{path::PathBuf, time::Duration};

use doors_core::limits::WIDEST_WINDOW;
use doors_firewall::{FirewallChoice, plan::Refuse};

use super::{Key, Maybe, Or, Tables};
use crate::config::{
    Hearing, STATE_DIR,
    file::{self, File},
    kinds::{
        DOOR_NAMES, FIREWALL, GROUP, LISTEN, MARK, NETWORKS, ON_EXIT, PATH, PORT, REFUSE, SECONDS, SEQUENCE,
        Seconds, TCP_PORTS, ZONE,
    },
    values::MAX_SECONDS,
};

/// In the order of the manual. From `spa_port` on they are for clients with keys.
pub(in crate::config) const TOP: &[Key<File>] = &[
    Key {
        name: "ports_to_controls",
        field: &Maybe {
            kind: TCP_PORTS,
            unset: Some("[22]"),
            example: None,
            slot: |file: &mut File| &mut file.ports_to_controls,
        },
        help: "The TCP ports that are opened for those who knock. Together with opening_sequence this is \
               the door called \"default\". A file names both or neither; the defaults are for when there is no file. \
               Where the file names neither, --ports and --magic-seq are given together.",
    },
    Key {
        name: "opening_sequence",
        field: &Maybe {
            kind: SEQUENCE,
            unset: Some("[16001, 16002, 16003, 16004, 16005]"),
            example: None,
            slot: |file: &mut File| &mut file.opening_sequence,
        },
        help: "The UDP ports to send \"knock\\n\" to, in this order. Choose your own, and do not choose \
               neighbours: everybody knows the default.",
    },
    Key {
        name: "firewall_rules_check_periode_seconds",
        field: &Or {
            kind: SECONDS,
            default: || Duration::from_secs(10),
            slot: |file: &mut File| &mut file.check_period,
        },
        help: "The firewall's rules are checked this often, and put back if another program has changed them. \
               This is the safety net: changes that the kernel or firewalld announces are repaired at once.",
    },
    Key {
        name: "ignoring_period_after_knock_error",
        field: &Or {
            kind: Seconds(0..=MAX_SECONDS),
            default: || Duration::from_secs(5),
            slot: |file: &mut File| &mut file.quiet_after_wrong,
        },
        help: "After a wrong knock, a knocker must be quiet this long before its knocks count again. Each \
               knock during that time starts it anew.",
    },
    Key {
        name: "max_knocker_live_time",
        field: &Or {
            kind: SECONDS,
            default: || Duration::from_secs(30),
            slot: |file: &mut File| &mut file.forget_after,
        },
        help: "This long after its last knock, a knocker is forgotten and must start again.",
    },
    Key {
        name: "max_opened_door_duration",
        field: &Or {
            kind: SECONDS,
            default: || Duration::from_secs(10),
            slot: |file: &mut File| &mut file.open_for,
        },
        help: "How long a door stays open. Connections that were made in that time live on, so a few \
               seconds are enough for most services.",
    },
    Key {
        name: "doors_cleanup_periode",
        field: &Or {
            kind: SECONDS,
            default: || Duration::from_secs(10),
            slot: |file: &mut File| &mut file.clean_period,
        },
        help: "The open doors are compared with what is open in the firewall this often. Doors close by \
               themselves, whether or not this program runs.",
    },
    Key {
        name: "firewall",
        field: &Or {
            kind: FIREWALL,
            default: || FirewallChoice::Auto,
            slot: |file: &mut File| &mut file.firewall,
        },
        help: "What keeps the doors closed and opens them. Our own gate in nftables guards them in any case but \
               the last. \"auto\" also opens them in firewalld where that runs and would keep them closed; with \
               \"firewalld\" it is an error if there is no system bus to reach it; \"nftables\" asks firewalld \
               for nothing. \"rich-rules\" is for kernels without nf_tables: firewalld alone, no gate, and \
               strangers get in wherever firewalld lets them.",
    },
    Key {
        name: "listen",
        field: &Or { kind: LISTEN, default: || Hearing::Capture, slot: |file: &mut File| &mut file.listen },
        help: "How knocks are heard. \"capture\" sees packets before any firewall: no port needs opening, and \
               a knock on any other port counts as wrong. \"sockets\" binds the knock ports, for places \
               without CAP_NET_RAW: it hears no wrong knocks on other ports, so use 15 ports or more. It \
               cannot see whether a datagram came in fragments, or was broadcast on the link with the address \
               of this machine; \"capture\" hears neither.",
    },
    Key {
        name: "zone",
        field: &Or { kind: ZONE, default: || None, slot: |file: &mut File| &mut file.zone },
        help: "Where firewalld runs: the zone in which doors open. \"auto\" takes the zone that the client's \
               traffic arrives in.",
    },
    Key {
        name: "refuse",
        field: &Or { kind: REFUSE, default: || Refuse::Drop, slot: |file: &mut File| &mut file.refuse },
        help: "What happens to a connection to a closed door. \"drop\" does not answer; \
               \"reject\" answers like a port where nothing listens.",
    },
    Key {
        name: "trusted",
        field: &Or { kind: NETWORKS, default: Vec::new, slot: |file: &mut File| &mut file.trusted },
        help: "Networks that always pass the gate without knocking, for example \"192.168.1.0/24\" or \
               \"2001:db8::/32\". What firewalld closes, it closes to them, too.",
    },
    Key {
        name: "mark",
        field: &Maybe {
            kind: MARK,
            unset: Some("none"),
            example: Some("0x20000000"),
            slot: |file: &mut File| &mut file.mark,
        },
        help: "Bits of the packet mark that every packet of a granted connection carries, for example 0x20000000. \
               With one rule in another firewall that accepts this mark, its port stays closed to everybody else, \
               also if the gate is gone: docs/firewalls.md has that rule for ufw, iptables, nftables and container \
               engines. Choose bits that nothing else here uses, as `ip rule` and the other firewall's rules show. \
               Not with firewall = \"rich-rules\", where no gate could mark anything.",
    },
    Key {
        name: "on_exit",
        field: &Or { kind: ON_EXIT, default: || false, slot: |file: &mut File| &mut file.remove_on_exit },
        help: "What happens to the gate when the daemon is stopped in order. \"keep\" leaves it: \
               open doors close on time, and no other opens. \"remove\" takes it away: the ports are then as \
               open as the rest of the firewall leaves them.",
    },
    Key {
        name: "control_group",
        field: &Maybe {
            kind: GROUP,
            unset: Some("none"),
            example: Some("\"adm\""),
            slot: |file: &mut File| &mut file.control_group,
        },
        help: "The group whose members, beside root, may see what the running daemon does and change it: `status`, \
               `list`, `watch`, `open`, `close`, `reload`, `log-level`. A name that /etc/group has, or a number.",
    },
    Key {
        name: "control_read_group",
        field: &Maybe {
            kind: GROUP,
            unset: Some("none"),
            example: Some("\"monitoring\""),
            slot: |file: &mut File| &mut file.control_read_group,
        },
        help: "The group whose members may only see it: `status`, `list`, `watch`.",
    },
    Key {
        name: "spa_port",
        field: &Or { kind: PORT, default: || doors_spa::PORT, slot: |file: &mut File| &mut file.spa_port },
        help: "The port to which clients with a key send. It answers no other sender.",
    },
    Key {
        name: "spa_window",
        field: &Or {
            kind: Seconds(1..=WIDEST_WINDOW.as_secs()),
            default: || Duration::from_secs(60),
            slot: |file: &mut File| &mut file.spa_window,
        },
        help: "How far a client's clock may be from this machine's. A client further away still gets in, a \
               moment later: it is asked to prove in another way that its knock is fresh.",
    },
    Key {
        name: "gateway_key",
        field: &Or {
            kind: PATH,
            default: || PathBuf::from("/etc/port-knocking-doors/gateway.key"),
            slot: |file: &mut File| &mut file.gateway_key,
        },
        help: "The file of this machine's own key, which `port-knocking-doors gateway init` makes. Needed as \
               soon as there are clients with keys.",
    },
    Key {
        name: "state_dir",
        field: &Or {
            kind: PATH,
            default: || PathBuf::from(STATE_DIR),
            slot: |file: &mut File| &mut file.state_dir,
        },
        help: "Where the daemon keeps what it must remember over a restart: which knocks it has seen, so \
               that none can be used again.",
    },
    Key {
        name: "authorized_keys",
        field: &Maybe {
            kind: PATH,
            unset: Some("none"),
            example: Some("\"/etc/port-knocking-doors/authorized_keys\""),
            slot: |file: &mut File| &mut file.authorized_keys,
        },
        help: "A file of public keys as sshd has it, each of which is a client. Beside sshd's own options \
               from=\"…\" and expiry-time=\"…\", a line may begin with name=\"…\", doors=\"ssh,web\" and \
               max_open_for=\"600\". What else sshd knows is not for us, and keys of other types are named in \
               the log and left out. The file has to belong to root, or to the user that the daemon runs as, and no other user may write to it.",
    },
    Key {
        name: "authorized_keys_doors",
        field: &Maybe {
            kind: DOOR_NAMES,
            unset: Some("[]"),
            example: None,
            slot: |file: &mut File| &mut file.authorized_keys_doors,
        },
        help: "The doors for lines of authorized_keys that have no doors=\"…\" of their own.",
    },
    Key {
        name: "clients_dir",
        field: &Maybe {
            kind: PATH,
            unset: Some("clients.d"),
            example: Some("\"/etc/port-knocking-doors/clients.d\""),
            slot: |file: &mut File| &mut file.clients_dir,
        },
        help: "The directory with a file NAME.toml for each client, which `port-knocking-doors client add` writes: the \
               keys of [[clients]], and the client is called NAME. Without this key it is \
               /etc/port-knocking-doors/clients.d for /etc/port_knocker.toml, and clients.d beside any other file, and \
               need not be there. Other files in it are not read. The directory and its files have to belong to root, or \
               to the user that the daemon runs as, and no other user may write to them.",
    },
    Key {
        name: "doors",
        field: &Tables { shape: "tables [[doors]]", read: file::read_doors },
        help: "More doors, each with its own sequence, or for clients with a key; their keys follow.",
    },
    Key {
        name: "clients",
        field: &Tables { shape: "tables [[clients]]", read: file::read_clients },
        help: "Devices with a key, and the doors that they may open; their keys follow. \
               `port-knocking-doors client add` \
               writes them into a file of their own in clients_dir.",
    },
];
