//! Open doors that are being put back, so that the log calls none of them back too early.

use std::collections::BTreeSet;

use doors_core::{door::GrantKey, time::Moment};

use crate::{News, ledger};

/// Open doors that are missing in firewalld.
#[derive(Debug)]
pub(super) struct Restoring {
    /// What has happened, if that is known.
    why: Option<String>,
    since: Moment,
    /// Those that are still missing, or will be.
    missing: BTreeSet<GrantKey>,
    back: BTreeSet<GrantKey>,
}

impl Restoring {
    /// These are missing from `now` on.
    pub(super) fn new(why: Option<&str>, missing: BTreeSet<GrantKey>, now: Moment) -> Self {
        Self { why: why.map(str::to_owned), since: now, missing, back: BTreeSet::new() }
    }

    /// More are missing, or the same again: then they are not back.
    pub(super) fn again(&mut self, why: Option<&str>, missing: BTreeSet<GrantKey>) {
        if let Some(why) = why {
            self.why = Some(why.to_owned());
        }
        self.back.retain(|admission| !missing.contains(admission));
        self.missing.extend(missing);
    }

    /// One of them is as it has to be.
    pub(super) fn is_back(&mut self, admission: &GrantKey) {
        self.back.extend(self.missing.take(admission));
    }

    /// Nothing is left to do at `now`. Returns what there is to report.
    pub(super) fn end(self, now: Moment) -> Option<News> {
        let Self { why, since, missing, back } = self;
        let back = back.len();
        let all = missing.len().saturating_add(back);
        let what = ledger::missing(all)?;
        let missing = why.map_or_else(|| what.clone(), |why| format!("{why}, and {what}"));
        Some(match back == all {
            true => News::Repaired { missing, took: now.remaining(since), of_gate: false },
            false => News::Warning(format!(
                "another program or an administrator has changed the firewall: {missing}; put back {back} of {all}; the time of the others \
                 ran out, or it failed"
            )),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use doors_core::door::DoorName;

    use super::*;

    fn admission(number: u8) -> GrantKey {
        GrantKey { door: DoorName::new("ssh").unwrap(), source: [192, 0, 2, number].into() }
    }

    fn end(restoring: Restoring) -> String {
        match restoring.end(Moment::new(Duration::from_millis(30))) {
            Some(News::Repaired { missing, took, .. }) => format!("{missing}; all in {took:?}"),
            Some(News::Warning(warning)) => warning,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_back_is_said_to_be() {
        let both = || BTreeSet::from([admission(7), admission(8)]);
        let mut all = Restoring::new(Some("firewalld was reloaded"), both(), Moment::default());
        all.is_back(&admission(7));
        all.is_back(&admission(9));
        all.is_back(&admission(8));
        assert_eq!(end(all), "firewalld was reloaded, and 2 open doors were missing; all in 30ms");

        let mut some = Restoring::new(None, both(), Moment::default());
        some.is_back(&admission(7));
        let said = end(some);
        assert!(said.contains("2 open doors were missing; put back 1 of 2; the time"), "{said}");
    }
}
