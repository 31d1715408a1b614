//! What `check` reports about what a start would need.

use std::{
    fs::{self, Permissions},
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use doors_lab::Process;
use rustix::process::Signal;

use crate::{
    raw_client::{Device, client},
    testbed::{PATIENCE, Testbed, gate},
};

const DOOR: &str = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";

/// A testbed with a gateway key, and a configuration with a client whose state is in this directory.
struct Scene {
    testbed: Testbed,
    device: Device,
    clients: String,
}

impl Scene {
    fn new() -> Self {
        let testbed = Testbed::new();
        let device = Device::new(1, &testbed.card());
        Self { clients: client("laptop", &device, &["ssh"], ""), device, testbed }
    }

    fn write(&self, state: &Path) -> PathBuf {
        let key = self.testbed.place_for("gateway.key");
        let top = format!("firewall = \"nftables\"\ngateway_key = {key:?}\nstate_dir = {state:?}\n");
        self.testbed.write(&format!("{top}{DOOR}{}", self.clients))
    }

    /// The exit code of `check`, and its output on one line.
    fn check(&self, state: &Path) -> (Option<i32>, String) {
        let path = self.write(state);
        let (status, said) = self.testbed.run(&["check", "--conf", path.to_str().unwrap()]);
        (status.code(), words(&said))
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn check_fails_if_others_may_write_the_state_or_its_owner_may_not() {
    let scene = Scene::new();
    let state = scene.testbed.place_for("state");
    fs::create_dir(&state).unwrap();
    for (mode, told) in [
        (0o700, None),
        (0o1777, Some(format!("{} can be changed by others (mode 1777); try: chmod go-w", state.display()))),
        (0o500, Some(format!("nothing can be written to {} (mode 500); try: chmod u+rwx", state.display()))),
    ] {
        fs::set_permissions(&state, Permissions::from_mode(mode)).unwrap();
        let (code, said) = scene.check(&state);
        assert_eq!(code, Some(i32::from(told.is_some())), "{said}");
        assert!(told.is_none_or(|told| said.contains(&told)), "{said}");
    }
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    // A file that is not a replay log counts as a damaged one, without an error; a pipe is an error.
    fs::write(state.join("knocks"), "something else of mine").unwrap();
    let (code, said) = scene.check(&state);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("knocks is damaged: the daemon will keep it as knocks.damaged"), "{said}");
    assert_eq!(fs::read(state.join("knocks")).unwrap(), b"something else of mine", "nothing is touched");
    fs::remove_file(state.join("knocks")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, state.join("knocks"), rustix::fs::Mode::RUSR).unwrap();
    let (code, said) = scene.check(&state);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("so it is not a replay log; move it away"), "{said}");
}

#[test]
fn check_fails_if_the_state_is_missing_and_the_daemon_could_not_create_it() {
    let scene = Scene::new();
    let missing = scene.testbed.place_for("missing");
    let (code, said) = scene.check(&missing);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{} for the state will be made", missing.display())), "{said}");
    assert!(!missing.exists(), "nothing is touched");
    let (code, said) = scene.check(&missing.join("state"));
    assert_eq!(code, Some(1), "{said}");
    let told = format!("missing, try: mkdir -p -m 700 {}/state", missing.display());
    assert!(said.contains("error: no client with a key can be let in") && said.contains(&told), "{said}");
}

#[test]
fn check_fails_if_the_state_is_on_a_read_only_file_system() {
    let scene = Scene::new();
    let place = scene.testbed.place_for("disk");
    fs::create_dir_all(&place).unwrap();
    for (state, made) in [(place.join("state"), true), (place.join("state"), false)] {
        let path = scene.write(&state);
        let script = "mount -t tmpfs -o mode=700 tmpfs \"$1\" && { [ \"$4\" = no ] || mkdir -m 700 \"$1/state\"; } \
                      && mount -o remount,ro \"$1\" && exec \"$2\" check --conf \"$3\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&place);
        command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg(path);
        command.arg(if made { "yes" } else { "no" });
        let mut process = Process::start(&scene.testbed.server, command).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        let said = words(&said);
        assert!(
            said.contains("nothing can be remembered") && said.contains("Read-only file system"),
            "{said}"
        );
        let told = format!("with the lines [Service] and ReadWritePaths={}", state.display());
        assert!(said.contains(&told), "{said}");
    }
}

#[test]
fn check_and_the_daemon_report_a_directory_in_place_of_a_file_of_the_replay_log() {
    for (name, damaged) in [("knocks.damaged", true), ("knocks.new", false), ("lock", false)] {
        let mut scene = Scene::new();
        let state = scene.testbed.place_for("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(state.join(name)).unwrap();
        if damaged {
            fs::write(state.join("knocks"), "something else of mine").unwrap();
        }
        let told =
            format!("{} is a directory, and the replay log needs a file there", state.join(name).display());
        let (code, said) = scene.check(&state);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("error: no client with a key can be let in"), "{said}");
        assert!(said.contains(&told) && !said.contains("will keep it"), "{said}");
        let mut command = scene.testbed.program();
        command.arg("--conf").arg(scene.testbed.place_for("doors.toml"));
        scene.testbed.start_command(command);
        let line = scene.testbed.hear("clients with keys are not heard");
        assert!(line.contains(&told), "{line}");
    }
}

#[test]
fn expired_clients_and_doors_that_only_they_may_open_are_reported() {
    let mut scene = Scene::new();
    let state = scene.testbed.place_for("state");
    let over = |name: &str, number| {
        let device = Device::new(number, &scene.device.card);
        client(name, &device, &["ssh"], "until = \"2020-01-31\"")
    };
    let names = "the time of 1 client is over, so that no knock of theirs opens anything: phone;";
    let unreachable = "the door `ssh` cannot be opened: it has no sequence, and the time of each client that may open it is over";
    scene.clients.push_str(&over("phone", 2));
    let (_, said) = scene.check(&state);
    assert!(said.contains(names) && !said.contains(unreachable), "{said}");
    scene.clients = over("phone", 2);
    let (_, said) = scene.check(&state);
    assert!(said.contains(&format!("warning: {names}")), "{said}");
    assert!(said.contains(&format!("warning: {unreachable}")), "{said}");
    assert!(said.contains("add NAME --door ssh") && said.contains(", which has expired"), "{said}");

    scene.write(&state);
    let mut command = scene.testbed.program();
    command.arg("--conf").arg(scene.testbed.place_for("doors.toml"));
    scene.testbed.start_command(command);
    scene.testbed.hear(names);
    scene.testbed.hear(unreachable);

    let many: String = (2..10).map(|number| over(&format!("phone-{number}"), number)).collect();
    scene.clients = many;
    let (_, said) = scene.check(&state);
    assert!(said.contains("the time of 8 clients is over") && said.contains(", and 3 more;"), "{said}");
}

#[test]
fn check_says_that_a_file_changed_since_the_daemon_read_it_has_to_be_reloaded() {
    const UNREAD: &str = "has not read it since it was changed; try: systemctl reload";
    let mut testbed = Testbed::new();
    let other = gate("listen = \"sockets\"");
    testbed.start(&other);
    let path = testbed.place_for("doors.toml");
    let check = |testbed: &Testbed| words(&testbed.run(&["check", "--conf", path.to_str().unwrap()]).1);
    assert!(!check(&testbed).contains("the daemon that runs"), "{}", check(&testbed));
    let replace = |text: &str| fs::rename(beside(&path, text), &path).unwrap();
    let in_place = |text: &str| fs::write(&path, text).unwrap();
    let ways: [&dyn Fn(&str); 2] = [&replace, &in_place];
    for (number, change) in ways.into_iter().enumerate() {
        change(&format!("{other}# change {number}\n"));
        assert!(check(&testbed).contains(UNREAD), "{}", check(&testbed));
        testbed.daemon().signal(Signal::HUP).unwrap();
        testbed.hear("the configuration has been read again");
        testbed.until("it says no more of it", |testbed| !check(testbed).contains("the daemon that runs"));
    }
    // A file that the daemon has read and refused is reported differently, until the file changes again. Here a port
    // is taken.
    let taken = testbed.server.enter(|| UdpSocket::bind("0.0.0.0:2001")).unwrap();
    in_place(&other.replace("40871", "2001"));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the old configuration stays in force");
    testbed
        .until("it says so", |testbed| check(testbed).contains("cannot use it; its log says why; mend that"));
    drop(taken);
    in_place(&other);
    assert!(check(&testbed).contains(UNREAD), "{}", check(&testbed));
}

/// Writes a file beside this one, as an editor does.
fn beside(path: &Path, text: &str) -> PathBuf {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    new
}
