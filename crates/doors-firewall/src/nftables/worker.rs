//! Works on the orders for the gate, watches over it, and reports what it finds.

mod others;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use doors_core::{
    door::GrantKey,
    engine::{Change, Report},
    lease::Lease,
    time::Moment,
};
use doors_os::{clock::Clock, netlink::socket::NetlinkError};
use doors_text::error_chain::in_one_line;
use tokio::{sync::mpsc, time::Instant};

use super::{
    answer_cut,
    gate::{self, Gate, GateError, Gone},
    monitor::{Monitor, Touched},
    other_tables::Told,
    ruleset,
    trace::Traces,
};
use crate::{News, Order, plan::Plan};

/// Orders that go into one transaction.
const AT_ONCE: usize = 256;

/// Between two repairs at least this much passes, so that two programs that both want to be right do
/// not keep a processor busy.
const REPAIR_EVERY: Duration = Duration::from_millis(50);

/// Connections from before the gate are checked this often. A forged segment can end the entry of one in connection
/// tracking: the connection then hangs for so long.
const SESSIONS_EVERY: Duration = Duration::from_secs(10);

/// A grant for one connection is looked for this often in the first seconds, when its client connects. The kernel does not
/// tell of a packet that takes an element out of a set; who waits for the next turn repeats a first packet after a second.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// For so long it is looked for closely; then once a second, so that a grant that is not used costs next to nothing.
const WATCH_CLOSELY_FOR: Duration = Duration::from_secs(10);
const WATCH_LATER_EVERY: Duration = Duration::from_secs(1);

/// A repair that fails is tried again this soon at the latest.
const RETRY_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// Works on orders, and watches over the gate.
pub(in super::super) struct Worker {
    gate: Gate,
    monitor: Monitor,
    traces: Traces,
    told: Told,
    clock: Clock,
    news: mpsc::UnboundedSender<News>,
    /// Who is handed on what the gate has done, and says when a door is open; `None` if the gate alone
    /// decides that.
    beside: Option<mpsc::Sender<Order>>,
    /// Grants that the kernel refused so far. The gate's ledger has them, so every check tries again.
    refused: BTreeSet<GrantKey>,
    /// Grants that the kernel refused to take out so far.
    unclosed: BTreeSet<GrantKey>,
    /// Grants for one connection behind which others wait.
    watched: BTreeSet<GrantKey>,
    /// Until when they are looked for closely.
    watch_closely_until: Instant,
    /// Checks that have failed, one after the other.
    failures: u32,
}

impl Worker {
    /// Sets up the gate. Must be called within a runtime.
    pub(in super::super) fn start(
        plan: Plan,
        clock: Clock,
        news: mpsc::UnboundedSender<News>,
        beside: Option<mpsc::Sender<Order>>,
    ) -> Result<Self, GateError> {
        // It listens before there is anything to change, so that no change is missed.
        let mut monitor = Monitor::open().map_err(GateError::Denied)?;
        let (gate, findings) = Gate::set_up(plan, clock, &mut monitor, news.clone())?;
        let mut worker = Self {
            gate,
            monitor,
            traces: Traces::default(),
            told: Told::default(),
            clock,
            news,
            beside,
            refused: BTreeSet::new(),
            unclosed: BTreeSet::new(),
            watched: BTreeSet::new(),
            watch_closely_until: Instant::now(),
            failures: 0,
        };
        worker.tell_findings(findings);
        worker.trace_all();
        Ok(worker)
    }

    /// Works until the orders end.
    pub(in super::super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut batch = Vec::new();
        let mut next_check = in_a_while(self.check_period());
        let mut not_before = Instant::now();
        let mut next_watch = Instant::now();
        let clock = self.clock;
        loop {
            self.traces.tidy(clock.now());
            let again = self.traces.again_at().map(|moment| clock.instant(moment));
            tokio::select! {
                biased;
                // First, or orders without an end would keep the gate from being looked after.
                () = tokio::time::sleep_until(next_check) => {
                    self.check();
                    not_before = in_a_while(REPAIR_EVERY);
                    next_check = in_a_while(self.next_check());
                }
                () = tokio::time::sleep_until(next_watch), if !self.watched.is_empty() => {
                    let began = Instant::now();
                    if self.is_watched_one_gone() {
                        next_check = not_before.max(Instant::now());
                    }
                    // Large sets take time, and doors have to open meanwhile.
                    let pause = if began < self.watch_closely_until { WATCH_EVERY } else { WATCH_LATER_EVERY };
                    next_watch = in_a_while(pause.max(began.elapsed().saturating_mul(4)));
                }
                count = orders.recv_many(&mut batch, AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    if self.work(std::mem::take(&mut batch)) {
                        // The firewalld worker goes on until the daemon has heard that all is done.
                        while orders.recv().await.is_some() {}
                        return;
                    }
                    next_check = next_check.min(in_a_while(self.next_check()));
                    if Instant::now() < self.watch_closely_until {
                        next_watch = next_watch.min(in_a_while(WATCH_EVERY));
                    }
                }
                touched = self.monitor.touched(), if next_check > not_before => {
                    match touched {
                        Ok(Touched::Other { rules }) => {
                            self.rules_changed(rules);
                            continue;
                        }
                        Ok(Touched::Ours) => {}
                        // What cannot be heard has to be looked for, at the same pace.
                        Err(error) => self.failed("listen to changes of nftables".to_owned(), &error),
                    }
                    next_check = not_before.max(Instant::now());
                }
                () = sleep_until(again) => {
                    if self.traces.is_due_again(clock.now()) {
                        self.trace_all();
                        self.say_what_is_news();
                    }
                }
                // Last, so that traces hold up nothing.
                dropped = self.traces.hear(|| clock.now()) => {
                    dropped.iter().for_each(|one| self.tell_dropped(one));
                    let owed = self.traces.owed_still(clock.now());
                    self.trace(&owed);
                }
            }
        }
    }

    /// Works on some orders in their order. Says whether it was the end: from there on nothing is put
    /// back any more.
    fn work(&mut self, orders: Vec<Order>) -> bool {
        let mut opening = Vec::new();
        let mut ended = false;
        for order in orders {
            if !matches!(order, Order::Change(Change::Open(_))) {
                self.open(std::mem::take(&mut opening));
            }
            match order {
                Order::Change(Change::Open(lease)) => opening.push(lease),
                Order::Change(Change::Close(admission)) => {
                    if let Err(error) = self.close(&admission) {
                        let what = format!("close the door {} for {} yet", admission.door, admission.source);
                        self.failed(what, &error);
                    }
                    self.hand_on(Order::Change(Change::Close(admission)));
                }
                Order::Change(Change::Watch(admission)) => {
                    self.watched.insert(admission);
                    self.watch_closely_until = in_a_while(WATCH_CLOSELY_FOR);
                }
                // The gate itself has found it.
                Order::Keep(..) => {}
                Order::Follow(plan) => {
                    self.say_what_mark_changes(plan.mark);
                    if let Err(error) = self.gate.follow((*plan).clone(), &self.refused, &mut self.monitor) {
                        self.failed("set up the gate for the new configuration".to_owned(), &error);
                    }
                    self.traces.forget_told();
                    self.trace_all();
                    self.say_what_is_news();
                    self.hand_on(Order::Follow(plan));
                }
                Order::Cut { keys, own, answer } => answer_cut(self.gate.plan(), keys, own, answer),
                Order::End(done) => {
                    if self.gate.plan().remove_on_exit {
                        self.remove();
                    }
                    ended = true;
                    match &self.beside {
                        Some(_) => self.hand_on(Order::End(done)),
                        None => drop(done.send(())),
                    }
                }
            }
        }
        self.open(opening);
        ended
    }

    fn open(&mut self, grants: Vec<Lease>) {
        if grants.is_empty() {
            return;
        }
        // What was to be closed before is to be open now.
        for lease in &grants {
            self.unclosed.remove(&lease.key);
        }
        let is_new =
            |lease: &Lease| self.gate.lease(&lease.key).is_none().then(|| (lease.key.clone(), lease.until));
        let new: Vec<(GrantKey, Moment)> = grants.iter().filter_map(is_new).collect();
        let owed = self.traces.owe(self.gate.plan(), new.into_iter(), self.clock.now());
        if let Some(error) = self.traces.cannot.take() {
            self.tell(News::Detail(format!("packets cannot be traced: {error}")));
        }
        match self.gate.open(&grants, &owed, &self.refused) {
            Ok(()) => {
                for lease in grants {
                    // From here on its absence means that it was used.
                    self.refused.remove(&lease.key);
                    self.opened(lease);
                }
            }
            Err(error) => {
                let what = match &grants[..] {
                    [Lease { key: GrantKey { door, source }, .. }] => {
                        format!("open the door {door} for {source}")
                    }
                    several => format!("open {} doors", several.len()),
                };
                self.failed(format!("{what} yet"), &error);
                self.refused.extend(grants.into_iter().map(|lease| lease.key));
            }
        }
    }

    /// What cannot be closed is tried again at every check.
    fn close(&mut self, admission: &GrantKey) -> Result<(), NetlinkError> {
        self.refused.remove(admission);
        let closed = self.gate.close(admission, &self.refused);
        match closed {
            Ok(()) => self.tell(News::Report(Report::Closed(admission.clone()))),
            Err(_) => drop(self.unclosed.insert(admission.clone())),
        }
        closed
    }

    /// The gate lets a client in.
    fn opened(&self, lease: Lease) {
        match &self.beside {
            Some(_) => self.hand_on(Order::Change(Change::Open(lease))),
            None => self.tell(News::Report(Report::Done(lease.key))),
        }
    }

    /// Whether a grant behind which others wait has left its set. A check then finds out why.
    fn is_watched_one_gone(&mut self) -> bool {
        let gate = &mut self.gate;
        self.watched.retain(|admission| gate.is_missed(admission));
        // One list for all in a set. What cannot be seen now is looked for again.
        let mut by_set: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for admission in &self.watched {
            by_set.entry(ruleset::set_of(admission)).or_default().push(admission.source);
        }
        by_set.iter().any(|(set, sources)| {
            gate.sources_in(set).is_ok_and(|held| sources.iter().any(|source| !held.contains(source)))
        })
    }

    /// Hands on what the gate has done.
    fn hand_on(&self, order: Order) {
        if let Some(beside) = &self.beside
            && beside.try_send(order).is_err()
        {
            // As many orders wait as there can be grants: what opens no door in time is told by the core.
            let (what, why) = ("let firewalld know of every door", "too many orders wait for it");
            self.tell(News::Failed { what: what.to_owned(), why: why.to_owned() });
        }
    }

    fn remove(&mut self) {
        match self.gate.remove() {
            Err(error) if error.number() != Some(libc::ENOENT) => {
                self.failed("take the gate away".to_owned(), &error);
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        // Before they are found open, and taken over.
        for admission in std::mem::take(&mut self.unclosed) {
            // It was said before that it cannot be closed.
            let _ = self.close(&admission);
        }
        let failures = self.failures;
        match self.gate.check(&self.refused, &mut self.monitor) {
            Ok(findings) => {
                if self.gate.is_certain() {
                    self.failures = 0;
                } else {
                    if self.failures == 0 {
                        let text = "another program changes our table without a pause; it is made anew until that ends";
                        self.tell(News::Warning(text.to_owned()));
                    }
                    self.failures = self.failures.saturating_add(1);
                }
                // All that the ledger has is true.
                for admission in std::mem::take(&mut self.refused) {
                    if let Some(lease) = self.gate.lease(&admission) {
                        self.opened(lease.clone());
                    }
                }
                self.tell_findings(findings);
            }
            Err(error) => {
                // A failure that repeats is reported once.
                if self.failures == 0 {
                    self.failed("check the gate, and go on trying".to_owned(), &error);
                }
                self.failures = self.failures.saturating_add(1);
            }
        }
        if (failures == 0) != (self.failures == 0) {
            self.tell(News::Gate { is_whole: self.failures == 0 });
        }
    }

    /// How long until the next check: soon, if something is left to do; later after each failure.
    fn next_check(&self) -> Duration {
        let soon = match self.failures {
            0 if self.refused.is_empty() && self.unclosed.is_empty() && self.gate.is_certain() => {
                return self.check_period();
            }
            failures => REPAIR_EVERY.saturating_mul(failures.max(1)),
        };
        soon.min(RETRY_AT_LEAST_EVERY).min(self.check_period())
    }

    fn check_period(&self) -> Duration {
        let plan = self.gate.plan();
        let period = plan.check_every.min(plan.clean_every);
        if self.gate.keeps_sessions() { period.min(SESSIONS_EVERY) } else { period }
    }

    fn tell_findings(&mut self, findings: gate::Findings) {
        if let Some((missing, took)) = findings.repaired {
            self.tell(News::Repaired { missing, took, of_gate: true });
        }
        for lease in findings.found {
            self.tell(News::Report(Report::Found(lease.clone())));
            self.hand_on(Order::Keep(lease));
        }
        for (lease, how) in findings.gone {
            let key = lease.key.clone();
            self.tell(News::Report(match how {
                Gone::Used => Report::Used(lease),
                Gone::ByHand => Report::Withdrawn(lease),
                Gone::WithTable => Report::Lost(lease),
            }));
            self.hand_on(Order::Change(Change::Close(key)));
        }
        // The core closes what else was opened for them.
        for lease in findings.withdrawn {
            self.tell(News::Report(Report::Withdrawn(lease)));
        }
    }

    fn failed(&self, what: String, error: &NetlinkError) {
        self.tell(News::Failed { what, why: in_one_line(error) });
    }

    fn tell(&self, news: News) {
        // The receiver is gone only when the daemon ends.
        let _ = self.news.send(news);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn in_a_while(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or(now)
}
