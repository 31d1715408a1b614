//! Works while the bus is there: takes orders and announcements, and sends work.

use std::{
    future::{Future, pending},
    pin::Pin,
    time::Duration,
};

use doors_core::{door::GrantKey, time::Moment};
use tokio::sync::mpsc;

use super::{
    bus::{Announcement, Announcements, Bus, Code, Firewalld, code},
    debounce::Debounce,
    operation::Outcome,
    preflight::obstacles,
    queue::Waiting,
    rule::Rule,
    sanitize::{fit, in_one_line},
    stale_rules::Leftover,
    state::State,
    zones::Zones,
};
use crate::{FirewallError, News, Obstacle, Order, plan::Plan};

/// After so many answers that a change has overtaken, the next one counts as it is.
const OVERTAKEN: u32 = 2;

/// After a call for the zones that failed, the next comes this much later.
const ZONES_AGAIN: Duration = Duration::from_secs(1);

/// How long the start waits for firewalld's list of zones.
const ZONE_PATIENCE: Duration = Duration::from_secs(3);

/// Why a session has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// There will be no more orders.
    Orders,
    /// The bus is gone.
    Bus,
}

/// A connection to the bus, on which firewalld is or will be.
pub(super) struct Session {
    firewalld: Firewalld,
    announcements: Announcements,
    present: bool,
    /// How often something was announced that may have changed the zones.
    zone_changes: u64,
    /// When they may be asked for again, after a call that failed.
    ask_zones_at: Moment,
    /// Whether it was said that a call failed.
    zones_failed: bool,
    /// How often an answer was overtaken by a change, one after the other.
    overtaken: u32,
    /// Asks for the zones again.
    settles: Debounce,
    /// Open doors whose zone may have changed.
    moves: Debounce,
    /// Looks at the rules that firewalld holds.
    looks: Debounce,
    /// Whether the last one has seen anything.
    has_looked: bool,
    /// Reloads that are handled one by one. After more of them, a look at the rules shows what they have left.
    reloads: Debounce,
    /// Whether to look at the rules before adding any: a rule that an earlier run left goes when its grant is
    /// made anew.
    look_first: bool,
    /// Whether it was not looked yet for what makes knocking pointless.
    ask_obstacles: bool,
}

/// One thing that is under way. firewalld does one at a time, and so do we.
struct Operation {
    /// The grant that it is for, if it is a task.
    task: Option<(GrantKey, Waiting)>,
    /// How often the zones had changed when it began.
    zone_changes: u64,
    progress: Pin<Box<dyn Future<Output = Finished> + Send>>,
}

/// Its result.
enum Finished {
    Task(Outcome),
    Zones(zbus::Result<Zones>),
    Zone(String, zbus::Result<Vec<String>>),
    Obstacles(Vec<Obstacle>),
    Look(zbus::Result<Vec<(String, Vec<String>)>>),
    Removed(Vec<(Leftover, zbus::Result<String>)>),
}

impl Session {
    /// Looks whether firewalld is there, and whether it knows the zone that is wanted.
    pub(super) async fn open(bus: Bus, state: &mut State) -> Result<Self, FirewallError> {
        let no_bus = |error: zbus::Error| FirewallError::NoBus(in_one_line(&error));
        // Listening begins before looking, so that nothing falls between.
        let announcements = bus.announcements().await.map_err(no_bus)?;
        let firewalld = bus.firewalld().await.map_err(no_bus)?;
        let present = bus.firewalld_runs().await.map_err(no_bus)?;
        let session = Self {
            firewalld,
            announcements,
            present,
            zone_changes: 0,
            ask_zones_at: Moment::default(),
            zones_failed: false,
            overtaken: 0,
            settles: Debounce::default(),
            moves: Debounce::default(),
            looks: Debounce::default(),
            has_looked: true,
            reloads: Debounce::default(),
            look_first: present,
            ask_obstacles: present && !state.is_beside_gate(),
        };
        if present {
            session.know_zone(state).await?;
            state.comes_into_sight();
        } else {
            state.does_not_run();
        }
        Ok(session)
    }

    /// Works until the orders or the bus end.
    pub(super) async fn run(mut self, state: &mut State, orders: &mut mpsc::Receiver<Order>) -> Ended {
        let mut work: Option<Operation> = None;
        let mut look_at = state.clock.now().after(state.check_every());
        loop {
            if work.is_none() && self.present {
                let now = state.clock.now();
                if state.misses_a_rule() {
                    self.looks.ask(now);
                }
                if self.moves.take(now) {
                    state.add_all_again();
                }
                if self.settles.take(now) {
                    state.unsettle();
                }
                work = self.next_work(state);
            }
            if work.is_none() && !(self.present && state.needs_zones()) {
                state.when_idle();
            }
            if !self.present {
                // firewalld is not there to do what is left.
                state.answer_end();
            }
            let wake = self.wake_at(state, work.is_some(), look_at);
            tokio::select! {
                biased;
                announcement = self.announcements.next() => {
                    if announcement == Announcement::NoBus {
                        if let Some((admission, waiting)) = work.take().and_then(|work| work.task) {
                            state.broken_off(admission, waiting);
                        }
                        return Ended::Bus;
                    }
                    self.heed(announcement, &mut work, state);
                }
                order = orders.recv() => match order {
                    Some(order) => state.note(order),
                    None => return Ended::Orders,
                },
                finished = finish(&mut work) => {
                    let done = work.take();
                    work = self.take(finished, done, state);
                }
                () = sleep_until(wake.map(|moment| state.clock.instant(moment))) => {
                    if look_at <= state.clock.now() {
                        look_at = state.clock.now().after(state.check_every());
                        if !self.present {
                            // Another program may have removed what it has left.
                            state.see_nothing();
                        }
                        if state.has_rules() || !self.has_looked {
                            self.looks.ask(state.clock.now());
                        }
                    }
                }
            }
        }
    }

    /// When the next thing is to be done that no signal announces; `None` if never.
    fn wake_at(&self, state: &State, working: bool, look_at: Moment) -> Option<Moment> {
        let idle = self.present && !working;
        let ask_zones = state.needs_zones().then_some(self.ask_zones_at);
        let of_work = [state.next_retry(), self.looks.due(), self.moves.due(), self.settles.due(), ask_zones];
        let worth_a_look = state.has_rules() || !self.has_looked || state.is_in_the_way();
        let look = worth_a_look.then_some(look_at);
        of_work.into_iter().filter(|_| idle).chain([look]).flatten().min()
    }

    /// Begins the next task, or a look.
    fn next_work(&mut self, state: &mut State) -> Option<Operation> {
        let firewalld = self.firewalld.clone();
        if state.needs_zones() {
            // Without the zones nothing can be done.
            if self.ask_zones_at > state.clock.now() {
                return None;
            }
            let (beside, fixed) = (state.is_beside_gate(), state.plan.zone.clone());
            let progress = Box::pin(async move {
                Finished::Zones(match beside {
                    true => Zones::ask_with_ports(&firewalld, fixed.as_deref()).await,
                    false => Zones::ask(&firewalld).await,
                })
            });
            return self.work(None, progress);
        }
        if let Some(zone) = state.new_zone() {
            let progress = Box::pin(async move {
                let all = firewalld.zones.all().await;
                Finished::Zone(zone, all)
            });
            return self.work(None, progress);
        }
        if std::mem::take(&mut self.look_first) {
            return self.look(state);
        }
        if let Some((admission, waiting, task)) = state.next_task() {
            let progress = Box::pin(async move { Finished::Task(task.run(firewalld).await) });
            return self.work(Some((admission, waiting)), progress);
        }
        if std::mem::take(&mut self.ask_obstacles) {
            let plan = state.plan.clone();
            let progress = Box::pin(async move { Finished::Obstacles(obstacles(&firewalld, &plan).await) });
            return self.work(None, progress);
        }
        if self.looks.take(state.clock.now()) {
            return self.look(state);
        }
        None
    }

    /// A look at the rules that firewalld holds.
    fn look(&self, state: &State) -> Option<Operation> {
        let firewalld = self.firewalld.clone();
        let in_use = state.zones().map(Zones::in_use).unwrap_or_default();
        let mut names: Vec<String> =
            in_use.into_iter().map(str::to_owned).chain(state.plan.zone.clone()).collect();
        names.extend(state.zones_with_rules());
        names.sort_unstable();
        names.dedup();
        self.work(None, Box::pin(async move { Finished::Look(look(&firewalld, names).await) }))
    }

    fn work(
        &self,
        task: Option<(GrantKey, Waiting)>,
        progress: Pin<Box<dyn Future<Output = Finished> + Send>>,
    ) -> Option<Operation> {
        Some(Operation { task, zone_changes: self.zone_changes, progress })
    }

    /// Takes the result of a piece of work. Returns the work that follows from it, if any.
    fn take(&mut self, finished: Finished, done: Option<Operation>, state: &mut State) -> Option<Operation> {
        let done = done?;
        match finished {
            Finished::Zones(zones) => {
                match zones {
                    // An answer that was overtaken by a change says how it was before.
                    Ok(_) if done.zone_changes != self.zone_changes && self.overtaken < OVERTAKEN => {
                        self.overtaken = self.overtaken.saturating_add(1);
                    }
                    Ok(zones) => {
                        self.zones_failed = false;
                        state.learn(zones);
                        // Of one that changes without a pause the last answer is the best there is.
                        if std::mem::take(&mut self.overtaken) >= OVERTAKEN {
                            self.settles.ask(state.clock.now());
                        }
                    }
                    Err(error) => {
                        self.ask_zones_at = state.clock.now().after(ZONES_AGAIN);
                        if !std::mem::replace(&mut self.zones_failed, true) {
                            let what = "ask firewalld for its zones".to_owned();
                            state.tell(News::Failed { what, why: in_one_line(&error) });
                        }
                    }
                }
                None
            }
            Finished::Task(outcome) => {
                let (admission, waiting) = done.task?;
                state.done(admission, waiting, outcome);
                None
            }
            Finished::Zone(zone, all) => {
                // If firewalld does not say, its answer to the first knock will.
                let known = all.map_or(Ok(()), |all| match all.contains(&zone) {
                    true => Ok(()),
                    false => Err(fit(&all.join(", "))),
                });
                state.zone_is_known(&zone, known);
                None
            }
            Finished::Obstacles(found) => {
                found.into_iter().for_each(|one| state.tell(News::Warning(one.said)));
                None
            }
            // Something has changed meanwhile: it says how it was before.
            Finished::Look(Ok(_)) if done.zone_changes != self.zone_changes => {
                self.looks.ask(state.clock.now());
                None
            }
            Finished::Look(Ok(held)) => {
                self.has_looked = true;
                let overdue = state.compare(&held);
                state.look_for_strays();
                let firewalld = self.firewalld.clone();
                let progress = Box::pin(async move { Finished::Removed(remove(&firewalld, overdue).await) });
                self.work(None, progress)
            }
            Finished::Look(Err(error)) => {
                self.has_looked = false;
                let what = "look at the rules that firewalld holds".to_owned();
                state.tell(News::Failed { what, why: in_one_line(&error) });
                None
            }
            Finished::Removed(removed) => {
                for ((zone, rule, text), answer) in removed {
                    let (zone, rule) = (fit(&zone), rule.text(text));
                    state.tell(match answer {
                        Ok(_) => News::Warning(format!(
                            "firewalld's zone {zone} held a door open that nobody had knocked for; it is \
                             closed. If it comes back, it is permanent; try: firewall-cmd --permanent \
                             --zone={zone} --remove-rich-rule='{rule}'"
                        )),
                        Err(error) => {
                            let what = format!("close a door that firewalld's zone {zone} holds open");
                            News::Failed { what, why: in_one_line(&error) }
                        }
                    });
                }
                None
            }
        }
    }

    fn heed(&mut self, announcement: Announcement, work: &mut Option<Operation>, state: &mut State) {
        let now = state.clock.now();
        if let Announcement::RuleRemoved { rule } = &announcement {
            state.note_removal(rule);
        }
        if let Announcement::RuleAdded { rule } | Announcement::RuleRemoved { rule } = &announcement
            && Rule::read(rule).is_some()
        {
            return;
        }
        state.unsettle();
        self.zone_changes = self.zone_changes.wrapping_add(1);
        if !matches!(announcement, Announcement::Reloaded | Announcement::Gone | Announcement::Back) {
            return self.moves.ask(now);
        }
        self.looks.ask(now);
        if announcement == Announcement::Reloaded {
            self.reloads.ask(now);
            if !self.reloads.take(now) {
                state.has_forgotten = true;
                return;
            }
        }
        // The answer to the call that is under way will be out of date.
        if let Some((admission, waiting)) = work.take().and_then(|work| work.task) {
            state.broken_off(admission, waiting);
        }
        match announcement {
            Announcement::Gone => {
                self.present = false;
                state.lost("firewalld has stopped");
            }
            Announcement::Back => {
                self.present = true;
                self.ask_obstacles = !state.is_beside_gate();
                state.put_back_all("firewalld has started");
            }
            Announcement::Reloaded => state.put_back_all("firewalld was reloaded"),
            Announcement::ZonesChanged
            | Announcement::RuleAdded { .. }
            | Announcement::RuleRemoved { .. }
            | Announcement::NoBus => {}
        }
    }

    /// A zone that firewalld does not know would make every knock fail. A firewalld that does not answer in time
    /// is not waited for.
    async fn know_zone(&self, state: &State) -> Result<(), FirewallError> {
        let Some(zone) = &state.plan.zone else { return Ok(()) };
        knows_zone(&self.firewalld, zone).await.unwrap_or_else(|| {
            let warning = format!("firewalld does not say whether it has the zone {zone}; knocks are judged");
            state.tell(News::Warning(warning));
            Ok(())
        })
    }
}

/// Whether firewalld has a zone; `None` if it does not say.
async fn knows_zone(firewalld: &Firewalld, zone: &str) -> Option<Result<(), FirewallError>> {
    let known = tokio::time::timeout(ZONE_PATIENCE, firewalld.zones.all()).await.ok()?.ok()?;
    Some(match known.iter().any(|other| other == zone) {
        true => Ok(()),
        false => Err(FirewallError::NoZone { zone: zone.to_owned(), known: fit(&known.join(", ")) }),
    })
}

/// Whether firewalld has the zone of a plan, for a caller without a connection. A firewalld that does not say would not
/// keep the daemon from starting.
pub async fn zone_is_known(plan: &Plan) -> Result<(), FirewallError> {
    let Some(zone) = &plan.zone else { return Ok(()) };
    let connected = async { Bus::connect().await?.firewalld().await };
    match connected.await {
        Ok(firewalld) => knows_zone(&firewalld, zone).await.unwrap_or(Ok(())),
        Err(_) => Ok(()),
    }
}

/// The rich rules of these zones.
async fn look(firewalld: &Firewalld, zones: Vec<String>) -> zbus::Result<Vec<(String, Vec<String>)>> {
    let mut held = Vec::new();
    for zone in zones {
        let rules = match firewalld.zones.rich_rules(&zone).await {
            Err(error) if code(&error) == Code::NoZone => Vec::new(),
            rules => rules?,
        };
        held.push((zone, rules));
    }
    Ok(held)
}

async fn remove(firewalld: &Firewalld, overdue: Vec<Leftover>) -> Vec<(Leftover, zbus::Result<String>)> {
    let mut removed = Vec::new();
    for leftover in overdue {
        let (zone, rule, text) = &leftover;
        let answer = firewalld.zones.remove_rich_rule(zone, &rule.text(*text)).await;
        removed.push((leftover, answer));
    }
    removed
}

/// Waits for what is under way; for ever if nothing is.
async fn finish(work: &mut Option<Operation>) -> Finished {
    match work {
        Some(work) => work.progress.as_mut().await,
        None => pending().await,
    }
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => pending().await,
    }
}
