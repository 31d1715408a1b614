//! Prints what became of a knock.

use doors_spa::receipt::Answer;
use jiff::Timestamp;

use super::{Failure, How, complain, print, remark};
use crate::{
    output::{self, Question},
    spa::driver::Outcome,
};

/// Prints one outcome: a good one on standard output, an error on standard error, and with `--json` either as
/// one line of JSON on standard output, which also names the keys that were tried without an answer.
pub(super) fn tell(
    outcome: &Outcome,
    question: Question<'_>,
    how: &How,
    unanswered_keys: &[String],
) -> Result<(), Failure> {
    let now = Timestamp::now();
    if how.json {
        return print(&output::json(outcome, question, unanswered_keys, now));
    }
    output::notes(outcome, question).iter().for_each(|note| remark(note, how.quiet));
    let line = output::line(outcome, question, now);
    let good = outcome.result.as_ref().is_ok_and(|answered| {
        matches!(answered.receipt.answer, Answer::Granted | Answer::Closed | Answer::Told)
    });
    match (good, how.quiet) {
        (true, true) => Ok(()),
        (true, false) => print(&line),
        (false, _) => {
            complain(&line);
            Ok(())
        }
    }
}
