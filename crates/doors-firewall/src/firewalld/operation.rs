//! One piece of work with firewalld: making one grant true, or false.

use std::time::Duration;

use doors_core::time::Moment;
use doors_os::clock::Clock;

use super::{
    bus::{Code, Firewalld, code},
    installed::{Holdings, Installed},
    rule::{Rule, Text, Texts},
};

/// Texts that are tried if one is there that we know nothing of.
const TEXTS: usize = 3;

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The zone that it is for.
    pub(super) zone: String,
    /// The rules that must be there, and until when.
    pub(super) wanted: Vec<(Rule, Moment)>,
    /// The rules that must not.
    pub(super) unwanted: Vec<Rule>,
    /// Whether it is to close the door before its time.
    pub(super) closing: bool,
    /// What firewalld holds of all these.
    pub(super) held: Holdings,
    /// Tells how late it is.
    pub(super) clock: Clock,
    /// The texts for what is added.
    pub(super) texts: Texts,
}

/// The result.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What firewalld holds of the rules that the task was about.
    pub(super) held: Holdings,
    /// The first failure.
    pub(super) failure: Option<zbus::Error>,
    /// Whether the task was to close the door before its time.
    pub(super) closing: bool,
}

impl Task {
    /// Does the work. It goes on after a failure, so that one bad rule keeps no other door closed.
    pub(super) async fn run(self, firewalld: Firewalld) -> Outcome {
        let mut failure = None;
        let mut holdings = self.held.clone();
        for (rule, until) in &self.wanted {
            let held = holdings.entry(*rule).or_default();
            let done = self.put_in(&firewalld, &self.zone, *rule, *until, held).await;
            failure = failure.or(done.err());
        }
        for rule in &self.unwanted {
            let held = holdings.entry(*rule).or_default();
            held.stale.extend(held.place.take());
            let done = take_out_stale(&firewalld, *rule, held).await;
            failure = failure.or(done.err());
        }
        Outcome { held: holdings, failure, closing: self.closing }
    }

    /// Adds one rule with the full time, and then removes its former text, so that there is no gap. A rule that is as it
    /// must be costs nothing.
    async fn put_in(
        &self,
        firewalld: &Firewalld,
        zone: &str,
        rule: Rule,
        until: Moment,
        held: &mut Installed,
    ) -> zbus::Result<()> {
        if !held.is_right(zone, until) {
            let mut left = TEXTS;
            while let Err(error) = self.add(firewalld, zone, rule, until, held).await {
                left = left.saturating_sub(1);
                // It is there, from before this program started.
                if code(&error) != Code::AlreadyEnabled || left == 0 {
                    return Err(error);
                }
            }
        }
        take_out_stale(firewalld, rule, held).await
    }

    async fn add(
        &self,
        firewalld: &Firewalld,
        zone: &str,
        rule: Rule,
        until: Moment,
        held: &mut Installed,
    ) -> zbus::Result<()> {
        // firewalld counts whole seconds, and 0 would be for ever. The time is that of this moment: the
        // calls before may have taken long.
        let began = self.clock.now();
        let up = until.remaining(began).saturating_add(Duration::from_millis(999)).as_secs().max(1);
        let seconds = i32::try_from(up).unwrap_or(i32::MAX);
        let place = (zone.to_owned(), self.texts.next());
        match firewalld.zones.add_rich_rule(zone, &rule.text(place.1), seconds).await {
            Ok(_) => {
                let time = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
                (held.earliest, held.latest) = (began.after(time), self.clock.now().after(time));
                held.stale.extend(held.place.replace(place));
                Ok(())
            }
            Err(error) => {
                // Without an answer it is not known whether it is there.
                if matches!(code(&error), Code::NoAnswer | Code::AlreadyEnabled) {
                    held.stale.push(place);
                }
                Err(error)
            }
        }
    }
}

/// Removes the texts of a rule that have to go.
async fn take_out_stale(firewalld: &Firewalld, rule: Rule, held: &mut Installed) -> zbus::Result<()> {
    while let Some((zone, text)) = held.stale.last() {
        take_out(firewalld, zone, rule, *text).await?;
        held.stale.pop();
    }
    Ok(())
}

/// Removes a rule. A rule that is not there counts as removed, and so does one whose zone is gone.
async fn take_out(firewalld: &Firewalld, zone: &str, rule: Rule, text: Text) -> zbus::Result<()> {
    match firewalld.zones.remove_rich_rule(zone, &rule.text(text)).await {
        Err(error) if !matches!(code(&error), Code::NotEnabled | Code::NoZone) => Err(error),
        _ => Ok(()),
    }
}
