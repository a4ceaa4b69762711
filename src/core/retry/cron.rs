//! Cron expressions: when a calendar allows another attempt.
//!
//! Five fields (minute, hour, day of month, month, day of week), or six with seconds before them,
//! as in crontab(5): lists (`1,15`), ranges (`mon-fri`), steps (`*/5`, `10-40/10`, `3/10`), names
//! of months and days, Sunday as 0 or 7. Where both days are restricted, one of them suffices.
//! No macros (`@daily`) and none of Quartz's letters (`L`, `W`, `#`, `?`).
//!
//! The calendar itself, leap years and time zones are jiff's.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// An expression, and the time zone whose clocks it is about.
///
/// ```
/// use anabranch_core::retry::Cron;
/// use std::time::Duration;
///
/// let cron = Cron::parse("30 2 * * *").unwrap();
/// let new_year = Duration::from_secs(1_767_225_600); // 2026-01-01 00:00 UTC
/// assert_eq!(cron.delay(new_year), Some(Duration::from_secs(9000)));
/// assert!(Cron::parse("0 0 30 2 *").is_err()); // never
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    schedule: Schedule,
    zone: TimeZone,
}

/// Which values each field allows: bit `n` stands for `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Schedule {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day may match by either field: both were restricted.
    either_day: bool,
}

/// One field: its name, its smallest and largest value, and the names of values.
struct Field(&'static str, u8, u8, &'static [&'static str]);

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 6] = [
    Field("second", 0, 59, &[]),
    Field("minute", 0, 59, &[]),
    Field("hour", 0, 23, &[]),
    Field("day of month", 1, 31, &[]),
    Field("month", 1, 12, MONTHS),
    Field("day of week", 0, 7, WEEKDAYS),
];

/// The most days each month can have.
const LENGTHS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl Cron {
    /// The schedule that `expression` describes, by UTC.
    ///
    /// # Errors
    /// What is wrong with it, to follow the expression in a sentence; also when it would never
    /// come, such as on the 30th of February.
    pub fn parse(expression: &str) -> Result<Self, String> {
        Ok(Self {
            schedule: Schedule::parse(expression)?,
            zone: TimeZone::UTC,
        })
    }

    /// The same by the clocks of `zone`.
    ///
    /// A time that its clocks skip does not come that day; one that they repeat comes twice.
    #[must_use]
    pub fn within(mut self, zone: TimeZone) -> Self {
        self.zone = zone;
        self
    }

    /// How long after `now`, counted from 1970, the next instant of the schedule is: always more
    /// than zero. `None` if the calendar ends before it.
    pub fn delay(&self, now: Duration) -> Option<Duration> {
        let second = i64::try_from(now.as_secs()).ok()?;
        let next = self.next(Timestamp::from_second(second).ok()?)?;
        Duration::from_secs(u64::try_from(next.as_second()).ok()?).checked_sub(now)
    }

    /// The first instant of the schedule after `after`, which is a whole second.
    ///
    /// Between two changes of the clocks, local time is the instant plus a constant: each such
    /// stretch is searched by itself, so that nothing special happens at its ends.
    fn next(&self, mut after: Timestamp) -> Option<Timestamp> {
        loop {
            let offset = self.zone.to_offset(after);
            let change = self.zone.following(after).next().map(|it| it.timestamp());
            let found = self
                .schedule
                .next(offset.to_datetime(after))
                .and_then(|local| offset.to_timestamp(local).ok());
            match (found, change) {
                (Some(found), Some(change)) if found < change => return Some(found),
                // What the new clocks show at that instant may match, too.
                (_, Some(change)) => {
                    if self.schedule.allows(self.zone.to_datetime(change)) {
                        return Some(change);
                    }
                    after = change;
                }
                (found, None) => return found,
            }
        }
    }
}

impl Schedule {
    fn parse(expression: &str) -> Result<Self, String> {
        let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
        let (second, rest) = match fields[..] {
            [second, ref rest @ ..] if rest.len() == 5 => (second, rest),
            ref rest if rest.len() == 5 => ("0", rest),
            _ => return Err(format!("has {} fields instead of 5 or 6", fields.len())),
        };
        let [s, m, h, day, month, weekday] = FIELDS;
        let mut weekdays = weekday.parse(rest[4])?;
        // Sunday is 0 and 7.
        weekdays |= weekdays >> 7;
        let schedule = Self {
            seconds: s.parse(second)?,
            minutes: m.parse(rest[0])?,
            hours: h.parse(rest[1])?,
            days: day.parse(rest[2])?,
            months: month.parse(rest[3])?,
            weekdays,
            // As in Vixie's cron: a field that begins with a star restricts nothing.
            either_day: !rest[2].starts_with('*') && !rest[4].starts_with('*'),
        };
        let comes = (1..=12).any(|month| {
            let longest = LENGTHS[usize::from(month) - 1];
            has(schedule.months, month) && (1..=longest).any(|day| has(schedule.days, day))
        });
        if comes || schedule.either_day {
            Ok(schedule)
        } else {
            Err("names a day that never comes".to_owned())
        }
    }

    /// The first local time after `after` that the schedule allows.
    fn next(&self, after: DateTime) -> Option<DateTime> {
        let after = after.checked_add(jiff::Span::new().seconds(1)).ok()?;
        let mut date = after.date();
        let mut from = after.time();
        loop {
            if self.allows_day(date)
                && let Some(time) = self.next_time(from)
            {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
            from = Time::midnight();
        }
    }

    /// The first allowed time of a day that is not before `from`.
    fn next_time(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (part(from.hour()), part(from.minute()), part(from.second()));
        let time = |h: u8, m: u8, s: u8| {
            let (h, m, s) = (
                i8::try_from(h).ok()?,
                i8::try_from(m).ok()?,
                i8::try_from(s).ok()?,
            );
            Time::new(h, m, s, 0).ok()
        };
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = first(self.seconds, second)
            {
                return time(hour, minute, second);
            }
            if let Some(minute) = first(self.minutes, minute + 1) {
                return time(hour, minute, first(self.seconds, 0)?);
            }
        }
        let hour = first(self.hours, hour + 1)?;
        time(hour, first(self.minutes, 0)?, first(self.seconds, 0)?)
    }

    fn allows_day(&self, date: Date) -> bool {
        let day = has(self.days, part(date.day()));
        let weekday = has(self.weekdays, part(date.weekday().to_sunday_zero_offset()));
        has(self.months, part(date.month()))
            && if self.either_day {
                day || weekday
            } else {
                day && weekday
            }
    }

    fn allows(&self, local: DateTime) -> bool {
        self.allows_day(local.date())
            && has(self.hours, part(local.hour()))
            && has(self.minutes, part(local.minute()))
            && has(self.seconds, part(local.second()))
    }
}

impl Field {
    /// The values that a field's text allows.
    fn parse(&self, text: &str) -> Result<u64, String> {
        let Self(name, min, max, _) = *self;
        let mut allowed = 0;
        for part in text.split(',') {
            let wrong = |what: &str| format!("has {part:?} as its {name}: {what}");
            let (range, step) = match part.split_once('/') {
                None => (part, None),
                Some((range, step)) => match step.parse::<u8>() {
                    Ok(step) if step > 0 => (range, Some(step)),
                    _ => return Err(wrong("a step is a number from 1 to 255")),
                },
            };
            let bounds = match range.split_once('-') {
                _ if range == "*" => Some((min, max)),
                Some((from, to)) => self.value(from).zip(self.value(to)),
                None => self.value(range).map(|only| {
                    // `3/10` begins at 3 and goes on to the end.
                    (only, if step.is_some() { max } else { only })
                }),
            };
            match bounds {
                Some((from, to)) if from <= to => {
                    for value in (from..=to).step_by(usize::from(step.unwrap_or(1))) {
                        allowed |= 1_u64 << value;
                    }
                }
                Some(_) => return Err(wrong("the range ends before it begins")),
                None => return Err(wrong(&format!("it takes {min} to {max}"))),
            }
        }
        Ok(allowed)
    }

    fn value(&self, text: &str) -> Option<u8> {
        let &Self(_, min, max, names) = self;
        let place = names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text));
        let value = match place {
            // Months count from 1, days of the week from 0.
            Some(index) => u8::try_from(index).ok()? + min,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (min..=max).contains(&value).then_some(value)
    }
}

const fn has(values: u64, value: u8) -> bool {
    values >> value & 1 == 1
}

/// The smallest of `values` that is not below `from`.
fn first(values: u64, from: u8) -> Option<u8> {
    let left = values >> from << from;
    (left != 0).then(|| u8::try_from(left.trailing_zeros()).unwrap_or(u8::MAX))
}

/// A part of a date or a time, which is never negative.
fn part(part: i8) -> u8 {
    u8::try_from(part).unwrap_or(0)
}

#[cfg(test)]
mod tests;
