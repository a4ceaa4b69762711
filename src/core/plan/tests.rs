//! Building plans: places, names, options.

use super::*;

pub(super) fn given(pairs: &[(&'static str, Value)]) -> Options {
    pairs.iter().cloned().collect()
}

/// What a refusal says; `None`: nothing was refused.
pub(super) fn refusal<T>(result: Result<T, PlanError>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

pub(super) fn add(
    plan: Plan,
    kind: Kind,
    label: &'static str,
    options: &[(&'static str, Value)],
) -> Result<Plan, PlanError> {
    plan.with(kind, &label.into(), &given(options))
}

/// A plan with a source.
pub(super) fn begun() -> Result<Plan, PlanError> {
    let plan = Plan::new(&"ingest".into(), &Options::default())?;
    add(
        plan,
        Kind::Source,
        "lines",
        &[("how", "iterable".into()), ("label", "lines".into())],
    )
}

/// A plan with most of what there is.
pub(super) fn full() -> Result<Plan, PlanError> {
    let exponential = Value::Options(given(&[("kind", "exponential".into())]));
    let fixed = Value::Options(given(&[
        ("kind", "fixed".into()),
        ("attempts", Value::Int(3)),
        ("delay", Value::Int(0)),
    ]));
    let fetch = [
        ("concurrency", Value::Int(4)),
        ("ordered", Value::Bool(false)),
        ("retry", exponential),
        ("is_async", Value::Bool(true)),
    ];
    let plan = add(begun()?, Kind::Map, "parse", &[])?;
    let plan = add(plan, Kind::Map, "fetch", &fetch)?;
    let plan = add(plan, Kind::FanOut, "tenant", &[("by", "tenant".into())])?;
    let limits = given(&[
        ("max_items", Value::Int(500)),
        ("max_age", Value::Seconds(1.0)),
    ]);
    let plan = plan.with(Kind::Window, &Value::None, &limits)?;
    add(
        plan,
        Kind::ForEach,
        "store",
        &[("inline", Value::Bool(true)), ("retry", fixed)],
    )
}

fn said<T>(result: Result<T, PlanError>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

#[test]
fn a_plan_keeps_settings_and_options_filled_in() -> Result<(), PlanError> {
    let plan = full()?;
    plan.validate()?;
    assert_eq!(plan.name(), "ingest");
    let settings = [
        ("max_in_flight", Value::Int(256)),
        ("threads", Value::Int(8)),
        ("on_error", "continue".into()),
        ("dead_letter", Value::None),
        ("grace", Value::Float(30.0)),
        ("commit", "unit".into()),
        ("rollback", "sequential".into()),
        ("rollback_deadline", Value::Float(30.0)),
        ("seed", Value::None),
    ];
    assert_eq!(*plan.settings(), given(&settings));
    let window = [
        ("max_items", Value::Int(500)),
        ("max_age", Value::Float(1.0)),
        ("idle", Value::None),
        ("max_bytes", Value::None),
        ("on_cancel", Value::None),
    ];
    assert_eq!(*plan.stages()[4].options(), given(&window));
    assert_eq!(
        plan.stages()[5].retry().map(|retry| retry.attempts),
        Some(3)
    );
    assert_eq!(plan.stages()[4].retry(), None);
    Ok(())
}

#[test]
fn names_are_unique_in_a_plan() -> Result<(), PlanError> {
    let mut plan = begun()?;
    for label in ["parse", "parse_2", "parse", "parse"] {
        plan = add(plan, Kind::Map, label, &[])?;
    }
    let plan = plan.with(Kind::Map, &Value::None, &Options::default())?;
    let names: Vec<&str> = plan.stages().iter().map(Stage::name).collect();
    assert_eq!(
        names,
        ["lines", "parse", "parse_2", "parse_3", "parse_4", "map"]
    );
    Ok(())
}

#[test]
fn names_are_texts_with_something_in_them() -> Result<(), PlanError> {
    for (name, shown) in [
        (Value::None, "None"),
        ("".into(), "''"),
        (Value::Int(3), "3"),
    ] {
        let error = said(Plan::new(&name, &Options::default()));
        assert_eq!(
            error,
            format!("pipeline: name must be a non-empty str, got {shown}")
        );
    }
    let error = said(add(begun()?, Kind::Map, " ", &[]));
    let expected = "pipeline 'ingest', stage 'map': name must be a non-empty str, got ' '";
    assert_eq!(error, expected);
    Ok(())
}

#[test]
fn settings_out_of_range_are_refused() {
    let seconds = "a number of seconds >= 0 (or a timedelta)";
    let table = [
        (
            "max_in_flight",
            Value::Int(0),
            "max_in_flight must be an int >= 1, got 0".to_owned(),
        ),
        (
            "threads",
            Value::Int(0),
            "threads must be an int from 1 to 64, got 0".to_owned(),
        ),
        (
            "threads",
            Value::Int(65),
            "threads must be an int from 1 to 64, got 65".to_owned(),
        ),
        (
            "on_error",
            "skip".into(),
            "on_error must be 'continue', 'stop' or 'dead_letter', got 'skip'".to_owned(),
        ),
        (
            "grace",
            Value::Int(-1),
            format!("grace must be {seconds}, got -1"),
        ),
        (
            "seed",
            Value::Float(0.5),
            "seed must be an int >= 0, got 0.5".to_owned(),
        ),
        (
            "grase",
            Value::Int(1),
            "unknown argument 'grase', allowed: max_in_flight, threads, on_error, dead_letter, grace, commit, \
             rollback, rollback_deadline, seed"
                .to_owned(),
        ),
    ];
    for (key, value, expected) in table {
        let error = said(Plan::new(&"ingest".into(), &given(&[(key, value)])));
        assert_eq!(error, format!("pipeline 'ingest': {expected}"));
    }
}

#[test]
fn w8_a_window_s_bad_arguments_are_named_with_their_values() -> Result<(), PlanError> {
    let seconds = "a number of seconds >= 0 (or a timedelta)";
    let table = [
        (
            "max_items",
            Value::Int(0),
            "max_items must be an int >= 1, got 0".to_owned(),
        ),
        (
            "max_bytes",
            Value::Int(-5),
            "max_bytes must be an int >= 1, got -5".to_owned(),
        ),
        (
            "max_age",
            Value::Float(-1.0),
            format!("max_age must be {seconds}, got -1"),
        ),
        (
            "max_age",
            Value::Float(f64::NAN),
            format!("max_age must be {seconds}, got NaN"),
        ),
        (
            "idle",
            Value::Float(-0.5),
            format!("idle must be {seconds}, got -0.5"),
        ),
        (
            "on_cancel",
            "keep".into(),
            "on_cancel must be 'flush', 'drop' or None, got 'keep'".into(),
        ),
        (
            "on_cancel",
            "drop".into(),
            "max_items must be an int >= 1 where none of max_age, idle and max_bytes is given, \
             got None"
                .to_owned(),
        ),
    ];
    for (key, value, expected) in table {
        let error = said(add(begun()?, Kind::Window, "window", &[(key, value)]));
        assert_eq!(
            error,
            format!("pipeline 'ingest', stage 'window': {expected}")
        );
    }
    Ok(())
}

#[test]
fn w9_a_window_may_have_no_age_at_all() -> Result<(), PlanError> {
    let plan = add(
        begun()?,
        Kind::Window,
        "window",
        &[("max_age", Value::Int(0))],
    )?;
    assert_eq!(
        *plan.stages()[1].options().get("max_age"),
        Value::Float(0.0)
    );
    Ok(())
}

#[test]
fn b5_b10_what_a_fan_out_is_given_is_checked() -> Result<(), PlanError> {
    let table = [
        (
            "capacity",
            Value::Int(0),
            "capacity must be an int >= 1 or a def that takes the tenant, got 0",
        ),
        (
            "on_full",
            Value::Int(1),
            "on_full must be 'wait', 'drop_newest', 'drop_oldest', 'fail' or 'dead_letter' or a def \
             that takes the tenant, got 1",
        ),
        (
            "isolate",
            Value::None,
            "isolate must be True or False, got None",
        ),
        (
            "weight",
            Value::Int(1001),
            "weight must be an int from 1 to 1000 or a def that takes the tenant, got 1001",
        ),
        ("by", Value::None, "by must be a non-empty str, got None"),
    ];
    for (key, value, expected) in table {
        let mut options = vec![("by", "tenant".into())];
        options.retain(|&(name, _)| name != key);
        options.push((key, value));
        let error = said(add(begun()?, Kind::FanOut, "fan", &options));
        assert_eq!(error, format!("pipeline 'ingest', stage 'fan': {expected}"));
    }
    Ok(())
}

#[test]
fn callables_take_only_what_their_kind_takes() -> Result<(), PlanError> {
    let policy = Value::Options(given(&[
        ("kind", "fixed".into()),
        ("attempts", Value::Int(0)),
    ]));
    let table = [
        (
            Kind::Map,
            "concurrency",
            Value::Int(0),
            "concurrency must be an int >= 1, got 0",
        ),
        (
            Kind::Map,
            "retry",
            Value::Int(3),
            "retry must be a Retry or None, got 3",
        ),
        (
            Kind::Tap,
            "retry",
            policy,
            "retry.attempts must be an int >= 1, got 0",
        ),
        (
            Kind::Filter,
            "inline",
            Value::Bool(true),
            "unknown argument 'inline', allowed: concurrency, ordered, retry, timeout, on_error, is_async",
        ),
        (
            Kind::Map,
            "timeout",
            Value::Int(5),
            "timeout must be None for a def that runs inline, where nothing can interrupt it \
             (an async def, or a def sink on the pool, can be timed out), got 5",
        ),
        (
            Kind::ForEach,
            "timeout",
            Value::Int(0),
            "timeout must be a number of seconds > 0 (or a timedelta), got 0",
        ),
        (
            Kind::Collect,
            "limit",
            Value::Int(1),
            "unknown argument 'limit', allowed: none",
        ),
    ];
    for (kind, key, value, expected) in table {
        let error = said(add(begun()?, kind, "it", &[(key, value)]));
        assert_eq!(error, format!("pipeline 'ingest', stage 'it': {expected}"));
    }
    Ok(())
}

#[test]
fn a_stage_stands_only_where_it_can() -> Result<(), PlanError> {
    let empty = Plan::new(&"ingest".into(), &Options::default())?;
    let source = [("how", "native".into()), ("label", "tcp".into())];
    let by = [("by", "tenant".into())];
    let table = [
        (
            said(add(empty, Kind::Map, "parse", &[])),
            "'parse': source(...) must come first, before map(...)",
        ),
        (
            said(add(begun()?, Kind::Source, "tcp", &source)),
            "'tcp': a pipeline has one source, and this one has 'lines'",
        ),
        (
            said(add(full()?, Kind::Collect, "all", &[])),
            "'all': nothing can follow the sink 'store' but what takes failures",
        ),
        (
            said(
                add(begun()?, Kind::FanOut, "by", &by)
                    .and_then(|plan| add(plan, Kind::FanOut, "by", &by)),
            ),
            "'by_2': a pipeline fans out once, and this one does so at 'by'",
        ),
    ];
    for (error, expected) in table {
        assert_eq!(error, format!("pipeline 'ingest', stage {expected}"));
    }
    Ok(())
}

#[test]
fn windows_and_sinks_do_not_need_a_fan_out() -> Result<(), PlanError> {
    for sink in [Kind::ForEach, Kind::Collect] {
        add(begun()?, sink, "sink", &[])?.validate()?;
        let plan = add(begun()?, Kind::Window, "window", &[("idle", Value::Int(1))])?;
        add(plan, sink, "sink", &[])?.validate()?;
    }
    Ok(())
}

#[test]
fn a_complete_plan_has_a_source_and_a_sink() -> Result<(), PlanError> {
    let empty = Plan::new(&"ingest".into(), &Options::default())?;
    let expected = "pipeline 'ingest': no source; begin with source(...)";
    assert_eq!(said(empty.validate()), expected);
    let expected =
        "pipeline 'ingest': no sink; end with for_each(...), collect() or to_channel(...)";
    assert_eq!(said(begun()?.validate()), expected);
    Ok(())
}

#[test]
fn every_kind_is_found_by_its_name() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_name(kind.name()), Some(kind));
    }
    assert_eq!(Kind::from_name("sink"), None);
}

#[test]
fn r8_a_timeout_is_for_what_can_be_interrupted() -> Result<(), PlanError> {
    let table = [
        (Kind::Map, false, false, false),
        (Kind::Map, true, false, true),
        (Kind::ForEach, false, false, true),
        (Kind::ForEach, false, true, false),
        (Kind::ForEach, true, true, true),
    ];
    for (kind, is_async, inline, allowed) in table {
        let mut given = vec![
            ("timeout", Value::Int(5)),
            ("is_async", Value::Bool(is_async)),
        ];
        if inline {
            given.push(("inline", Value::Bool(true)));
        }
        let plan = add(begun()?, kind, "it", &given);
        assert_eq!(plan.is_ok(), allowed, "{kind:?} {is_async} {inline}");
    }
    Ok(())
}

#[test]
fn t7_a_course_of_copies_ends_in_a_sink_and_the_items_go_on_behind_it() -> Result<(), PlanError> {
    let teed = add(begun()?, Kind::Tee, "audit", &[])?;
    assert!(said(teed.clone().leave()).contains("stage 'audit': a course of copies has no sink"));
    let by = [("by", "tenant".into())];
    let fanned = add(teed.clone(), Kind::FanOut, "by", &by);
    assert!(said(fanned).contains("the items of 'audit' are copies"));
    let ended = add(teed, Kind::Collect, "all", &[])?;
    let more = add(ended.clone(), Kind::Map, "more", &[]);
    assert!(said(more).contains("nothing can follow the sink 'all'"));
    assert!(said(ended.validate()).contains("no pipeline by itself"));
    let left = ended.leave()?;
    assert!(said(left.validate()).contains("no sink"));
    let again = add(left.clone(), Kind::Collect, "again", &[]);
    assert!(said(again).contains("a report has one list of items, which 'all' fills"));
    let plan = add(left, Kind::FanOut, "by", &by)?;
    let plan = add(plan, Kind::ForEach, "store", &[])?;
    plan.validate()?;
    let courses: Vec<_> = plan.stages().iter().map(Stage::course).collect();
    assert_eq!(courses, [0, 0, 1, 0, 0]);
    assert!(said(plan.leave()).contains("no course of copies"));
    Ok(())
}
