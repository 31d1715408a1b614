//! What those who ask over the control socket cost the others, with as many open doors as there can be.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use doors_core::limits;

use super::{
    bare, memory, millis,
    network::Network,
    reload::while_knocking,
    spa::{Device, Gateway},
};
use crate::programs::Failure;

/// A timeout longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Lists and closes all doors while a client knocks.
pub(super) fn many_grants(program: &Path) -> Result<(), Failure> {
    // The client that knocks needs one, too.
    let count = u32::try_from(limits::GRANTS)?.saturating_sub(1);
    println!("\nThe control socket with {count} open doors, while a client knocks");
    let network = Network::new()?;
    let device = Device::new(1);
    let client = format!("[[clients]]\nname = \"bench\"\nkey = \"{}\"\ndoors = [\"ssh\"]\n", device.line());
    let gateway = Gateway::with_text(&network, program, &client)?;
    let daemon = gateway.start(&network)?;
    let mut elements = String::from("add element inet port_knocking_doors ssh4 {");
    for number in 0..count {
        let source = Ipv4Addr::from_bits(0x0a00_0000 | number);
        let _ = write!(elements, "{source} timeout 1h,");
    }
    elements.push('}');
    let file = network.directory.path().join("elements");
    fs::write(&file, elements)?;
    network.on_server("nft", &["-f", file.to_str().ok_or("the path is not text")?])?;
    let socket = network.directory.path().join("control.varlink");
    let ask = |arguments: &[&str]| -> Result<(Duration, Vec<u8>), Failure> {
        let mut command = bare(program);
        command.args(arguments).arg("--control-socket").arg(&socket).stdout(Stdio::piped());
        let begun = Instant::now();
        let output = network.server.enter(|| command.output())?;
        let took = begun.elapsed();
        match output.status.success() {
            true => Ok((took, output.stdout)),
            false => Err(String::from_utf8(output.stderr)?.into()),
        }
    };
    let wanted = format!("\"grants\":{count}");
    let begun = Instant::now();
    while !String::from_utf8(ask(&["status", "--json"])?.1)?.contains(&wanted) {
        if begun.elapsed() > TIMEOUT {
            return Err("the daemon has not found all open doors".into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let (_, usual) = while_knocking(&network, &device, &gateway, &mut || {
        thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    println!("  the longest time without an answer, usually       {:>8.1} ms", millis(usual));
    for arguments in [&["list", "--json"][..], &["list"], &["status"]] {
        let ((took, printed), deaf) = while_knocking(&network, &device, &gateway, &mut || ask(arguments))?;
        println!(
            "  {:<28} {:>8.1} ms for {:>5.1} MB, deaf for      {:>8.1} ms",
            arguments.join(" "),
            millis(took),
            printed.len() as f64 / 1e6,
            millis(deaf)
        );
    }
    let (before, _) = memory(&daemon)?;
    let watchers = stuck_watchers(&network)?;
    let ((), deaf) =
        while_knocking(&network, &device, &gateway, &mut || network.flood(Duration::from_secs(3)).map(drop))?;
    let (after, _) = memory(&daemon)?;
    println!(
        "  a flood of wrong knocks, {} who watch and do not read: deaf for {:.1} ms; {:.1} MB resident before, {:.1} MB after",
        watchers.len(),
        millis(deaf),
        before / 1e3,
        after / 1e3
    );
    drop(watchers);
    let ((), alone) =
        while_knocking(&network, &device, &gateway, &mut || network.flood(Duration::from_secs(3)).map(drop))?;
    println!("  the same flood, and nobody watches: deaf for {:.1} ms", millis(alone));
    let ((took, _), deaf) = while_knocking(&network, &device, &gateway, &mut || ask(&["close", "--all"]))?;
    println!("  close --all                  {:>8.1} ms, deaf for {:.1} ms", millis(took), millis(deaf));
    Ok(())
}

/// Connections that ask to be told what happens, read that it begins, and then nothing.
fn stuck_watchers(network: &Network) -> Result<Vec<UnixStream>, Failure> {
    let path = network.directory.path().join("control.varlink");
    let watcher = |_| -> Result<UnixStream, Failure> {
        let mut stream = UnixStream::connect(&path)?;
        stream.write_all(b"{\"method\":\"org.port-knocking-doors.Watch\",\"more\":true}\0")?;
        let _ = stream.read(&mut [0; 64])?;
        Ok(stream)
    };
    (0..10).map(watcher).collect()
}
