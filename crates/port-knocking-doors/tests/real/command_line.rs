//! Options, variables and files, as a user passes them.
//!
//! Each program runs in its own network and for a limited time: a program that accepts what it must refuse is a
//! daemon, and would guard the ports of the test machine.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use doors_lab::Namespace;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::testbed::{PATIENCE, Testbed, gate};

const GOOD: &str = "ports_to_controls = [2222]\nopening_sequence = [40871, 12903, 55012, 7741, 31337]\n";

fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
    command
        .env_clear()
        .env("HOME", home)
        .env("RUNTIME_DIRECTORY", home)
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    command.stdin(Stdio::null());
    command
}

/// Runs a program in its own network until it ends.
fn run(command: &mut Command) -> Output {
    let network = Namespace::new().unwrap();
    let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let command = std::mem::replace(command, Command::new("false"));
    let mut child = network.spawn(command).unwrap();
    let ended = end(&mut child);
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let (stdout, stderr) = (read(&mut stdout), read(&mut stderr));
    let shown = || format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    // A program that still runs is killed when its network is removed.
    let status = ended.unwrap_or_else(|| panic!("it does not end, and says: {}", shown()));
    Output { status, stdout, stderr }
}

/// Waits until a program ends; `None` if it does not.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    None
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// Runs a command that must fail with exit code 2, and returns the message.
fn wrong(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(output.stdout, b"", "nothing but the message");
    said(&output)
}

fn check(command: &mut Command) -> String {
    let output = run(command.arg("check"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    said(&output)
}

fn file(home: &TempDir, name: &str, text: &str, mode: u32) -> String {
    let path = home.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn options_override_variables_which_override_the_file_which_overrides_defaults() {
    let home = TempDir::new().unwrap();
    let text = check(&mut program(home.path()));
    assert!(text.contains("none; default values") && text.contains("opens 22/tcp for 10 s"), "{text}");

    file(&home, ".port_knocker.toml", GOOD, 0o600);
    let text = check(&mut program(home.path()));
    assert!(text.contains("opens 2222/tcp"), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("ports_to_controls") && line.ends_with("# file, line 1"))
    );

    let named = file(&home, "named.toml", &GOOD.replace("2222", "3333"), 0o600);
    let text = check(program(home.path()).args(["--conf", &named]));
    assert!(text.contains("opens 3333/tcp"), "{text}");

    let mut command = program(home.path());
    command.env("KNOCKER_PORTS", "22,80,10080").env("KNOCKER_SEQ", "1,2,3,4,5,6,8");
    let text = check(&mut command);
    assert!(text.contains("opens 22/tcp 80/tcp 10080/tcp"), "{text}");
    assert!(text.contains("knocks on 1 2 3 4 5 6 8"), "{text}");
    assert!(text.contains("# variable KNOCKER_SEQ"), "{text}");

    let mut command = program(home.path());
    command.env("KNOCKER_PORTS", "22,80,10080").env("KNOCKER_SEQ", "1,2,3,4,5,6,8");
    let text = check(command.args(["-p", "4444", "-m", "10001,10002,10003,10004,10006"]));
    assert!(text.contains("opens 4444/tcp") && text.contains("# option --ports"), "{text}");
    assert!(text.contains("knocks on 10001 10002 10003 10004 10006"), "{text}");
}

#[test]
fn a_sequence_on_the_command_line_causes_a_warning_and_one_from_elsewhere_does_not() {
    let home = TempDir::new().unwrap();
    let sequence = "10001,10002,10003,10004,10006";
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let told = "every user of this machine can read it in the list of processes; write it into the configuration \
                file (opening_sequence), or set the variable KNOCKER_SEQ";
    let text = words(&check(program(home.path()).args(["-m", sequence])));
    assert_eq!(text.matches(told).count(), 1, "{text}");
    let text = words(&check(program(home.path()).env("KNOCKER_SEQ", sequence)));
    assert!(!text.contains("list of processes"), "{text}");

    let mut testbed = Testbed::new();
    let mut command = testbed.program();
    command.args(["-m", sequence]).arg("--conf").arg(testbed.write(&gate("")));
    testbed.start_command(command);
    let line = testbed.hear("list of processes");
    assert!(line.contains(told) && line.contains("WARN"), "{line}");
    assert!(
        !testbed.daemon().lines().iter().any(|line| line.contains("list of processes")),
        "it is said once"
    );
}

#[test]
fn options_may_come_before_or_after_the_command() {
    let home = TempDir::new().unwrap();
    let before = run(program(home.path()).args(["--ports", "80", "check"]));
    let after = run(program(home.path()).args(["check", "--ports", "80"]));
    assert_eq!(said(&before), said(&after));
    assert!(said(&after).contains("opens 80/tcp"));
}

#[test]
fn options_that_a_command_does_not_use_are_errors() {
    let home = TempDir::new().unwrap();
    for command in ["demo", "remove-gate"] {
        let message = wrong(program(home.path()).args(["--ports", "80", command]));
        assert!(message.contains("mean nothing to this command"), "{message}");
        assert!(wrong(program(home.path()).args([command, "--ports", "80"])).contains("--ports"));
    }
}

#[test]
fn an_invalid_option_or_variable_is_an_error_that_names_it() {
    let home = TempDir::new().unwrap();
    for (value, why) in [
        ("22,x", "\"x\" is no port"),
        ("0", "\"0\" is no port"),
        ("\u{1b}[31m", "\"\\u{1b}[31m\" is no port"),
        ("65536", "\"65536\" is no port"),
        ("", "is empty"),
        ("22,22", "the port 22 is there twice"),
    ] {
        let message = wrong(program(home.path()).args(["check", "--ports", value]));
        assert!(message.contains("--ports: ") && message.contains(why), "{message}");
        let message = wrong(program(home.path()).arg("check").env("KNOCKER_PORTS", value));
        assert!(message.contains("KNOCKER_PORTS: ") && message.contains(why), "{message}");
        // A variable that an option overrides is not used.
        check(program(home.path()).args(["--ports", "22"]).env("KNOCKER_PORTS", value));
    }
    for (value, why) in [
        ("", "is empty; write 5 to 20 ports"),
        ("1,2,3,4", "4 ports are no sequence; write 5 to 20"),
        ("1,2,3,4,99999", "\"99999\" is no port"),
        ("5,5,5,5,5", "only one port"),
    ] {
        let message = wrong(program(home.path()).args(["--magic-seq", value]));
        assert!(message.contains("--magic-seq: ") && message.contains(why), "{message}");
        let message = wrong(program(home.path()).env("KNOCKER_SEQ", value));
        assert!(message.contains("KNOCKER_SEQ: ") && message.contains(why), "{message}");
    }
    let message = wrong(program(home.path()).arg("--colour"));
    assert!(message.contains("--colour"), "{message}");
    for command in [&["check"][..], &[]] {
        let message = wrong(program(home.path()).args(command).env("RUST_LOG", "inf"));
        assert!(message.contains("RUST_LOG: \"inf\" is not a level; write error, warn, info"), "{message}");
        check(program(home.path()).arg("-v").env("RUST_LOG", "inf"));
    }
}

#[test]
fn half_a_door_beside_doors_of_the_file_is_not_completed_with_a_default() {
    let home = TempDir::new().unwrap();
    let sequence = "10001,10002,10003,10004,10006";
    let door =
        "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nsequence = [40871, 12903, 55012, 7741, 31337]\n";
    let path = file(&home, ".port_knocker.toml", door, 0o600);
    for (option, variable, value, missing) in [
        ("--ports", "KNOCKER_PORTS", "8080", "whose sequence neither the file nor anything else has given"),
        ("--magic-seq", "KNOCKER_SEQ", sequence, "whose ports neither the file nor anything else has given"),
    ] {
        let by_option = wrong(program(home.path()).args(["check", option, value]));
        assert!(by_option.contains(&format!("{option}: ")) && by_option.contains(missing), "{by_option}");
        let by_variable = wrong(program(home.path()).arg("check").env(variable, value));
        assert!(
            by_variable.contains(&format!("{variable}: ")) && by_variable.contains(missing),
            "{by_variable}"
        );
    }
    let both = check(program(home.path()).args(["--ports", "8080"]).env("KNOCKER_SEQ", sequence));
    assert!(both.contains("door default: opens 8080/tcp") && both.contains("door ssh:"), "{both}");

    // Without such doors, the other half comes from the file or the defaults.
    fs::write(&path, GOOD).unwrap();
    assert!(check(program(home.path()).args(["--ports", "8080"])).contains("opens 8080/tcp"));
    fs::remove_file(&path).unwrap();
    let alone = check(program(home.path()).args(["--ports", "8080"]));
    assert!(alone.contains("opens 8080/tcp") && alone.contains("16001 16002"), "{alone}");
}

#[test]
fn an_unusable_file_is_never_ignored() {
    let home = TempDir::new().unwrap();
    let missing = home.path().join("missing.toml");
    let message = wrong(program(home.path()).arg("--conf").arg(&missing));
    assert!(
        message.contains("--conf: there is no file") && message.contains("missing.toml; name one"),
        "{message}"
    );

    let path = file(&home, ".port_knocker.toml", GOOD, 0o602);
    let message = wrong(&mut program(home.path()));
    assert!(
        message.contains(&format!("can be changed by everybody (mode 602); try: chmod o-w {path}")),
        "{message}"
    );

    file(&home, ".port_knocker.toml", "ports_to_controls = [22]\nopening_sequense = []\n", 0o600);
    let message = wrong(&mut program(home.path()));
    assert!(
        message.contains(":2:1: `opening_sequense` is no key; did you mean `opening_sequence`?"),
        "{message}"
    );

    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(wrong(&mut program(home.path())).contains("it is not UTF-8 text"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(wrong(&mut program(home.path())).contains("it is no regular file"));
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert!(wrong(&mut program(home.path())).contains("cannot read the configuration file"));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(home.path().join("nowhere/doors.toml"), &path).unwrap();
    let message = wrong(&mut program(home.path()));
    assert!(message.contains(&format!("{path}: it is a link to nothing")), "{message}");
}

#[test]
fn a_file_that_another_user_could_have_written_is_refused_with_the_command_that_fixes_it() {
    let home = TempDir::new().unwrap();
    let path = file(&home, ".port_knocker.toml", GOOD, 0o600);
    for (owner, group, mode, told) in [
        (
            4242,
            0,
            0o600,
            Some(format!(
                "belongs to another user (4242), who can change it at any time; see whether \
             it is as you want it, then: chown 0 {path}"
            )),
        ),
        (0, 4242, 0o664, Some(format!("can be changed by its group (mode 664); try: chmod g-w {path}"))),
        // As 1.1.2 accepted it, on systems that create files with this mode.
        (0, 0, 0o664, None),
    ] {
        chown(&path, Some(owner), Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match told {
            Some(told) => {
                for arguments in [&["check"][..], &[], &["client", "list"]] {
                    let message = wrong(program(home.path()).args(arguments));
                    assert!(message.contains(&told), "{message}");
                }
            }
            None => drop(check(&mut program(home.path()))),
        }
    }
    let keys = file(&home, "keys", "", 0o660);
    let door = "authorized_keys_doors = [\"ssh\"]\n[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";
    let path = file(&home, "doors.toml", &format!("authorized_keys = \"{keys}\"\n{door}"), 0o600);
    let message = wrong(program(home.path()).args(["check", "--conf", &path]));
    let told = format!(
        "doors.toml:1:19: `authorized_keys`: {keys} says who gets in, and can be changed by others \
        (mode 660); try: chmod go-w {keys}"
    );
    assert!(message.contains(&told), "{message}");
}

#[test]
fn a_sequence_that_every_user_can_read_causes_a_warning() {
    let home = TempDir::new().unwrap();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let told = "holds a sequence, and every user of this machine can read it (mode ";
    let by_key = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";
    let sequence = "sequence = [40871, 12903, 55012, 7741, 31337]\n";
    for (text, mode, expected) in [
        (GOOD, 0o644, true),
        (GOOD, 0o640, false),
        (&format!("{by_key}{sequence}"), 0o644, true),
        (by_key, 0o644, false),
    ] {
        let path = file(&home, "doors.toml", text, mode);
        let said = words(&check(program(home.path()).args(["--conf", &path])));
        assert_eq!(said.contains(told), expected, "{text}, {mode:o}: {said}");
        assert!(!expected || said.contains(&format!("(mode {mode:o}); try: chmod o-r {path}")), "{said}");
    }
}

#[test]
fn a_file_that_another_user_can_replace_causes_a_warning() {
    let home = TempDir::new().unwrap();
    let below = home.path().join("below");
    fs::create_dir(&below).unwrap();
    let path = file(&home, "below/doors.toml", GOOD, 0o600);
    for (mode, expected) in [(0o777, true), (0o1777, false), (0o755, false)] {
        fs::set_permissions(&below, fs::Permissions::from_mode(mode)).unwrap();
        let said = check(program(home.path()).args(["--conf", &path]));
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let told = format!(
            "another user can put another file in the place of {path}: the directory {} can be \
            written by others (mode 777); try: chmod go-w {0}",
            below.display()
        );
        assert_eq!(said.contains(&told), expected, "{mode:o}: {said}");
    }
}

#[test]
fn the_default_file_is_written_once_and_for_its_owner_only() {
    let home = TempDir::new().unwrap();
    let output = run(program(home.path()).arg("--set-configuration-file-in-home"));
    let path = home.path().join(".port_knocker.toml");
    assert_eq!(said(&output), format!("written: {}\n", path.display()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = check(&mut program(home.path()));
    assert!(text.contains("file, line") && text.contains("everybody knows it"), "{text}");

    fs::write(&path, GOOD).unwrap();
    let output = run(program(home.path()).arg("--set-configuration-file-in-home"));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("exists and is left as it is"));
    assert_eq!(fs::read_to_string(&path).unwrap(), GOOD);
}

#[test]
fn the_option_that_writes_the_default_file_stands_alone() {
    let home = TempDir::new().unwrap();
    for more in [&["check"][..], &["--ports", "80"], &["--conf", "/dev/null"], &["-v"]] {
        let message = wrong(program(home.path()).arg("--set-configuration-file-in-home").args(more));
        assert!(message.contains("--set-configuration-file-in-home stands alone"), "{message}");
        assert!(!home.path().join(".port_knocker.toml").exists());
    }
}

#[test]
fn check_names_the_firewall_and_the_reason_without_root_and_without_changes() {
    let home = TempDir::new().unwrap();
    let path = file(&home, "doors.toml", &format!("{GOOD}firewall = \"firewalld\"\n"), 0o600);
    let output = run(program(home.path()).args(["check", "--conf", &path]));
    assert_eq!(output.status.code(), Some(1), "firewalld is wanted and not there");
    assert!(said(&output).contains("no door can be opened"), "{}", said(&output));
    assert_eq!(said(&output).matches("os error 2").count(), 1, "{}", said(&output));

    let path = file(&home, "open.toml", GOOD, 0o600);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(env!("CARGO_BIN_EXE_port-knocking-doors"));
    command.args(["check", "--conf", &path]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = run(command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("doors are opened by nftables, because"), "{}", said(&output));
}

#[test]
fn check_shows_what_clients_may_do_and_in_which_file_that_is_set() {
    let home = TempDir::new().unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK7biLi6SRATsiVwFAbWgvrj075/mKGB/AhoOs+Uv9bT";
    let line = format!(
        "# mine\ndoors=\"ssh\",from=\"192.0.2.0/24\",max_open_for=\"600\",expiry-time=\"203012311800Z\" {key} laptop\n"
    );
    let keys = file(&home, "keys", &line, 0o600);
    let door = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";
    let top = format!("spa_port = 4711\nauthorized_keys = \"{keys}\"\nauthorized_keys_doors = [\"ssh\"]\n");
    let path = file(&home, "doors.toml", &format!("{top}{door}"), 0o600);
    let said = said(&program(home.path()).args(["check", "--conf", &path]).output().unwrap());
    for (setting, origin) in [
        ("spa_port = 4711", "file, line 1"),
        ("authorized_keys_doors = [\"ssh\"]", "file, line 3"),
        ("clients.laptop.doors = [\"ssh\"]", &format!("{keys}:2")),
        ("clients.laptop.from = [\"192.0.2.0/24\"]", &format!("{keys}:2")),
        ("clients.laptop.max_open_for = 600", &format!("{keys}:2")),
        ("clients.laptop.until = 2030-12-31T18:00:00Z", &format!("{keys}:2")),
    ] {
        let shown = |line: &str| line.starts_with(setting) && line.ends_with(&format!("# {origin}"));
        assert!(said.lines().any(shown), "{setting}: {said}");
    }
    let path = file(&home, "no-clients.toml", &format!("spa_port = 4711\n{GOOD}"), 0o600);
    let said = check(program(home.path()).args(["--conf", &path]));
    assert!(said.lines().any(|line| line.starts_with("spa_port = 4711") && line.ends_with("# file, line 1")));
}

#[test]
fn check_fails_if_a_trusted_network_includes_all_addresses() {
    let home = TempDir::new().unwrap();
    for (network, told) in [
        ("0.0.0.0/0", Some("`trusted` holds 0.0.0.0/0, which is everybody with IPv4")),
        ("::/0", Some("`trusted` holds ::/0, which is everybody with IPv6")),
        ("10.0.0.0/8", None),
    ] {
        let path = file(&home, "doors.toml", &format!("{GOOD}trusted = [\"{network}\"]\n"), 0o600);
        let output = run(program(home.path()).args(["check", "--conf", &path]));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(i32::from(told.is_some())), "{said}");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(said.contains("which is everybody"), told.is_some(), "{said}");
        assert!(told.is_none_or(|told| said.contains(told)), "{said}");
    }
}

#[test]
fn settings_that_only_firewalld_supports_are_reported_without_it() {
    let home = TempDir::new().unwrap();
    let text = format!("{GOOD}zone = \"public\"\ntrusted = [\"192.0.2.0/24\"]\n");
    let path = file(&home, "doors.toml", &text, 0o600);
    let said = check(program(home.path()).args(["--conf", &path]));
    assert!(said.contains("`zone` has no effect, because doors are opened by nftables here"), "{said}");
    assert!(!said.contains("`trusted` has no effect"), "{said}");
}

#[test]
fn help_and_version_are_there() {
    let home = TempDir::new().unwrap();
    for (arguments, expected) in [
        (&["--help"][..], "--set-configuration-file-in-home"),
        (&["-h"], "Exit codes:"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["-V"], "port-knocking-doors"),
        (&["--show-configuration-file-help"], "ignoring_period_after_knock_error"),
        (&["check", "--help"], "--magic-seq"),
    ] {
        let output = run(program(home.path()).args(arguments));
        assert_eq!(output.status.code(), Some(0));
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn a_reader_that_closes_the_pipe_is_not_an_error() {
    let home = TempDir::new().unwrap();
    let mut command = program(home.path());
    command.arg("--show-configuration-file-help").stdout(Stdio::piped());
    let network = Namespace::new().unwrap();
    let mut child = network.spawn(command).unwrap();
    drop(child.stdout.take());
    assert_eq!(end(&mut child).expect("it ends").code(), Some(0));
    std::io::stderr().flush().unwrap();
}

#[test]
fn a_file_larger_than_32_megabytes_is_refused() {
    const MAX_LENGTH: usize = 32 << 20;
    let home = TempDir::new().unwrap();
    let long = |length: usize| format!("{GOOD}#{}\n", "x".repeat(length - GOOD.len() - 2));
    let path = file(&home, "doors.toml", &long(MAX_LENGTH - 1), 0o600);
    check(program(home.path()).args(["--conf", &path]));
    file(&home, "doors.toml", &long(MAX_LENGTH + 1), 0o600);
    for arguments in [&["--conf", &path][..], &["check", "--conf", &path]] {
        let message = wrong(program(home.path()).args(arguments));
        assert!(message.contains("doors.toml: it is larger than 32 megabytes"), "{message}");
    }
}

#[test]
fn a_pipe_in_place_of_the_file_is_refused_at_once() {
    let home = TempDir::new().unwrap();
    let path = home.path().join(".port_knocker.toml");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for arguments in [&[][..], &["check"]] {
        let message = wrong(program(home.path()).args(arguments));
        assert!(message.contains("it is no regular file"), "{message}");
    }
}

#[test]
fn a_public_key_is_read_from_a_regular_file_only_and_anything_else_is_refused_at_once() {
    let testbed = Testbed::new();
    let fifo = testbed.directory.path().join("key.pub");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let conf = testbed.write("[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n");
    for file in [fifo.to_str().unwrap(), "/dev/zero"] {
        let conf = conf.to_str().unwrap();
        let arguments = ["client", "add", "x", "--conf", conf, "--key-file", file, "--door", "ssh"];
        let (status, said) = testbed.run(&arguments);
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(file) && said.contains("it is not a regular file"), "{said}");
    }
}

#[test]
fn check_the_start_and_a_reload_report_each_of_three_faults_of_a_file() {
    let mut testbed = Testbed::new();
    let wrong = "refuse = \"dorp\"\nspa_prot = 1\nzone = 1\n";
    let path = testbed.write(wrong).display().to_string();
    let places = [1, 2, 3].map(|line| format!("{path}:{line}:"));
    for arguments in
        [&["check", "--conf", &path][..], &["--conf", &path], &["client", "list", "--conf", &path]]
    {
        let (status, said) = testbed.run(arguments);
        assert_eq!(status.code(), Some(2), "{said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(&path)).collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(lines.iter().zip(&places).all(|(line, place)| line.contains(place)), "{said}");
    }
    testbed.start(&gate(""));
    testbed.write(wrong);
    testbed.daemon().signal(rustix::process::Signal::HUP).unwrap();
    let said = testbed.hear("the old configuration stays in force");
    assert!(places.iter().all(|place| said.contains(place)), "{said}");
    // The number of reported faults is bounded.
    let many: String = (0..50).map(|number| format!("key-{number} = 1\n")).collect();
    testbed.write(&many);
    let (_, said) = testbed.run(&["check", "--conf", &path]);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("port-knocking-doors: ")).collect();
    assert_eq!((lines.len(), lines[20]), (21, "port-knocking-doors: and 30 more"), "{said}");
    testbed.end(rustix::process::Signal::TERM);
}
