//! The core in a program of your own: packets and time go in, changes for a firewall come out.

use std::{error::Error, sync::Arc, time::Duration};

use doors_core::{
    access::Rules,
    door::{Door, DoorName, Sequence},
    engine::{Change, Engine, Report},
    packet::{AllRoutes, Link, Packet},
    time::{Moment, Wall},
};

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut |line| println!("{line}"))
}

fn run(say: &mut dyn FnMut(String)) -> Result<(), Box<dyn Error>> {
    let sequence = Sequence::new(&[7001, 9002, 8003, 7004, 9005])?;
    let ssh = Door::with_sequence(DoorName::new("ssh")?, sequence.clone(), Duration::from_secs(30));
    let (quiet_after_wrong, forget_after) = (Duration::from_secs(5), Duration::from_secs(10));
    // No client has a key.
    let clients = Arc::default();
    let rules = Rules { doors: vec![ssh], quiet_after_wrong, forget_after, clients };
    let mut engine = Engine::new(rules)?;

    // What the network brings: here, the right knocks, a tenth of a second after one another.
    let mut now = Moment::default();
    for port in sequence.ports() {
        now = now.after(Duration::from_millis(100));
        let (source, destination) = ("192.0.2.7".parse()?, "192.0.2.1".parse()?);
        let link = Link(2);
        let packet =
            Packet { source, source_port: 40_000, destination, port: *port, link, payload: b"knock\n" };
        engine.handle_packet(&packet, now, Wall::default(), &mut AllRoutes);
        step(&mut engine, now, say);
    }

    // Nothing comes any more. A program would wait for the next packet, and for this moment at most.
    while let Some(deadline) = engine.next_deadline() {
        engine.handle_timeout(deadline, Wall::default());
        step(&mut engine, deadline, say);
    }
    Ok(())
}

/// Makes true what the core wants, says so, and tells what happened.
fn step(engine: &mut Engine, now: Moment, say: &mut dyn FnMut(String)) {
    while let Some(change) = engine.poll_change() {
        say(format!("{:?}: the firewall does {change:?}", now.since_start()));
        if let Change::Open(lease) = change {
            engine.handle_report(Report::Done(lease.key), now, Wall::default());
        }
    }
    while let Some(event) = engine.poll_event() {
        say(format!("{:?}: {event:?}", now.since_start()));
    }
}

#[test]
fn the_example_opens_a_door_and_the_time_closes_it() {
    let mut lines = Vec::new();
    run(&mut |line| lines.push(line)).unwrap();
    let place = |start: &str| lines.iter().position(|line| line.starts_with(start)).unwrap();
    assert!(place("500ms: the firewall does Open") < place("500ms: Opened"), "{lines:?}");
    assert!(place("30.5s: Closed") > place("500ms: Opened"), "{lines:?}");
}
