//! The builder's plan: settings and stages, checked as they are added, named and drawn.
//!
//! Guarantees: a plan that could be built and [`Plan::validate`]s is complete: its options are
//! allowed and filled in, its names are unique, and every stage stands where it can. Not
//! responsible for callables and other live objects: their owner keeps them, by stage index.

mod draw;
mod field;
mod native;
mod place;
mod retrying;
mod rule;
mod value;

use crate::error::PlanError;
use crate::retry::Retry;

pub use field::window;
pub use native::{channel, tail, tcp_client, tcp_lines};
pub use retrying::{budget, policy, retry};
pub use rule::{Field, MANY, Rule, check};
pub use value::{Options, Value};

/// What a pipeline is going to do.
///
/// ```
/// use anabranch_core::plan::{Kind, Options, Plan, Value};
///
/// # fn main() -> Result<(), anabranch_core::error::PlanError> {
/// let lines = Options::from_iter([("how", "iterable".into()), ("label", "lines".into())]);
/// let plan = Plan::new(&"ingest".into(), &Options::default())?
///     .with(Kind::Source, &Value::None, &lines)?
///     .with(Kind::Map, &"parse".into(), &Options::default())?
///     .with(Kind::Collect, &Value::None, &Options::default())?;
/// plan.validate()?;
/// assert_eq!(plan.stages()[1].name(), "parse");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    name: String,
    settings: Options,
    stages: Vec<Stage>,
    /// The courses of copies that are being described, the innermost last.
    open: Vec<usize>,
    /// How many there are in all.
    courses: usize,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    name: String,
    kind: Kind,
    options: Options,
    course: usize,
    /// How many courses of copies it stands in, one in the other.
    depth: usize,
}

/// What a stage does with what reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Gives the items.
    Source,
    /// Replaces each by the result of a call.
    Map,
    /// Keeps those a call says yes to.
    Filter,
    /// Replaces each by any number of others.
    FlatMap,
    /// Looks, and passes on.
    Tap,
    /// Begins a course of copies.
    Tee,
    /// Makes a failure of those a call says no to.
    Ensure,
    /// Looks at failures, and passes them on.
    TapError,
    /// Makes items of failures.
    Recover,
    /// Makes other failures of failures.
    MapError,
    /// Counts failures, and passes them on.
    CollectErrors,
    /// Ends the course of failures.
    DeadLetter,
    /// Sends each to its tenant's branch.
    FanOut,
    /// Lets so many per second go on, and delays the others.
    Throttle,
    /// Adds an item where nothing has come for a while.
    Heartbeat,
    /// Gathers several into one unit.
    Window,
    /// Ends the course in a call.
    ForEach,
    /// Ends the course in the report.
    Collect,
    /// Ends the course in a channel.
    ToChannel,
}

impl Kind {
    /// Every kind, in the order of the builder's documentation.
    pub const ALL: [Self; 19] = [
        Self::Source,
        Self::Map,
        Self::Filter,
        Self::FlatMap,
        Self::Tap,
        Self::Tee,
        Self::Ensure,
        Self::TapError,
        Self::Recover,
        Self::MapError,
        Self::CollectErrors,
        Self::DeadLetter,
        Self::FanOut,
        Self::Throttle,
        Self::Heartbeat,
        Self::Window,
        Self::ForEach,
        Self::Collect,
        Self::ToChannel,
    ];

    /// The builder method that adds such a stage.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Map => "map",
            Self::Filter => "filter",
            Self::FlatMap => "flat_map",
            Self::Tap => "tap",
            Self::Tee => "tee",
            Self::Ensure => "ensure",
            Self::TapError => "tap_error",
            Self::Recover => "recover",
            Self::MapError => "map_error",
            Self::CollectErrors => "collect_errors",
            Self::DeadLetter => "dead_letter",
            Self::FanOut => "fan_out",
            Self::Throttle => "throttle",
            Self::Heartbeat => "heartbeat",
            Self::Window => "window",
            Self::ForEach => "for_each",
            Self::Collect => "collect",
            Self::ToChannel => "to_channel",
        }
    }

    /// The kind called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether no item gets further; failures do.
    pub const fn is_sink(self) -> bool {
        matches!(self, Self::ForEach | Self::Collect | Self::ToChannel)
    }

    /// Whether it takes failures, and lets items pass.
    pub const fn is_operator(self) -> bool {
        matches!(
            self,
            Self::TapError
                | Self::Recover
                | Self::MapError
                | Self::CollectErrors
                | Self::DeadLetter
        )
    }
}

impl Stage {
    /// The name, unique within the plan.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the stage does.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The course it belongs to: 0 for the items themselves, otherwise that of the copies which a tee
    /// makes, numbered in the order of their tees.
    pub const fn course(&self) -> usize {
        self.course
    }

    /// The options: all that the kind has, checked, durations in seconds.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The retry policy, if the stage has one.
    pub fn retry(&self) -> Option<Retry> {
        match self.options.get("retry") {
            Value::Options(options) => policy(options),
            _ => None,
        }
    }
}

impl Plan {
    /// A plan without stages.
    ///
    /// `settings` may hold `max_in_flight` (units), `threads`, `on_error`, `dead_letter` (what the
    /// target of failures is called), `grace` (seconds), `commit`, `rollback`, `rollback_deadline` (seconds) and `seed`; what is not there gets its
    /// default.
    ///
    /// # Errors
    /// [`PlanError`] if the name is not a text with something in it, or a setting is not allowed.
    pub fn new(name: &Value, settings: &Options) -> Result<Self, PlanError> {
        let name = named(name)?;
        let settings = check(field::SETTINGS, settings)
            .and_then(|settings| {
                addressed(&settings, settings.get("dead_letter"))?;
                Ok(settings)
            })
            .map_err(|error| error.at(&name, None))?;
        Ok(Self {
            name,
            settings,
            stages: Vec::new(),
            open: Vec::new(),
            courses: 0,
        })
    }

    /// The plan with one more stage at its end.
    ///
    /// `label` is what the stage would like to be called; [`Value::None`] leaves it at its kind's
    /// name. Where the name is taken already, it gets a number: "parse", `parse_2`.
    ///
    /// What follows a tee belongs to the course of its copies, until [`Plan::leave`].
    ///
    /// # Errors
    /// [`PlanError`] if the stage cannot stand there, or an option is not allowed.
    pub fn with(mut self, kind: Kind, label: &Value, options: &Options) -> Result<Self, PlanError> {
        let label = match label {
            Value::None => kind.name().to_owned(),
            _ => named(label).map_err(|error| error.at(&self.name, Some(kind.name())))?,
        };
        let name = self.unique(label);
        let options = self
            .place(kind)
            .and_then(|()| check(kind.fields(), options))
            .and_then(|options| triggered(kind, options))
            .and_then(|options| interruptible(kind, options))
            .and_then(|options| self.addressed(options))
            .map_err(|error| error.at(&self.name, Some(&name)))?;
        self.stages.push(Stage {
            name,
            kind,
            options,
            course: self.course(),
            depth: self.open.len(),
        });
        if kind == Kind::Tee {
            self.courses += 1;
            self.open.push(self.courses);
        }
        Ok(self)
    }

    /// Whether the plan is complete: from a source to a sink.
    ///
    /// # Errors
    /// [`PlanError`] saying which of the two is missing.
    pub fn validate(&self) -> Result<(), PlanError> {
        let missing = match self.stages.first() {
            None => "no source; begin with source(...)",
            Some(_) if !self.open.is_empty() => {
                "a course of copies is no pipeline by itself: return it to the one that copies"
            }
            Some(_) if self.find(Kind::is_sink).is_none() => {
                "no sink; end with for_each(...), collect() or to_channel(...)"
            }
            Some(_) => return Ok(()),
        };
        Err(PlanError::place(missing).at(&self.name, None))
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pipeline's settings but its name: all there are, checked, durations in seconds.
    pub const fn settings(&self) -> &Options {
        &self.settings
    }

    /// The stages, the source first.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Refuses to have failures dead-lettered where there is no target for them.
    fn addressed(&self, options: Options) -> Result<Options, PlanError> {
        addressed(&options, self.settings.get("dead_letter"))?;
        Ok(options)
    }

    /// `label`, or the first of `label_2`, `label_3`, … that no stage has yet.
    fn unique(&self, label: String) -> String {
        let taken = |name: &str| self.stages.iter().any(|stage| stage.name == name);
        if !taken(&label) {
            return label;
        }
        let numbered = |number: usize| format!("{label}_{number}");
        // One number more than there are stages cannot all be taken.
        let last = self.stages.len() + 2;
        (2..last)
            .map(numbered)
            .find(|name| !taken(name))
            .unwrap_or_else(|| numbered(last))
    }
}

impl Stage {
    fn quoted(&self) -> String {
        crate::error::quoted(&self.name)
    }
}

fn named(name: &Value) -> Result<String, PlanError> {
    match name {
        Value::Text(text) if !text.trim().is_empty() => Ok(text.clone().into_owned()),
        _ => Err(PlanError::value_of("name", name, Rule::Text.allowed(name))),
    }
}

/// Refuses a window that nothing would ever cut.
fn triggered(kind: Kind, options: Options) -> Result<Options, PlanError> {
    let triggers = ["max_items", "max_age", "idle", "max_bytes"];
    if kind == Kind::Window && triggers.iter().all(|key| *options.get(key) == Value::None) {
        let allowed = "an int >= 1 where none of max_age, idle and max_bytes is given";
        return Err(PlanError::value_of("max_items", Value::None, allowed));
    }
    Ok(options)
}

fn addressed(options: &Options, target: &Value) -> Result<(), PlanError> {
    let others = [
        ("on_error", "'continue' or 'stop'"),
        ("on_full", "'wait', 'drop_newest', 'drop_oldest' or 'fail'"),
    ];
    for (argument, others) in others {
        let given = options.get(argument);
        if *target == Value::None && *given == Value::from("dead_letter") {
            let allowed = format!("{others} where the pipeline has no dead_letter=target");
            return Err(PlanError::value_of(argument, given, allowed));
        }
    }
    Ok(())
}

/// Refuses a timeout for a callable that nothing can take the thread from.
fn interruptible(kind: Kind, options: Options) -> Result<Options, PlanError> {
    let timeout = options.get("timeout");
    let pooled = matches!(kind, Kind::ForEach | Kind::DeadLetter) && !options.flag("inline");
    if *timeout != Value::None && !options.flag("is_async") && !pooled {
        let allowed = "None for a def that runs inline, where nothing can interrupt it \
                       (an async def, or a def sink on the pool, can be timed out)";
        return Err(PlanError::value_of("timeout", timeout, allowed));
    }
    Ok(options)
}

#[cfg(test)]
mod tests;
