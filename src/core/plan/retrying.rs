//! The options of retry policies and budgets, and what they describe.

use super::value::text;
use super::{Field, Options, Rule, Value, check};
use crate::error::PlanError;
use crate::retry::{Backoff, Budget, Cron, Jitter, Retry};

const ATTEMPTS: Field = Field::new("attempts", Rule::COUNT, Value::Int(5)).always();
const RETRY_KIND: Field = Field::bare(
    "kind",
    Rule::Choice(&["fixed", "exponential", "decorrelated", "cron", "custom"]),
);
const BASE: Field = Field::new("base", Rule::Seconds, Value::Float(0.2)).always();
const CAP: Field = Field::new("cap", Rule::Seconds, Value::Float(30.0)).always();
const TOTAL: Field = Field::bare("total", Rule::Maybe(&Rule::PositiveSeconds));
/// Any seed that 64 bits can hold.
pub(super) const SEED: Field = Field::bare(
    "seed",
    Rule::Maybe(&Rule::Int {
        min: 0,
        max: u64::MAX as i128,
    }),
);

static FIXED: &[Field] = &[
    RETRY_KIND,
    ATTEMPTS,
    Field::bare("delay", Rule::Seconds).always(),
    TOTAL,
];

static EXPONENTIAL: &[Field] = &[
    RETRY_KIND,
    ATTEMPTS,
    BASE,
    Field::new("factor", Rule::AtLeast(1.0), Value::Float(2.0)).always(),
    CAP,
    Field::new("jitter", Rule::Choice(&["full", "none"]), text("full")).always(),
    SEED,
    TOTAL,
];

static DECORRELATED: &[Field] = &[RETRY_KIND, ATTEMPTS, BASE, CAP, SEED, TOTAL];

static CRON: &[Field] = &[
    RETRY_KIND,
    ATTEMPTS,
    Field::bare("expression", Rule::Cron).always(),
    Field::bare("tz", Rule::Maybe(&Rule::Text)),
    TOTAL,
];

static CUSTOM: &[Field] = &[
    RETRY_KIND,
    ATTEMPTS,
    Field::bare("by", Rule::Text).always(),
    TOTAL,
];

static BUDGET: &[Field] = &[
    Field::bare("rate", Rule::Positive),
    Field::bare("burst", Rule::COUNT),
];

/// The table that a policy follows.
pub(super) fn retry_fields(policy: &Options) -> &'static [Field] {
    match policy.text(RETRY_KIND.key) {
        Some("fixed") => FIXED,
        Some("decorrelated") => DECORRELATED,
        Some("cron") => CRON,
        Some("custom") => CUSTOM,
        _ => EXPONENTIAL,
    }
}

/// Checks a retry policy: `kind`, `attempts`, `total`, and what the kind takes.
///
/// "fixed" takes `delay`; "exponential" `base`, `factor`, `cap`, `jitter`, `seed`; "decorrelated"
/// `base`, `cap`, `seed`; "cron" `expression`, `tz`; "custom" the name of what it goes `by`.
/// Durations are seconds. The result has defaults filled in.
///
/// # Errors
/// [`PlanError`] naming the argument, its value and what is allowed.
pub fn retry(given: &Options) -> Result<Options, PlanError> {
    // The kind decides which table the rest follows.
    let kind = given.get(RETRY_KIND.key);
    RETRY_KIND
        .rule
        .check(RETRY_KIND.key, kind)
        .and_then(|_| check(retry_fields(given), given))
        .map_err(|error| error.about("retry"))
}

/// The policy that checked options describe; `None` if they do not describe one.
///
/// It has no budget, and a calendar goes by UTC, whatever `tz` says: a time zone is looked up in a
/// database that only the outside has, see [`Cron::within`].
pub fn policy(options: &Options) -> Option<Retry> {
    let attempts = u32::try_from(options.count("attempts")?).ok()?;
    let backoff = match options.text("kind")? {
        "fixed" => Backoff::Fixed(options.seconds("delay")?),
        "decorrelated" => Backoff::Decorrelated {
            base: options.seconds("base")?,
            cap: options.seconds("cap")?,
        },
        "cron" => Backoff::Cron(Cron::parse(options.text("expression")?).ok()?),
        "custom" => Backoff::Custom,
        _ => Backoff::Exponential {
            base: options.seconds("base")?,
            factor: options.number("factor")?,
            cap: options.seconds("cap")?,
            jitter: if options.text("jitter")? == "none" {
                Jitter::None
            } else {
                Jitter::Full
            },
        },
    };
    Some(Retry {
        total: options.seconds("total"),
        ..Retry::new(attempts, backoff)
    })
}

/// Makes a retry budget: `rate` in attempts per second, `burst` in attempts.
///
/// # Errors
/// [`PlanError`] naming the argument, its value and what is allowed.
pub fn budget(given: &Options) -> Result<Budget, PlanError> {
    let checked = check(BUDGET, given).map_err(|error| error.about("retry budget"))?;
    let rate = checked.number("rate").unwrap_or(f64::INFINITY);
    let burst = checked.count("burst").and_then(|it| u32::try_from(it).ok());
    let interval = std::time::Duration::try_from_secs_f64(rate.recip());
    Ok(Budget::new(
        interval.unwrap_or(std::time::Duration::MAX),
        burst.unwrap_or(1),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{given, refusal};
    use super::*;
    use std::time::Duration;

    #[test]
    fn r1_a_policy_needs_an_attempt() {
        let none = given(&[("kind", text("fixed")), ("attempts", Value::Int(0))]);
        assert_eq!(
            refusal(retry(&none)),
            Some("retry: attempts must be an int >= 1, got 0".into())
        );
    }

    #[test]
    fn r2_policies_are_checked_and_filled_in() {
        let seconds = "a number of seconds >= 0 (or a timedelta)";
        let table = [
            (
                given(&[]),
                "retry: kind must be 'fixed', 'exponential', 'decorrelated', 'cron' or 'custom', \
                 got None"
                    .to_owned(),
            ),
            (
                given(&[("kind", text("fixed")), ("delay", Value::Int(-1))]),
                format!("retry: delay must be {seconds}, got -1"),
            ),
            (
                given(&[("kind", text("exponential")), ("factor", Value::Float(0.5))]),
                "retry: factor must be a finite number >= 1, got 0.5".to_owned(),
            ),
            (
                given(&[("kind", text("exponential")), ("jitter", text("some"))]),
                "retry: jitter must be 'full' or 'none', got 'some'".to_owned(),
            ),
        ];
        for (given, expected) in table {
            assert_eq!(refusal(retry(&given)), Some(expected));
        }
        let checked = retry(&given(&[("kind", text("exponential"))]));
        let backoff = Backoff::Exponential {
            base: Duration::from_millis(200),
            factor: 2.0,
            cap: Duration::from_secs(30),
            jitter: Jitter::Full,
        };
        let expected = Retry::new(5, backoff);
        assert_eq!(checked.map(|options| policy(&options)), Ok(Some(expected)));
        let fixed = retry(&given(&[
            ("kind", text("fixed")),
            ("delay", Value::Seconds(1.0)),
        ]));
        let expected = Retry::new(5, Backoff::Fixed(Duration::from_secs(1)));
        assert_eq!(fixed.map(|options| policy(&options)), Ok(Some(expected)));
        let decorrelated = retry(&given(&[
            ("kind", text("decorrelated")),
            ("base", Value::Int(1)),
            ("total", Value::Int(9)),
        ]));
        let backoff = Backoff::Decorrelated {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(30),
        };
        let expected = Retry {
            total: Some(Duration::from_secs(9)),
            ..Retry::new(5, backoff)
        };
        let found = decorrelated.map(|options| policy(&options));
        assert_eq!(found, Ok(Some(expected)));
        let cron = retry(&given(&[
            ("kind", text("cron")),
            ("expression", text("0 2 * * *")),
        ]));
        let expected = Retry::new(5, Backoff::Cron(Cron::parse("0 2 * * *").expect("valid")));
        assert_eq!(cron.map(|options| policy(&options)), Ok(Some(expected)));
        let custom = retry(&given(&[
            ("kind", text("custom")),
            ("by", text("patience")),
        ]));
        let expected = Retry::new(5, Backoff::Custom);
        assert_eq!(custom.map(|options| policy(&options)), Ok(Some(expected)));
    }

    #[test]
    fn r4_a_budget_is_checked() {
        let given = |rate, burst| given(&[("rate", rate), ("burst", burst)]);
        assert!(budget(&given(Value::Float(0.5), Value::Int(3))).is_ok());
        let wrong = given(Value::Int(0), Value::Int(3));
        assert_eq!(
            refusal(budget(&wrong)),
            Some("retry budget: rate must be a finite number > 0, got 0".into())
        );
        let now = Duration::from_secs(1_700_000_000);
        let slow = budget(&given(Value::Float(0.5), Value::Int(1))).expect("valid");
        assert!(slow.take(now) && !slow.take(now + Duration::from_millis(1999)));
        assert!(slow.take(now + Duration::from_secs(2)));
    }
}
