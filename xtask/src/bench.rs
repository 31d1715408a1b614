//! Benchmarks: measured side by side, in one run, with the comparable programs that Debian packages.
//!
//! Everything runs in private networks; the host's network is not touched. Each figure states what it is the
//! time of, because that is where benchmarks go wrong.

mod control;
mod network;
mod peers;
mod reload;
mod spa;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use doors_lab::Process;
use rustix::process::Signal;

use self::{
    network::{Network, SEQUENCE, crowd},
    peers::{Firewall, Knockd},
};
use crate::programs::{self, Failure};

/// A timeout longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What to measure; by default everything.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// Only these: spa, cost, card, hostile, reload, control, nftables, firewalld, repair, idle, flood
    only: Vec<String>,
    /// Measure this port-knocking-doors instead, with the doorknock beside it
    #[arg(long, value_name = "FILE", value_parser = |file: &str| std::path::absolute(file))]
    program: Option<PathBuf>,
}

/// Measures the program at this path, and prints the figures.
type Measure = fn(&Path) -> Result<(), Failure>;

/// Runs the measurements and prints the figures.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    programs::install(&[
        ("nft", "nftables"),
        ("firewalld", "firewalld"),
        ("dbus-daemon", "dbus"),
        ("knockd", "knockd"),
        ("fwknop", "fwknop-client"),
        ("fwknopd", "fwknop-server"),
        ("iptables", "iptables"),
        ("ssh-agent", "openssh-client"),
    ])?;
    doors_lab::become_root()?;
    programs::succeed(programs::cargo(&[
        "build",
        "--release",
        "--locked",
        "--quiet",
        "-p",
        "port-knocking-doors",
        "-p",
        "doorknock",
    ]))?;
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/port-knocking-doors");
    let program = options.program.clone().unwrap_or(built);
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let all: [(&str, Measure); 11] = [
        ("spa", spa::opening),
        ("cost", spa::cost_per_datagram),
        ("card", spa::crowd_of_card_holders),
        ("hostile", spa::hostile),
        ("reload", reload::deafness),
        ("control", control::many_grants),
        ("nftables", opening),
        ("firewalld", opening_with_firewalld),
        ("repair", repair),
        ("idle", idle),
        // Last: after a flood the kernel is busy for a while with removing what it left.
        ("flood", flood),
    ];
    for (name, measure) in all {
        if wanted(name) {
            measure(&program)?;
        }
    }
    Ok(())
}

/// 200 addresses knock without pauses, and connect as soon as they can.
fn opening(program: &Path) -> Result<(), Failure> {
    println!("\nFrom the last datagram to the first accepted connection, 200 addresses, no pauses");
    println!("(closed doors answer with a TCP reset, so that the client can try again at once)");
    let mut network = Network::new()?;
    let _daemon = network.start_ours(program, "firewall = \"nftables\"\nrefuse = \"reject\"")?;
    let times = network.open_for(1..=200)?;
    print_times("port-knocking-doors, nftables", &times);
    let listed = network.on_server("nft", &["list", "set", "inet", "port_knocking_doors", "default4"])?;
    println!("  doors open at the end: {}", listed.matches("expires").count());

    let mut network = Network::new()?;
    let _knockd = Knockd::start(&mut network)?;
    let times = network.open_for(1..=200)?;
    print_times("knockd, one nft command each", &times);
    Ok(())
}

/// The same with firewalld, next to the D-Bus call alone.
fn opening_with_firewalld(program: &Path) -> Result<(), Failure> {
    println!("\nFrom the last datagram to the first accepted connection, 50 addresses, firewalld");
    let mut network = Network::new()?;
    let firewall = Firewall::start(&network)?;
    let bare = firewall.bare_calls(50)?;
    print_times("the bare D-Bus call addRichRule alone", &bare);

    for (what, choice, open) in [
        ("gate, and the zone lets the port through", "firewalld", true),
        ("gate, and the zone closes the port", "firewalld", false),
        ("rich rules alone, and no gate", "rich-rules", false),
    ] {
        let mut network = Network::new()?;
        let firewall = Firewall::start(&network)?;
        if open {
            firewall.let_through(&network)?;
        }
        let text = format!("firewall = \"{choice}\"\nrefuse = \"reject\"");
        let mut daemon = network.start_ours_on(program, &text, Some(firewall.address()))?;
        if choice == "firewalld" {
            daemon.wait_for("firewalld's zone public", TIMEOUT).ok_or("the daemon reports no zones")?;
        }
        print_times(&format!("port-knocking-doors, {what}"), &network.open_for(1..=50)?);
    }

    let text = "firewall = \"firewalld\"\nrefuse = \"reject\"";
    let mut daemon = network.start_ours_on(program, text, Some(firewall.address()))?;
    let mut times = network.open_for(1..=25)?;
    let reloading = Instant::now();
    firewall.reload(&network)?;
    let reloaded = reloading.elapsed();
    let line = daemon.wait_for("firewalld was reloaded", TIMEOUT).unwrap_or_default();
    times.extend(network.open_for(26..=50)?);
    print_times("the zone closes the port, and a reload after 25 doors", &times);
    let open = (1..=50).filter(|number| network.is_open(&crowd(*number))).count();
    println!("  firewall-cmd --reload took {:.0} ms; doors open at the end: {open} of 50", millis(reloaded));
    println!("  the daemon: {}", line.split_once("WARN ").map_or("(no line)", |(_, said)| said));
    Ok(())
}

/// How many clients get in during a flood of forged knocks.
fn flood(program: &Path) -> Result<(), Failure> {
    println!("\nTen clients knock during a flood of forged first and wrong knocks, for six seconds");
    let mut network = Network::new()?;
    let daemon = network.start_ours(program, "firewall = \"nftables\"\nrefuse = \"reject\"")?;
    let (sent, open) = network.flood(Duration::from_secs(6))?;
    println!("  port-knocking-doors: {open} of 10 in, at {sent} knocks/s; {}", cost(&daemon)?);
    drop(daemon);
    let mut network = Network::new()?;
    let knockd = Knockd::start(&mut network)?;
    let (sent, open) = network.flood(Duration::from_secs(6))?;
    println!("  knockd:              {open} of 10 in, at {sent} knocks/s; {}", cost(knockd.process())?);
    Ok(())
}

/// How long doors stay open after the daemon is killed, and how fast a removed gate is restored.
fn repair(program: &Path) -> Result<(), Failure> {
    println!("\nkill -9 with ten doors open, each for 3 s");
    let mut network = Network::new()?;
    let text = "firewall = \"nftables\"\nrefuse = \"reject\"\nmax_opened_door_duration = 3";
    let mut daemon = network.start_ours(program, text)?;
    let mut opened = Vec::new();
    for number in 1..=10 {
        network.open_for(number..=number)?;
        opened.push((number, Instant::now()));
    }
    daemon.signal(Signal::KILL)?;
    daemon.wait(TIMEOUT)?;
    let mut lasted = Vec::new();
    while let Some((number, since)) = opened.first().copied() {
        if !network.is_open(&crowd(number)) {
            lasted.push(since.elapsed());
            opened.remove(0);
        }
        if since.elapsed() > TIMEOUT {
            return Err("a door stays open".into());
        }
    }
    print_times("open for", &lasted);

    println!("\nnft flush ruleset, 50 times: until the kernel has the gate again");
    let mut daemon = network.start_ours(program, "firewall = \"nftables\"")?;
    let mut gone = Vec::new();
    let mut told = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        network.on_server("nft", &["flush", "ruleset"])?;
        let line = daemon.wait_for("put back in", TIMEOUT).ok_or("the gate is not back")?;
        gone.push(begun.elapsed());
        let took = line.split("put back in ").nth(1).and_then(|rest| rest.split(' ').next());
        told.push(Duration::from_secs_f64(
            took.and_then(|took| took.parse::<f64>().ok()).unwrap_or(f64::MAX) / 1000.0,
        ));
        if network.is_open(&crowd(1)) {
            return Err("the gate is reported as back, but is missing".into());
        }
        // The daemon keeps a pause between two repairs.
        std::thread::sleep(Duration::from_millis(60));
    }
    print_times("from before the nft process to the log's line", &gone);
    print_times("of that, our own work", &told);
    Ok(())
}

/// What the daemon costs when nothing happens.
fn idle(program: &Path) -> Result<(), Failure> {
    println!("\nIdle, for 20 s");
    for (name, more) in [
        ("default periods of 10 s", ""),
        ("periods of an hour", "firewall_rules_check_periode_seconds = 3600\ndoors_cleanup_periode = 3600"),
    ] {
        let mut network = Network::new()?;
        let daemon = network.start_ours(program, &format!("firewall = \"nftables\"\n{more}"))?;
        std::thread::sleep(Duration::from_secs(3));
        let before = switches(&daemon)?;
        std::thread::sleep(Duration::from_secs(20));
        let woken = switches(&daemon)?.saturating_sub(before);
        println!("  {name}: {:.2} wake-ups/s; {}", woken as f64 / 20.0, cost(&daemon)?);
    }
    let size = fs::metadata(program)?.len();
    println!("  the stripped binary: {:.1} MB", size as f64 / 1e6);
    let tree = |edges: &str| -> Result<usize, Failure> {
        let arguments = ["tree", "-p", "port-knocking-doors", "-e", edges, "--prefix", "none", "--locked"];
        let output = programs::cargo(&arguments).output()?;
        let text = String::from_utf8(output.stdout)?;
        let mut names: Vec<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names.len())
    };
    println!(
        "  crates in the program: {} (with those that only build it: {})",
        tree("normal")?,
        tree("normal,build")?
    );
    Ok(())
}

/// How often a process has been woken, over all its threads.
fn switches(process: &Process) -> Result<u64, Failure> {
    let mut sum: u64 = 0;
    for task in fs::read_dir(format!("/proc/{}/task", process.id()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let numbers = status.lines().filter(|line| line.starts_with("voluntary_ctxt_switches"));
        sum = numbers
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .fold(sum, u64::saturating_add);
    }
    Ok(sum)
}

/// The memory and CPU time of a process so far, as text.
fn cost(process: &Process) -> Result<String, Failure> {
    let (resident, own) = memory(process)?;
    let seconds = processor_time(process)?;
    Ok(format!("{:.1} MB resident ({:.1} MB its own), {seconds:.2} s of CPU", resident / 1e3, own / 1e3))
}

/// The memory of a process in kilobytes: all that is resident, and its anonymous part.
fn memory(process: &Process) -> Result<(f64, f64), Failure> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    Ok((field("VmRSS").unwrap_or(0.0), field("RssAnon").unwrap_or(0.0)))
}

/// The CPU time that a process has used, in seconds.
fn processor_time(process: &Process) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    let ticks: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // Fields 14 and 15 of proc_pid_stat(5) are utime and stime, in ticks of 10 ms. Field 3, the state, is not
    // a number and is skipped.
    Ok((ticks.get(10).unwrap_or(&0.0) + ticks.get(11).unwrap_or(&0.0)) / 100.0)
}

fn print_times(what: &str, times: &[Duration]) {
    let mut sorted: Vec<f64> = times.iter().map(|time| millis(*time)).collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| {
        let place = sorted.len().saturating_mul(share).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied().unwrap_or(f64::NAN)
    };
    println!("  {what:<46} median {:>8.3} ms  p99 {:>8.3} ms  of {}", at(50), at(99), sorted.len());
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The sequence as text.
fn sequence() -> String {
    SEQUENCE.map(|port| port.to_string()).join(",")
}

/// A command with an empty environment except for `PATH`.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}
