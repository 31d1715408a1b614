//! Tells those who watch what happens, as it happens.
//!
//! Each has a bounded queue. One who does not read loses events and is told how many; nothing waits for anybody.

use std::{net::IpAddr, sync::Arc};

use doors_core::{
    engine::Event,
    time::{Moment, Wall},
};
use doors_firewall::News;
use doors_os::clock::Clock;
use tokio::sync::mpsc;

use super::{Observer, words::Words};

/// How many may watch at once.
pub(crate) const WATCHERS: usize = 32;

/// How many of them may be others than root.
const WATCHERS_OF_OTHERS: usize = 24;

/// How many events may wait for one of them.
pub(crate) const QUEUE: usize = 256;

/// What to tell.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Watched {
    /// Only what is about this address.
    pub(crate) address: Option<IpAddr>,
    /// Only what is about the client with this name or fingerprint.
    pub(crate) client: Option<String>,
}

impl Watched {
    fn has(&self, event: &Event) -> bool {
        let is_client = |wanted: &String| event.client().is_some_and(|label| label.is_called(wanted));
        self.address.is_none_or(|address| address == event.source())
            && self.client.as_ref().is_none_or(is_client)
    }

    fn has_all(&self) -> bool {
        self.address.is_none() && self.client.is_none()
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// An event of the engine.
    Event(Box<Event>),
    /// News of the firewall, in words.
    News(Arc<Words>),
}

/// Something that happened, for one who watches.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What.
    pub(crate) what: What,
    /// When.
    pub(crate) at: Moment,
    /// The date.
    pub(crate) wall: Wall,
    /// How many events were lost before it.
    pub(crate) lost: u64,
}

#[derive(Debug)]
struct Watcher {
    watched: Watched,
    queue: mpsc::Sender<Seen>,
    lost: u64,
}

impl Watcher {
    fn tell(&mut self, what: impl FnOnce() -> What, at: Moment, wall: Wall) {
        match self.queue.try_reserve() {
            Ok(place) => {
                let lost = std::mem::take(&mut self.lost);
                place.send(Seen { what: what(), at, wall, lost });
            }
            Err(_) => self.lost = self.lost.saturating_add(1),
        }
    }
}

/// All who watch.
#[derive(Debug)]
pub(super) struct Watch {
    clock: Clock,
    watchers: Vec<Watcher>,
}

impl Watch {
    /// Without a watcher.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, watchers: Vec::new() }
    }

    /// Adds a watcher. Returns whether there was room; the last places are for root.
    pub(super) fn add(&mut self, watched: Watched, queue: mpsc::Sender<Seen>, is_root: bool) -> bool {
        self.watchers.retain(|watcher| !watcher.queue.is_closed());
        let room = if is_root { WATCHERS } else { WATCHERS_OF_OTHERS };
        let has_room = self.watchers.len() < room;
        if has_room {
            self.watchers.push(Watcher { watched, queue, lost: 0 });
        }
        has_room
    }

    /// Tells news of the firewall to those who watch everything.
    pub(super) fn news(&mut self, news: &News, now: Moment) {
        if self.watchers.is_empty() {
            return;
        }
        let Some(words) = Words::of_news(news).map(Arc::new) else { return };
        self.tell(Watched::has_all, || What::News(Arc::clone(&words)), now);
    }

    fn tell(&mut self, wanted: impl Fn(&Watched) -> bool, what: impl Fn() -> What, now: Moment) {
        let wall = self.clock.wall();
        self.watchers.retain(|watcher| !watcher.queue.is_closed());
        for watcher in self.watchers.iter_mut().filter(|watcher| wanted(&watcher.watched)) {
            watcher.tell(&what, now, wall);
        }
    }
}

impl Observer for Watch {
    fn event(&mut self, event: &Event, now: Moment) {
        if !self.watchers.is_empty() {
            self.tell(|watched| watched.has(event), || What::Event(Box::new(event.clone())), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(number: u8) -> Event {
        let source = IpAddr::from([192, 0, 2, number]);
        Event::Waiting { source }
    }

    fn sources(queue: &mut mpsc::Receiver<Seen>) -> Vec<(IpAddr, u64)> {
        std::iter::from_fn(|| queue.try_recv().ok())
            .map(|seen| match seen.what {
                What::Event(event) => (event.source(), seen.lost),
                What::News(words) => panic!("{words:?}"),
            })
            .collect()
    }

    #[test]
    fn one_who_does_not_read_loses_events_and_is_told_how_many() {
        let mut watch = Watch::new(Clock::start());
        let (stuck, mut its_queue) = mpsc::channel(3);
        let (reads, mut read) = mpsc::channel(100);
        watch.add(Watched::default(), stuck, true);
        watch.add(Watched::default(), reads, true);
        for number in 0..10 {
            watch.event(&wrong(number), Moment::default());
        }
        assert_eq!(sources(&mut its_queue).len(), 3);
        watch.event(&wrong(77), Moment::default());
        assert_eq!(sources(&mut its_queue), [([192, 0, 2, 77].into(), 7)]);
        watch.event(&wrong(78), Moment::default());
        assert_eq!(sources(&mut its_queue), [([192, 0, 2, 78].into(), 0)]);
        let all = sources(&mut read);
        assert!(all.len() == 12 && all.iter().all(|(_, lost)| *lost == 0));
    }

    #[test]
    fn one_who_watches_an_address_hears_of_no_other() {
        let mut watch = Watch::new(Clock::start());
        let (queue, mut read) = mpsc::channel(100);
        let watched = Watched { address: Some([192, 0, 2, 3].into()), client: None };
        watch.add(watched, queue, true);
        (0..10).for_each(|number| watch.event(&wrong(number), Moment::default()));
        watch.news(&News::Info("something".to_owned()), Moment::default());
        assert_eq!(sources(&mut read), [([192, 0, 2, 3].into(), 0)]);
    }

    #[test]
    fn a_watcher_that_has_gone_makes_room_and_others_leave_some_for_root() {
        let mut watch = Watch::new(Clock::start());
        let mut queues = Vec::new();
        let mut add = |queues: &mut Vec<_>, is_root| {
            let (queue, read) = mpsc::channel(1);
            queues.push(read);
            watch.add(Watched::default(), queue, is_root)
        };
        assert_eq!((0..100).filter(|_| add(&mut queues, false)).count(), WATCHERS_OF_OTHERS);
        assert_eq!((0..100).filter(|_| add(&mut queues, true)).count(), WATCHERS - WATCHERS_OF_OTHERS);
        queues.remove(0);
        assert!(!add(&mut queues, false) && add(&mut queues, true) && !add(&mut queues, true));
    }
}
