//! What a value may be, what it becomes, and the words for what is allowed.
//!
//! One table row ([`Field`]) per option holds its rule, its default and its unit, so that checking,
//! filling in, explaining and drawing cannot disagree.

use super::value::{Options, Value};
use crate::error::{PlanError, quoted};
use crate::retry::Cron;

/// What the value of an option may be.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// A whole number in `min..=max`; a `max` of [`MANY`] or more stays unsaid until it is passed.
    Int {
        /// The smallest allowed.
        min: i128,
        /// The largest allowed.
        max: i128,
    },
    /// A finite number, at least this.
    AtLeast(f64),
    /// A finite number, more than zero.
    Positive,
    /// Seconds, as a number or a duration; zero is allowed.
    Seconds,
    /// Seconds, as a number or a duration; more than zero.
    PositiveSeconds,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// One of these texts, or `None` with a meaning of its own.
    ChoiceOrNone(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A text with something in it.
    Text,
    /// The name of a callable that takes the tenant; whoever knows callables has looked at it.
    Hook,
    /// Options that follow the tables of a retry policy; or `None`.
    Retry,
    /// A text that describes a calendar.
    Cron,
    /// The same, or not given.
    Maybe(&'static Self),
    /// What either allows.
    Either(&'static Self, &'static Self),
}

/// The most that a count of items, units or connections can be.
pub const MANY: i128 = u32::MAX as i128;

/// The longest time that can be asked for, in seconds: some thirty years.
const FOREVER: f64 = 1e9;

impl Rule {
    /// A whole number from 1 to [`MANY`].
    pub const COUNT: Self = Self::Int { min: 1, max: MANY };

    /// `value` in its normal form (seconds as a float), or `None` if it is not allowed.
    fn accept(self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Int { min, max }, Value::Int(number)) => {
                (min..=max).contains(number).then_some(Value::Int(*number))
            }
            (Self::AtLeast(min), _) => value
                .number()
                .filter(|number| number.is_finite() && *number >= min)
                .map(Value::Float),
            (Self::Positive, _) => value
                .number()
                .filter(|number| number.is_finite() && *number > 0.0)
                .map(Value::Float),
            (Self::Cron, Value::Text(text)) => Cron::parse(text).is_ok().then(|| value.clone()),
            (Self::Seconds | Self::PositiveSeconds, _) => duration(value)
                .filter(|seconds| (0.0..=FOREVER).contains(seconds))
                .filter(|seconds| *seconds > 0.0 || matches!(self, Self::Seconds))
                .map(Value::Float),
            (Self::Choice(texts) | Self::ChoiceOrNone(texts), Value::Text(text)) => texts
                .iter()
                .find(|&allowed| text == allowed)
                .copied()
                .map(Value::from),
            (Self::ChoiceOrNone(_) | Self::Maybe(_) | Self::Retry, Value::None) => {
                Some(Value::None)
            }
            (Self::Flag, Value::Bool(flag)) => Some(Value::Bool(*flag)),
            (Self::Text | Self::Hook, Value::Text(text)) => {
                (!text.trim().is_empty()).then(|| value.clone())
            }
            (Self::Maybe(rule), _) => rule.accept(value),
            (Self::Either(one, other), _) => one.accept(value).or_else(|| other.accept(value)),
            _ => None,
        }
    }

    /// What is allowed, in words, to someone who gave `value`.
    pub(super) fn allowed(self, value: &Value) -> String {
        match self {
            Self::Int { min, max } => {
                let beyond = match value {
                    Value::Int(number) => *number > max,
                    // Also an integer too large to be held as one.
                    _ => value.number() > Value::Int(max).number(),
                };
                if max < MANY || beyond {
                    format!("an int from {min} to {max}")
                } else {
                    format!("an int >= {min}")
                }
            }
            Self::AtLeast(min) => format!("a finite number >= {min}"),
            Self::Positive => "a finite number > 0".to_owned(),
            Self::Cron => {
                let why = match value {
                    Value::Text(text) => Cron::parse(text).err(),
                    _ => None,
                };
                let why = why.map_or_else(String::new, |why| format!(" (this one {why})"));
                format!("a cron expression of 5 or 6 fields{why}")
            }
            Self::Seconds | Self::PositiveSeconds => {
                let least = if matches!(self, Self::Seconds) {
                    ">= 0"
                } else {
                    "> 0"
                };
                let most = duration(value).filter(|seconds| *seconds > FOREVER);
                let most = most
                    .map(|_| format!(" and <= {FOREVER}"))
                    .unwrap_or_default();
                format!("a number of seconds {least}{most} (or a timedelta)")
            }
            Self::Choice(texts) => either(texts.iter().map(|text| quoted(text)).collect()),
            Self::ChoiceOrNone(texts) => either(
                texts
                    .iter()
                    .map(|text| quoted(text))
                    .chain(["None".to_owned()])
                    .collect(),
            ),
            Self::Flag => "True or False".to_owned(),
            Self::Text => "a non-empty str".to_owned(),
            Self::Hook => "a def that takes the tenant".to_owned(),
            Self::Retry => "a Retry or None".to_owned(),
            Self::Maybe(rule) => rule.allowed(value),
            Self::Either(one, other) => {
                format!("{} or {}", one.allowed(value), other.allowed(value))
            }
        }
    }

    /// Whether values are durations, and shown with their unit.
    pub(super) const fn is_seconds(self) -> bool {
        match self {
            Self::Seconds | Self::PositiveSeconds => true,
            Self::Maybe(rule) => rule.is_seconds(),
            _ => false,
        }
    }

    /// `value` in its normal form.
    ///
    /// # Errors
    /// [`PlanError`] naming `argument`, the value and what is allowed.
    pub fn check(self, argument: &str, value: &Value) -> Result<Value, PlanError> {
        if let (Self::Retry, Value::Options(policy)) = (self, value) {
            let policy = super::retry(policy).map_err(|error| error.within(argument))?;
            return Ok(Value::Options(policy));
        }
        self.accept(value)
            .ok_or_else(|| PlanError::value_of(argument, value, self.allowed(value)))
    }
}

fn duration(value: &Value) -> Option<f64> {
    match *value {
        Value::Seconds(seconds) => Some(seconds),
        _ => value.number(),
    }
}

/// "a", "a or b", "a, b or c".
fn either(mut words: Vec<String>) -> String {
    let last = words.pop().unwrap_or_default();
    if words.is_empty() {
        last
    } else {
        format!("{} or {last}", words.join(", "))
    }
}

/// One option: its name, rule, default, and how it is drawn.
#[derive(Debug, Clone)]
pub struct Field {
    pub(super) key: &'static str,
    pub(super) rule: Rule,
    /// What stands for an option that is not given; `None` under a rule that forbids it makes the
    /// option required.
    pub(super) default: Value,
    /// What a number counts.
    pub(super) unit: &'static str,
    /// Whether the default, too, is worth a place in the drawing.
    pub(super) always: bool,
}

impl Field {
    /// The option `key`, with a default.
    pub const fn new(key: &'static str, rule: Rule, default: Value) -> Self {
        Self {
            key,
            rule,
            default,
            unit: "",
            always: false,
        }
    }

    /// The option `key`, which has to be given unless `rule` allows `None`.
    pub const fn bare(key: &'static str, rule: Rule) -> Self {
        Self::new(key, rule, Value::None)
    }

    /// The same, counting `unit`.
    pub(super) const fn of(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// The same, drawn even if it is the default.
    pub(super) const fn always(mut self) -> Self {
        self.always = true;
        self
    }
}

/// `given`, checked against `fields`, in their order and with defaults filled in.
///
/// # Errors
/// [`PlanError`] naming the first option that is unknown or has a value its rule does not allow.
pub fn check(fields: &[Field], given: &Options) -> Result<Options, PlanError> {
    for (key, value) in given.iter() {
        if fields.iter().all(|field| field.key != key) {
            let names: Vec<&str> = fields.iter().map(|field| field.key).collect();
            let names = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            return Err(PlanError::unknown(key, value, names));
        }
    }
    fields
        .iter()
        .map(|field| {
            let present = given.iter().find(|&(key, _)| key == field.key);
            let value = present.map_or(&field.default, |(_, value)| value);
            Ok((field.key, field.rule.check(field.key, value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(rule: Rule, value: &Value) -> String {
        rule.check("it", value)
            .map_or_else(|error| error.to_string(), |value| value.to_string())
    }

    #[test]
    fn w8_an_integer_that_is_held_as_a_float_is_told_the_most() {
        for number in [1e40, f64::INFINITY] {
            let told = message(Rule::COUNT, &Value::Float(number));
            assert!(told.contains("an int from 1 to 4294967295, got "), "{told}");
        }
    }

    #[test]
    fn w8_each_rule_says_what_it_allows() {
        use Value::{Bool, Float, Int, None, Seconds};
        const PORT: Rule = Rule::Int {
            min: 0,
            max: 65_535,
        };
        const UNTIL: Rule = Rule::Maybe(&Rule::Either(
            &Rule::Seconds,
            &Rule::Choice(&["disconnected"]),
        ));
        const ENCODING: Rule = Rule::ChoiceOrNone(&["utf-8"]);
        let seconds = "it must be a number of seconds >= 0 (or a timedelta)";
        let table = [
            (Rule::COUNT, Int(1), "1".to_owned()),
            (Rule::COUNT, Int(0), "pipeline: it must be an int >= 1, got 0".to_owned()),
            (Rule::COUNT, Bool(true), "pipeline: it must be an int >= 1, got True".to_owned()),
            (Rule::COUNT, Float(2.0), "pipeline: it must be an int >= 1, got 2".to_owned()),
            (Rule::COUNT, Seconds(2.0), "pipeline: it must be an int >= 1, got 2".to_owned()),
            (Rule::COUNT, None, "pipeline: it must be an int >= 1, got None".to_owned()),
            (
                Rule::COUNT,
                Int(MANY + 1),
                "pipeline: it must be an int from 1 to 4294967295, got 4294967296".to_owned(),
            ),
            (PORT, Int(-1), "pipeline: it must be an int from 0 to 65535, got -1".to_owned()),
            (Rule::Seconds, Int(0), "0".to_owned()),
            (Rule::Seconds, Seconds(1.5), "1.5".to_owned()),
            (Rule::Seconds, Float(-0.1), format!("pipeline: {seconds}, got -0.1")),
            (Rule::Seconds, Float(f64::NAN), format!("pipeline: {seconds}, got NaN")),
            (Rule::Seconds, Bool(true), format!("pipeline: {seconds}, got True")),
            (
                Rule::Seconds,
                Float(f64::INFINITY),
                "pipeline: it must be a number of seconds >= 0 and <= 1000000000 (or a timedelta), \
                 got inf"
                    .to_owned(),
            ),
            (
                Rule::PositiveSeconds,
                Float(0.0),
                "pipeline: it must be a number of seconds > 0 (or a timedelta), got 0".to_owned(),
            ),
            (Rule::Positive, Int(2), "2".to_owned()),
            (
                Rule::Positive,
                Float(0.0),
                "pipeline: it must be a finite number > 0, got 0".to_owned(),
            ),
            (
                Rule::Positive,
                Float(f64::INFINITY),
                "pipeline: it must be a finite number > 0, got inf".to_owned(),
            ),
            (Rule::Cron, "0 2 * * mon-fri".into(), "'0 2 * * mon-fri'".to_owned()),
            (
                Rule::Cron,
                "@daily".into(),
                "pipeline: it must be a cron expression of 5 or 6 fields (this one has 1 fields \
                 instead of 5 or 6), got '@daily'"
                    .to_owned(),
            ),
            (
                Rule::Cron,
                Int(5),
                "pipeline: it must be a cron expression of 5 or 6 fields, got 5".to_owned(),
            ),
            (
                Rule::AtLeast(1.0),
                Seconds(2.0),
                "pipeline: it must be a finite number >= 1, got 2".to_owned(),
            ),
            (
                Rule::AtLeast(1.0),
                Float(f64::INFINITY),
                "pipeline: it must be a finite number >= 1, got inf".to_owned(),
            ),
            (Rule::Flag, Int(1), "pipeline: it must be True or False, got 1".to_owned()),
            (Rule::Text, " ".into(), "pipeline: it must be a non-empty str, got ' '".to_owned()),
            (ENCODING, None, "None".to_owned()),
            (
                ENCODING,
                "latin-1".into(),
                "pipeline: it must be 'utf-8' or None, got 'latin-1'".to_owned(),
            ),
            (
                UNTIL,
                "later".into(),
                format!("pipeline: {seconds} or 'disconnected', got 'later'"),
            ),
            (UNTIL, "disconnected".into(), "'disconnected'".to_owned()),
            (UNTIL, None, "None".to_owned()),
            (
                Rule::Retry,
                Value::Other("int".to_owned()),
                "pipeline: it must be a Retry or None, got <int object>".to_owned(),
            ),
        ];
        for (rule, value, expected) in table {
            assert_eq!(message(rule, &value), expected, "{rule:?}");
        }
    }

    #[test]
    fn checking_fills_in_defaults_in_the_table_s_order() {
        let fields = [
            Field::new("size", Rule::COUNT, Value::Int(7)),
            Field::bare("age", Rule::Maybe(&Rule::Seconds)),
        ];
        let given = Options::from_iter([("age", Value::Int(2))]);
        let checked = check(&fields, &given);
        let expected = [("size", Value::Int(7)), ("age", Value::Float(2.0))];
        assert_eq!(checked, Ok(Options::from_iter(expected)));
    }

    #[test]
    fn an_unknown_option_is_named_with_those_there_are() {
        let fields = [
            Field::bare("size", Rule::COUNT),
            Field::bare("age", Rule::Seconds),
        ];
        let given = Options::from_iter([("sise", Value::Int(2))]);
        let error = check(&fields, &given).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("pipeline: unknown argument 'sise', allowed: size, age".to_owned())
        );
    }
}
