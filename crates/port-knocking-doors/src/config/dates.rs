//! Dates that an administrator writes, as milliseconds since 1970.

use doors_core::time::Wall;
use toml::value::{Date, Datetime, Offset, Time};

const DAY: i64 = 24 * 60 * 60;

/// The moment from which on something is over that lasts until this date: the end of the day, in UTC, or the
/// time itself. `None` without an offset: it would not say which time is meant.
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
    let date = year_of(day_of).and_then(|year| {
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

/// A moment, in UTC, to the second.
pub(super) fn moment(wall: Wall) -> String {
    let seconds = wall.0.checked_div(1000).unwrap_or(0);
    let part =
        |unit: u64, of: u64| seconds.checked_div(unit).and_then(|count| count.checked_rem(of)).unwrap_or(0);
    let day = last_day(Wall(wall.0.saturating_add(1000)));
    format!("{day} {:02}:{:02}:{:02} UTC", part(3600, 24), part(60, 60), part(1, 60))
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
    let years = i64::from(date.year).checked_sub(1970)?;
    let leap_days = leap_years_before(date.year)?.checked_sub(leap_years_before(1970)?)?;
    let whole = years.checked_mul(365)?.checked_add(leap_days)?;
    let before = months(date.year).into_iter().take(usize::from(date.month).checked_sub(1)?);
    let days = before.map(i64::from).fold(whole, i64::saturating_add);
    days.checked_add(i64::from(date.day))?.checked_sub(1)
}

/// The year of a day, counted from 1970-01-01. Years are not gone through one by one: an administrator may write
/// 9999-12-31 behind every client.
fn year_of(day: i64) -> Option<u16> {
    // 400 years have 146,097 days; within them the mean is off by less than a year.
    let years = day.checked_mul(400)?.checked_div(146_097)?;
    let about = u16::try_from(years.checked_add(1970)?).ok()?;
    let begun = |year: &u16| days(Date { year: *year, month: 1, day: 1 }).is_some_and(|first| first <= day);
    (about.checked_sub(1)?..=about.checked_add(1)?).rev().find(begun)
}

/// Leap years of the Gregorian calendar before this one.
fn leap_years_before(year: u16) -> Option<i64> {
    let last = year.checked_sub(1)?;
    let of = |step: u16| last.checked_div(step).map(i64::from);
    of(4)?.checked_sub(of(100)?)?.checked_add(of(400)?)
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
    fn a_moment_is_shown_to_the_second() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (1_798_740_000, "2026-12-31 18:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
            (1_798_761_600, "2027-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(moment(Wall(seconds * 1000 + 999)), text);
        }
    }

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
        for text in ["2026-12-31", "2024-02-29", "1970-01-01", "2027-03-01", "2100-02-28", "9999-12-31"] {
            let date: Datetime = text.parse().unwrap();
            assert_eq!(last_day(end_of(&date).unwrap()), text);
        }
    }

    #[test]
    fn every_day_to_the_end_of_the_calendar_is_shown_as_itself() {
        let mut number = 0;
        for year in 1970..=9999 {
            for (month, days) in (1..).zip(months(year)) {
                for day in 1..=days {
                    let date = Date { year, month, day };
                    assert_eq!(super::days(date), Some(number), "{date}");
                    number += 1;
                    // Every day of a year, and of the others the first and the last of a month.
                    if year == 2000 || day == 1 || day == days {
                        let end = Wall(u64::try_from(number * DAY).unwrap() * 1000);
                        assert_eq!(last_day(end), date.to_string());
                    }
                }
            }
        }
    }

    #[test]
    fn a_far_date_costs_no_more_than_a_near_one() {
        let far: Datetime = "9999-12-31".parse().unwrap();
        let begun = std::time::Instant::now();
        for _ in 0..1000 {
            assert_eq!(written(end_of(&far).unwrap()), "9999-12-31");
        }
        // Gone through year by year, one of them takes a third of a second.
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
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
