//! A plan for people: a listing, and a Mermaid flowchart.

use std::fmt::Write as _;

use super::{Field, Kind, Options, Plan, Stage, Value, field, retrying};
use crate::error::quoted;

impl Plan {
    /// The plan as text: a line for the settings, then one per stage.
    ///
    /// Options at an unremarkable default are left out; numbers carry their unit. A course of copies is
    /// indented.
    ///
    /// ```text
    /// pipeline 'ingest': max_in_flight=256 units, threads=8, on_error=continue, grace=30 s
    ///   1  source    lines   how=iterable, label=lines
    ///   2  map       parse
    ///   3  window    window  max_items=500 items, max_age=1 s
    /// ```
    pub fn describe(&self) -> String {
        let mut out = format!("pipeline {}", quoted(self.name()));
        let settings = options(field::SETTINGS, self.settings());
        if !settings.is_empty() {
            out.push_str(": ");
            out.push_str(&settings);
        }
        let names: Vec<String> = self
            .stages()
            .iter()
            .map(|stage| on_one_line(&stage.name))
            .collect();
        let width = names
            .iter()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or_default();
        let kinds = self
            .stages()
            .iter()
            .map(|stage| 2 * stage.depth + stage.kind.name().len());
        let kinds = kinds.max().unwrap_or_default().max(8);
        for (index, (stage, name)) in self.stages().iter().zip(&names).enumerate() {
            let kind = format!(
                "{:indent$}{}",
                "",
                stage.kind.name(),
                indent = 2 * stage.depth
            );
            let line = format!(
                "{:>3}  {kind:<kinds$}  {name:<width$}  {}",
                index + 1,
                stage.drawn()
            );
            out.push('\n');
            out.push_str(line.trim_end());
        }
        out
    }

    /// The plan as a Mermaid flowchart, from left to right.
    ///
    /// What runs once per tenant stands in a box of its own.
    pub fn mermaid(&self) -> String {
        let mut out = "flowchart LR".to_owned();
        let fan_out = self
            .stages()
            .iter()
            .position(|stage| stage.kind == Kind::FanOut);
        let first_of_branch = fan_out.map_or(usize::MAX, |index| index + 1);
        let mut indent = "  ";
        for (index, stage) in self.stages().iter().enumerate() {
            if index == first_of_branch {
                out.push_str("\n  subgraph branch [\"one branch per tenant\"]");
                indent = "    ";
            }
            let (open, close) = stage.kind.shape();
            let mut label = escaped(&stage.title());
            let options = stage.drawn();
            if !options.is_empty() {
                let _ = write!(label, "<br/>{}", escaped(&options));
            }
            let _ = write!(out, "\n{indent}s{}{open}\"{label}\"{close}", index + 1);
        }
        if first_of_branch < self.stages().len() {
            out.push_str("\n  end");
        }
        for index in 1..self.stages().len() {
            if let Some(before) = self.before(index) {
                let _ = write!(out, "\n  s{} --> s{}", before + 1, index + 1);
            }
        }
        out
    }

    /// The stage that leads to the one at `index`: that before it in its course, or its tee.
    fn before(&self, index: usize) -> Option<usize> {
        let course = self.stages()[index].course;
        let same = (0..index).rfind(|before| self.stages()[*before].course == course);
        same.or_else(|| index.checked_sub(1))
    }
}

impl Stage {
    /// The kind, and the name if it says more than the kind.
    fn title(&self) -> String {
        let kind = self.kind.name();
        if self.name == kind {
            kind.to_owned()
        } else {
            format!("{kind}: {}", self.name)
        }
    }

    fn drawn(&self) -> String {
        options(self.kind.fields(), &self.options)
    }
}

impl Kind {
    /// The brackets of the node: round where items come in, flat where they leave.
    const fn shape(self) -> (&'static str, &'static str) {
        match self {
            Self::Source => ("([", "])"),
            Self::FanOut => ("{{", "}}"),
            Self::Tee => ("[\\", "/]"),
            Self::Window => ("[[", "]]"),
            Self::ForEach | Self::Collect | Self::ToChannel | Self::DeadLetter => ("[/", "\\]"),
            Self::Map
            | Self::Filter
            | Self::FlatMap
            | Self::Tap
            | Self::Ensure
            | Self::Throttle
            | Self::Heartbeat => ("[", "]"),
            // Failures pass here, and items pass by.
            Self::TapError | Self::Recover | Self::MapError | Self::CollectErrors => ("(", ")"),
        }
    }
}

/// The options worth showing, as `key=value unit, ...`.
fn options(fields: &[Field], options: &Options) -> String {
    let shown = fields.iter().filter_map(|field| {
        let value = options.get(field.key);
        let dull = *value == Value::None || (!field.always && *value == field.default);
        (!dull).then(|| option(field, value))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn option(field: &Field, value: &Value) -> String {
    let Field { key, unit, .. } = *field;
    let value = match value {
        // Not an argument, but what the callable was found to be.
        Value::Bool(true) if key == "is_async" => return "async".to_owned(),
        Value::Text(text) => on_one_line(text),
        Value::Options(policy) => {
            let kind = policy.text("kind").unwrap_or_default();
            let rest = policy.iter().filter(|&(key, _)| key != "kind");
            let rest = rest
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect();
            format!("{kind}({})", options(retrying::retry_fields(policy), &rest))
        }
        _ => value.to_string(),
    };
    match unit {
        _ if field.rule.is_seconds() => format!("{key}={value} s"),
        "" => format!("{key}={value}"),
        _ => format!("{key}={value} {unit}"),
    }
}

/// `text` as it is, unless that would break the line.
fn on_one_line(text: &str) -> String {
    if text.chars().any(char::is_control) {
        quoted(text)
    } else {
        text.to_owned()
    }
}

/// `text` as it may stand in a quoted Mermaid label.
///
/// Letters, digits and harmless punctuation stay; all else becomes a character code, because the
/// parser looks for comments, directives, Markdown and HTML inside quotes, too.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || " _-.,:=/'()".contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::{add, begun, full};
    use super::*;
    use crate::error::PlanError;
    use proptest::prelude::*;

    #[test]
    fn v2_describe_lists_every_stage_with_units() -> Result<(), PlanError> {
        let expected = "\
pipeline 'ingest': max_in_flight=256 units, threads=8, on_error=continue, grace=30 s
  1  source    lines   how=iterable, label=lines
  2  map       parse
  3  map       fetch   concurrency=4, ordered=False, \
retry=exponential(attempts=5, base=0.2 s, factor=2, cap=30 s, jitter=full), async
  4  fan_out   tenant  by=tenant, capacity=1000 items, on_full=wait, isolate=True
  5  window    window  max_items=500 items, max_age=1 s
  6  for_each  store   inline=True, retry=fixed(attempts=3, delay=0 s)";
        assert_eq!(full()?.describe(), expected);
        Ok(())
    }

    #[test]
    fn v2_mermaid_boxes_what_runs_per_tenant() -> Result<(), PlanError> {
        let expected = "\
flowchart LR
  s1([\"source: lines<br/>how=iterable, label=lines\"])
  s2[\"map: parse\"]
  s3[\"map: fetch<br/>concurrency=4, ordered=False, \
retry=exponential(attempts=5, base=0.2 s, factor=2, cap=30 s, jitter=full), async\"]
  s4{{\"fan_out: tenant<br/>by=tenant, capacity=1000 items, on_full=wait, isolate=True\"}}
  subgraph branch [\"one branch per tenant\"]
    s5[[\"window<br/>max_items=500 items, max_age=1 s\"]]
    s6[/\"for_each: store<br/>inline=True, retry=fixed(attempts=3, delay=0 s)\"\\]
  end
  s1 --> s2
  s2 --> s3
  s3 --> s4
  s4 --> s5
  s5 --> s6";
        assert_eq!(full()?.mermaid(), expected);
        Ok(())
    }

    #[test]
    fn v2_an_unfinished_plan_is_drawn_as_far_as_it_goes() -> Result<(), PlanError> {
        let plan = begun()?;
        assert_eq!(plan.describe().lines().count(), 2);
        let fanned = add(plan, Kind::FanOut, "by", &[("by", "tenant".into())])?;
        assert!(!fanned.mermaid().contains("subgraph"));
        Ok(())
    }

    #[test]
    fn v2_a_course_of_copies_is_indented_and_leads_away_from_its_tee() -> Result<(), PlanError> {
        let plan = add(begun()?, Kind::Tee, "audit", &[])?;
        let plan = add(plan, Kind::Map, "text", &[])?;
        let plan = add(plan, Kind::ForEach, "log", &[])?.leave()?;
        let plan = add(plan, Kind::ForEach, "store", &[])?;
        plan.validate()?;
        let listed = plan.describe();
        let listed: Vec<_> = listed.lines().skip(2).collect();
        assert_eq!(
            listed,
            [
                "  2  tee         audit",
                "  3    map       text",
                "  4    for_each  log",
                "  5  for_each    store",
            ]
        );
        let drawn = plan.mermaid();
        let arrows: Vec<_> = drawn.lines().filter(|line| line.contains("-->")).collect();
        assert_eq!(
            arrows,
            ["  s1 --> s2", "  s2 --> s3", "  s3 --> s4", "  s2 --> s5"]
        );
        Ok(())
    }

    #[test]
    fn v2_names_are_escaped() -> Result<(), PlanError> {
        let plan = add(begun()?, Kind::Map, "<lambda> \"a\"\n`b` %%{c}#;", &[])?;
        let label = "map: #60;lambda#62; #34;a#34;#10;#96;b#96; #37;#37;#123;c#125;#35;#59;";
        assert!(
            plan.mermaid().contains(&format!("s2[\"{label}\"]")),
            "{}",
            plan.mermaid()
        );
        assert!(
            plan.describe().contains(r#"'<lambda> "a"\n`b` %%{c}#;'"#),
            "{}",
            plan.describe()
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn v2_no_name_breaks_out_of_its_line(name in "\\PC*\\s*[\"#\n]?.*") {
            prop_assume!(!name.trim().is_empty());
            let plan = begun().and_then(|plan| {
                plan.with(Kind::Map, &Value::Text(name.into()), &Options::default())
            });
            let plan = plan.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(plan.describe().lines().count(), 3);
            let drawn = plan.mermaid();
            prop_assert_eq!(drawn.lines().count(), 4);
            prop_assert_eq!(drawn.matches('"').count(), 4);
        }
    }
}
