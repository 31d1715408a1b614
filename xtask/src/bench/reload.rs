//! How long a reload takes, and for how long the daemon does not answer during it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use doors_lab::Process;
use rustix::process::Signal;

use super::{
    memory, millis,
    network::{Network, SERVER},
    spa::{Device, Gateway, socket},
};
use crate::programs::Failure;

/// A timeout longer than a reload takes, even one that is quadratic.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The pause between two knocks, so that a client stays within its budget.
const PAUSE: Duration = Duration::from_millis(2);

/// A client knocks and waits for its receipt, again and again, while the daemon reads its configuration.
pub(super) fn deafness(program: &Path) -> Result<(), Failure> {
    println!("\nA reload: how long it takes, and the longest time for which a knock had no answer meanwhile");
    for (what, count, in_file, until) in [
        ("400 [[clients]]", 400, false, ""),
        ("400 [[clients]], each with until = 9999-12-31", 400, false, "until = 9999-12-31\n"),
        ("4,000 [[clients]]", 4000, false, ""),
        ("4,000 keys in authorized_keys", 4000, true, ""),
        ("100,000 clients, 99,999 of them in that file", 99_999, true, ""),
    ] {
        let network = Network::new()?;
        let device = Device::new(1);
        let lines = (0..count).map(|number| Device::numbered(number).line());
        let text = match in_file {
            true => {
                let path = network.directory.path().join("authorized_keys");
                let named =
                    (0..).zip(lines).map(|(number, line): (u32, _)| format!("{line} device-{number}\n"));
                fs::write(&path, named.collect::<String>())?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                String::new()
            }
            false => {
                let client = |(number, line): (u32, String)| {
                    format!(
                        "[[clients]]\nname = \"device-{number}\"\nkey = \"{line}\"\ndoors = [\"ssh\"]\n{until}"
                    )
                };
                (0..).zip(lines).map(client).collect()
            }
        };
        let ours =
            format!("[[clients]]\nname = \"bench\"\nkey = \"{}\"\ndoors = [\"ssh\"]\n{text}", device.line());
        let gateway = Gateway::with_text(&network, program, &ours)?;
        if in_file {
            let conf = network.directory.path().join("doors.toml");
            let keys = network.directory.path().join("authorized_keys");
            let top = format!("authorized_keys = {keys:?}\nauthorized_keys_doors = [\"ssh\"]\n");
            fs::write(&conf, top + &fs::read_to_string(&conf)?)?;
        }
        let mut daemon = match gateway.start(&network) {
            Ok(daemon) => daemon,
            Err(error) => {
                println!("  {what:<46} does not start: {error}");
                continue;
            }
        };
        let (took, deaf, usual) = reload(&network, &mut daemon, &device, &gateway)?;
        let (resident, _) = memory(&daemon)?;
        println!(
            "  {what:<46} {:>8.1} ms, deaf for {:>8.1} ms (usually {:.1} ms), {:.1} MB resident",
            millis(took),
            millis(deaf),
            millis(usual),
            resident / 1e3
        );
    }
    Ok(())
}

/// Has a client knock all the time while `work` is done. Returns what `work` does, and the longest time without an
/// answer.
pub(super) fn while_knocking<T>(
    network: &Network,
    device: &Device,
    gateway: &Gateway,
    work: &mut dyn FnMut() -> Result<T, Failure>,
) -> Result<(T, Duration), Failure> {
    let longest = |stop: &AtomicBool| -> Result<Duration, Failure> {
        let socket = socket()?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let (mut longest, mut answered) = (Duration::ZERO, Instant::now());
        let mut buffer = [0; 512];
        while !stop.load(Ordering::Relaxed) {
            let knock = device.stale(&gateway.card);
            let sent = Instant::now();
            // The first send may report an earlier ICMP port unreachable.
            let send = || socket.send_to(&knock, (SERVER, doors_spa::PORT));
            send().or_else(|_| send())?;
            while sent.elapsed() < TIMEOUT {
                // A receipt is received; an ICMP error makes `recv` fail.
                if socket.recv(&mut buffer).is_ok() {
                    break;
                }
            }
            longest = longest.max(sent.elapsed());
            answered = Instant::now();
            thread::sleep(PAUSE);
        }
        Ok(longest.max(answered.elapsed().saturating_sub(PAUSE)))
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let knocking =
            scope.spawn(|| network.client.enter(|| longest(&stop).map_err(|error| error.to_string())));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let heard = knocking.join().map_err(|_| "a client panics")?;
        Ok((done?, heard?))
    })
}

/// How long a reload took, and the longest time without an answer during it and in a second before it.
fn reload(
    network: &Network,
    daemon: &mut Process,
    device: &Device,
    gateway: &Gateway,
) -> Result<(Duration, Duration, Duration), Failure> {
    let (_, usual) = while_knocking(network, device, gateway, &mut || {
        thread::sleep(Duration::from_secs(1));
        Ok(Duration::ZERO)
    })?;
    let (took, deaf) = while_knocking(network, device, gateway, &mut || {
        let begun = Instant::now();
        daemon.signal(Signal::HUP)?;
        match daemon.wait_for("the configuration has been read again", TIMEOUT) {
            Some(_) => Ok(begun.elapsed()),
            None => Err(format!("it is not read again: {}", daemon.lines().join("; ")).into()),
        }
    })?;
    Ok((took, deaf, usual))
}
