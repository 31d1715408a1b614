//! The client as a program, with a key in a real `ssh-agent`, against the real daemon.

use std::{
    fs,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use doors_lab::Process;

use crate::testbed::{CLIENT, PATIENCE, PORT, SERVER, STRANGER, Testbed};

/// A user with a key in an agent, on the client's machine.
pub(crate) struct User {
    pub(crate) testbed: Testbed,
    pub(crate) home: PathBuf,
    _agent: Process,
}

/// Addresses in the client's own networks that no machine has.
const NOWHERE: [&str; 2] = ["192.0.2.99", "2001:db8::99"];

const DOORS: &str = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nopen_for = 30\n\
                     [[doors]]\nname = \"admin\"\nports = [\"8443/tcp\"]\n";

impl User {
    /// Follows the README: a key, an agent, a gateway, a client, a server.
    fn new() -> Self {
        Self::with(DOORS)
    }

    pub(crate) fn with(doors: &str) -> Self {
        let testbed = Testbed::new();
        let home = testbed.directory.path().join("home");
        fs::create_dir_all(home.join(".ssh")).unwrap();
        let key = home.join(".ssh/some_key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let socket = home.join("agent");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket);
        let mut agent = Process::start(&testbed.client, command).unwrap();
        agent.wait_for("SSH_AUTH_SOCK", PATIENCE).expect("the agent starts");
        testbed.until("the agent listens", |_| socket.exists());
        run(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket));
        // From here on only the agent has the key.
        fs::remove_file(&key).unwrap();

        let mut user = Self { testbed, home, _agent: agent };
        let text = user.testbed.gateway(doors);
        let conf = user.testbed.write(&text).to_str().unwrap().to_owned();
        let line = user.home.join(".ssh/some_key.pub");
        let server = |user: &Self, arguments: &[&str]| {
            let (status, said) = user.testbed.run(&[arguments, &["--conf", &conf]].concat());
            assert!(status.success(), "{arguments:?}: {said}");
            said
        };
        server(&user, &["gateway", "init"]);
        server(&user, &["client", "add", "laptop", "--key-file", line.to_str().unwrap(), "--door", "ssh"]);
        let card = server(&user, &["gateway", "card"]);
        let text = fs::read_to_string(&conf).unwrap();
        user.testbed.start(&text);
        for (name, host) in [("home4", SERVER[0]), ("home6", SERVER[1])] {
            let (code, said) = user.doorknock(&["add", name, host, card.trim()]);
            assert_eq!(code, Some(0), "{said}");
        }
        user
    }

    fn conf(&self) -> PathBuf {
        self.testbed.directory.path().join("doors.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
        command.env_clear().env("HOME", &self.home).env("SSH_AUTH_SOCK", self.home.join("agent"));
        command.arg("demo-client").args(arguments).stdin(Stdio::null());
        command
    }

    /// Stores a server named `both`.
    fn add_both(&self) {
        let card = self.testbed.run(&["gateway", "card", "--conf", self.conf().to_str().unwrap()]).1;
        let (code, said) = self.doorknock(&["add", "both", "both.example", card.trim()]);
        assert_eq!(code, Some(0), "{said}");
    }

    /// The client's command with these addresses for the name `both.example`.
    fn command_at_both(&self, addresses: [&str; 2], arguments: &[&str]) -> Command {
        let hosts = self.home.join("hosts");
        fs::write(&hosts, addresses.map(|address| format!("{address} both.example\n")).concat()).unwrap();
        // A hosts file for this process only.
        let inner = self.command(arguments);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(&hosts);
        command.arg(inner.get_program()).args(inner.get_args());
        command.env("HOME", &self.home).env("SSH_AUTH_SOCK", self.home.join("agent")).stdin(Stdio::null());
        command
    }

    fn doorknock_at_both(&self, addresses: [&str; 2], arguments: &[&str]) -> (Option<i32>, String) {
        let command = self.command_at_both(addresses, arguments);
        let mut process = Process::start(&self.testbed.client, command).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
        (status.code(), without_waits(&said))
    }

    /// Runs the client until it ends.
    pub(crate) fn doorknock(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut process = Process::start(&self.testbed.client, self.command(arguments)).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
        (status.code(), without_waits(&said))
    }
}

/// The client says what it waits for only on a slow machine.
fn without_waits(said: &str) -> String {
    let lines = said.lines().filter(|line| !line.starts_with("doorknock: waiting for "));
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_key_in_an_agent_opens_a_door_and_the_client_reports_the_real_outcome() {
    let mut user = User::new();
    for (server, source) in ["home4", "home6"].into_iter().zip(CLIENT) {
        let (code, said) = user.doorknock(&["open", server, "ssh"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with(&format!("ssh open for {source} until ")), "{said}");
        assert!(said.ends_with("(30 s)"), "{said}");
        assert!(user.testbed.is_open(source));
        assert!(user.testbed.hear("opened: door ssh").contains("by laptop (SHA256:"));
        let (code, said) = user.doorknock(&["open", server, "ssh", "--for", "10m"]);
        assert!(code == Some(0) && said.ends_with("(10 min)"), "{said}");
        let (code, said) = user.doorknock(&["close", server, "ssh"]);
        assert_eq!((code, said), (Some(0), format!("ssh closed for {source}")));
        assert!(!user.testbed.is_open(source), "the receipt comes after the door has closed");
    }
    let (code, said) = user.doorknock(&["ask", "home4"]);
    assert_eq!((code, said.as_str()), (Some(0), "ssh  at most 1 h"));
}

#[test]
fn a_refused_or_unanswered_client_gets_a_message_and_an_exit_code() {
    let user = User::new();
    let (code, said) = user.doorknock(&["open", "home4", "admin"]);
    assert_eq!((code, said.as_str()), (Some(4), "doorknock: not allowed to open: admin"));
    // The card of another gateway.
    let other = Testbed::new();
    let card = other.card().to_text();
    let (code, said) = user.doorknock(&["add", "other", SERVER[0], &card]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = user.doorknock(&["open", "other", "ssh", "-4"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no answer: the daemon does not run there, wrong card, key or port, or the datagrams do not arrive"), "{said}");
    assert!(user.testbed.grants("ssh").is_empty());
}

#[test]
fn a_named_address_is_granted_instead_of_the_sender() {
    let user = User::new();
    let (code, said) = user.doorknock(&["open", "home4", "ssh", "--address", STRANGER[0]]);
    assert!(code == Some(0) && said.starts_with(&format!("ssh open for {} ", STRANGER[0])), "{said}");
    assert!(user.testbed.is_open(STRANGER[0]));
    assert!(!user.testbed.is_open(CLIENT[0]));
}

#[test]
fn a_name_with_two_families_opens_for_both_addresses_and_names_them() {
    let user = User::new();
    user.add_both();
    let (code, said) = user.doorknock_at_both(SERVER, &["open", "both", "ssh"]);
    assert_eq!(code, Some(0), "{said}");
    for source in CLIENT {
        assert!(said.contains(&format!("ssh open for {source} until ")), "{said}");
        assert!(user.testbed.is_open(source));
    }
}

#[test]
fn the_client_does_not_wait_for_an_unreachable_family_once_the_other_has_answered() {
    let user = User::new();
    user.add_both();
    for (place, server) in SERVER.into_iter().enumerate() {
        let mut addresses = NOWHERE;
        addresses[place] = server;
        let begun = Instant::now();
        let (code, said) = user.doorknock_at_both(addresses, &["open", "both", "ssh"]);
        assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}: {said}", begun.elapsed());
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("ssh open for {} until ", CLIENT[place])), "{said}");
        assert!(said.contains(": no answer 400 ms after that of another address; not waited for"), "{said}");
        // With `--json` every address is reported all the same.
        let (_, said) = user.doorknock_at_both(addresses, &["open", "both", "ssh", "--json"]);
        let outcomes = ["\"outcome\":\"open\"", "\"outcome\":\"no-answer\""].map(|word| said.contains(word));
        assert_eq!((said.lines().count(), outcomes), (2, [true, true]), "{said}");
        let (_, said) = user.doorknock_at_both(addresses, &["open", "both", "ssh", "--quiet"]);
        assert_eq!(said, "");
    }
}

#[test]
fn as_a_proxy_command_the_client_opens_the_door_and_relays() {
    let user = User::new();
    let arguments = ["proxy", SERVER[0], &PORT.to_string(), "--server", "home4", "--door", "ssh"];
    let mut command = user.command(&arguments);
    let input = user.home.join("input");
    fs::write(&input, "through the door").unwrap();
    command.stdin(fs::File::open(input).unwrap());
    let mut process = Process::start(&user.testbed.client, command).unwrap();
    let (status, said) = process.finish(PATIENCE).unwrap().expect("it ends with its input");
    assert_eq!((status.code(), said.trim_end()), (Some(0), "through the door"));
    let (code, said) = user.doorknock(&["ssh-config", "home4", "ssh"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("proxy %h %p --server home4 --door ssh"), "{said}");
}

#[test]
fn a_lost_receipt_does_not_keep_a_proxy_from_a_grant_for_one_connection() {
    let user = User::with("[[doors]]\nname = \"ssh\"\nports = [\"2222/tcp\"]\ngrant = \"once\"\n");
    let address = SocketAddr::new(SERVER[0].parse().unwrap(), 2222);
    let listener = user.testbed.server.enter(|| TcpListener::bind(address)).unwrap();
    // The first datagram is the challenge after a start, 220 bytes with its headers; the receipts are lost.
    let lost = "table inet lost { chain lost { type filter hook input priority 0; \
                udp sport 62201 quota over 220 bytes counter drop; }; }";
    user.testbed.in_client("nft", &[lost]);
    let begun = Instant::now();
    let command = user.command(&["proxy", SERVER[0], "2222", "--server", "home4", "--door", "ssh"]);
    let mut process = Process::start(&user.testbed.client, command).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    user.testbed.until("the proxy connects", |_| {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let (mut peer, _) = accepted.unwrap();
    // Another connection or another attempt would arrive in this time.
    thread::sleep(Duration::from_millis(500));
    let another = listener.accept().map_err(|error| error.kind());
    assert!(matches!(another, Err(io::ErrorKind::WouldBlock)), "{another:?}");
    let rules = user.testbed.in_client("nft", &["list table inet lost"]);
    assert!(!rules.contains("packets 0 "), "no receipt was lost: {rules}");
    peer.write_all(b"welcome").unwrap();
    drop(peer);
    let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
    assert_eq!((status.code(), said.trim_end()), (Some(0), "welcome"));
}

/// Makes the client's network translate its addresses, which look global, to the stranger's.
fn translate(user: &User) {
    let [to4, to6] = STRANGER;
    let rules = format!(
        "table inet translate {{ chain out {{ type nat hook postrouting priority srcnat; \
         ip daddr {} snat ip to {to4}; ip6 daddr {} snat ip6 to {to6}; }}; }}",
        SERVER[0], SERVER[1]
    );
    user.testbed.in_client("nft", &[&rules]);
}

#[test]
fn a_door_opens_for_the_address_that_the_server_sees_when_a_global_one_is_translated() {
    let user = User::new();
    translate(&user);
    for (place, server) in ["home4", "home6"].into_iter().enumerate() {
        let (sends, seen) = (CLIENT[place], STRANGER[place]);
        let open = format!("ssh open for {seen} until ");
        let (code, said) = user.doorknock(&["open", server, "ssh"]);
        assert!(code == Some(0) && said.contains(&open), "{said}");
        let note = format!(
            "this machine sends from {sends}, for which the door is open, too; but the server sees it at {seen}, "
        );
        assert!(said.contains(&note), "{said}");
        assert!(user.testbed.grants("ssh").contains_key(seen));
        let (code, said) = user.doorknock(&["close", server, "ssh"]);
        assert!(code == Some(0) && said.contains(&format!("ssh closed for {seen}")), "{said}");
        assert!(user.testbed.grants("ssh").is_empty(), "both are closed");
    }
}

#[test]
fn address_seen_names_no_address_and_can_be_stored_for_a_server() {
    let user = User::new();
    translate(&user);
    let card = user.testbed.run(&["gateway", "card", "--conf", user.conf().to_str().unwrap()]).1;
    let (code, said) = user.doorknock(&["add", "seen", SERVER[0], card.trim(), "--address", "seen"]);
    assert_eq!(code, Some(0), "{said}");
    for arguments in [&["open", "home4", "ssh", "--address", "seen"][..], &["open", "seen", "ssh"]] {
        let (code, said) = user.doorknock(arguments);
        let open = format!("ssh open for {} until ", STRANGER[0]);
        assert!(code == Some(0) && said.starts_with(&open) && said.lines().count() == 1, "{said}");
        assert_eq!(user.testbed.grants("ssh").into_keys().collect::<Vec<_>>(), [STRANGER[0]]);
    }
    // The option overrides the stored address.
    let (_, said) = user.doorknock(&["open", "seen", "ssh", "--address", CLIENT[0]]);
    assert!(said.starts_with(&format!("ssh open for {} until ", CLIENT[0])), "{said}");
}

#[test]
fn where_a_door_requires_an_address_the_seen_one_is_never_named_without_being_asked_for() {
    let user = User::with("[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nrequire_address = true\n");
    translate(&user);
    let (code, said) = user.doorknock(&["open", "home4", "ssh"]);
    let way_out = format!("if {0} is yours: --address {0}", STRANGER[0]);
    assert!(code == Some(5) && said.contains(&way_out), "{said}");
    assert!(!user.testbed.grants("ssh").contains_key(STRANGER[0]));
    let (code, said) = user.doorknock(&["open", "home4", "ssh", "--address", STRANGER[0]]);
    assert_eq!(code, Some(0), "{said}");
    assert!(user.testbed.grants("ssh").contains_key(STRANGER[0]));
}
