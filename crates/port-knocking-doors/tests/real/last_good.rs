//! An unusable configuration file at the start, with `--last-good`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use doors_lab::Process;
use doors_spa::receipt::Answer as Told;
use port_knocking_doors::config::last_good::Store;
use rustix::process::Signal;

use crate::{
    raw_client::{Device, open},
    testbed::{Answer, CLIENT, PATIENCE, PORT, SEQUENCE, STRANGER, Testbed, gate},
};

const LOUD: &str = "RUNNING WITH WHAT WAS LAST IN FORCE";
const IN_HOME: &str = ".port_knocker.toml";
const OTHER: [u16; 5] = [1001, 12903, 1003, 1004, 1006];
const PUBLISHED: [u16; 5] = [16001, 16002, 16003, 16004, 16005];

impl Testbed {
    fn kept(&self) -> Store {
        Store::new(self.place_for("kept"))
    }

    /// The program with a state directory for the copy.
    fn keeping(&self, arguments: &[&str]) -> Command {
        let mut command = self.program();
        command.env("STATE_DIRECTORY", self.place_for("kept")).args(arguments);
        command
    }

    fn conf(&self) -> String {
        self.place_for("doors.toml").to_str().unwrap().to_owned()
    }

    fn start_keeping(&mut self, text: &str) {
        self.write(text);
        let command = self.keeping(&["--last-good", "--conf", &self.conf()]);
        self.start_command(command);
    }

    /// Runs a command until it ends. Returns its output on one line.
    fn ended(&self, command: Command) -> (ExitStatus, String) {
        let (status, said) =
            Process::start(&self.server, command).unwrap().finish(PATIENCE).unwrap().expect("it ends");
        (status, said.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Leaves the state after a reboot: no daemon, and nothing in the kernel.
    fn reboot(&mut self) {
        self.end(Signal::TERM);
        self.on_server("nft", &["flush", "ruleset"]);
        assert_eq!(self.ask(STRANGER[0], PORT), Answer::Accepted, "nothing guards it");
    }

    /// Checks that the daemon runs with the last good configuration and says so.
    fn runs_with_last_good(&mut self, why: &str) {
        let loud = self.hear(LOUD);
        assert!(loud.contains("ERROR") && loud.contains(why), "{loud}");
        assert_eq!(self.ask(STRANGER[0], PORT), Answer::Silence);
    }
}

#[test]
fn after_an_invalid_edit_and_a_reboot_the_doors_are_guarded_and_open_as_before() {
    let mut testbed = Testbed::new();
    testbed.start_keeping(&gate(""));
    testbed.reboot();
    testbed.start_keeping("ports_to_controls = [22\n");
    testbed.runs_with_last_good("doors.toml:1:24: this is no TOML");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));

    // This ends with a usable file, and only with one.
    testbed.write("colour = 1\n");
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the old configuration stays in force");
    testbed.write(&gate("").replace(&format!("{SEQUENCE:?}"), &format!("{OTHER:?}")));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    testbed.hear("doors.toml is in force again, and no longer what was last in force");
    testbed.knock(STRANGER[0], &OTHER);
    testbed.hear(&format!("opened: door default for {}", STRANGER[0]));
    testbed.reboot();

    // From here on that configuration is the last good one.
    testbed.start_keeping("colour = 1\n");
    testbed.runs_with_last_good("`colour` is no key");
    testbed.knock(STRANGER[0], &OTHER);
    testbed.hear(&format!("opened: door default for {}", STRANGER[0]));
}

#[test]
fn a_removed_client_does_not_come_back_with_the_last_good_configuration() {
    let (mut testbed, device) = with_client();
    let text = fs::read_to_string(testbed.conf()).unwrap();
    assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    testbed.reboot();
    // No daemon runs at this time.
    let (status, said) =
        testbed.ended(testbed.keeping(&["client", "remove", "laptop", "--conf", &testbed.conf()]));
    assert!(status.success() && said.contains("no daemon runs with this file"), "{said}");
    testbed.start_keeping("colour = 1\n");
    testbed.runs_with_last_good("`colour` is no key");
    assert!(
        testbed.is_silent(CLIENT[0], &device.seal(&device.request(crate::raw_client::open("ssh", 0))).bytes)
    );

    // A daemon that does not update the copy removes it.
    testbed.reboot();
    testbed.write(&text);
    let command = testbed.keeping(&["--conf", &testbed.conf()]);
    testbed.start_command(command);
    let copy = testbed.kept().path_of(Path::new(&testbed.conf()));
    testbed.until("the copy is gone", |_| !copy.exists());
}

#[test]
fn check_names_the_copy_of_a_file_that_has_disappeared_and_says_that_the_unit_would_run_with_it() {
    let mut testbed = Testbed::new();
    let found = testbed.place_for(IN_HOME);
    fs::rename(testbed.write(&gate("")), &found).unwrap();
    let command = testbed.keeping(&["--last-good"]);
    testbed.start_command(command);
    testbed.reboot();
    assert_eq!(testbed.ended(testbed.keeping(&["check"])).0.code(), Some(0), "while the file is there");
    fs::remove_file(&found).unwrap();
    let copy = testbed.kept().path_of(&found);
    let (status, said) = testbed.ended(testbed.keeping(&["check"]));
    assert_eq!(status.code(), Some(1), "{said}");
    let told = format!(
        "warning: there is no file {}, which was in force; a daemon that starts with --last-good, as our unit does, runs with \
         what is kept of it ({})",
        found.display(),
        copy.display()
    );
    assert!(said.contains(&told), "{said}");
    let (status, said) = testbed.ended(testbed.keeping(&["check", "--last-good"]));
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("opens 22/tcp") && said.contains(&copy.display().to_string()), "{said}");

    // As it says.
    fs::remove_file(copy).unwrap();
    let (_, said) = testbed.ended(testbed.keeping(&["check"]));
    assert!(!said.contains("which was in force"), "{said}");
}

/// A testbed whose daemon has a client and keeps the last good configuration.
fn with_client() -> (Testbed, Device) {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let door = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";
    testbed.client_file("laptop", &device, "");
    testbed.start_keeping(&testbed.gateway(door));
    (testbed, device)
}

#[test]
fn a_client_removed_through_a_link_to_the_file_does_not_come_back() {
    let (mut testbed, device) = with_client();
    testbed.reboot();
    let link = testbed.place_for("link.toml");
    std::os::unix::fs::symlink(testbed.conf(), &link).unwrap();
    let link = link.to_str().unwrap();
    let (status, said) = testbed.ended(testbed.keeping(&["client", "remove", "laptop", "--conf", link]));
    assert!(status.success(), "{said}");
    testbed.start_keeping("colour = 1\n");
    testbed.runs_with_last_good("`colour` is no key");
    let sealed = device.seal(&device.request(crate::raw_client::open("ssh", 0)));
    assert!(testbed.is_silent(CLIENT[0], &sealed.bytes));
}

#[test]
fn a_removal_that_was_cut_short_while_no_daemon_ran_is_done_by_the_next_one() {
    let (mut testbed, device) = with_client();
    testbed.reboot();
    fs::remove_file(testbed.file_of("laptop")).unwrap();
    let conf = testbed.conf();
    let remove =
        |testbed: &Testbed| testbed.ended(testbed.keeping(&["client", "remove", "laptop", "--conf", &conf]));
    let (status, said) = remove(&testbed);
    assert!(status.success() && said.contains("there is no client laptop any more"), "{said}");
    let (status, said) = remove(&testbed);
    assert!(!status.success() && said.contains("there is no client `laptop`"), "{said}");
    testbed.start_keeping("colour = 1\n");
    testbed.runs_with_last_good("`colour` is no key");
    let sealed = device.seal(&device.request(crate::raw_client::open("ssh", 0)));
    assert!(testbed.is_silent(CLIENT[0], &sealed.bytes));
}

#[test]
fn removing_a_client_fails_while_a_start_would_bring_it_back() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let door = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";
    testbed.client_file("laptop", &device, "");
    testbed.write(&testbed.gateway(door));
    fs::create_dir(testbed.place_for("kept")).unwrap();
    fs::set_permissions(testbed.place_for("kept"), fs::Permissions::from_mode(0o700)).unwrap();
    // The daemon's directory is a mount that can be made read-only in its mount namespace.
    let script = "mount --bind \"$1\" \"$1\" && exec \"$2\" --last-good --conf \"$3\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(testbed.place_for("kept"));
    command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg(testbed.conf());
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    command.env("STATE_DIRECTORY", testbed.place_for("kept"));
    testbed.start_command(command);
    let copy = testbed.kept().path_of(Path::new(&testbed.conf()));
    testbed.until("it is kept", |_| copy.exists());
    let daemon = testbed.daemon().id().to_string();
    let kept = testbed.place_for("kept");
    let remount = ["-t", &daemon, "-m", "mount", "-o", "remount,bind,ro", kept.to_str().unwrap()];
    assert!(Command::new("nsenter").args(remount).status().unwrap().success());

    let (status, said) =
        testbed.ended(testbed.keeping(&["client", "remove", "laptop", "--conf", &testbed.conf()]));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("removed: laptop in the file, but not in the copy with which a daemon starts")
            && said.contains(copy.to_str().unwrap()),
        "{said}"
    );
    testbed.hear("what is in force cannot be kept");
}

#[test]
fn a_refused_reload_does_not_become_the_last_good_configuration() {
    let mut testbed = Testbed::new();
    testbed.start_keeping(&gate(""));
    testbed.write("colour = 1\n");
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the old configuration stays in force");
    testbed.reboot();
    let command = testbed.keeping(&["--last-good", "--conf", &testbed.conf()]);
    testbed.start_command(command);
    testbed.runs_with_last_good("`colour` is no key");
}

#[test]
fn without_the_option_or_without_a_copy_an_invalid_file_is_an_error() {
    let mut testbed = Testbed::new();
    testbed.write("colour = 1\n");
    let conf = testbed.conf();
    let (status, said) = testbed.ended(testbed.keeping(&["--last-good", "--conf", &conf]));
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.contains("`colour` is no key") && said.contains("nothing is kept that was in force"),
        "{said}"
    );

    testbed.start_keeping(&gate(""));
    testbed.reboot();
    testbed.write("colour = 1\n");
    let (status, said) = testbed.ended(testbed.keeping(&["--conf", &conf]));
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.ends_with("see port-knocking-doors --show-configuration-file-help"), "{said}");
    // Another file was never in force.
    let other = testbed.place_for("other.toml");
    fs::write(&other, "colour = 1\n").unwrap();
    let (status, said) = testbed.ended(testbed.keeping(&["--last-good", "--conf", other.to_str().unwrap()]));
    assert_eq!(status.code(), Some(2), "{said}");
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Accepted, "nothing was touched");
}

#[test]
fn a_daemon_without_the_option_keeps_nothing() {
    let mut testbed = Testbed::new();
    testbed.write(&gate(""));
    let command = testbed.keeping(&["--conf", &testbed.conf()]);
    testbed.start_command(command);
    testbed.end(Signal::TERM);
    assert!(!testbed.place_for("kept").exists());
}

#[test]
fn an_invalid_option_or_variable_is_an_error_with_a_valid_and_with_an_invalid_file() {
    let mut testbed = Testbed::new();
    testbed.start_keeping(&gate(""));
    testbed.reboot();
    let conf = testbed.conf();
    for text in [gate(""), "colour = 1\n".to_owned()] {
        testbed.write(&text);
        let (status, said) =
            testbed.ended(testbed.keeping(&["--last-good", "--conf", &conf, "--ports", "x"]));
        assert_eq!(status.code(), Some(2), "{said}");
        if text == gate("") {
            assert!(said.contains("--ports: \"x\" is no port") && !said.contains("last in force"), "{said}");
        }
        let mut command = testbed.keeping(&["--last-good", "--conf", &conf]);
        command.env("KNOCKER_SEQ", "1,2");
        let (status, said) = testbed.ended(command);
        assert_eq!(status.code(), Some(2), "{said}");
    }
}

#[test]
fn a_valid_file_that_cannot_be_applied_is_not_replaced_by_its_copy() {
    let mut testbed = Testbed::new();
    testbed.start_keeping(&gate(""));
    testbed.reboot();
    testbed.write(&gate("").replace("nftables", "firewalld"));
    let (status, said) = testbed.ended(testbed.keeping(&["--last-good", "--conf", &testbed.conf()]));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("there is no system bus") && !said.contains(LOUD), "{said}");
}

#[test]
fn a_missing_file_is_replaced_by_its_copy() {
    let mut testbed = Testbed::new();
    testbed.start_keeping(&gate(""));
    testbed.reboot();
    fs::remove_file(testbed.conf()).unwrap();
    let command = testbed.keeping(&["--last-good", "--conf", &testbed.conf()]);
    testbed.start_command(command);
    testbed.runs_with_last_good("--conf: there is no file");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
}

#[test]
fn default_values_do_not_replace_a_file_that_was_in_force_and_has_disappeared() {
    let mut testbed = Testbed::new();
    let found = testbed.place_for(IN_HOME);
    fs::rename(testbed.write(&gate("")), &found).unwrap();
    let command = testbed.keeping(&["--last-good"]);
    testbed.start_command(command);
    testbed.reboot();
    fs::remove_file(&found).unwrap();
    let command = testbed.keeping(&["--last-good"]);
    testbed.start_command(command);
    let copy = testbed.kept().path_of(&found);
    testbed.runs_with_last_good(&format!(
        "there is no file {}, which was in force; put it back",
        found.display()
    ));
    testbed.knock(STRANGER[0], &PUBLISHED);
    testbed.hear("wrong knock:");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear(&format!("(rm {}) and restart", copy.display()));

    // As it says.
    testbed.reboot();
    fs::remove_file(copy).unwrap();
    let command = testbed.keeping(&["--last-good"]);
    testbed.start_command(command);
    testbed.knock(CLIENT[0], &PUBLISHED);
    testbed.hear("opened:");
}

#[test]
fn the_last_good_configuration_includes_its_public_keys() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let keys = testbed.place_for("authorized_keys");
    let whole = format!("{} laptop\n", device.client().to_openssh());
    fs::write(&keys, &whole).unwrap();
    let door = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nopen_for = 30\n";
    let text =
        testbed.gateway(&format!("authorized_keys = {keys:?}\nauthorized_keys_doors = [\"ssh\"]\n{door}"));
    testbed.start_keeping(&text);
    testbed.reboot();
    for (broken, why) in
        [(Some("door=\"ssh\" "), "\"door\" is no option"), (None, "`authorized_keys`: there is no file")]
    {
        match broken {
            Some(before) => fs::write(&keys, format!("{before}{whole}")).unwrap(),
            None => fs::remove_file(&keys).unwrap(),
        }
        testbed.start_keeping(&text);
        testbed.runs_with_last_good(why);
        assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
        testbed.reboot();
    }
}

#[test]
fn a_copy_that_is_not_trusted_or_damaged_is_an_error_that_says_so() {
    let mut testbed = Testbed::new();
    testbed.start_keeping(&gate(""));
    testbed.reboot();
    let conf = testbed.conf();
    let copy = testbed.kept().path_of(Path::new(&conf));
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let whole = fs::read(&copy).unwrap();
    testbed.write("colour = 1\n");
    let told = |testbed: &Testbed| {
        let (status, said) = testbed.ended(testbed.keeping(&["--last-good", "--conf", &conf]));
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("`colour` is no key"), "{said}");
        said
    };
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o622)).unwrap();
    assert!(told(&testbed).contains("others could have written"), "{}", told(&testbed));
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&copy, [&whole[..30], b"7", &whole[31..]].concat()).unwrap();
    assert!(told(&testbed).contains("has version 7, and this program knows 2"), "{}", told(&testbed));
    fs::write(&copy, &whole[..whole.len() - 1]).unwrap();
    assert!(told(&testbed).contains("is damaged"), "{}", told(&testbed));
}

#[test]
fn the_capabilities_of_the_unit_are_enough_to_keep_a_copy() {
    let mut testbed = Testbed::new();
    let conf = testbed.write(&gate(""));
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "--no-new-privs"]);
    command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg("--last-good").arg("--conf").arg(&conf);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    command.env("STATE_DIRECTORY", testbed.place_for("kept"));
    testbed.start_command(command);
    testbed.end(Signal::TERM);
    assert!(testbed.kept().path_of(&conf).exists());
}

#[test]
fn a_daemon_that_cannot_keep_a_copy_runs_and_says_so() {
    let mut testbed = Testbed::new();
    let path: PathBuf = testbed.write(&gate(""));
    let mut command = testbed.program();
    command.arg("--last-good").arg("--conf").arg(path).env("STATE_DIRECTORY", "/proc/none/kept");
    testbed.start_command(command);
    testbed.hear("what is in force cannot be kept; with a wrong configuration file, the next start");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
}

#[test]
fn check_says_that_a_daemon_would_run_with_the_copy_and_that_one_does() {
    let mut testbed = Testbed::new();
    testbed.start_keeping(&gate(""));
    testbed.reboot();
    testbed.start_keeping("colour = 1\n");
    let conf = testbed.conf();
    let (status, said) = testbed.ended(testbed.keeping(&["check", "--last-good", "--conf", &conf]));
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.contains("WHAT STANDS IN THIS FILE CANNOT BE USED: ") && said.contains("`colour` is no key"),
        "{said}"
    );
    assert!(said.contains("door default: opens 22/tcp"), "{said}");
    assert!(said.contains("has read what stands there and cannot use it; its log says why"), "{said}");

    let (status, said) = testbed.ended(testbed.keeping(&["check", "--conf", &conf]));
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.contains("`colour` is no key") && said.contains("what was last in force is kept ("),
        "{said}"
    );

    // Fixed in place, as some editors do, and not read again yet.
    fs::write(&conf, gate("")).unwrap();
    let (status, said) = testbed.ended(testbed.keeping(&["check", "--conf", &conf]));
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("has not read it since it was changed; try: systemctl reload"), "{said}");
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    testbed.until("it says no more of it", |testbed| {
        !testbed.ended(testbed.keeping(&["check", "--conf", &conf])).1.contains("has not read it")
    });
}

/// The timer has its own test. Only waiting a minute shows that the daemon uses it.
#[test]
fn a_daemon_that_runs_with_the_last_good_configuration_says_so_every_minute() {
    let mut testbed = Testbed::new();
    testbed.start_keeping(&gate(""));
    testbed.reboot();
    testbed.start_keeping("colour = 1\n");
    testbed.runs_with_last_good("`colour` is no key");
    let daemon = testbed.daemon();
    let again = daemon.wait_for(LOUD, Duration::from_secs(60) + PATIENCE);
    let again = again.unwrap_or_else(|| panic!("{:#?}", daemon.lines()));
    assert!(again.contains("`colour` is no key"), "{again}");
}

#[test]
fn the_unit_uses_last_good() {
    let unit =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/port-knocking-doors.service"))
            .unwrap();
    assert!(unit.contains("\nExecStart=/usr/local/bin/port-knocking-doors --last-good\n"));
    assert!(unit.contains("\nStateDirectory=port-knocking-doors\n"), "where it is kept");
}

#[test]
fn a_client_that_was_disabled_while_no_daemon_ran_does_not_come_back() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let text = testbed.gateway("[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n");
    testbed.client_file("laptop", &device, "");
    testbed.start_keeping(&text);
    let copy = testbed.kept().path_of(Path::new(&testbed.conf()));
    testbed.until("it is kept", |_| copy.exists());
    testbed.reboot();
    // By hand, and the command finds nothing to change.
    let file = testbed.file_of("laptop");
    fs::write(&file, fs::read_to_string(&file).unwrap() + "disabled = true\n").unwrap();
    let (status, said) =
        testbed.ended(testbed.keeping(&["client", "disable", "laptop", "--conf", &testbed.conf()]));
    assert!(status.success() && said == "is disabled already: laptop", "{said}");
    testbed.start_keeping("nonsense = true\n");
    testbed.hear(LOUD);
    assert!(testbed.ask_daemon(&["list", "clients"]).1.contains("DISABLED"));
    assert!(testbed.is_silent(CLIENT[0], &device.seal(&device.request(open("ssh", 0))).bytes));
}
