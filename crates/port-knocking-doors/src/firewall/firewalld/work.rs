//! One piece of work with firewalld: making one grant true, or false.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use doors_core::{packet::Link, time::Moment};

use super::{
    bus::{Code, Firewalld, code},
    rule::{Rule, Text},
    zones::Zones,
};
use crate::clock::Clock;

/// Which rules of a grant firewalld holds, as far as we know: in which zone, and which text.
pub(super) type Installed = BTreeMap<Rule, (String, Text)>;

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// For whom.
    pub(super) source: IpAddr,
    /// The interface on which the knocks came.
    pub(super) link: Link,
    /// The rules that must be there; none to close the door.
    pub(super) wanted: Vec<Rule>,
    /// The zone in which; `None` for the one in which the traffic of the source arrives.
    pub(super) zone: Option<String>,
    /// Until when.
    pub(super) until: Moment,
    /// The rules to take out, because the door is to be closed before its time; whether or not we know
    /// that they are there.
    pub(super) closing: Option<Vec<Rule>>,
    /// The longest time that an addition has taken.
    pub(super) slowest: Duration,
    /// How late it is.
    pub(super) clock: Clock,
    /// What is there.
    pub(super) installed: Installed,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What is there.
    pub(super) installed: Installed,
    /// The first thing that did not work.
    pub(super) failure: Option<zbus::Error>,
    /// Whether the task was to close the door before its time.
    pub(super) closing: bool,
    /// The longest time that firewalld took to add a rule.
    pub(super) slowest: Duration,
}

impl Task {
    /// Does it. It goes on after a failure, so that one bad rule keeps no other door closed.
    pub(super) async fn run(mut self, firewalld: Firewalld, zones: &Zones) -> Outcome {
        let mut failure = None;
        let zone = self.zone.clone().unwrap_or_else(|| zones.of(self.source, self.link));
        for rule in self.wanted.clone() {
            let done = self.put_in(&firewalld, &zone, rule).await;
            failure = failure.or(done.err());
        }
        let mut unwanted: Vec<Rule> = self.closing.iter().flatten().copied().collect();
        unwanted.extend(self.installed.keys().copied());
        unwanted.sort_unstable();
        unwanted.dedup();
        unwanted.retain(|rule| !self.wanted.contains(rule));
        for rule in unwanted {
            let (zone, _) = self.installed.get(&rule).cloned().unwrap_or((zone.clone(), Text::First));
            let mut out = Ok(());
            // Of a call whose answer never came, nobody knows which text it left.
            for text in [Text::First, Text::Second] {
                out = out.and(take_out(&firewalld, &zone, rule, text).await);
            }
            match out {
                Ok(()) => drop(self.installed.remove(&rule)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let closing = self.closing.is_some();
        Outcome { installed: self.installed, failure, closing, slowest: self.slowest }
    }

    /// Puts one rule in with the full time, and then takes out its former text. At no moment is there
    /// none.
    async fn put_in(&mut self, firewalld: &Firewalld, zone: &str, rule: Rule) -> zbus::Result<()> {
        let former = self.installed.get(&rule).cloned();
        let text = former.as_ref().map_or(Text::First, |(_, text)| text.other());
        let text = match self.add(firewalld, zone, rule, text).await {
            Ok(()) => text,
            // It is left from before this program started, or from a call whose answer never came.
            Err(error) if code(&error) == Code::AlreadyEnabled => {
                self.replace_unknown(firewalld, zone, rule, text).await?
            }
            Err(error) => {
                // Without an answer nobody knows; the next try takes out what may be there.
                if code(&error) == Code::NoAnswer && former.is_none() {
                    self.installed.insert(rule, (zone.to_owned(), text));
                }
                return Err(error);
            }
        };
        self.installed.insert(rule, (zone.to_owned(), text));
        match former {
            Some((old_zone, old)) if (old_zone.as_str(), old) != (zone, text) => {
                take_out(firewalld, &old_zone, rule, old).await
            }
            _ => Ok(()),
        }
    }

    /// Puts a rule in of which a text is there that we do not know the time of.
    async fn replace_unknown(
        &mut self,
        firewalld: &Firewalld,
        zone: &str,
        rule: Rule,
        there: Text,
    ) -> zbus::Result<Text> {
        let other = there.other();
        match self.add(firewalld, zone, rule, other).await {
            Ok(()) => {
                take_out(firewalld, zone, rule, there).await?;
                Ok(other)
            }
            // Both are there: while one stays, the other can be renewed.
            Err(error) if code(&error) == Code::AlreadyEnabled => {
                take_out(firewalld, zone, rule, there).await?;
                self.add(firewalld, zone, rule, there).await?;
                take_out(firewalld, zone, rule, other).await?;
                Ok(there)
            }
            Err(error) => Err(error),
        }
    }

    async fn add(&mut self, firewalld: &Firewalld, zone: &str, rule: Rule, text: Text) -> zbus::Result<()> {
        // firewalld counts whole seconds, and 0 would be for ever. The time is that of this moment: the
        // calls before may have taken long.
        let left = self.until.remaining(self.clock.now());
        let up = left.saturating_add(Duration::from_millis(999)).as_secs().max(1);
        let seconds = i32::try_from(up).unwrap_or(i32::MAX);
        let began = self.clock.now();
        let added = firewalld.zones.add_rich_rule(zone, &rule.text(text), seconds).await;
        self.slowest = self.slowest.max(self.clock.now().remaining(began));
        added.map(drop)
    }
}

/// Takes a rule out. One that is not there is out.
async fn take_out(firewalld: &Firewalld, zone: &str, rule: Rule, text: Text) -> zbus::Result<()> {
    match firewalld.zones.remove_rich_rule(zone, &rule.text(text)).await {
        Err(error) if code(&error) != Code::NotEnabled => Err(error),
        _ => Ok(()),
    }
}
