//! The options of the pipeline and of its stages: one table per kind.

use super::retrying::SEED;
use super::value::text;
use super::{Field, Kind, Options, Rule, Value, check};
use crate::error::PlanError;

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
const TIMEOUT: Field = Field::bare("timeout", Rule::Maybe(&Rule::PositiveSeconds));
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
    use super::super::tests::{given, refusal};
    use super::*;

    #[test]
    fn w8_a_window_by_itself_is_checked_like_a_stage() {
        let allowed = "an int >= 1 where none of max_age, idle and max_bytes is given";
        assert_eq!(
            refusal(window(&given(&[]))),
            Some(format!("window: max_items must be {allowed}, got None"))
        );
        assert!(refusal(window(&given(&[("idle", Value::Int(-1))]))).is_some());
        assert!(window(&given(&[("max_age", Value::Int(1))])).is_ok());
    }
}
