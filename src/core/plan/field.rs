//! The options there are: one table per kind of stage, for the pipeline, retry, native sources and
//! channels.

use super::{Field, Kind, Options, Rule, Value, check};
use crate::error::PlanError;
use crate::retry::{Backoff, Budget, Cron, Jitter, Retry};

const CONCURRENCY: Field = Field::new("concurrency", Rule::COUNT, Value::Int(1));
const ORDERED: Field = Field::new("ordered", Rule::Flag, Value::Bool(true));
const INLINE: Field = Field::new("inline", Rule::Flag, Value::Bool(false));
/// Which failures an operator takes, in words.
const ONLY: Field = Field::bare("only", Rule::Maybe(&Rule::Text));
const ON_ERROR: Field = Field::bare(
    "on_error",
    Rule::ChoiceOrNone(&["continue", "stop", "dead_letter"]),
);
const RETRY: Field = Field::bare("retry", Rule::Retry);
const IS_ASYNC: Field = Field::new("is_async", Rule::Flag, Value::Bool(false));
const ATTEMPTS: Field = Field::new("attempts", Rule::COUNT, Value::Int(5)).always();
const RETRY_KIND: Field = Field::bare(
    "kind",
    Rule::Choice(&["fixed", "exponential", "decorrelated", "cron", "custom"]),
);
const BASE: Field = Field::new("base", Rule::Seconds, Value::Float(0.2)).always();
const CAP: Field = Field::new("cap", Rule::Seconds, Value::Float(30.0)).always();
const TIMEOUT: Field = Field::bare("timeout", Rule::Maybe(&Rule::PositiveSeconds));
const TOTAL: Field = Field::bare("total", Rule::Maybe(&Rule::PositiveSeconds));
/// Any seed that 64 bits can hold.
const SEED: Field = Field::bare(
    "seed",
    Rule::Maybe(&Rule::Int {
        min: 0,
        max: u64::MAX as i128,
    }),
);

/// `Pipeline(name, ...)`; the name is checked by itself, before all else.
pub(super) static SETTINGS: &[Field] = &[
    Field::new("max_in_flight", Rule::COUNT, Value::Int(256))
        .of("units")
        .always(),
    Field::new("threads", Rule::Int { min: 1, max: 64 }, Value::Int(8)).always(),
    Field::new(
        "on_error",
        Rule::Choice(&["continue", "stop", "dead_letter"]),
        text("continue"),
    )
    .always(),
    Field::bare("dead_letter", Rule::Maybe(&Rule::Text)),
    Field::new("grace", Rule::Seconds, Value::Float(30.0)).always(),
    Field::new("commit", Rule::Choice(&["unit", "end"]), text("unit")),
    Field::new(
        "rollback",
        Rule::Choice(&["sequential", "parallel", "none"]),
        text("sequential"),
    ),
    Field::new(
        "rollback_deadline",
        Rule::Maybe(&Rule::PositiveSeconds),
        Value::Float(30.0),
    ),
    SEED,
];

static SOURCE: &[Field] = &[
    Field::bare(
        "how",
        Rule::Choice(&["sequence", "iterable", "async", "channel", "native"]),
    )
    .always(),
    Field::bare("label", Rule::Text).always(),
];

static CALLABLE: &[Field] = &[CONCURRENCY, ORDERED, RETRY, TIMEOUT, ON_ERROR, IS_ASYNC];

static ENSURE: &[Field] = &[
    Field::new("code", Rule::Text, text("ensure.failed")),
    Field::bare("message", Rule::Maybe(&Rule::Text)),
    CONCURRENCY,
    ORDERED,
    RETRY,
    TIMEOUT,
    ON_ERROR,
    IS_ASYNC,
];

static OPERATOR: &[Field] = &[ONLY, CONCURRENCY, ORDERED, RETRY, TIMEOUT, IS_ASYNC];

static COLLECT_ERRORS: &[Field] = &[
    ONLY,
    Field::bare("every", Rule::Maybe(&Rule::PositiveSeconds)),
    Field::bare("to", Rule::Maybe(&Rule::Text)),
    Field::new("samples", Rule::Int { min: 0, max: 1000 }, Value::Int(10)),
    IS_ASYNC,
];

static DEAD_LETTER: &[Field] = &[
    Field::bare("label", Rule::Text).always(),
    ONLY,
    CONCURRENCY,
    INLINE,
    RETRY,
    TIMEOUT,
    IS_ASYNC,
];

static FAN_OUT: &[Field] = &[
    Field::bare("by", Rule::Text).always(),
    Field::new(
        "capacity",
        Rule::Either(&Rule::COUNT, &Rule::Hook),
        Value::Int(1000),
    )
    .of("items")
    .always(),
    Field::new(
        "on_full",
        Rule::Either(
            &Rule::Choice(&["wait", "drop_newest", "drop_oldest", "fail", "dead_letter"]),
            &Rule::Hook,
        ),
        text("wait"),
    )
    .always(),
    Field::new("isolate", Rule::Flag, Value::Bool(true)).always(),
    Field::new(
        "weight",
        Rule::Either(&Rule::Int { min: 1, max: 1000 }, &Rule::Hook),
        Value::Int(1),
    ),
    Field::bare("branch_timeout", Rule::Maybe(&Rule::PositiveSeconds)),
    Field::new(
        "idle_ttl",
        Rule::Maybe(&Rule::PositiveSeconds),
        Value::Float(300.0),
    ),
    Field::new("on_branch_error", Rule::Text, text("continue")),
    Field::new("max_branches", Rule::COUNT, Value::Int(1_000_000)).of("branches"),
    Field::new(
        "on_max_branches",
        Rule::Choice(&["reject", "overflow"]),
        text("reject"),
    ),
    Field::new("close_branches", Rule::Flag, Value::Bool(true)),
    Field::bare("on_new_branch", Rule::Maybe(&Rule::Hook)),
    Field::bare("on_branch_closed", Rule::Maybe(&Rule::Hook)),
];

static HEARTBEAT: &[Field] = &[Field::bare("every", Rule::PositiveSeconds).of("s")];

static THROTTLE: &[Field] = &[
    Field::bare("rate", Rule::Positive).of("items/s").always(),
    Field::bare("burst", Rule::Maybe(&Rule::COUNT))
        .of("items")
        .always(),
];

static WINDOW: &[Field] = &[
    Field::bare("max_items", Rule::Maybe(&Rule::COUNT)).of("items"),
    Field::bare("max_age", Rule::Maybe(&Rule::Seconds)),
    Field::bare("idle", Rule::Maybe(&Rule::Seconds)),
    Field::bare(
        "max_bytes",
        Rule::Maybe(&Rule::Int {
            min: 1,
            max: i64::MAX as i128,
        }),
    )
    .of("bytes"),
    Field::bare("on_cancel", Rule::ChoiceOrNone(&["flush", "drop"])),
];

static FOR_EACH: &[Field] = &[CONCURRENCY, INLINE, RETRY, TIMEOUT, ON_ERROR, IS_ASYNC];

static COLLECT: &[Field] = &[];

static TEE: &[Field] = &[];

static TO_CHANNEL: &[Field] = &[
    Field::bare("label", Rule::Text).always(),
    Field::new("close", Rule::Flag, Value::Bool(true)).always(),
];

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

const HOST: Field = Field::bare("host", Rule::Text);
const MAX_LINE: Field = Field::new(
    "max_line",
    Rule::Int {
        min: 1,
        max: 1 << 30,
    },
    Value::Int(65_536),
);
const IDLE_TIMEOUT: Field = Field::bare("idle_timeout", Rule::Maybe(&Rule::PositiveSeconds));
const ENCODING: Field = Field::new("encoding", Rule::ChoiceOrNone(&["utf-8"]), text("utf-8"));
const ERRORS: Field = Field::new(
    "errors",
    Rule::Choice(&["strict", "replace"]),
    text("strict"),
);
const UNTIL: Field = Field::bare(
    "until",
    Rule::Maybe(&Rule::Either(
        &Rule::Seconds,
        &Rule::Choice(&["disconnected"]),
    )),
);

static TCP: &[Field] = &[
    HOST,
    Field::bare(
        "port",
        Rule::Int {
            min: 0,
            max: 65_535,
        },
    ),
    MAX_LINE,
    Field::new("max_connections", Rule::COUNT, Value::Int(1024)),
    IDLE_TIMEOUT,
    ENCODING,
    ERRORS,
    Field::new("peer", Rule::Flag, Value::Bool(false)),
    UNTIL,
];

static TCP_CLIENT: &[Field] = &[
    HOST,
    Field::bare(
        "port",
        Rule::Int {
            min: 1,
            max: 65_535,
        },
    ),
    MAX_LINE,
    Field::new("connect_timeout", Rule::PositiveSeconds, Value::Float(10.0)),
    IDLE_TIMEOUT,
    ENCODING,
    ERRORS,
    UNTIL,
];

static TAIL: &[Field] = &[
    Field::bare("path", Rule::Text),
    Field::new("from_start", Rule::Flag, Value::Bool(false)),
    MAX_LINE,
    ENCODING,
    ERRORS,
    Field::new("poll", Rule::PositiveSeconds, Value::Float(0.1)),
    Field::bare("until", Rule::Maybe(&Rule::Seconds)),
];

static CHANNEL: &[Field] = &[
    Field::new("name", Rule::Text, text("channel")),
    Field::new("capacity", Rule::COUNT, Value::Int(1000)).of("items"),
    Field::new(
        "on_full",
        Rule::Choice(&["wait", "drop_newest", "drop_oldest", "fail"]),
        text("wait"),
    ),
];

const fn text(text: &'static str) -> Value {
    Value::Text(std::borrow::Cow::Borrowed(text))
}

impl Kind {
    /// The options a stage of this kind takes.
    pub(super) fn fields(self) -> &'static [Field] {
        match self {
            Self::Source => SOURCE,
            Self::Map | Self::Filter | Self::FlatMap | Self::Tap => CALLABLE,
            Self::Tee => TEE,
            Self::Ensure => ENSURE,
            Self::TapError | Self::Recover | Self::MapError => OPERATOR,
            Self::CollectErrors => COLLECT_ERRORS,
            Self::DeadLetter => DEAD_LETTER,
            Self::FanOut => FAN_OUT,
            Self::Throttle => THROTTLE,
            Self::Heartbeat => HEARTBEAT,
            Self::Window => WINDOW,
            Self::ForEach => FOR_EACH,
            Self::Collect => COLLECT,
            Self::ToChannel => TO_CHANNEL,
        }
    }
}

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

/// Checks the options of `tcp_lines`: limits in bytes and connections, durations in seconds.
///
/// # Errors
/// [`PlanError`] naming the argument, its value and what is allowed.
pub fn tcp_lines(given: &Options) -> Result<Options, PlanError> {
    check(TCP, given).map_err(|error| error.about("tcp_lines"))
}

/// Checks the options of `tcp_client`, as those of [`tcp_lines`].
///
/// # Errors
/// [`PlanError`] naming the argument, its value and what is allowed.
pub fn tcp_client(given: &Options) -> Result<Options, PlanError> {
    check(TCP_CLIENT, given).map_err(|error| error.about("tcp_client"))
}

/// Checks the options of `tail`: a path, a limit in bytes, durations in seconds.
///
/// # Errors
/// [`PlanError`] naming the argument, its value and what is allowed.
pub fn tail(given: &Options) -> Result<Options, PlanError> {
    check(TAIL, given).map_err(|error| error.about("tail"))
}

/// Checks the options of a channel: its name, its capacity in items, what it does when full.
///
/// # Errors
/// [`PlanError`] naming the argument, its value and what is allowed.
pub fn channel(given: &Options) -> Result<Options, PlanError> {
    check(CHANNEL, given).map_err(|error| error.about("channel"))
}

/// Checks the options of a window outside any pipeline: its triggers, of which there must be one.
///
/// # Errors
/// [`PlanError`] naming the argument, its value and what is allowed.
pub fn window(given: &Options) -> Result<Options, PlanError> {
    check(WINDOW, given)
        .and_then(|options| super::triggered(Kind::Window, options))
        .map_err(|error| error.about("window"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn said<T>(result: Result<T, PlanError>) -> Option<String> {
        result.err().map(|error| error.to_string())
    }

    fn with(pairs: &[(&'static str, Value)]) -> Options {
        pairs.iter().cloned().collect()
    }

    #[test]
    fn r1_a_policy_needs_an_attempt() {
        let none = with(&[("kind", text("fixed")), ("attempts", Value::Int(0))]);
        assert_eq!(
            said(retry(&none)),
            Some("retry: attempts must be an int >= 1, got 0".into())
        );
    }

    #[test]
    fn r2_policies_are_checked_and_filled_in() {
        let seconds = "a number of seconds >= 0 (or a timedelta)";
        let table = [
            (
                with(&[]),
                "retry: kind must be 'fixed', 'exponential', 'decorrelated', 'cron' or 'custom', \
                 got None"
                    .to_owned(),
            ),
            (
                with(&[("kind", text("fixed")), ("delay", Value::Int(-1))]),
                format!("retry: delay must be {seconds}, got -1"),
            ),
            (
                with(&[("kind", text("exponential")), ("factor", Value::Float(0.5))]),
                "retry: factor must be a finite number >= 1, got 0.5".to_owned(),
            ),
            (
                with(&[("kind", text("exponential")), ("jitter", text("some"))]),
                "retry: jitter must be 'full' or 'none', got 'some'".to_owned(),
            ),
        ];
        for (given, expected) in table {
            assert_eq!(said(retry(&given)), Some(expected));
        }
        let checked = retry(&with(&[("kind", text("exponential"))]));
        let backoff = Backoff::Exponential {
            base: Duration::from_millis(200),
            factor: 2.0,
            cap: Duration::from_secs(30),
            jitter: Jitter::Full,
        };
        let expected = Retry::new(5, backoff);
        assert_eq!(checked.map(|options| policy(&options)), Ok(Some(expected)));
        let fixed = retry(&with(&[
            ("kind", text("fixed")),
            ("delay", Value::Seconds(1.0)),
        ]));
        let expected = Retry::new(5, Backoff::Fixed(Duration::from_secs(1)));
        assert_eq!(fixed.map(|options| policy(&options)), Ok(Some(expected)));
        let decorrelated = retry(&with(&[
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
        let cron = retry(&with(&[
            ("kind", text("cron")),
            ("expression", text("0 2 * * *")),
        ]));
        let expected = Retry::new(5, Backoff::Cron(Cron::parse("0 2 * * *").expect("valid")));
        assert_eq!(cron.map(|options| policy(&options)), Ok(Some(expected)));
        let custom = retry(&with(&[("kind", text("custom")), ("by", text("patience"))]));
        let expected = Retry::new(5, Backoff::Custom);
        assert_eq!(custom.map(|options| policy(&options)), Ok(Some(expected)));
    }

    #[test]
    fn r4_a_budget_is_checked() {
        let given = |rate, burst| with(&[("rate", rate), ("burst", burst)]);
        assert!(budget(&given(Value::Float(0.5), Value::Int(3))).is_ok());
        let wrong = given(Value::Int(0), Value::Int(3));
        assert_eq!(
            said(budget(&wrong)),
            Some("retry budget: rate must be a finite number > 0, got 0".into())
        );
        let now = Duration::from_secs(1_700_000_000);
        let slow = budget(&given(Value::Float(0.5), Value::Int(1))).expect("valid");
        assert!(slow.take(now) && !slow.take(now + Duration::from_millis(1999)));
        assert!(slow.take(now + Duration::from_secs(2)));
    }

    #[test]
    fn b5_channels_are_checked_and_filled_in() {
        let expected = with(&[
            ("name", text("channel")),
            ("capacity", Value::Int(1000)),
            ("on_full", text("wait")),
        ]);
        assert_eq!(channel(&with(&[])), Ok(expected));
        let table = [
            ("name", text(" "), "name must be a non-empty str, got ' '"),
            (
                "capacity",
                Value::Int(0),
                "capacity must be an int >= 1, got 0",
            ),
            (
                "on_full",
                text("block"),
                "on_full must be 'wait', 'drop_newest', 'drop_oldest' or 'fail', got 'block'",
            ),
        ];
        for (key, value, expected) in table {
            let said = said(channel(&with(&[(key, value)])));
            assert_eq!(said, Some(format!("channel: {expected}")));
        }
    }

    #[test]
    fn w8_a_window_by_itself_is_checked_like_a_stage() {
        let allowed = "an int >= 1 where none of max_age, idle and max_bytes is given";
        assert_eq!(
            said(window(&with(&[]))),
            Some(format!("window: max_items must be {allowed}, got None"))
        );
        assert!(said(window(&with(&[("idle", Value::Int(-1))]))).is_some());
        assert!(window(&with(&[("max_age", Value::Int(1))])).is_ok());
    }

    #[test]
    fn e9_tcp_lines_are_checked_and_filled_in() {
        let checked = tcp_lines(&with(&[("host", text("::1")), ("port", Value::Int(0))]));
        let expected = with(&[
            ("host", text("::1")),
            ("port", Value::Int(0)),
            ("max_line", Value::Int(65_536)),
            ("max_connections", Value::Int(1024)),
            ("idle_timeout", Value::None),
            ("encoding", text("utf-8")),
            ("errors", text("strict")),
            ("peer", Value::Bool(false)),
            ("until", Value::None),
        ]);
        assert_eq!(checked, Ok(expected));
        let table = [
            ("host", text(""), "host must be a non-empty str, got ''"),
            (
                "port",
                Value::Int(65_536),
                "port must be an int from 0 to 65535, got 65536",
            ),
            (
                "max_line",
                Value::Int(0),
                "max_line must be an int from 1 to 1073741824, got 0",
            ),
            (
                "max_connections",
                Value::Int(0),
                "max_connections must be an int >= 1, got 0",
            ),
            (
                "idle_timeout",
                Value::Int(0),
                "idle_timeout must be a number of seconds > 0 (or a timedelta), got 0",
            ),
            (
                "encoding",
                text("ascii"),
                "encoding must be 'utf-8' or None, got 'ascii'",
            ),
            (
                "errors",
                text("ignore"),
                "errors must be 'strict' or 'replace', got 'ignore'",
            ),
            ("peer", Value::Int(1), "peer must be True or False, got 1"),
            (
                "until",
                text("eof"),
                "until must be a number of seconds >= 0 (or a timedelta) or 'disconnected', \
                 got 'eof'",
            ),
        ];
        for (key, value, expected) in table {
            let mut given = vec![("host", text("::1")), ("port", Value::Int(0))];
            given.retain(|&(name, _)| name != key);
            given.push((key, value));
            assert_eq!(
                said(tcp_lines(&with(&given))),
                Some(format!("tcp_lines: {expected}"))
            );
        }
    }

    #[test]
    fn e9_tcp_client_and_tail_are_checked_and_filled_in() {
        let checked = tcp_client(&with(&[("host", text("::1")), ("port", Value::Int(1))]));
        let expected = with(&[
            ("host", text("::1")),
            ("port", Value::Int(1)),
            ("max_line", Value::Int(65_536)),
            ("connect_timeout", Value::Float(10.0)),
            ("idle_timeout", Value::None),
            ("encoding", text("utf-8")),
            ("errors", text("strict")),
            ("until", Value::None),
        ]);
        assert_eq!(checked, Ok(expected));
        assert_eq!(
            said(tcp_client(&with(&[
                ("host", text("::1")),
                ("port", Value::Int(0))
            ]))),
            Some("tcp_client: port must be an int from 1 to 65535, got 0".into())
        );
        let checked = tail(&with(&[
            ("path", text("app.log")),
            ("until", Value::Int(2)),
        ]));
        let expected = with(&[
            ("path", text("app.log")),
            ("from_start", Value::Bool(false)),
            ("max_line", Value::Int(65_536)),
            ("encoding", text("utf-8")),
            ("errors", text("strict")),
            ("poll", Value::Float(0.1)),
            ("until", Value::Float(2.0)),
        ]);
        assert_eq!(checked, Ok(expected));
        assert_eq!(
            said(tail(&with(&[
                ("path", text("app.log")),
                ("poll", Value::Int(0))
            ]))),
            Some("tail: poll must be a number of seconds > 0 (or a timedelta), got 0".into())
        );
    }
}
