//! Start, stop, restart, reload, death.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use doors_lab::{Process, Root};
use doors_spa::identity::ClientKey;
use ed25519_dalek::SigningKey;
use rustix::{
    process::{Signal, Uid},
    thread::set_thread_uid,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::testbed::{Answer, CLIENT, House, PATIENCE, PORT, SEQUENCE, STRANGER, crowd, gate};

#[test]
fn a_stop_leaves_the_gate_and_open_doors_close_on_time() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut house = House::new();
        house.start(&gate("max_opened_door_duration = 3"));
        house.knock(CLIENT[0], &SEQUENCE);
        house.hear("opened:");
        house.daemon().signal(signal).unwrap();
        house.hear("stopped; the gate stays");
        assert_eq!(house.end(signal).code(), Some(0));
        assert!(house.is_open(CLIENT[0]));
        assert!(!house.is_open(STRANGER[0]));
        house.until("the kernel closes the door", |house| !house.is_open(CLIENT[0]));
    }
}

#[test]
fn a_stop_takes_the_gate_away_if_the_configuration_says_so() {
    let mut house = House::new();
    // Again and again, because whoever puts the gate back when it is touched might do so now.
    for _ in 0..10 {
        house.start(&gate("on_exit = \"remove\""));
        assert!(!house.is_open(CLIENT[0]));
        house.end(Signal::TERM);
        assert!(house.table().contains("No such file or directory"));
    }
    assert!(house.is_open(CLIENT[0]));
}

#[test]
fn after_a_kill_ten_doors_close_on_time() {
    let mut house = House::new();
    house.start(&gate("max_opened_door_duration = 3"));
    for number in 1..=10 {
        house.knock(&crowd(number), &SEQUENCE);
    }
    for _ in 0..10 {
        house.hear("opened:");
    }
    let opened = Instant::now();
    house.end(Signal::KILL);
    assert_eq!(house.grants("default").len(), 10);
    house.until("all doors are closed", |house| house.grants("default").is_empty());
    assert!(opened.elapsed() < Duration::from_secs(5), "{:?}", opened.elapsed());
    assert_eq!(house.ask(&crowd(1), PORT), Answer::Silence);
}

#[test]
fn a_restart_closes_nobodys_door_early_and_opens_none() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut house = House::new();
        let text = gate("max_opened_door_duration = 6");
        house.start(&text);
        for client in CLIENT {
            house.knock(client, &SEQUENCE);
            house.hear("opened:");
        }
        let opened = Instant::now();
        house.end(signal);
        house.start(&text);
        for client in CLIENT {
            house.hear(&format!("found open: door default for {client}"));
            assert!(house.is_open(client));
        }
        assert!(!house.is_open(STRANGER[0]));
        house.hear("closed:");
        house.until("the doors are closed", |house| house.grants("default").is_empty());
        assert!(opened.elapsed() < Duration::from_secs(8), "{:?}", opened.elapsed());
    }
}

#[test]
fn a_reload_closes_the_doors_that_are_gone_and_no_others() {
    let door = |name: &str, port: u16, first: u16| {
        format!(
            "[[doors]]\nname = \"{name}\"\nports = [\"{port}/tcp\"]\nsequence = [{first},2,3,4,6]\nopen_for = 60\n"
        )
    };
    let mut house = House::new();
    house.serve(80);
    let top = "firewall = \"nftables\"\n";
    house.start(&format!("{top}{}{}", door("ssh", 22, 100), door("web", 80, 200)));
    house.knock(CLIENT[0], &[100, 2, 3, 4, 6]);
    house.hear("opened: door ssh");
    house.knock(CLIENT[0], &[200, 2, 3, 4, 6]);
    house.hear("opened: door web");

    house.write(&format!("{top}{}", door("ssh", 22, 100)));
    house.daemon().signal(Signal::HUP).unwrap();
    house.hear("closed: door web");
    house.hear("the configuration has been read again");
    house.until("port 80 is guarded no longer", |house| house.ask(STRANGER[0], 80) == Answer::Accepted);
    assert!(house.is_open(CLIENT[0]));
    assert!(!house.is_open(STRANGER[0]));

    // A bad file: the old configuration stays, and it is said why.
    let path = house.write(&format!("{top}colour = 1\n{}", door("ssh", 22, 100)));
    house.daemon().signal(Signal::HUP).unwrap();
    let line = house.hear("the old configuration stays in force");
    assert!(line.contains(&format!("{}:2:1: `colour` is no key", path.display())), "{line}");
    house.knock(STRANGER[0], &[100, 2, 3, 4, 6]);
    house.hear(&format!("opened: door ssh for {}", STRANGER[0]));
}

#[test]
fn knocks_are_heard_while_a_long_configuration_is_read() {
    let mut house = House::new();
    let keys = house.place_for("authorized_keys");
    let line = |number: u32| {
        let mut secret = [0; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        let public = SigningKey::from_bytes(&secret).verifying_key();
        format!("{} device-{number}\n", ClientKey::new(public.as_bytes()).unwrap().to_openssh())
    };
    fs::write(&keys, (0..20_000).map(line).collect::<String>()).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    house.start(&gate(""));
    let path = house.write(&gate(&format!(
        "authorized_keys = {keys:?}\nauthorized_keys_doors = [\"default\"]\ngateway_key = {:?}\nstate_dir = {:?}\n",
        house.place_for("gateway.key"),
        house.place_for("state"),
    )));
    let (status, said) = house.run(&["--conf", path.to_str().unwrap(), "gateway", "init"]);
    assert!(status.success(), "{said}");
    house.daemon().signal(Signal::HUP).unwrap();
    house.knock(CLIENT[0], &SEQUENCE);
    let read = format!("the configuration has been read again: {}", path.display());
    house.hear("opened: door default for 192.0.2.7");
    assert!(house.daemon().lines().iter().all(|line| !line.contains(&read)), "the reading was waited for");
    house.hear(&read);
}

#[test]
fn what_takes_the_place_of_the_file_holds_up_neither_knock_nor_stop() {
    let mut house = House::new();
    house.start(&gate(""));
    let path = house.place_for("doors.toml");
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    house.daemon().signal(Signal::HUP).unwrap();
    house.hear("the old configuration stays in force");
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    assert!(house.end(Signal::TERM).success());
}

#[test]
fn a_reload_without_its_file_keeps_the_old_configuration_instead_of_default_values() {
    let mut house = House::new();
    let found = house.directory.path().join(".port_knocker.toml");
    fs::rename(house.write(&gate("max_opened_door_duration = 60")), &found).unwrap();
    house.start_command(house.program());
    fs::remove_file(&found).unwrap();
    house.daemon().signal(Signal::HUP).unwrap();
    let line = house.hear("the old configuration stays in force");
    let told = format!("the file {} is gone; put it back, or restart to use default values", found.display());
    assert!(line.contains(&told), "{line}");
    house.knock(STRANGER[0], &[16001, 16002, 16003, 16004, 16005]);
    house.hear("wrong knock:");
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");

    fs::rename(house.write(&gate("max_opened_door_duration = 90")), &found).unwrap();
    house.daemon().signal(Signal::HUP).unwrap();
    house.hear(&format!("the configuration has been read again: {}, doors: 1", found.display()));
}

#[test]
fn a_file_that_comes_after_the_start_needs_a_restart() {
    let mut house = House::new();
    let mut command = house.program();
    command.env("KNOCKER_SEQ", "40871,12903,55012,7741,31337");
    house.start_command(command);
    let found = house.directory.path().join(".port_knocker.toml");
    fs::rename(house.write(&gate("")), &found).unwrap();
    house.daemon().signal(Signal::HUP).unwrap();
    house.hear(&format!(
        "there was no file at the start, and there is one; restart to use {}",
        found.display()
    ));
}

#[test]
fn a_reload_hears_the_new_sequence_with_sockets_too() {
    let mut house = House::new();
    let text = gate("listen = \"sockets\"\nmax_opened_door_duration = 60");
    house.start(&text);
    let new = [1001, 12903, 1003, 1004, 1006];
    house.write(&text.replace(&format!("{SEQUENCE:?}"), &format!("{new:?}")));
    house.daemon().signal(Signal::HUP).unwrap();
    house.hear("the configuration has been read again");
    house.knock(CLIENT[0], &new);
    house.hear("opened:");

    // A port that another program has: nothing changes, and it is said why.
    let taken = house.server.enter(|| std::net::UdpSocket::bind("0.0.0.0:2001")).unwrap();
    house.write(&text.replace(&format!("{SEQUENCE:?}"), "[2001, 2002, 2003, 2004, 2006]"));
    house.daemon().signal(Signal::HUP).unwrap();
    house.hear("the old configuration stays in force: cannot bind UDP port 2001");
    house.knock(STRANGER[0], &new);
    house.hear(&format!("opened: door default for {}", STRANGER[0]));
    drop(taken);
}

#[test]
fn a_second_daemon_is_told_that_there_is_one() {
    for listen in ["listen = \"capture\"", "listen = \"sockets\""] {
        let mut house = House::new();
        house.start(&gate(listen));
        let path = house.directory.path().join("doors.toml");
        for _ in 0..5 {
            let (status, said) = house.run(&["--conf", path.to_str().unwrap()]);
            assert_eq!(status.code(), Some(1));
            assert!(said.contains("another port-knocking-doors runs in this network namespace"), "{said}");
        }
        house.knock(CLIENT[0], &SEQUENCE);
        house.hear("opened:");
        assert!(house.is_open(CLIENT[0]));
    }
}

#[test]
fn nobody_without_rights_keeps_a_daemon_from_starting() {
    let mut house = House::new();
    let name = SockAddr::unix("\0port-knocking-doors").unwrap();
    let _taken = house.server.enter(|| {
        set_thread_uid(Uid::from_raw(65534)).unwrap();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&name).unwrap();
        socket.listen(1).unwrap();
        socket
    });
    house.start(&gate(""));
    assert!(house.hear("holds the name by which").contains("the user 65534"));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
}

#[test]
fn remove_gate_takes_the_table_away_but_not_behind_a_daemons_back() {
    let mut house = House::new();
    assert!(house.run(&["remove-gate"]).1.contains("there is no nftables table"));
    house.start(&gate(""));
    let (status, said) = house.run(&["remove-gate"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("systemctl stop port-knocking-doors"), "{said}");
    assert!(!house.is_open(CLIENT[0]));
    house.end(Signal::KILL);
    assert_eq!(house.run(&["remove-gate"]).0.code(), Some(0));
    assert!(house.is_open(CLIENT[0]));
}

#[test]
fn without_the_rights_the_message_names_them() {
    let house = House::new();
    let path = house.write(&gate(""));
    fs::set_permissions(house.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (capability, named) in [("net_raw", "CAP_NET_RAW"), ("net_admin", "CAP_NET_ADMIN")] {
        let mut command = std::process::Command::new("setpriv");
        command.arg(format!("--bounding-set=-{capability}")).arg(format!("--inh-caps=-{capability}"));
        command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg("--conf").arg(&path);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
        let mut process = Process::start(&house.server, command).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(named), "{said}");
    }
    assert!(house.is_open(CLIENT[0]), "nothing was touched");
}

#[test]
fn a_knock_port_that_may_not_be_bound_gets_a_way_out() {
    let house = House::new();
    let text = gate("listen = \"sockets\"");
    let start = |text: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]);
        command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg("--conf").arg(house.write(text));
        command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
        Process::start(&house.server, command).unwrap()
    };
    let ways = "CAP_NET_BIND_SERVICE, choose knock ports from 1024, or set listen = \"capture\"";
    let low = text.replace("7741", "902");
    let (status, said) = start(&low).finish(PATIENCE).unwrap().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("may not bind UDP port 902; ") && said.contains(ways), "{said}");

    let mut daemon = start(&text);
    assert!(daemon.wait_for("ready", PATIENCE).is_some(), "{:?}", daemon.lines());
    house.write(&low);
    daemon.signal(Signal::HUP).unwrap();
    let line = daemon.wait_for("the old configuration stays in force", PATIENCE);
    assert!(line.as_ref().is_some_and(|line| line.contains(ways)), "{line:?}");
}

#[test]
fn the_two_capabilities_of_the_unit_are_enough() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/port-knocking-doors.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(unit.contains("CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW\n"));
    let mut house = House::new();
    let path = house.write(&gate(""));
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "--no-new-privs"]);
    command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg("--conf").arg(path);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    house.start_command(command);
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    assert!(house.is_open(CLIENT[0]));
    house.on_server("nft", &["flush", "ruleset"]);
    house.hear("the table was gone");
}

/// Says which jobs systemd would throw out. A machine has one of ifupdown and networkd.
const ORDERING_CYCLES: &str = r#"
unit() { chroot "$root" systemctl -q "$@"; }
mkdir -p "$root/usr/local/bin"
ln -s /bin/true "$root/usr/local/bin/port-knocking-doors"
cp "$1" "$root/etc/systemd/system/port-knocking-doors.service"
unit enable port-knocking-doors nftables
for part in local main network; do unit enable cloud-init-$part; done
unit enable cloud-config cloud-final
unit add-wants multi-user.target cloud-init.target
for network in "networking ifupdown-wait-online" "systemd-networkd systemd-networkd-wait-online"; do
    unit enable $network
    echo "checked: $network"
    chroot "$root" systemd-analyze verify --man=no multi-user.target 2>&1 | grep -i "cycle" || true
    unit disable $network
done
"#;

#[test]
fn the_unit_makes_no_ordering_cycle_with_cloud_init() {
    let unit = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/port-knocking-doors.service"));
    let output = Root::trixie().unwrap().on_a_copy(ORDERING_CYCLES, &[unit]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("checked: ").count(), 2, "{said}");
    assert!(!said.contains("cycle"), "{said}");
}

#[test]
fn the_unit_is_started_again_however_often_it_has_failed() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/port-knocking-doors.service");
    let unit = fs::read_to_string(unit).unwrap();
    let (of_unit, of_service) = unit.split_once("[Service]").unwrap();
    assert!(of_unit.contains("\nStartLimitIntervalSec=0\n"), "elsewhere systemd does not look for it");
    assert!(of_service.contains("\nRestart=on-failure\n"));
}

#[test]
fn the_supervisor_hears_that_we_are_ready_alive_and_stopping() {
    let mut house = House::new();
    let path = house.directory.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = house.write(&gate(""));
    let mut command = house.program();
    command.arg("--conf").arg(config).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    house.start_command(command);
    let mut said = String::new();
    let mut hear = |wanted: &str| {
        while !said.contains(wanted) {
            let mut buffer = [0; 256];
            let length = supervisor.recv(&mut buffer).unwrap_or_else(|_| panic!("{wanted} is not in {said}"));
            said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        said.clear();
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    house.daemon().signal(Signal::HUP).unwrap();
    hear("RELOADING=1");
    hear("READY=1");
    house.daemon().signal(Signal::TERM).unwrap();
    hear("STOPPING=1");
}

#[test]
fn the_journal_gets_the_log_with_its_fields() {
    let house = House::new();
    let place = house.directory.path().join("journal");
    fs::create_dir(&place).unwrap();
    let journal = UnixDatagram::bind(place.join("socket")).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = house.write(&gate(""));
    // As systemd does: the journal's socket is at its place, and the variable names standard error.
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal \
                  && mount --bind \"$1\" /run/systemd/journal \
                  && JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$2\" --conf \"$3\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&place);
    command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg(config);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let mut daemon = Process::start(&house.server, command).unwrap();
    let mut hear = |wanted: &str| loop {
        let mut buffer = [0; 4096];
        let length =
            journal.recv(&mut buffer).unwrap_or_else(|_| panic!("no {wanted}: {:?}", daemon.lines()));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains(wanted) {
            return text;
        }
    };
    hear("ready");
    house.knock(CLIENT[0], &SEQUENCE);
    let entry = hear("opened: door default for 192.0.2.7, for 10 s");
    for field in ["DOOR", "default", "SOURCE", "192.0.2.7", "PRIORITY\n\u{1}\0\0\0\0\0\0\u{0}6\n"] {
        assert!(entry.contains(field), "{field} is not in {entry:?}");
    }
    assert_eq!(daemon.lines(), [""; 0], "nothing is said twice");
}

#[test]
fn a_quiet_daemon_sleeps() {
    let mut house = House::new();
    house.start(&gate("firewall_rules_check_periode_seconds = 3600\ndoors_cleanup_periode = 3600"));
    std::thread::sleep(Duration::from_millis(300));
    let switches = |house: &mut House| -> u64 {
        let id = house.daemon().id();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let count = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
            lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum::<u64>()
        };
        tasks.map(|task| count(task.unwrap())).sum()
    };
    // The kernel itself may still have something to say of the new interfaces.
    let quiet = (0..5).any(|_| {
        let before = switches(&mut house);
        std::thread::sleep(Duration::from_secs(3));
        switches(&mut house) == before
    });
    assert!(quiet, "in no three seconds of fifteen");
}

#[test]
fn a_log_that_takes_nothing_holds_up_neither_knock_nor_stop() {
    let house = House::new();
    let path = house.write(&gate("max_opened_door_duration = 60"));
    let (kept, log) = rustix::pipe::pipe().unwrap();
    // Room for some dozens of lines; nobody reads any.
    rustix::pipe::fcntl_setpipe_size(&log, 4096).unwrap();
    let mut command = house.program();
    command.arg("--conf").arg(path).stderr(log);
    let mut daemon = Process::start_as_it_is(&house.server, command).unwrap();
    house.until("it is ready", |house| house.table().contains("vmap @guarded"));
    for number in 1..=100 {
        house.knock(&crowd(number), &SEQUENCE);
    }
    house.until("all doors are open", |house| house.grants("default").len() == 100);
    daemon.signal(Signal::TERM).unwrap();
    assert!(daemon.wait(PATIENCE).unwrap().is_some_and(|status| status.success()));
    drop(kept);
}

#[test]
fn a_restart_gives_no_grant_a_second_more() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut house = House::new();
        let text = gate("max_opened_door_duration = 10");
        house.start(&text);
        house.knock(CLIENT[0], &SEQUENCE);
        house.hear("opened:");
        house.until("four seconds have passed", |house| house.grants("default")[CLIENT[0]] <= 6);
        house.end(signal);
        house.start(&text);
        let grants = house.grants("default");
        assert!((1..=6).contains(&grants[CLIENT[0]]), "{grants:?}");
    }
}
