//! Cron expressions against tables, and against a search second by second.

use super::*;
use proptest::prelude::*;

fn second(text: &str) -> Timestamp {
    let local: DateTime = text.parse().unwrap();
    local.to_zoned(TimeZone::UTC).unwrap().timestamp()
}

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

/// The next instants after a point, in UTC.
fn following(cron: &Cron, after: &str, count: usize) -> Vec<String> {
    let mut at = second(after);
    (0..count)
        .map(|_| {
            at = cron.next(at).expect("one more");
            at.to_zoned(TimeZone::UTC).datetime().to_string()
        })
        .collect()
}

#[test]
fn r2_the_next_instant_follows_the_fields() {
    let table = [
        ("* * * * *", "2026-01-01T00:00:00", "2026-01-01T00:01:00"),
        ("* * * * *", "2026-01-01T00:00:59", "2026-01-01T00:01:00"),
        ("* * * * * *", "2026-01-01T00:00:59", "2026-01-01T00:01:00"),
        ("*/15 * * * *", "2026-01-01T00:45:00", "2026-01-01T01:00:00"),
        ("5/20 * * * *", "2026-01-01T00:25:01", "2026-01-01T00:45:00"),
        (
            "0 9-17/4 * * *",
            "2026-01-01T13:00:00",
            "2026-01-01T17:00:00",
        ),
        ("30 2 * * *", "2026-01-01T02:30:00", "2026-01-02T02:30:00"),
        ("30 2 * * *", "2026-12-31T02:30:00", "2027-01-01T02:30:00"),
        (
            "0 0 * * mon-FRI",
            "2026-01-02T12:00:00",
            "2026-01-05T00:00:00",
        ),
        ("0 0 * * 7", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
        ("0 0 * * 0", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
        ("0 0 * * 5-7", "2026-01-03T00:00:00", "2026-01-04T00:00:00"),
        (
            "0 0 1 Jan,jul *",
            "2026-01-01T00:00:00",
            "2026-07-01T00:00:00",
        ),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 29 2 *", "2096-02-29T00:00:00", "2104-02-29T00:00:00"),
        ("0 0 31 * *", "2026-01-31T00:00:00", "2026-03-31T00:00:00"),
        // Both days restricted: either will do.
        ("0 0 13 * fri", "2026-01-02T00:00:00", "2026-01-09T00:00:00"),
        ("0 0 13 * fri", "2026-01-09T00:00:00", "2026-01-13T00:00:00"),
        ("0 0 30 2 mon", "2026-01-01T00:00:00", "2026-02-02T00:00:00"),
        // One begins with a star: both must.
        (
            "0 0 */2 * fri",
            "2026-01-02T00:00:00",
            "2026-01-09T00:00:00",
        ),
        (
            "10,20 0 12 * * *",
            "2026-01-01T12:00:10",
            "2026-01-01T12:00:20",
        ),
    ];
    for (expression, after, expected) in table {
        let cron = Cron::parse(expression).expect(expression);
        assert_eq!(
            following(&cron, after, 1),
            [expected],
            "{expression} after {after}"
        );
    }
}

#[test]
fn r2_what_is_no_expression_is_explained() {
    let table = [
        ("", "has 0 fields instead of 5 or 6"),
        ("* * * *", "has 4 fields instead of 5 or 6"),
        ("* * * * * * *", "has 7 fields instead of 5 or 6"),
        ("@daily", "has 1 fields instead of 5 or 6"),
        ("60 * * * *", "has \"60\" as its minute: it takes 0 to 59"),
        ("* 24 * * *", "has \"24\" as its hour: it takes 0 to 23"),
        (
            "* * 0 * *",
            "has \"0\" as its day of month: it takes 1 to 31",
        ),
        ("* * * 13 *", "has \"13\" as its month: it takes 1 to 12"),
        ("* * * * 8", "has \"8\" as its day of week: it takes 0 to 7"),
        (
            "* * * * bad",
            "has \"bad\" as its day of week: it takes 0 to 7",
        ),
        (
            "* * L * *",
            "has \"L\" as its day of month: it takes 1 to 31",
        ),
        ("+1 * * * *", "has \"+1\" as its minute: it takes 0 to 59"),
        ("1,,2 * * * *", "has \"\" as its minute: it takes 0 to 59"),
        (
            "1-2-3 * * * *",
            "has \"1-2-3\" as its minute: it takes 0 to 59",
        ),
        (
            "* * * * fri-mon",
            "has \"fri-mon\" as its day of week: the range ends before it begins",
        ),
        (
            "*/0 * * * *",
            "has \"*/0\" as its minute: a step is a number from 1 to 255",
        ),
        (
            "*/x * * * *",
            "has \"*/x\" as its minute: a step is a number from 1 to 255",
        ),
        ("0 0 30 2 *", "names a day that never comes"),
        ("0 0 31 4,6,9,11 *", "names a day that never comes"),
    ];
    for (expression, expected) in table {
        assert_eq!(
            Cron::parse(expression),
            Err(expected.to_owned()),
            "{expression:?}"
        );
    }
}

#[test]
fn r2_the_instant_is_strictly_in_the_future_to_the_nanosecond() {
    let cron = Cron::parse("0 0 * * *").unwrap();
    let midnight = Duration::from_secs(1_767_225_600);
    let day = Duration::from_secs(86_400);
    let nano = Duration::from_nanos(1);
    let before = Duration::new(1_767_225_599, 999_999_999);
    assert_eq!(cron.delay(before), Some(nano));
    assert_eq!(cron.delay(midnight), Some(day));
    assert_eq!(cron.delay(midnight + nano), Some(day.saturating_sub(nano)));
    assert_eq!(cron.delay(Duration::MAX), None);
}

#[test]
fn r2_local_times_follow_the_clocks_of_their_zone() {
    let cron = Cron::parse("30 2 * * *").unwrap().within(berlin());
    // Winter, the skipped hour of the 29th of March, summer.
    let spring = ["2026-03-28T01:30:00", "2026-03-30T00:30:00"];
    assert_eq!(following(&cron, "2026-03-28T00:00:00", 2), spring);
    // The repeated hour of the 25th of October.
    let autumn = [
        "2026-10-25T00:30:00",
        "2026-10-25T01:30:00",
        "2026-10-26T01:30:00",
    ];
    assert_eq!(following(&cron, "2026-10-24T12:00:00", 3), autumn);
    // The very instant of a change.
    let on_the_hour = Cron::parse("0 3 * * *").unwrap().within(berlin());
    let change = ["2026-03-29T01:00:00", "2026-03-30T01:00:00"];
    assert_eq!(following(&on_the_hour, "2026-03-28T12:00:00", 2), change);
    let quarters = Cron::parse("*/30 * * * *").unwrap().within(berlin());
    let through = [
        "2026-03-29T01:00:00",
        "2026-03-29T01:30:00",
        "2026-03-29T02:00:00",
    ];
    assert_eq!(following(&quarters, "2026-03-29T00:30:00", 3), through);
}

fn field(min: u8, max: u8) -> impl Strategy<Value = String> {
    let value = min..=max;
    let range =
        (value.clone(), value.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let stepped = (range.clone(), 1_u8..20).prop_map(|(range, step)| format!("{range}/{step}"));
    let one = prop_oneof![value.prop_map(|v| v.to_string()), range, stepped];
    prop_oneof![
        2 => Just("*".to_owned()),
        1 => (1_u8..20).prop_map(|step| format!("*/{step}")),
        3 => prop::collection::vec(one, 1..3).prop_map(|parts| parts.join(",")),
    ]
}

proptest! {
    /// Against a search that tries each second of local time, one after the other.
    #[test]
    fn r2_no_earlier_instant_matches(
        seconds in field(0, 59), minutes in field(0, 59), hours in field(0, 23),
        weekdays in field(0, 7), start in 1_760_000_000_i64..1_830_000_000, local: bool,
    ) {
        let expression = format!("{seconds} {minutes} {hours} * * {weekdays}");
        let cron = Cron::parse(&expression).map_err(TestCaseError::fail)?;
        let cron = cron.within(if local { berlin() } else { TimeZone::UTC });
        let start = Timestamp::from_second(start).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let next = cron.next(start).ok_or_else(|| TestCaseError::fail("none"))?;
        prop_assert!(next > start);
        prop_assert!(cron.schedule.allows(cron.zone.to_datetime(next)));
        // The whole way may be days: its last hours, and random seconds of the rest.
        let (from, to) = (start.as_second() + 1, next.as_second());
        let spread = usize::try_from(((to - from) / 97).max(1)).unwrap_or(1);
        for second in (from..to).step_by(spread).chain(from.max(to - 300)..to) {
            let at = Timestamp::from_second(second).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(!cron.schedule.allows(cron.zone.to_datetime(at)), "{at} comes before");
        }
    }

    #[test]
    fn r2_any_text_is_an_expression_or_explained(text in "[-*/,0-9a-z ]{0,40}", at in 0_u64..4_000_000_000) {
        if let Ok(cron) = Cron::parse(&text) {
            let delay = cron.delay(Duration::from_secs(at));
            prop_assert!(delay.is_some_and(|delay| delay > Duration::ZERO));
        }
    }
}
