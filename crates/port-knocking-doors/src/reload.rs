//! Applies a new configuration, once the reader has read it.
//!
//! ```text
//!   daemon ──► Reader, a thread ──► Read ──► take_over: firewall, inbox, rules, clients
//! ```
//!
//! An unusable configuration changes nothing. A problem that concerns only clients with keys delays nothing else: a
//! sequence that was removed opens no door, even while the clients' state cannot be read.

mod reader;

use std::{io, path::PathBuf, sync::Arc};

use doors_core::{
    engine::Engine,
    sequence::trie::Conflict,
    time::{Moment, Wall},
};
use doors_firewall::{Firewall, FirewallError, Kind, Order, plan::Plan};
use doors_os::clock::Clock;
use doors_text::error_chain::in_one_line;
use tokio::sync::mpsc;
use tracing::{info, warn};

pub(crate) use self::reader::{New, Read, Reader};
use crate::{
    config::{
        Config, ConfigError,
        last_good::{Keeper, Reminder},
    },
    control::{
        interface::ReloadReply,
        running::{AsRead, Mark},
    },
    inbox::{Inbox, InboxError},
    observe::{
        Observe,
        log::{self, Readiness},
    },
    spa::service::{SpaService, SpaServiceError},
};

/// The configuration in force, and what shows it to other programs.
#[derive(Debug)]
pub(crate) struct Force<'a> {
    /// The configuration of the start. It holds the settings that only a restart changes.
    config: Arc<Config>,
    plan: Plan,
    /// The firewall has not been given the plan yet.
    is_plan_new: bool,
    mark: Option<Mark>,
    reminder: Reminder,
    last_good: &'a Keeper,
    /// Since when what is in force is.
    since: Moment,
    /// Why what is in force now is not what stands in the file: at the start, or since the last reload.
    instead_of: Option<String>,
    /// Why the last reload was refused.
    not_reloaded: Option<String>,
}

impl<'a> Force<'a> {
    /// Puts the configuration of the start into force.
    pub(crate) fn begin(
        mut config: Config,
        last_good: &'a Keeper,
        now: Moment,
    ) -> io::Result<(Self, Arc<Config>)> {
        let opened = config.opened.take().map(|file| AsRead::new(file, config.version));
        let opened = opened.or_else(|| config.path.as_deref().and_then(AsRead::named));
        last_good.begin(config.path.clone())?;
        last_good.keep(config.texts.take());
        let config = Arc::new(config);
        let mut force = Self {
            plan: config.plan.clone(),
            is_plan_new: false,
            reminder: Reminder::new(config.instead_of.clone(), now),
            mark: None,
            last_good,
            since: now,
            instead_of: config.instead_of.clone(),
            not_reloaded: None,
            config: Arc::clone(&config),
        };
        if let Err((path, error)) = force.mark(opened, config.instead_of.is_none()) {
            log::not_marked(&path, &error);
        }
        Ok((force, config))
    }

    /// Locks the file that was read, or the one that has its name now, so that the commands about clients find this
    /// process.
    fn mark(&mut self, opened: Option<AsRead>, in_force: bool) -> Result<(), (PathBuf, io::Error)> {
        // Drop the old lock first: closing the old file later would also release the new lock.
        drop(self.mark.take());
        let (Some(path), Some(opened)) = (&self.config.path, opened) else { return Ok(()) };
        self.mark = Some(Mark::set(opened, in_force).map_err(|error| (path.clone(), error))?);
        Ok(())
    }

    /// What the control interface tells of a reload.
    pub(crate) fn reload_reply(&self, needs_restart: &[&'static str]) -> ReloadReply {
        ReloadReply {
            configuration: self.config.path.as_ref().map(|path| path.display().to_string()),
            doors: i64::try_from(self.plan.doors.len()).unwrap_or(i64::MAX),
            needs_restart: needs_restart.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    /// The plan in force.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The configuration of the start.
    pub(crate) fn at_the_start(&self) -> &Config {
        &self.config
    }

    /// Since when what is in force is.
    pub(crate) fn since(&self) -> Moment {
        self.since
    }

    /// Why what was last in force runs in place of what stands in the file.
    pub(crate) fn instead_of(&self) -> Option<&str> {
        self.instead_of.as_deref()
    }

    /// Why the last reload was refused, if it was.
    pub(crate) fn not_reloaded(&self) -> Option<&str> {
        self.not_reloaded.as_deref()
    }

    /// How ready the doors are.
    pub(crate) fn readiness(&self, engine: &Engine, keys_heard: bool) -> Readiness {
        let has_sequence = engine.access().rules().doors.iter().any(|door| door.sequence.is_some());
        match (self.plan.doors.is_empty(), keys_heard, has_sequence) {
            (true, _, _) => Readiness::NoDoor,
            (false, true, _) => Readiness::Ready,
            (false, false, true) => Readiness::WithoutKeys,
            (false, false, false) => Readiness::OpensNothing,
        }
    }

    /// Passes the engine's changes to the firewall, and then the plan if it is new: the changes that close doors come
    /// before the plan that forgets these doors. Returns whether the queue had room for all; if not, the daemon hears no
    /// more packets until it has.
    pub(crate) fn forward(&mut self, engine: &mut Engine, orders: &mpsc::Sender<Order>) -> bool {
        while let Ok(permit) = orders.try_reserve() {
            match engine.poll_change() {
                Some(change) => permit.send(Order::Change(change)),
                None if std::mem::take(&mut self.is_plan_new) => {
                    permit.send(Order::Follow(Box::new(self.plan.clone())));
                }
                None => return true,
            }
        }
        false
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to say.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.reminder.deadline()
    }

    /// Logs again that the running configuration differs from the file.
    pub(crate) fn handle_timeout(&mut self, now: Moment, observe: &mut Observe) {
        if let (Some(why), Some(path)) = (self.reminder.take(now), self.config.path.clone()) {
            observe.line(move || log::runs_with_last_good(&path, &why));
        }
    }

    /// Ends the configuration in force, and returns its plan.
    pub(crate) fn end(&mut self) -> Plan {
        drop(self.mark.take());
        self.plan.clone()
    }
}

/// Logs that a new configuration is in force. `ended`: until now the last good configuration ran in its place.
fn say_what_is_new(config: &Config, kind: Kind, ended: bool, now: Wall) {
    info!("the configuration has been read again: {}, doors: {}", config.source(), config.plan.doors.len());
    if ended {
        info!("what stands in {} is in force again, and no longer what was last in force", config.source());
    }
    for warning in config.warnings_with(kind, now) {
        warn!("{warning}");
    }
}

/// Why a new configuration is unusable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    SpaService(#[from] SpaServiceError),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error(transparent)]
    Hearing(#[from] InboxError),
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

/// The parts of the daemon that a new configuration changes.
pub(crate) struct Target<'d, 'f> {
    pub(crate) clock: Clock,
    pub(crate) engine: &'d mut Engine,
    pub(crate) inbox: &'d mut Inbox,
    pub(crate) firewall: &'d Firewall,
    pub(crate) service: &'d mut SpaService,
    pub(crate) reader: &'d Reader,
    pub(crate) observe: &'d mut Observe,
    pub(crate) force: &'d mut Force<'f>,
}

impl Target<'_, '_> {
    /// Applies what the reader has read. Returns the outcome if it was a configuration: the keys that take effect only after a
    /// restart, or why it cannot be used.
    pub(crate) fn take_over(mut self, read: Read) -> Option<Result<Vec<&'static str>, String>> {
        match read {
            Read::Configuration(new, opened) => {
                let taken = match new {
                    Ok(new) => self.take(*new),
                    Err(error) => Err(error),
                };
                if let Err((path, error)) = self.force.mark(opened, taken.is_ok()) {
                    self.observe.line(move || log::not_marked(&path, &error));
                }
                let outcome = taken.map_err(|error| {
                    let why = in_one_line(&error);
                    self.observe.line(move || log::not_reloaded(&error));
                    why
                });
                self.force.not_reloaded = outcome.clone().err();
                Some(outcome)
            }
            Read::Key(access, server) => {
                let before = self.service.listen(self.engine, Some(access), server, self.observe);
                self.reader.free(before);
                None
            }
        }
    }

    /// Applies a new configuration. If it is unusable, nothing changes.
    fn take(&mut self, new: New) -> Result<Vec<&'static str>, ReloadError> {
        let New { mut config, server, mut needs_restart } = new;
        self.firewall.can_follow(&config.plan)?;
        // Ports before rules: a rule that is in force must be heard.
        self.inbox.follow(&config.knock_ports(), config.spa_port())?;
        self.engine.change_rules(config.rules.clone(), self.clock.now(), self.clock.wall())?;
        // While no replay log is open, another directory can be used at once.
        needs_restart.retain(|key| *key != "state_dir" || self.service.is_recording());
        self.service.say_again();
        let before = self.service.listen(self.engine, config.key_access.clone(), server, self.observe);
        self.force.last_good.keep(config.texts.take());
        let ended = self.force.reminder.end();
        self.force.plan = config.plan.clone();
        (self.force.since, self.force.instead_of) = (self.clock.now(), config.instead_of.clone());
        let (kind, config) = (self.firewall.kind, Arc::new(config));
        let (told, now) = (Arc::clone(&config), self.clock.wall());
        self.observe.follow(&config.rules.clients);
        let keys = needs_restart.clone();
        self.observe.line(move || {
            needs_restart.iter().for_each(|key| log::needs_restart(key));
            say_what_is_new(&told, kind, ended, now);
        });
        self.reader.free((before, config));
        self.force.is_plan_new = true;
        self.force.forward(self.engine, &self.firewall.orders);
        Ok(keys)
    }
}
