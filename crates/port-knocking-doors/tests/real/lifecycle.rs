//! Start, stop, restart, reload and kill.

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

use crate::testbed::{Answer, CLIENT, PATIENCE, PORT, SEQUENCE, STRANGER, Testbed, crowd, gate};

#[test]
fn a_stop_leaves_the_gate_and_open_doors_close_on_time() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut testbed = Testbed::new();
        testbed.start(&gate("max_opened_door_duration = 3"));
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("opened:");
        testbed.daemon().signal(signal).unwrap();
        testbed.hear("stopped; the gate stays");
        assert_eq!(testbed.end(signal).code(), Some(0));
        assert!(testbed.is_open(CLIENT[0]));
        assert!(!testbed.is_open(STRANGER[0]));
        testbed.until("the kernel closes the door", |testbed| !testbed.is_open(CLIENT[0]));
    }
}

#[test]
fn a_stop_removes_the_gate_if_the_configuration_says_so() {
    let mut testbed = Testbed::new();
    // Several times, because the code that restores a changed gate might race with the removal.
    for _ in 0..10 {
        testbed.start(&gate("on_exit = \"remove\""));
        assert!(!testbed.is_open(CLIENT[0]));
        testbed.end(Signal::TERM);
        assert!(testbed.table().contains("No such file or directory"));
    }
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn after_a_kill_ten_doors_close_on_time() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 3"));
    for number in 1..=10 {
        testbed.knock(&crowd(number), &SEQUENCE);
    }
    for _ in 0..10 {
        testbed.hear("opened:");
    }
    let opened = Instant::now();
    testbed.end(Signal::KILL);
    assert_eq!(testbed.grants("default").len(), 10);
    testbed.until("all doors are closed", |testbed| testbed.grants("default").is_empty());
    assert!(opened.elapsed() < Duration::from_secs(5), "{:?}", opened.elapsed());
    assert_eq!(testbed.ask(&crowd(1), PORT), Answer::Silence);
}

#[test]
fn a_restart_closes_no_door_early_and_opens_none() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut testbed = Testbed::new();
        let text = gate("max_opened_door_duration = 6");
        testbed.start(&text);
        for client in CLIENT {
            testbed.knock(client, &SEQUENCE);
            testbed.hear("opened:");
        }
        let opened = Instant::now();
        testbed.end(signal);
        testbed.start(&text);
        for client in CLIENT {
            testbed.hear(&format!("found open: door default for {client}"));
            assert!(testbed.is_open(client));
        }
        assert!(!testbed.is_open(STRANGER[0]));
        testbed.hear("closed:");
        testbed.until("the doors are closed", |testbed| testbed.grants("default").is_empty());
        assert!(opened.elapsed() < Duration::from_secs(8), "{:?}", opened.elapsed());
    }
}

#[test]
fn a_reload_closes_removed_doors_and_no_others() {
    let door = |name: &str, port: u16, first: u16| {
        format!(
            "[[doors]]\nname = \"{name}\"\nports = [\"{port}/tcp\"]\nsequence = [{first},2,3,4,6]\nopen_for = 60\n"
        )
    };
    let mut testbed = Testbed::new();
    testbed.serve(80);
    let top = "firewall = \"nftables\"\n";
    testbed.start(&format!("{top}{}{}", door("ssh", 22, 100), door("web", 80, 200)));
    testbed.knock(CLIENT[0], &[100, 2, 3, 4, 6]);
    testbed.hear("opened: door ssh");
    testbed.knock(CLIENT[0], &[200, 2, 3, 4, 6]);
    testbed.hear("opened: door web");

    testbed.write(&format!("{top}{}", door("ssh", 22, 100)));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("closed: door web");
    testbed.hear("the configuration has been read again");
    testbed.until("port 80 is guarded no longer", |testbed| testbed.ask(STRANGER[0], 80) == Answer::Accepted);
    assert!(testbed.is_open(CLIENT[0]));
    assert!(!testbed.is_open(STRANGER[0]));

    // An invalid file: the old configuration stays in force, and the log says why.
    let path = testbed.write(&format!("{top}colour = 1\n{}", door("ssh", 22, 100)));
    testbed.daemon().signal(Signal::HUP).unwrap();
    let line = testbed.hear("the old configuration stays in force");
    assert!(line.contains(&format!("{}:2:1: `colour` is no key", path.display())), "{line}");
    testbed.knock(STRANGER[0], &[100, 2, 3, 4, 6]);
    testbed.hear(&format!("opened: door ssh for {}", STRANGER[0]));
}

#[test]
fn knocks_are_heard_while_a_long_configuration_is_read() {
    let mut testbed = Testbed::new();
    let keys = testbed.place_for("authorized_keys");
    let line = |number: u32| {
        let mut secret = [0; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        let public = SigningKey::from_bytes(&secret).verifying_key();
        format!("{} device-{number}\n", ClientKey::new(public.as_bytes()).unwrap().to_openssh())
    };
    fs::write(&keys, (0..20_000).map(line).collect::<String>()).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    testbed.start(&gate(""));
    let path = testbed.write(&gate(&format!(
        "authorized_keys = {keys:?}\nauthorized_keys_doors = [\"default\"]\ngateway_key = {:?}\nstate_dir = {:?}\n",
        testbed.place_for("gateway.key"),
        testbed.place_for("state"),
    )));
    let (status, said) = testbed.run(&["--conf", path.to_str().unwrap(), "gateway", "init"]);
    assert!(status.success(), "{said}");
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.knock(CLIENT[0], &SEQUENCE);
    let read = format!("the configuration has been read again: {}", path.display());
    testbed.hear("opened: door default for 192.0.2.7");
    assert!(
        testbed.daemon().lines().iter().all(|line| !line.contains(&read)),
        "the knock waited for the reading"
    );
    testbed.hear(&read);
}

#[test]
fn a_pipe_in_place_of_the_file_delays_neither_knock_nor_stop() {
    let mut testbed = Testbed::new();
    testbed.start(&gate(""));
    let path = testbed.place_for("doors.toml");
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the old configuration stays in force");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.end(Signal::TERM).success());
}

#[test]
fn a_reload_without_its_file_keeps_the_old_configuration_instead_of_default_values() {
    let mut testbed = Testbed::new();
    let found = testbed.directory.path().join(".port_knocker.toml");
    fs::rename(testbed.write(&gate("max_opened_door_duration = 60")), &found).unwrap();
    testbed.start_command(testbed.program());
    fs::remove_file(&found).unwrap();
    testbed.daemon().signal(Signal::HUP).unwrap();
    let line = testbed.hear("the old configuration stays in force");
    let told = format!("the file {} is gone; put it back, or restart to use default values", found.display());
    assert!(line.contains(&told), "{line}");
    testbed.knock(STRANGER[0], &[16001, 16002, 16003, 16004, 16005]);
    testbed.hear("wrong knock:");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");

    fs::rename(testbed.write(&gate("max_opened_door_duration = 90")), &found).unwrap();
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear(&format!("the configuration has been read again: {}, doors: 1", found.display()));
}

#[test]
fn a_file_created_after_the_start_needs_a_restart() {
    let mut testbed = Testbed::new();
    let mut command = testbed.program();
    command.env("KNOCKER_SEQ", "40871,12903,55012,7741,31337");
    testbed.start_command(command);
    let found = testbed.directory.path().join(".port_knocker.toml");
    fs::rename(testbed.write(&gate("")), &found).unwrap();
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear(&format!(
        "there was no file at the start, and there is one; restart to use {}",
        found.display()
    ));
}

#[test]
fn a_reload_hears_the_new_sequence_with_sockets_too() {
    let mut testbed = Testbed::new();
    let text = gate("listen = \"sockets\"\nmax_opened_door_duration = 60");
    testbed.start(&text);
    let new = [1001, 12903, 1003, 1004, 1006];
    testbed.write(&text.replace(&format!("{SEQUENCE:?}"), &format!("{new:?}")));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    testbed.knock(CLIENT[0], &new);
    testbed.hear("opened:");

    // Another program has a port: nothing changes, and the log says why.
    let taken = testbed.server.enter(|| std::net::UdpSocket::bind("0.0.0.0:2001")).unwrap();
    testbed.write(&text.replace(&format!("{SEQUENCE:?}"), "[2001, 2002, 2003, 2004, 2006]"));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the old configuration stays in force: cannot bind UDP port 2001");
    testbed.knock(STRANGER[0], &new);
    testbed.hear(&format!("opened: door default for {}", STRANGER[0]));
    drop(taken);
}

#[test]
fn a_second_daemon_does_not_start_and_says_why() {
    for listen in ["listen = \"capture\"", "listen = \"sockets\""] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(listen));
        let path = testbed.directory.path().join("doors.toml");
        for _ in 0..5 {
            let (status, said) = testbed.run(&["--conf", path.to_str().unwrap()]);
            assert_eq!(status.code(), Some(1));
            assert!(said.contains("another port-knocking-doors runs in this network namespace"), "{said}");
        }
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("opened:");
        assert!(testbed.is_open(CLIENT[0]));
    }
}

#[test]
fn an_unprivileged_user_cannot_keep_a_daemon_from_starting() {
    let mut testbed = Testbed::new();
    let name = SockAddr::unix("\0port-knocking-doors").unwrap();
    let _taken = testbed.server.enter(|| {
        set_thread_uid(Uid::from_raw(65534)).unwrap();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&name).unwrap();
        socket.listen(1).unwrap();
        socket
    });
    testbed.start(&gate(""));
    assert!(testbed.hear("holds the name by which").contains("the user 65534"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
}

#[test]
fn remove_gate_removes_the_table_unless_a_daemon_runs() {
    let mut testbed = Testbed::new();
    assert!(testbed.run(&["remove-gate"]).1.contains("there is no nftables table"));
    testbed.start(&gate(""));
    let (status, said) = testbed.run(&["remove-gate"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("systemctl stop port-knocking-doors"), "{said}");
    assert!(!testbed.is_open(CLIENT[0]));
    testbed.end(Signal::KILL);
    assert_eq!(testbed.run(&["remove-gate"]).0.code(), Some(0));
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn without_a_capability_the_message_names_it() {
    let testbed = Testbed::new();
    let path = testbed.write(&gate(""));
    fs::set_permissions(testbed.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    for (capability, named) in [("net_raw", "CAP_NET_RAW"), ("net_admin", "CAP_NET_ADMIN")] {
        let mut command = std::process::Command::new("setpriv");
        command.arg(format!("--bounding-set=-{capability}")).arg(format!("--inh-caps=-{capability}"));
        command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg("--conf").arg(&path);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
        let mut process = Process::start(&testbed.server, command).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(named), "{said}");
    }
    assert!(testbed.is_open(CLIENT[0]), "nothing was touched");
}

#[test]
fn a_reserved_knock_port_is_an_error_that_says_what_to_do() {
    let testbed = Testbed::new();
    let text = gate("listen = \"sockets\"");
    let start = |text: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]);
        command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg("--conf").arg(testbed.write(text));
        command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
        Process::start(&testbed.server, command).unwrap()
    };
    let ways = "CAP_NET_BIND_SERVICE, choose knock ports from 1024, or set listen = \"capture\"";
    let low = text.replace("7741", "902");
    let (status, said) = start(&low).finish(PATIENCE).unwrap().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("may not bind UDP port 902; ") && said.contains(ways), "{said}");

    let mut daemon = start(&text);
    assert!(daemon.wait_for("ready", PATIENCE).is_some(), "{:?}", daemon.lines());
    testbed.write(&low);
    daemon.signal(Signal::HUP).unwrap();
    let line = daemon.wait_for("the old configuration stays in force", PATIENCE);
    assert!(line.as_ref().is_some_and(|line| line.contains(ways)), "{line:?}");
}

#[test]
fn the_two_capabilities_of_the_unit_are_enough() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/port-knocking-doors.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(unit.contains("CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW\n"));
    let mut testbed = Testbed::new();
    let path = testbed.write(&gate(""));
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "--no-new-privs"]);
    command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg("--conf").arg(path);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    testbed.start_command(command);
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
    testbed.on_server("nft", &["flush", "ruleset"]);
    testbed.hear("the table was gone");
}

/// Reports the ordering cycles that systemd would break. A machine has either ifupdown or networkd.
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
fn the_unit_restarts_however_often_it_has_failed() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/port-knocking-doors.service");
    let unit = fs::read_to_string(unit).unwrap();
    let (of_unit, of_service) = unit.split_once("[Service]").unwrap();
    assert!(of_unit.contains("\nStartLimitIntervalSec=0\n"), "elsewhere systemd does not look for it");
    assert!(of_service.contains("\nRestart=on-failure\n"));
}

#[test]
fn the_supervisor_learns_that_the_daemon_is_ready_alive_and_stopping() {
    let mut testbed = Testbed::new();
    let path = testbed.directory.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = testbed.write(&gate(""));
    let mut command = testbed.program();
    command.arg("--conf").arg(config).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    testbed.start_command(command);
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
    testbed.daemon().signal(Signal::HUP).unwrap();
    hear("RELOADING=1");
    hear("READY=1");
    testbed.daemon().signal(Signal::TERM).unwrap();
    hear("STOPPING=1");
}

#[test]
fn the_journal_gets_the_log_with_its_fields() {
    let testbed = Testbed::new();
    let place = testbed.directory.path().join("journal");
    fs::create_dir(&place).unwrap();
    let journal = UnixDatagram::bind(place.join("socket")).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = testbed.write(&gate(""));
    // As under systemd: the journal's socket is in place, and the variable names standard error.
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal \
                  && mount --bind \"$1\" /run/systemd/journal \
                  && JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$2\" --conf \"$3\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&place);
    command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg(config);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let mut daemon = Process::start(&testbed.server, command).unwrap();
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
    testbed.knock(CLIENT[0], &SEQUENCE);
    let entry = hear("opened: door default for 192.0.2.7, for 10 s");
    for field in ["DOOR", "default", "SOURCE", "192.0.2.7", "PRIORITY\n\u{1}\0\0\0\0\0\0\u{0}6\n"] {
        assert!(entry.contains(field), "{field} is not in {entry:?}");
    }
    assert_eq!(daemon.lines(), [""; 0], "nothing is logged twice");
}

#[test]
fn a_quiet_daemon_sleeps() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("firewall_rules_check_periode_seconds = 3600\ndoors_cleanup_periode = 3600"));
    std::thread::sleep(Duration::from_millis(300));
    let switches = |testbed: &mut Testbed| -> u64 {
        let id = testbed.daemon().id();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let count = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
            lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum::<u64>()
        };
        tasks.map(|task| count(task.unwrap())).sum()
    };
    // The kernel may still send notifications about the new interfaces.
    let quiet = (0..5).any(|_| {
        let before = switches(&mut testbed);
        std::thread::sleep(Duration::from_secs(3));
        switches(&mut testbed) == before
    });
    assert!(quiet, "in no three seconds of fifteen");
}

#[test]
fn a_blocked_log_delays_neither_knock_nor_stop() {
    let testbed = Testbed::new();
    let path = testbed.write(&gate("max_opened_door_duration = 60"));
    let (kept, log) = rustix::pipe::pipe().unwrap();
    // The pipe has room for some dozens of lines, and is never read.
    rustix::pipe::fcntl_setpipe_size(&log, 4096).unwrap();
    let mut command = testbed.program();
    command.arg("--conf").arg(path).stderr(log);
    let mut daemon = Process::start_as_it_is(&testbed.server, command).unwrap();
    testbed.until("it is ready", |testbed| testbed.table().contains("vmap @guarded"));
    for number in 1..=100 {
        testbed.knock(&crowd(number), &SEQUENCE);
    }
    testbed.until("all doors are open", |testbed| testbed.grants("default").len() == 100);
    daemon.signal(Signal::TERM).unwrap();
    assert!(daemon.wait(PATIENCE).unwrap().is_some_and(|status| status.success()));
    drop(kept);
}

#[test]
fn a_restart_extends_no_grant() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut testbed = Testbed::new();
        let text = gate("max_opened_door_duration = 10");
        testbed.start(&text);
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("opened:");
        testbed.until("four seconds have passed", |testbed| testbed.grants("default")[CLIENT[0]] <= 6);
        testbed.end(signal);
        testbed.start(&text);
        let grants = testbed.grants("default");
        assert!((1..=6).contains(&grants[CLIENT[0]]), "{grants:?}");
    }
}
