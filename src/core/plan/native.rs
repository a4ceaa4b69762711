//! The options of native sources and of channels.

use super::value::text;
use super::{Field, Options, Rule, Value, check};
use crate::error::PlanError;

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

#[cfg(test)]
mod tests {
    use super::super::tests::{given, refusal};
    use super::*;

    #[test]
    fn b5_channels_are_checked_and_filled_in() {
        let expected = given(&[
            ("name", text("channel")),
            ("capacity", Value::Int(1000)),
            ("on_full", text("wait")),
        ]);
        assert_eq!(channel(&given(&[])), Ok(expected));
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
            let said = refusal(channel(&given(&[(key, value)])));
            assert_eq!(said, Some(format!("channel: {expected}")));
        }
    }

    #[test]
    fn e9_tcp_lines_are_checked_and_filled_in() {
        let checked = tcp_lines(&given(&[("host", text("::1")), ("port", Value::Int(0))]));
        let expected = given(&[
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
            let mut options = vec![("host", text("::1")), ("port", Value::Int(0))];
            options.retain(|&(name, _)| name != key);
            options.push((key, value));
            assert_eq!(
                refusal(tcp_lines(&given(&options))),
                Some(format!("tcp_lines: {expected}"))
            );
        }
    }

    #[test]
    fn e9_tcp_client_and_tail_are_checked_and_filled_in() {
        let checked = tcp_client(&given(&[("host", text("::1")), ("port", Value::Int(1))]));
        let expected = given(&[
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
            refusal(tcp_client(&given(&[
                ("host", text("::1")),
                ("port", Value::Int(0))
            ]))),
            Some("tcp_client: port must be an int from 1 to 65535, got 0".into())
        );
        let checked = tail(&given(&[
            ("path", text("app.log")),
            ("until", Value::Int(2)),
        ]));
        let expected = given(&[
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
            refusal(tail(&given(&[
                ("path", text("app.log")),
                ("poll", Value::Int(0))
            ]))),
            Some("tail: poll must be a number of seconds > 0 (or a timedelta), got 0".into())
        );
    }
}
