//! What is wrong with a plan: where, which argument, its value, and what is allowed instead.
//!
//! Not responsible for failures of a user's callable: those are data, carried by the report.

use std::fmt;

/// A plan, or one argument of it, that cannot run.
///
/// The text names the place, the argument, the value and what is allowed, for people; the
/// accessors give the same to programs.
///
/// ```
/// use anabranch_core::plan::{Options, Plan, Value};
///
/// let settings = Options::from_iter([("threads", Value::Int(0))]);
/// let error = Plan::new(&Value::from("ingest"), &settings).unwrap_err();
/// assert_eq!(error.to_string(), "pipeline 'ingest': threads must be an int from 1 to 64, got 0");
/// assert_eq!(error.argument(), Some("threads"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    // Boxed: every `Result` of the plan carries it, and almost none of them is an error.
    inner: Box<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    /// What is being configured where there is no pipeline yet: `pipeline`, `retry`, `tcp_lines`.
    subject: &'static str,
    pipeline: Option<String>,
    stage: Option<String>,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    /// The argument is known, its value is not allowed.
    Value {
        argument: String,
        value: String,
        allowed: String,
    },
    /// There is no such argument; `allowed` lists those there are.
    Unknown {
        argument: String,
        value: String,
        allowed: String,
    },
    /// The stage cannot stand where it was put, or one is missing.
    Place(String),
}

impl PlanError {
    fn new(reason: Reason) -> Self {
        Self {
            inner: Box::new(Inner {
                subject: "pipeline",
                pipeline: None,
                stage: None,
                reason,
            }),
        }
    }

    /// `argument` has a `value` that is not among what is `allowed`.
    pub(crate) fn value_of(
        argument: &str,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self::new(Reason::Value {
            argument: argument.to_owned(),
            value: value.to_string(),
            allowed: allowed.into(),
        })
    }

    /// `argument` is none of those `allowed`.
    pub(crate) fn unknown(
        argument: &str,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self::new(Reason::Unknown {
            argument: argument.to_owned(),
            value: value.to_string(),
            allowed: allowed.into(),
        })
    }

    /// A stage stands in the wrong place, or is missing.
    pub(crate) fn place(message: impl Into<String>) -> Self {
        Self::new(Reason::Place(message.into()))
    }

    /// The same, about something configured outside any pipeline.
    pub(crate) fn about(mut self, subject: &'static str) -> Self {
        self.inner.subject = subject;
        self
    }

    /// The same, located in a pipeline and perhaps in one of its stages.
    pub(crate) fn at(mut self, pipeline: &str, stage: Option<&str>) -> Self {
        self.inner.pipeline = Some(pipeline.to_owned());
        self.inner.stage = stage.map(str::to_owned);
        self
    }

    /// The same, where the argument is a part of `outer`: `attempts` becomes `retry.attempts`.
    pub(crate) fn within(mut self, outer: &str) -> Self {
        if let Reason::Value { argument, .. } | Reason::Unknown { argument, .. } =
            &mut self.inner.reason
        {
            *argument = format!("{outer}.{argument}");
        }
        self
    }

    /// The same, with the value written as its own language writes it.
    ///
    /// The border calls this: only it has the object the user passed.
    #[must_use]
    pub fn showing(mut self, shown: String) -> Self {
        if let Reason::Value { value, .. } | Reason::Unknown { value, .. } = &mut self.inner.reason
        {
            *value = shown;
        }
        self
    }

    /// The pipeline's name; `None` where there is no pipeline, or it has no valid name.
    pub fn pipeline(&self) -> Option<&str> {
        self.inner.pipeline.as_deref()
    }

    /// The stage's name; `None` where the error is not about one stage.
    pub fn stage(&self) -> Option<&str> {
        self.inner.stage.as_deref()
    }

    /// The argument's name; dotted for a part of one (`retry.attempts`).
    pub fn argument(&self) -> Option<&str> {
        match &self.inner.reason {
            Reason::Value { argument, .. } | Reason::Unknown { argument, .. } => Some(argument),
            Reason::Place(_) => None,
        }
    }

    /// The argument's value, as text.
    pub fn value(&self) -> Option<&str> {
        match &self.inner.reason {
            Reason::Value { value, .. } | Reason::Unknown { value, .. } => Some(value),
            Reason::Place(_) => None,
        }
    }

    /// What is allowed in the place of [`value`](Self::value), or of the unknown argument.
    pub fn allowed(&self) -> Option<&str> {
        match &self.inner.reason {
            Reason::Value { allowed, .. } | Reason::Unknown { allowed, .. } => Some(allowed),
            Reason::Place(_) => None,
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            subject,
            pipeline,
            stage,
            reason,
        } = &*self.inner;
        match pipeline {
            Some(name) => write!(f, "pipeline {}", quoted(name))?,
            None => f.write_str(subject)?,
        }
        if let Some(stage) = stage {
            write!(f, ", stage {}", quoted(stage))?;
        }
        match reason {
            Reason::Value {
                argument,
                value,
                allowed,
            } => {
                write!(f, ": {argument} must be {allowed}, got {value}")
            }
            Reason::Unknown {
                argument, allowed, ..
            } => {
                write!(
                    f,
                    ": unknown argument {}, allowed: {allowed}",
                    quoted(argument)
                )
            }
            Reason::Place(message) => write!(f, ": {message}"),
        }
    }
}

impl std::error::Error for PlanError {}

/// `text` between single quotes, on one line, unambiguous.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        if c.is_control() || matches!(c, '\'' | '\\') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_place_argument_value_and_what_is_allowed() {
        let bare = PlanError::value_of("max_items", 0, "an int >= 1");
        assert_eq!(
            bare.to_string(),
            "pipeline: max_items must be an int >= 1, got 0"
        );
        let placed = bare.clone().at("ingest", Some("window"));
        assert_eq!(
            placed.to_string(),
            "pipeline 'ingest', stage 'window': max_items must be an int >= 1, got 0"
        );
        assert_eq!(
            bare.about("retry")
                .within("policy")
                .showing("0x0".to_owned())
                .to_string(),
            "retry: policy.max_items must be an int >= 1, got 0x0"
        );
        assert_eq!(
            PlanError::unknown("max_item", 3, "max_items, idle")
                .at("p", Some("w"))
                .to_string(),
            "pipeline 'p', stage 'w': unknown argument 'max_item', allowed: max_items, idle"
        );
        assert_eq!(
            PlanError::place("no sink").at("p", None).to_string(),
            "pipeline 'p': no sink"
        );
    }

    #[test]
    fn accessors_give_the_parts_to_programs() {
        let error = PlanError::value_of("idle", "-1", "seconds").at("p", Some("w"));
        assert_eq!(error.pipeline(), Some("p"));
        assert_eq!(error.stage(), Some("w"));
        assert_eq!(error.argument(), Some("idle"));
        assert_eq!(error.value(), Some("-1"));
        assert_eq!(error.allowed(), Some("seconds"));
        let place = PlanError::place("no sink");
        assert_eq!(
            (place.pipeline(), place.stage(), place.argument()),
            (None, None, None)
        );
        assert_eq!((place.value(), place.allowed()), (None, None));
    }

    #[test]
    fn quoting_keeps_a_name_on_one_line() {
        assert_eq!(quoted("it's\n\\ é"), r"'it\'s\n\\ é'");
    }
}
