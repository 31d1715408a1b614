//! How the log stays short, whatever strangers send.

use std::net::{IpAddr, Ipv4Addr};

use doors_core::{
    door::{DoorName, GrantKey},
    lease::Lease,
    packet::Link,
    spa::client::ClientLabel,
};

use super::*;

fn lease(number: u32, by: Option<&str>) -> Lease {
    let source = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number));
    let label = |name: &str| ClientLabel { name: name.into(), fingerprint: "SHA256:x".into() };
    let key = GrantKey { door: DoorName::new("ssh").unwrap(), source };
    Lease {
        key,
        link: Link(3),
        until: at(3600),
        granted_to: by.map_or(GrantedTo::Sequence, |name| label(name).into()),
        once: false,
    }
}

fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

fn wrong(number: u32, checked: bool) -> Event {
    let source = lease(number, None).key.source;
    Event::Wrong { source, port: 1, after: 0, quiet: Duration::from_secs(5), checked }
}

/// How many of these simultaneous events become a line.
fn logged(throttles: &mut Throttles, events: impl Iterator<Item = Event>) -> usize {
    events.filter(|event| throttles.admit(event, at(0))).count()
}

#[test]
fn a_replayed_sequence_makes_few_lines_and_one_sum() {
    let mut throttles = Throttles::new();
    let opened = (0..10_000).map(|number| Event::Opened(lease(number, None)));
    let lines = logged(&mut throttles, opened);
    assert_eq!(lines, DOORS.at_once as usize);
    assert_eq!(throttles.next_sum(), Some(at(60)), "due without another knock");
    assert_eq!(throttles.doors.sum(at(60)), Some(10_000 - u64::from(DOORS.at_once)), "nothing is lost");
    assert_eq!(throttles.next_sum(), None);
}

#[test]
fn what_a_client_does_to_a_door_is_always_logged() {
    let mut throttles = Throttles::new();
    logged(&mut throttles, (0..10_000).map(|number| Event::Opened(lease(number, None))));
    let of_client = (0..1000).map(|number| Event::Opened(lease(number, Some("laptop"))));
    assert_eq!(logged(&mut throttles, of_client), 1000);
}

#[test]
fn grants_found_at_the_start_use_no_line_of_the_grants_that_follow() {
    let mut throttles = Throttles::new();
    logged(&mut throttles, (0..10_000).map(|number| Event::Adopted(lease(number, None))));
    assert_eq!(logged(&mut throttles, std::iter::once(Event::Opened(lease(1, None)))), 1);
}

#[test]
fn lines_about_refusals_are_bounded_and_unchecked_refusals_are_counted() {
    let mut throttles = Throttles::new();
    let lines = logged(&mut throttles, (0..1000).map(|number| wrong(number, number % 2 == 0)));
    assert_eq!(lines, REFUSALS.at_once as usize);
    assert_eq!(throttles.refusals.sum(at(60)), Some(1000 - u64::from(REFUSALS.at_once)));
    let mut throttles = Throttles::new();
    assert_eq!(logged(&mut throttles, (0..1000).map(|number| Event::NoRoom(lease(number, None)))), 20);
}

#[test]
fn details_are_bounded_and_use_no_line_of_refusals() {
    let mut throttles = Throttles::new();
    let further =
        (0..10_000).map(|number| Event::Further { source: lease(number, None).key.source, right: 1 });
    assert_eq!(logged(&mut throttles, further), 20);
    // A challenge is not a refusal: after a start each client gets one.
    let who = lease(0, Some("laptop")).granted_to.client().unwrap().clone();
    let source = lease(0, None).key.source;
    let stale = Event::Refused { who, source, why: Answer::Stale, address: None };
    logged(&mut throttles, std::iter::repeat_n(stale, 1000));
    assert_eq!(logged(&mut throttles, (0..100).map(|number| wrong(number, true))), 20);
    assert_eq!(throttles.next_sum(), Some(at(60)));
}
