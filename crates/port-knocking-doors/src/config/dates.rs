//! Dates that an administrator writes, as milliseconds since 1970.

use doors_core::time::Wall;
use toml::value::{Date, Datetime, Offset, Time};

const DAY: i64 = 24 * 60 * 60;

/// The moment from which on something is over that lasts until this date: the end of the day, in UTC, or the
/// time itself. `None` without an offset, because nobody knows which time is meant then.
pub(super) fn end_of(date: &Datetime) -> Option<Wall> {
    let seconds = match (date.date?, date.time, date.offset) {
        (day, None, None) => days(day)?.checked_add(1)?.checked_mul(DAY)?,
        (day, Some(time), Some(offset)) => {
            let ahead = match offset {
                Offset::Z => 0,
                Offset::Custom { minutes } => i64::from(minutes).checked_mul(60)?,
            };
            days(day)?.checked_mul(DAY)?.checked_add(of_day(time)?)?.checked_sub(ahead)?
        }
        _ => return None,
    };
    u64::try_from(seconds).ok()?.checked_mul(1000).map(Wall)
}

/// The day before which something is over, for a person: the last day if it is over at the end of one.
pub(super) fn last_day(until: Wall) -> String {
    let day_of =
        until.0.checked_div(1000).and_then(|seconds| seconds.saturating_sub(1).checked_div(24 * 60 * 60));
    let day_of = i64::try_from(day_of.unwrap_or(0)).unwrap_or(i64::MAX);
    let date = (1970..=u16::MAX).find_map(|year| {
        (1..=12).find_map(|month| {
            let first = days(Date { year, month, day: 1 })?;
            let day = day_of.checked_sub(first).filter(|day| (0..31).contains(day))?;
            let day = u8::try_from(day).ok()?.checked_add(1)?;
            (day <= *months(year).get(usize::from(month).checked_sub(1)?)?).then_some(Date {
                year,
                month,
                day,
            })
        })
    });
    date.map_or_else(String::new, |date| date.to_string())
}

/// As it would be written in a file: the last day, or the moment in UTC if it is not the end of a day.
pub(super) fn written(until: Wall) -> String {
    let day = last_day(until);
    let seconds = until.0.checked_div(1000).unwrap_or(0);
    let part =
        |unit: u64, of: u64| seconds.checked_div(unit).and_then(|count| count.checked_rem(of)).unwrap_or(0);
    match (part(3600, 24), part(60, 60), part(1, 60)) {
        (0, 0, 0) => day,
        (hour, minute, second) => format!("{day}T{hour:02}:{minute:02}:{second:02}Z"),
    }
}

fn of_day(time: Time) -> Option<i64> {
    let minutes = i64::from(time.hour).checked_mul(60)?.checked_add(i64::from(time.minute))?;
    minutes.checked_mul(60)?.checked_add(i64::from(time.second.unwrap_or(0)))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn days(date: Date) -> Option<i64> {
    if date.year < 1970 {
        return None;
    }
    let whole: i64 = (1970..date.year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let before = months(date.year).into_iter().take(usize::from(date.month).checked_sub(1)?);
    let days = before.map(i64::from).fold(whole, i64::saturating_add);
    days.checked_add(i64::from(date.day))?.checked_sub(1)
}

fn is_leap(year: u16) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

fn months(year: u16) -> [u8; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_lasts_to_its_end_and_a_time_to_itself() {
        // By `date -u -d … +%s`.
        for (text, seconds) in [
            ("2026-12-31", 1_798_761_600),
            ("2024-02-29", 1_709_251_200),
            ("2000-02-29", 951_868_800),
            ("2026-12-31T18:00:00Z", 1_798_740_000),
            ("2026-12-31T18:00:00+02:00", 1_798_732_800),
            ("2026-12-31T18:00:00.5Z", 1_798_740_000),
        ] {
            let date: Datetime = text.parse().unwrap();
            assert_eq!(end_of(&date), Some(Wall(seconds * 1000)), "{text}");
        }
    }

    #[test]
    fn a_date_is_shown_as_it_was_written() {
        for text in ["2026-12-31", "2024-02-29", "1970-01-01", "2027-03-01"] {
            let date: Datetime = text.parse().unwrap();
            assert_eq!(last_day(end_of(&date).unwrap()), text);
        }
    }

    #[test]
    fn a_moment_is_written_in_utc() {
        for (text, written) in [
            ("2026-12-31", "2026-12-31"),
            ("2026-12-31T18:00:00+02:00", "2026-12-31T16:00:00Z"),
            ("2026-12-31T00:00:01Z", "2026-12-31T00:00:01Z"),
            ("2026-12-31T00:00:00Z", "2026-12-30"),
        ] {
            let date: Datetime = text.parse().unwrap();
            assert_eq!(super::written(end_of(&date).unwrap()), written);
        }
    }

    #[test]
    fn a_time_of_nobody_knows_where_is_none() {
        for text in ["2026-12-31T18:00:00", "18:00:00", "1969-12-31"] {
            let date: Datetime = text.parse().unwrap();
            assert_eq!(end_of(&date), None, "{text}");
        }
    }
}
