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
    spa::{client::ClientLabel, server::DropReason},
    time::Moment,
};
use doors_firewall::News;
use doors_spa::receipt::Answer;

use super::{Observer, watch::What, words::Words};

/// How often something happened since the start, and the last time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// How often.
    pub(crate) count: u64,
    /// The last one, and when it was.
    pub(crate) last: Option<(What, Moment)>,
}

impl Counted {
    fn note(&mut self, what: What, now: Moment) {
        self.count = self.count.saturating_add(1);
        self.last = Some((what, now));
    }
}

/// When and from where a client knocked last.
pub(crate) type LastSeen = Arc<Mutex<BTreeMap<ClientLabel, (Moment, IpAddr)>>>;

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Knocks and requests that have opened a door.
    pub(crate) accepted: Counted,
    /// Knocks and requests that were refused.
    pub(crate) refused: Counted,
    /// What was put back in the firewall.
    pub(crate) repairs: Counted,
    /// What did not work.
    pub(crate) errors: Counted,
    /// The clients that knocked. No stranger makes an entry, and the clients are bounded.
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
        let counted = match news {
            News::Repaired { .. } => &mut self.repairs,
            News::Failed { .. } => &mut self.errors,
            News::Report(_) | News::Warning(_) | News::Info(_) | News::Detail(_) => return,
        };
        if let Some(words) = Words::of_news(news) {
            counted.note(What::News(Arc::new(words)), now);
        }
    }

    /// A client is seen when a request of its own was accepted or refused: nobody else can make one.
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
        let counted = match kind(event) {
            Kind::Accepted => &mut self.accepted,
            Kind::Refused => &mut self.refused,
            Kind::Error => &mut self.errors,
            Kind::Neither => return,
        };
        counted.note(What::Event(Box::new(event.clone())), now);
        self.note_client(event, now);
    }

    fn handle_timeout(&mut self, _now: Moment) {}

    fn next_deadline(&self) -> Option<Moment> {
        None
    }
}
