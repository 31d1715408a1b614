//! What the daemon has, as the interface shows it. Dates are in seconds since 1970.

use std::net::IpAddr;

use doors_core::{
    door::GrantKey,
    grants::LiveGrant,
    lease::{GrantedTo, Lease},
    spa::client::Client,
    time::{Moment, Wall},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    interface::{self, By, Grant, Holder},
    protocol::LONGEST,
};
use crate::observe::{watch::What, words::Words};

/// The entries of one reply are at most this long, in bytes; the rest of the message has room beside them.
const PAGE: usize = LONGEST - 1024;
/// A client's networks that are shown.
const MAX_NETWORKS_SHOWN: usize = 200;

/// The entries of one reply.
#[derive(Default)]
pub(super) struct Page {
    entries: Vec<Box<RawValue>>,
    length: usize,
}

impl Page {
    /// Adds an entry. If it does not fit beside the others, these are returned, and it begins the next page.
    pub(super) fn add(&mut self, entry: &impl Serialize) -> Option<Vec<Box<RawValue>>> {
        let entry = to_raw_value(entry).ok()?;
        let length = entry.get().len().saturating_add(1);
        let is_full = !self.entries.is_empty() && self.length.saturating_add(length) > PAGE;
        let full = is_full.then(|| self.take());
        self.length = self.length.saturating_add(length);
        self.entries.push(entry);
        full
    }

    pub(super) fn take(&mut self) -> Vec<Box<RawValue>> {
        self.length = 0;
        std::mem::take(&mut self.entries)
    }
}

/// One client with a key. `seen` is when and from where it knocked last.
pub(super) fn client_of(
    client: &Client,
    seen: Option<(Moment, IpAddr)>,
    now: Moment,
    wall: Wall,
) -> interface::Client {
    interface::Client {
        name: client.who.name.to_string(),
        fingerprint: client.who.fingerprint.to_string(),
        doors: client.doors.iter().map(ToString::to_string).collect(),
        from: client.from.iter().take(MAX_NETWORKS_SHOWN).map(ToString::to_string).collect(),
        from_in_all: number(client.from.len()),
        longest: client.max_open_for.map(|time| seconds(time.as_secs())),
        until: client.until.map(|until| seconds(until.0 / 1000)),
        expired: client.has_expired(wall),
        disabled: client.disabled,
        last_seen: seen.map(|(at, _)| past(at, now, wall)),
        last_address: seen.map(|(_, address)| address.to_string()),
    }
}

/// One open door, as the interface shows it.
pub(super) fn grant_of(grant: &LiveGrant, now: Moment, wall: Wall) -> Grant {
    let Lease { key: GrantKey { door, source }, once, .. } = &grant.lease;
    Grant {
        door: door.to_string(),
        address: source.to_string(),
        holder: holder_of(&grant.lease, now, wall),
        others: grant.leases().skip(1).map(|lease| holder_of(lease, now, wall)).collect(),
        since: past(grant.since, now, wall),
        found: grant.adopted,
        confirmed: grant.is_open(),
        one_connection: *once,
    }
}

fn holder_of(lease: &Lease, now: Moment, wall: Wall) -> Holder {
    let client = lease.granted_to.client();
    let (by, note) = match &lease.granted_to {
        GrantedTo::Sequence => (By::Sequence, None),
        GrantedTo::Client(_) => (By::Client, None),
        GrantedTo::Administrator(note) => {
            (By::Administrator, Some(note.as_str()).filter(|note| !note.is_empty()))
        }
    };
    Holder {
        by,
        client: client.map(|label| label.name.to_string()),
        fingerprint: client.map(|label| label.fingerprint.to_string()),
        note: note.map(str::to_owned),
        until: date(lease.until, now, wall),
        seconds_left: left(lease.until, now),
    }
}

/// Something that happened, as the interface shows it.
pub(crate) fn event_of(what: &What, at: Moment, wall: Wall) -> interface::Event {
    let of_event;
    let (words, event) = match what {
        What::Event(event) => {
            of_event = Words::of(event, at);
            (&of_event, Some(event))
        }
        What::News(words) => (&**words, None),
    };
    let client = event.and_then(|event| event.client());
    interface::Event {
        time: seconds(wall.0 / 1000),
        kind: words.kind.to_owned(),
        level: words.level.as_str().to_lowercase(),
        text: words.text.clone(),
        door: event.and_then(|event| event.door()).map(ToString::to_string),
        address: event.map(|event| event.source().to_string()),
        client: client.map(|label| label.name.to_string()),
        fingerprint: client.map(|label| label.fingerprint.to_string()),
        until: event.and_then(|event| event.lease()).map(|lease| date(lease.until, at, wall)),
    }
}

/// A moment to come as a date, in seconds since 1970.
pub(super) fn date(moment: Moment, now: Moment, wall: Wall) -> i64 {
    let after = moment.remaining(now).as_millis();
    seconds(wall.0.saturating_add(u64::try_from(after).unwrap_or(u64::MAX)) / 1000)
}

/// A moment that is past as a date, in seconds since 1970.
pub(crate) fn past(moment: Moment, now: Moment, wall: Wall) -> i64 {
    let before = now.remaining(moment).as_millis();
    seconds(wall.0.saturating_sub(u64::try_from(before).unwrap_or(u64::MAX)) / 1000)
}

pub(super) fn left(until: Moment, now: Moment) -> i64 {
    seconds(until.remaining(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

pub(crate) fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

pub(crate) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_a_list_fits_into_a_message_and_nothing_is_lost() {
        let entry = |length: usize| "x".repeat(length);
        let (mut page, mut listed) = (Page::default(), Vec::new());
        let lengths = [40_000, 30_000, 100, 60_000, 1, 30_000, 30_000, 3000, 2];
        for length in lengths {
            listed.extend(page.add(&entry(length)));
        }
        listed.push(page.take());
        for page in &listed {
            let message = serde_json::json!({ "continues": true, "parameters": { "grants": page } });
            assert!(super::super::protocol::framed(&message).is_some(), "{}", message.to_string().len());
        }
        let all: Vec<usize> = listed.concat().iter().map(|entry| entry.get().len() - 2).collect();
        assert_eq!(all, lengths);
    }
}
