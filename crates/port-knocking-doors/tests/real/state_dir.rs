//! A state directory that hangs or is unusable delays only what depends on it.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use doors_spa::receipt::Answer as Told;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    raw_client::{Device, client, open},
    testbed::{CLIENT, PATIENCE, PORT, SEQUENCE, STRANGER, Testbed},
};

const OTHER: [u16; 5] = [1001, 12903, 1003, 1004, 1006];
const NOT_HEARD: &str = "clients with keys are not heard until this is mended";

/// A configuration with a door that opens to this sequence and to a client.
fn configuration(testbed: &Testbed, device: &Device, sequence: &str) -> String {
    testbed.gateway(&format!(
        "{sequence}\n[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n{}",
        client("laptop", device, &["ssh"], "")
    ))
}

fn with_sequence(testbed: &Testbed, device: &Device, sequence: [u16; 5]) -> String {
    configuration(testbed, device, &format!("ports_to_controls = [{PORT}]\nopening_sequence = {sequence:?}"))
}

/// Starts the daemon without waiting for it.
fn spawn(testbed: &mut Testbed, text: &str) {
    let path = testbed.write(text);
    let mut command = testbed.program();
    command.arg("--conf").arg(path);
    testbed.spawn(command);
}

/// A file system that answers nothing, and later fails every request.
struct HangingDisk {
    holder: PathBuf,
}

impl HangingDisk {
    /// The daemon in a mount namespace where this directory hangs: the kernel asks the holder of the descriptor,
    /// which never reads the request (fuse(4)).
    fn at(testbed: &Testbed, directory: &Path) -> (Self, Command) {
        fs::create_dir(directory).unwrap();
        let holder = testbed.place_for("holder");
        let script = "exec 9<>/dev/fuse
            mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 fuse \"$1\" || exit 3
            sleep 1000 >/dev/null 2>&1 & echo $! > \"$2\"
            exec 9<&-
            exec \"$3\" --conf \"$4\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(directory).arg(&holder);
        command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg(testbed.place_for("doors.toml"));
        command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
        (Self { holder }, command)
    }

    /// Makes every request fail, including those that wait.
    fn fail(&self) {
        let holder = fs::read_to_string(&self.holder).unwrap_or_default();
        if let Some(holder) = holder.trim().parse().ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(holder, Signal::KILL);
        }
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        self.fail();
        let _ = fs::remove_file(&self.holder);
    }
}

#[test]
fn a_disk_that_hangs_at_the_start_delays_no_sequence_and_no_reload_and_is_reported() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    testbed.write(&with_sequence(&testbed, &device, SEQUENCE));
    let state = testbed.place_for("state");
    let notify = testbed.place_for("notify");
    let supervisor = UnixDatagram::bind(&notify).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let (disk, mut command) = HangingDisk::at(&testbed, &state);
    command.env("NOTIFY_SOCKET", &notify);
    testbed.spawn(command);

    testbed.hear("door default: 22/tcp");
    testbed.until("the gate is there", |testbed| testbed.table().contains("default4"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened: door default for 192.0.2.7");
    let named = format!("clients with keys are not heard yet: {} is being read", state.display());
    testbed.hear(&named);
    testbed.hear("ready: doors open to those who knock a sequence; clients with keys are not heard yet");
    let mut said = [0; 256];
    let length = supervisor.recv(&mut said).unwrap();
    assert!(said[..length].starts_with(b"READY=1"));

    // A removed sequence opens nothing, whatever the disk does.
    testbed.write(&with_sequence(&testbed, &device, OTHER));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    testbed.knock(STRANGER[0], &OTHER);
    testbed.hear(&format!("opened: door default for {}", STRANGER[0]));

    // Once the disk fails, the log says so.
    disk.fail();
    let line = testbed.hear(NOT_HEARD);
    assert!(line.contains(state.to_str().unwrap()), "{line}");
    assert!(testbed.end(Signal::TERM).success());
}

#[test]
fn an_unusable_state_directory_does_not_stop_a_reload() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let state = testbed.place_for("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o1777)).unwrap();
    testbed.start(&with_sequence(&testbed, &device, SEQUENCE));
    testbed.hear(NOT_HEARD);

    testbed.daemon().take_lines();
    testbed.write(&with_sequence(&testbed, &device, OTHER));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    let why = testbed.hear(NOT_HEARD);
    assert!(why.contains("can be changed by others (mode 1777); try: chmod go-w"), "{why}");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("wrong knock");
    assert!(!testbed.is_open(CLIENT[0]), "the removed sequence");
    testbed.knock(STRANGER[0], &OTHER);
    testbed.hear(&format!("opened: door default for {}", STRANGER[0]));

    // The daemon recovers by itself.
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    testbed.hear("clients with keys are heard again");
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
}

#[test]
fn a_client_can_be_removed_while_the_state_directory_is_unusable() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let state = testbed.place_for("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o1777)).unwrap();
    testbed.client_file("phone", &Device::new(2, &device.card), "");
    testbed.start(&with_sequence(&testbed, &device, SEQUENCE));
    let conf = testbed.place_for("doors.toml");
    let (status, said) = testbed.run(&["client", "remove", "phone", "--conf", conf.to_str().unwrap()]);
    assert!(status.success() && said.contains("the running daemon has taken it over"), "{said}");
}

#[test]
fn ready_does_not_promise_open_doors_while_nothing_can_open_them() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let state = testbed.place_for("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o1777)).unwrap();
    for (text, ready) in [
        (
            configuration(&testbed, &device, ""),
            "ready: the doors are guarded; none opens until clients with keys are heard",
        ),
        (
            with_sequence(&testbed, &device, SEQUENCE),
            "ready: doors open to those who knock a sequence; clients",
        ),
    ] {
        spawn(&mut testbed, &text);
        testbed.hear(ready);
        let said = testbed.daemon().lines().join("\n");
        assert!(said.contains(NOT_HEARD) && !said.contains("heard on UDP port"), "{said}");
        testbed.end(Signal::TERM);
    }
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    let text = configuration(&testbed, &device, "");
    spawn(&mut testbed, &text);
    testbed.hear("ready: doors open to those who knock");
    // Once the daemon is ready, a client is heard.
    let sealed = device.seal(&device.request(open("ssh", 0)));
    assert!(testbed.spa(CLIENT[0], &sealed.bytes, Duration::from_secs(2)).is_some());
}
