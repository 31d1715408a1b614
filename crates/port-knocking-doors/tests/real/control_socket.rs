//! The control socket itself: who may use it, what it answers to what is wrong, and what a hostile user of it can do.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use doors_lab::Process;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    control::{code, fine, socket, started},
    testbed::{CLIENT, PATIENCE, SEQUENCE, STRANGER, Testbed, gate},
};

/// A connection that says exactly what it is told.
struct Raw(BufReader<UnixStream>);

impl Raw {
    fn connect(testbed: &Testbed) -> Self {
        let stream = UnixStream::connect(socket(testbed)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    fn send(&mut self, method: &str, parameters: &Value, more: bool) {
        let call = json!({ "method": method, "parameters": parameters, "more": more });
        self.say(format!("{call}\0").as_bytes()).unwrap();
    }

    fn reply(&mut self) -> Option<Value> {
        let mut message = Vec::new();
        self.0.read_until(0, &mut message).ok()?;
        message.pop()?;
        Some(serde_json::from_slice(&message).unwrap())
    }

    /// The reply to a call of our interface.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.send(&format!("org.port-knocking-doors.{method}"), parameters, false);
        self.reply().unwrap()
    }
}

#[test]
fn two_groups_may_see_and_one_of_them_may_change_and_all_others_are_turned_away() {
    let testbed = started("control_read_group = \"4001\"\ncontrol_group = \"4002\"");
    // The directory of the test is root's alone; the socket's rights are what is tried here.
    let open = |path: PathBuf| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).unwrap();
    };
    open(testbed.directory.path().to_owned());
    let program = testbed.place_for("program");
    fs::copy(env!("CARGO_BIN_EXE_port-knocking-doors"), &program).unwrap();
    open(program.clone());
    let directory = socket(&testbed).display().to_string();
    let run_as = |user: &str, groups: &str, command: &[&str]| {
        let mut run = std::process::Command::new("setpriv");
        run.args(["--reuid", user, "--regid", user, "--groups", groups]).arg(&program).args(command);
        run.args(["--control-socket", &directory]);
        let mut process = Process::start(&testbed.server, run).unwrap();
        process.finish(PATIENCE).unwrap().unwrap()
    };
    let open = ["open", "default", CLIENT[0]];
    for (groups, command, expected) in [
        ("65534", &["status"][..], 1),
        ("65534", &open, 1),
        ("4001", &["status"], 0),
        ("4001", &["list"], 0),
        ("4001", &open, 1),
        ("4001", &["close", "--all"], 1),
        ("4001", &["reload"], 1),
        ("4001", &["log-level", "off"], 1),
        ("17,4002", &["status"], 0),
        ("17,4002", &open, 0),
    ] {
        let (status, said) = run_as("12345", groups, command);
        assert_eq!(code(status), expected, "{groups}: {command:?}: {said}");
        assert_eq!(said.contains("is not for you"), expected == 1, "{said}");
    }
    assert!(testbed.is_open(CLIENT[0]));
    let mode = |testbed: &Testbed| {
        let socket = fs::metadata(socket(testbed)).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::mode(&socket) & 0o777
    };
    assert_eq!(mode(&testbed), 0o660, "the kernel keeps all others out");
    assert_eq!(mode(&started("")), 0o600, "and the groups, if there are none");
}

#[test]
fn wrong_calls_get_exact_errors() {
    let testbed = started("");
    let mut raw = Raw::connect(&testbed);
    let ours = "org.port-knocking-doors";
    for (method, parameters, error, field) in [
        ("org.nowhere.Method", json!({}), "org.varlink.service.InterfaceNotFound", "org.nowhere"),
        ("nonsense", json!({}), "org.varlink.service.InterfaceNotFound", ""),
        (
            "org.port-knocking-doors.Fly",
            json!({}),
            "org.varlink.service.MethodNotFound",
            "org.port-knocking-doors.Fly",
        ),
        ("org.port-knocking-doors.Status", json!({ "x": 1 }), "org.varlink.service.InvalidParameter", "x"),
        (
            "org.port-knocking-doors.Open",
            json!({ "door": 7 }),
            "org.varlink.service.InvalidParameter",
            "door",
        ),
        (
            "org.port-knocking-doors.Open",
            json!({ "door": "a" }),
            "org.varlink.service.InvalidParameter",
            "address",
        ),
        (
            "org.port-knocking-doors.Open",
            json!({ "door": "a", "address": "192.0.2.7", "seconds": -1 }),
            "org.varlink.service.InvalidParameter",
            "seconds",
        ),
        ("org.port-knocking-doors.Close", json!({}), "org.varlink.service.InvalidParameter", "all"),
        (
            "org.port-knocking-doors.Close",
            json!({ "all": true, "door": "a" }),
            "org.varlink.service.InvalidParameter",
            "all",
        ),
        ("org.port-knocking-doors.ListGrants", json!({}), "org.varlink.service.ExpectedMore", ""),
    ] {
        raw.send(method, &parameters, false);
        let reply = raw.reply().unwrap();
        let said = reply["parameters"].as_object().unwrap().values().next();
        assert_eq!(reply["error"], error, "{method} {parameters}");
        assert_eq!(said.and_then(Value::as_str).unwrap_or_default(), field, "{method} {parameters}");
    }
    raw.send("org.varlink.service.GetInfo", &json!({}), false);
    assert_eq!(raw.reply().unwrap()["parameters"]["interfaces"], json!(["org.varlink.service", ours]));
    raw.send("org.varlink.service.GetInterfaceDescription", &json!({ "interface": ours }), false);
    let definition = include_str!("../../../../dist/org.port-knocking-doors.varlink");
    assert_eq!(raw.reply().unwrap()["parameters"]["description"], definition);
    raw.say(b"{\"method\":\"org.port-knocking-doors.Reload\",\"oneway\":true}\0").unwrap();
    assert_eq!(
        raw.call("Status", &json!({}))["parameters"]["status"]["grants"],
        0,
        "no reply to what wants none"
    );
}

#[test]
fn varlinkctl_of_debian_13_uses_it() {
    let testbed = started("");
    let root = doors_lab::Root::trixie().unwrap();
    let varlinkctl = |arguments: &[&str]| {
        let mut command = root.program(testbed.directory.path(), "varlinkctl");
        let place = format!("unix:{}", doors_lab::Root::inside().join("control.varlink").display());
        command.arg(arguments[0]).arg(place).args(&arguments[1..]);
        let mut process = Process::start(&testbed.server, command).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
        (status.success(), said)
    };
    let (fine, said) = varlinkctl(&["info"]);
    assert!(fine && said.contains("Interfaces: org.port-knocking-doors"), "{said}");
    let (fine, said) = varlinkctl(&["introspect", "org.port-knocking-doors"]);
    assert!(fine && said.contains("method ListGrants() -> (") && said.contains("error NoSuchDoor"), "{said}");
    let call = |method: &str, parameters: &str| {
        varlinkctl(&["call", &format!("org.port-knocking-doors.{method}"), parameters, "--more"])
    };
    let (fine, said) = call("Open", "{\"door\":\"default\",\"address\":\"192.0.2.7\",\"seconds\":600}");
    assert!(fine && said.contains("\"seconds_left\""), "{said}");
    assert!(testbed.is_open(CLIENT[0]));
    let (fine, said) = call("ListGrants", "{}");
    assert!(fine && said.contains("\"192.0.2.7\"") && said.contains("\"administrator\""), "{said}");
    let (fine, said) = call("Open", "{\"door\":\"cellar\",\"address\":\"192.0.2.7\"}");
    assert!(!fine && said.contains("org.port-knocking-doors.NoSuchDoor"), "{said}");
}

/// How long a status takes.
fn status_takes(raw: &mut Raw) -> Duration {
    let begun = Instant::now();
    assert!(raw.call("Status", &json!({}))["error"].is_null());
    begun.elapsed()
}

/// The median time of a status while wrong knocks arrive.
fn median_of_status(testbed: &Testbed, raw: &mut Raw) -> Duration {
    let mut times: Vec<Duration> = (0..50)
        .map(|number| {
            testbed.send(STRANGER[0], &[number + 1], b"knock\n");
            status_takes(raw)
        })
        .collect();
    times.sort_unstable();
    times[25]
}

#[test]
fn a_hostile_user_of_the_socket_slows_no_other_and_takes_no_memory() {
    let mut testbed = started("control_read_group = \"4001\"");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(testbed.directory.path(), mode).unwrap();
    let path = socket(&testbed);
    let mut honest = Raw::connect(&testbed);
    status_takes(&mut honest);
    let resident = |testbed: &mut Testbed| {
        let pid = testbed.daemon().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident(&mut testbed);
    // On a machine that is busy with other work everything takes longer.
    let usual = median_of_status(&testbed, &mut honest);
    let bearable = Duration::from_millis(20).max(usual * 20);
    // Connections of another user: silent, endless, deep, and watchers that never read.
    let script = r#"
import array, json, os, socket, struct, sys, threading, time
os.setgroups([4001]); os.setgid(12345); os.setuid(12345)
path, kind = sys.argv[1], sys.argv[2]
def connect():
    s = socket.socket(socket.AF_UNIX); s.connect(path); return s
def call(method, **more):
    return json.dumps({"method": "org.port-knocking-doors." + method, **more}).encode() + b"\0"
held = []
print("begun", flush=True)
if kind == "silent":
    for _ in range(1000):
        try: held.append(connect())
        except OSError: pass
elif kind == "watchers":
    for _ in range(10):
        s = connect(); s.sendall(call("Watch", more=True)); held.append(s)
elif kind == "pipelined":
    def flood():
        while True:
            try:
                s = connect(); s.setblocking(False)
                while True:
                    try: s.send(call("Status") * 50)
                    except BlockingIOError:
                        try: s.recv(1 << 20)
                        except BlockingIOError: time.sleep(0.001)
            except OSError: time.sleep(0.01)
    for _ in range(4): threading.Thread(target=flood, daemon=True).start()
elif kind == "long":
    for _ in range(20):
        s = connect()
        try:
            for _ in range(100): s.sendall(b"x" * (1 << 20))
        except OSError: pass
elif kind == "deep":
    for _ in range(200):
        s = connect()
        try: s.sendall(b'{"method":"a.b","parameters":{"x":' + b"[" * 60000 + b"\0"); s.recv(1)
        except OSError: pass
elif kind == "lingering":
    listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
    refused = 0
    for _ in range(3):
        full = socket.socket(); full.connect(listener.getsockname()); held.append(listener.accept()[0])
        full.setblocking(False)
        try:
            while True: full.send(b"x" * 65536)
        except BlockingIOError: pass
        full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 2))
        s = connect()
        try: s.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [full.fileno()]))])
        except OSError: refused += 1
        full.detach() if refused else full.close()
        held.append(s)
    if not refused: print("passed", flush=True)
elif kind == "descriptors":
    for _ in range(50):
        s = connect()
        try:
            for _ in range(20):
                s.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 200))])
        except OSError: pass
        held.append(s)
print("done", flush=True)
time.sleep(3)
"#;
    for kind in ["silent", "watchers", "pipelined", "long", "deep", "descriptors", "lingering"] {
        let mut attacker = std::process::Command::new("python3");
        attacker.args(["-c", script]).arg(&path).arg(kind);
        let mut attacker = Process::start(&testbed.server, attacker).unwrap();
        attacker.wait_for("done", PATIENCE).unwrap_or_else(|| panic!("{kind}: {:?}", attacker.lines()));
        // Before Linux 6.16 descriptors can be passed, and those who share the socket wait for them.
        if attacker.lines().iter().any(|line| line == "passed") {
            status_takes(&mut honest);
            continue;
        }
        let median = median_of_status(&testbed, &mut honest);
        assert!(median < bearable, "{kind}: {median:?}, and usually {usual:?}");
        status_takes(&mut Raw::connect(&testbed));
        attacker.signal(Signal::KILL).unwrap();
        attacker.wait(PATIENCE).unwrap();
    }
    let open = fs::read_dir(format!("/proc/{}/fd", testbed.daemon().id())).unwrap().count();
    assert!(open < 60, "{open} descriptors");
    let after = resident(&mut testbed);
    assert!(after < before + 4096, "{before} kB before, {after} kB after");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.until("knocks are heard", |testbed| testbed.is_open(CLIENT[0]));
}

#[test]
fn a_second_daemon_at_the_same_socket_says_so_and_guards_its_doors_all_the_same() {
    let first = started("");
    let mut second = Testbed::new();
    let path = second.write(&gate(""));
    let mut command = second.program();
    command.arg("--conf").arg(path).arg("--control-socket").arg(socket(&first));
    second.spawn(command);
    let said = second.hear("no control socket: `status`");
    assert!(
        said.contains("uses") && said.contains("already; give this one another, with --control-socket"),
        "{said}"
    );
    second.hear("ready");
    second.knock(CLIENT[0], &SEQUENCE);
    second.until("the door of the second is open", |second| second.is_open(CLIENT[0]));
    second.end(Signal::TERM);
    fine(&first, &["status"]);
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let mut testbed = Testbed::new();
    let path = testbed.write(&gate(""));
    let mut command = testbed.program();
    command.arg("--conf").arg(&path).arg("--control-socket").arg(&path);
    testbed.spawn(command);
    testbed.hear("is there, and is no socket; give another path with --control-socket");
    testbed.hear("ready");
    testbed.end(Signal::TERM);
    assert_eq!(fs::read_to_string(path).unwrap(), gate(""));
}

#[test]
fn a_socket_that_another_daemon_has_made_in_its_place_stays() {
    let mut testbed = started("");
    fs::remove_file(socket(&testbed)).unwrap();
    let other = std::os::unix::net::UnixListener::bind(socket(&testbed)).unwrap();
    testbed.end(Signal::TERM);
    assert!(socket(&testbed).exists());
    drop(other);
}

#[test]
fn a_group_that_is_not_there_lets_root_use_the_socket_and_check_names_it() {
    let testbed = started("control_group = \"no-such-group\"");
    fine(&testbed, &["status"]);
    let checked = testbed.checked(&gate("control_group = \"no-such-group\""));
    let named =
        |line: &String| line.contains("control_group: there is no group \"no-such-group\" in /etc/group");
    assert!(checked.iter().any(named), "{checked:#?}");
}

#[test]
fn no_more_than_so_many_watch_and_the_next_is_told_so() {
    let testbed = started("");
    let mut watching: Vec<Raw> = (0..32).map(|_| Raw::connect(&testbed)).collect();
    for raw in &mut watching {
        raw.send("org.port-knocking-doors.Watch", &json!({}), true);
        assert!(raw.reply().unwrap()["error"].is_null());
    }
    let (status, said) = testbed.ask_daemon(&["watch"]);
    assert!(code(status) == 1 && said.contains("too many watch already; end one"), "{said}");
}

#[test]
fn connections_beyond_the_bound_are_closed_and_the_daemon_goes_on() {
    let testbed = started("");
    let mut held: Vec<Raw> = (0..200).map(|_| Raw::connect(&testbed)).collect();
    for raw in held.iter_mut().rev().take(60) {
        assert_eq!(raw.reply().unwrap()["error"], "org.port-knocking-doors.TooManyConnections");
        assert_eq!(raw.reply(), None, "it is closed");
    }
    let (status, said) = testbed.ask_daemon(&["status"]);
    assert!(code(status) == 1 && said.contains("too many connections"), "{said}");
    held.clear();
    testbed.until("there is room again", |testbed| testbed.ask_daemon(&["status"]).0.success());
}
