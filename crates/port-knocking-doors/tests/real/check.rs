//! What `check` says of what a start would need.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use doors_lab::Process;

use crate::{
    raw_client::{Device, client},
    testbed::{PATIENCE, Testbed},
};

const DOOR: &str = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";

/// A testbed with a gateway key, and a configuration with a client whose state is in this directory.
struct Scene {
    testbed: Testbed,
    clients: String,
}

impl Scene {
    fn new() -> Self {
        let testbed = Testbed::new();
        let device = Device::new(1, &testbed.card());
        Self { clients: client("laptop", &device, &["ssh"], ""), testbed }
    }

    fn write(&self, state: &Path) -> PathBuf {
        let key = self.testbed.place_for("gateway.key");
        let top = format!("firewall = \"nftables\"\ngateway_key = {key:?}\nstate_dir = {state:?}\n");
        self.testbed.write(&format!("{top}{DOOR}{}", self.clients))
    }

    /// The exit code of `check`, and what it says in one line.
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
fn check_fails_where_others_or_not_even_the_owner_may_write_the_state() {
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
    // What is no replay log is a damaged one, and no error; what is no file is one.
    fs::write(state.join("knocks"), "something else of mine").unwrap();
    let (code, said) = scene.check(&state);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("knocks is damaged: the daemon will keep it as knocks.damaged"), "{said}");
    assert_eq!(fs::read(state.join("knocks")).unwrap(), b"something else of mine", "nothing is touched");
    fs::remove_file(state.join("knocks")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, state.join("knocks"), rustix::fs::Mode::RUSR).unwrap();
    let (code, said) = scene.check(&state);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("so no journal of knocks; move it away"), "{said}");
}

#[test]
fn check_fails_where_the_state_is_missing_and_the_daemon_could_not_make_it() {
    let scene = Scene::new();
    let missing = scene.testbed.place_for("missing");
    let (code, said) = scene.check(&missing);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{} for the state will be made", missing.display())), "{said}");
    assert!(!missing.exists(), "nothing is touched");
    let (code, said) = scene.check(&missing.join("state"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing can be remembered") && said.contains("missing/state"), "{said}");
}

#[test]
fn check_fails_where_the_state_is_on_a_file_system_that_takes_nothing() {
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
    }
}
