//! What `status` and `list clients` tell of the past: how often what happened since the start, the last of each kind,
//! and when each client was last seen.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use doors_core::{
    engine::Event,
    lease::GrantedTo,
    spa::{
        client::{ClientLabel, Clients},
        server::DropReason,
    },
    time::Moment,
};
use doors_firewall::News;
use doors_spa::receipt::Answer;

use super::{Observer, watch::What, words::Words};

/// How often something happened since the start, and the last time.
#[derive(Clone, Debug)]
pub(crate) struct Counted<T> {
    /// How often.
    pub(crate) count: u64,
    /// The last one, and when it was.
    pub(crate) last: Option<(T, Moment)>,
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self { count: 0, last: None }
    }
}

impl<T> Counted<T> {
    fn note(&mut self, what: T, now: Moment) {
        self.count = self.count.saturating_add(1);
        self.last = Some((what, now));
    }
}

/// When and from where a client knocked last.
pub(crate) type LastSeen = Arc<Mutex<BTreeMap<ClientLabel, (Moment, IpAddr)>>>;

/// Since when the gate is as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    /// Since when it stands without a repair.
    pub(crate) since: Moment,
    /// Since when it cannot be made or checked, if that is so.
    pub(crate) broken: Option<Moment>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Knocks and requests that have opened a door.
    pub(crate) accepted: Counted<Event>,
    /// Knocks and requests that were refused.
    pub(crate) refused: Counted<Event>,
    /// What was put back in the firewall.
    pub(crate) repairs: Counted<What>,
    /// What did not work.
    pub(crate) errors: Counted<What>,
    /// The gate.
    pub(crate) gate: Gate,
    /// The clients that knocked. No stranger makes an entry, and those that are gone are forgotten.
    pub(crate) last_seen: LastSeen,
}

/// What an event counts as.
enum Kind {
    Accepted,
    Refused,
    Error,
    Neither,
}

fn kind(event: &Event) -> Kind {
    match event {
        Event::Granted(lease) | Event::StillOpen(lease) | Event::AlsoOpen { lease, .. } => {
            match lease.granted_to {
                GrantedTo::Client(_) | GrantedTo::Sequence => Kind::Accepted,
                GrantedTo::Administrator(_) => Kind::Neither,
            }
        }
        Event::Refused { why: Answer::Stale, .. }
        | Event::Dropped { why: DropReason::Copied, .. }
        | Event::Opened(_)
        | Event::Extended(_)
        | Event::GivenUp(_)
        | Event::Adopted(_)
        | Event::NotAdopted(_)
        | Event::Closed(_)
        | Event::Used(_)
        | Event::Lost(_)
        | Event::Withdrawn(_)
        | Event::ClosedByHand { .. }
        | Event::Revoked(_)
        | Event::Reduced { .. }
        | Event::Shortened(_)
        | Event::Further { .. }
        | Event::Repeated { .. }
        | Event::Waiting { .. } => Kind::Neither,
        Event::NoRoom(_)
        | Event::NotAccepted { .. }
        | Event::Wrong { .. }
        | Event::Refused { .. }
        | Event::Ineligible { .. }
        | Event::Dropped { .. } => Kind::Refused,
        Event::NeverOpened(_) | Event::NotInTime(_) => Kind::Error,
    }
}

impl Facts {
    /// Notes news of the firewall.
    pub(super) fn news(&mut self, news: &News, now: Moment) {
        match news {
            News::Repaired { of_gate: true, .. } => self.gate.since = now,
            News::Gate { is_whole: true } => self.gate = Gate { since: now, broken: None },
            News::Gate { is_whole: false } => self.gate.broken = Some(now),
            _ => {}
        }
        let counted = match news {
            News::Repaired { .. } => &mut self.repairs,
            News::Failed { .. } => &mut self.errors,
            News::Report(_) | News::Gate { .. } | News::Warning(_) | News::Info(_) | News::Detail(_) => {
                return;
            }
        };
        if let Some(words) = Words::of_news(news) {
            counted.note(What::News(Arc::new(words)), now);
        }
    }

    /// Forgets clients that are not among these any more, if there are more of them than of these: keys come and go for
    /// years.
    pub(super) fn follow(&self, clients: &Clients) {
        let mut last_seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if last_seen.len() > clients.len() {
            last_seen.retain(|label, _| clients.find(label).is_some());
        }
    }

    /// A client is seen when a request of its own was accepted or refused: no other sender can make one.
    fn note_client(&self, event: &Event, now: Moment) {
        let who = match event {
            Event::Refused { who, .. } => who,
            Event::Granted(lease) | Event::StillOpen(lease) | Event::AlsoOpen { lease, .. } => {
                match &lease.granted_to {
                    GrantedTo::Client(who) => who,
                    GrantedTo::Sequence | GrantedTo::Administrator(_) => return,
                }
            }
            _ => return,
        };
        let mut last_seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
        last_seen.insert(who.clone(), (now, event.source()));
    }
}

impl Observer for Facts {
    fn event(&mut self, event: &Event, now: Moment) {
        match kind(event) {
            Kind::Accepted => self.accepted.note(event.clone(), now),
            Kind::Refused => self.refused.note(event.clone(), now),
            Kind::Error => self.errors.note(What::Event(Box::new(event.clone())), now),
            Kind::Neither => return,
        }
        self.note_client(event, now);
    }
}
