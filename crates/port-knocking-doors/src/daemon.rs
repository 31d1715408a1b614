//! The daemon: one loop, short enough to see whole.
//!
//! ```text
//!   packets ─────┐          ┌──► changes to the firewall
//!   firewall ────┤   Wake   ├──► records to the replay log
//!   replay log ──┼────►─────┼──► receipts to clients
//!   control ─────┤          ├──► events to the observers
//!   requests ────┘          └──► answers to those who ask
//! ```
//!
//! The loop never reads a file, and never waits for a disk, a log or a firewall: threads do. `start` does what comes
//! before it, and `reload` what a reload changes.

mod answers;

use std::{path::PathBuf, time::Duration};

use doors_core::time::Moment;
use doors_firewall::{Kind, News, Order};
use tokio::sync::mpsc;

pub use crate::start::RunError;
use crate::{
    config::{Config, ConfigError, last_good::Keeper},
    control::{
        request::{Request, tell},
        server::Server,
    },
    inbox::InboxError,
    observe::log,
    reload::{Read, Target},
    spa::service::{Heard, KeyStatus},
    start::{self, Command, Daemon, ReloadAnswer},
};

/// How long an orderly stop waits for the firewall, for the replay log, and for the log.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// What the loop wakes up for.
enum Wake {
    /// Packets may have arrived.
    Packets,
    /// The firewall has news.
    Firewall(News),
    /// The replay log has news.
    ReplayLog(Heard),
    /// A signal arrived, or the reader has read what it was asked for.
    Control(Command),
    /// A request came over the control socket.
    Request(Box<Request>),
    /// A deadline has passed, or the firewall's queue has room again.
    Due,
}

/// Runs until asked to stop. `load` reads the configuration again; `last_good` keeps a copy of the configuration in
/// force; `control_socket` is where commands reach it.
///
/// # Errors
/// [`RunError`] if it cannot start, or cannot go on.
pub async fn run(
    config: Config,
    load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    last_good: &Keeper,
    control_socket: PathBuf,
) -> Result<(), RunError> {
    let mut daemon = start::start(config, load, last_good, control_socket).await?;
    daemon.run().await?;
    daemon.stop().await
}

impl Daemon<'_> {
    /// The loop. Keep it short: every reader who wants to know what the daemon does starts here.
    async fn run(&mut self) -> Result<(), RunError> {
        loop {
            self.do_what_is_due();
            let has_room = self.drain();
            match self.wake(has_room).await? {
                Wake::Packets => self.hear()?,
                Wake::Firewall(News::Report(report)) => {
                    self.unconfirmed.note(&report);
                    self.engine.handle_report(report, self.clock.now(), self.clock.wall());
                }
                Wake::Firewall(news) => self.observe.news(news, self.clock.now()),
                Wake::ReplayLog(heard) => self.service.hear(&mut self.engine, heard, &mut self.observe),
                Wake::Control(Command::Stop) => return Ok(()),
                Wake::Control(Command::Reload) => self.reload(None),
                Wake::Request(request) => {
                    self.answer(*request, has_room);
                    // However many requests come, packets have their turn after each.
                    if has_room {
                        self.hear()?;
                    }
                }
                Wake::Control(Command::TakeOver(read)) => self.take_over(read),
                Wake::Due => {}
            }
        }
    }

    /// Sleeps until there is something to do. While the firewall's queue is full, packets wait in the kernel, which
    /// keeps a bounded number of them.
    async fn wake(&mut self, has_room: bool) -> Result<Wake, RunError> {
        let deadline = self.next_deadline();
        tokio::select! {
            biased;
            command = self.control.next() => command.map(Wake::Control).ok_or(RunError::ReaderEnded),
            news = self.firewall.news.recv() => news.map(Wake::Firewall).ok_or(RunError::FirewallEnded),
            heard = self.service.next() => heard.map(Wake::ReplayLog).ok_or(RunError::ReplayWriterEnded),
            request = request(&mut self.server) => Ok(Wake::Request(Box::new(request))),
            () = room(&self.firewall.orders), if !has_room => Ok(Wake::Due),
            ready = self.inbox.ready(), if has_room => Ok(ready.map(|()| Wake::Packets)?),
            () = tokio::time::sleep_until(self.clock.instant(deadline)) => Ok(Wake::Due),
        }
    }

    /// The next deadline.
    fn next_deadline(&mut self) -> Moment {
        let deadlines = [
            self.engine.next_deadline(),
            self.observe.next_deadline(),
            self.service.next_deadline(!self.control.reader.is_busy()),
            self.force.next_deadline(),
            self.supervisor.next_deadline(),
            self.ready_by,
            // The next part, after what has arrived meanwhile.
            self.unconfirmed.has_unfinished().then(|| self.clock.now()),
        ];
        // At least one wake-up a day; a spurious one costs nothing.
        let latest = self.clock.now().after(Duration::from_secs(24 * 60 * 60));
        deadlines.into_iter().flatten().fold(latest, Moment::min)
    }

    /// Handles every deadline that has passed.
    fn do_what_is_due(&mut self) {
        let now = self.clock.now();
        self.engine.handle_timeout(now, self.clock.wall());
        self.close_next();
        self.observe.handle_timeout(now);
        let (reader, observe) = (&mut self.control.reader, &mut self.observe);
        if let Some(access) = self.service.handle_timeout(&self.engine, !reader.is_busy(), observe) {
            reader.read_key(access);
        }
        self.force.handle_timeout(now, observe);
        self.supervisor.handle_timeout(now, observe);
        let keys = self.service.status();
        if self.ready_by.is_some_and(|by| keys != KeyStatus::Pending || by <= now) {
            self.ready_by = None;
            self.supervisor.ready(observe);
            let readiness = self.force.readiness(&self.engine, keys == KeyStatus::Heard);
            observe.line(move || log::ready(readiness));
        }
    }

    /// Passes on the output of the engine. Returns whether the firewall's queue had room for all changes.
    fn drain(&mut self) -> bool {
        self.service.forward(&mut self.engine);
        let has_room = self.force.forward(&mut self.engine, &self.firewall.orders);
        if has_room {
            self.order_cuts();
        }
        while let Some(receipt) = self.engine.poll_receipt(self.clock.now(), self.clock.wall()) {
            if let Err(error) = self.inbox.send(&receipt) {
                self.observe.line(move || log::not_sent(&receipt.way, &error));
            }
        }
        for note in self.inbox.notes() {
            self.observe.line(move || log::of_the_inbox(&note, note.is_detail()));
        }
        while let Some(event) = self.engine.poll_event() {
            self.observe.event(&event, self.clock.now());
        }
        has_room
    }

    /// Orders that connections are ended, behind the closing of their doors.
    fn order_cuts(&mut self) {
        while !self.cuts.is_empty()
            && let Ok(permit) = self.firewall.orders.try_reserve()
            && let Some((keys, answer)) = self.cuts.pop_front()
        {
            let own = self.engine.access().own().clone();
            permit.send(Order::Cut { keys, own, answer });
        }
    }

    fn hears_clients(&self) -> bool {
        self.engine.server().is_some_and(|server| !server.config().clients.is_empty())
    }

    /// Starts a reload: the reader reads the configuration again. `answer` gets the outcome.
    fn reload(&mut self, answer: Option<ReloadAnswer>) {
        self.supervisor.reloading(&mut self.observe);
        // What is being read may have been read before the change that this reload is for.
        let waits = match self.control.reader.is_busy() {
            true => &mut self.reloads.next,
            false => &mut self.reloads.present,
        };
        // Who has waited too long has been told so.
        waits.retain(|waiting| !waiting.is_closed());
        waits.extend(answer);
        self.control.reader.read_configuration(self.hears_clients());
    }

    /// Applies what the reader has read. Starts another reload if one was asked for meanwhile.
    fn take_over(&mut self, read: Read) {
        let target = Target {
            clock: self.clock,
            engine: &mut self.engine,
            inbox: &mut self.inbox,
            firewall: &self.firewall,
            service: &mut self.service,
            reader: &self.control.reader,
            observe: &mut self.observe,
            force: &mut self.force,
        };
        if let Some(outcome) = target.take_over(read) {
            let reply = outcome.map(|needs_restart| self.force.reload_reply(&needs_restart));
            for answer in self.reloads.present.drain(..) {
                tell(answer, reply.clone());
            }
        }
        match self.control.reader.go_on(self.hears_clients()) {
            true => self.reloads.present.append(&mut self.reloads.next),
            false => self.supervisor.reloaded(&mut self.observe),
        }
    }

    /// Passes the packets that have arrived to the engine.
    fn hear(&mut self) -> Result<(), InboxError> {
        if let Some(own) = self.inbox.own()? {
            self.engine.set_own_addresses(own);
        }
        let (engine, clock) = (&mut self.engine, self.clock);
        self.inbox.drain(|packet, routes| engine.handle_packet(packet, clock.now(), clock.wall(), routes))
    }

    /// Stops in order: finishes pending work, each part within a timeout.
    async fn stop(mut self) -> Result<(), RunError> {
        // What asks now finds no daemon.
        drop(self.server.take());
        let plan = self.force.end();
        self.supervisor.stopping(&mut self.observe);
        self.service.end(&self.engine, STOP_TIMEOUT).await;
        let kind = self.firewall.kind;
        let told = self.firewall.end(STOP_TIMEOUT).await;
        let failed = told.iter().any(|news| matches!(news, News::Failed { .. }));
        for news in told {
            self.observe.line(move || log::news(&news));
        }
        let gate_stays = failed && kind != Kind::RichRules && plan.remove_on_exit;
        if !gate_stays {
            self.observe.line(move || log::stopped(kind, &plan));
        }
        self.observe.end(STOP_TIMEOUT);
        if gate_stays { Err(RunError::GateStays) } else { Ok(()) }
    }
}

/// The next request; never, without a control socket.
async fn request(server: &mut Option<Server>) -> Request {
    match server {
        Some(server) => server.next().await,
        None => std::future::pending().await,
    }
}

/// Returns when the queue has room, or when the firewall's thread has ended; the news channel reports the latter.
async fn room(orders: &mpsc::Sender<Order>) {
    let _ = orders.reserve().await;
}
