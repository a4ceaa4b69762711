//! What a command is about: found by what it names.

use std::sync::Arc;

use anabranch_protocol::Text;
use anabranch_protocol::message::{Cmd, Code, Op};
use anabranch_protocol::text::sanitize;

use super::super::pipeline::Pipeline;

/// Dead letters that one command names, at most.
const LETTERS: usize = 1024;

/// The store a command names, of these; where it names none, the only one there is.
pub(super) fn find_store(cmd: &Cmd, names: &[String]) -> Result<String, (Code, String)> {
    match (&cmd.on.store, names) {
        (_, []) => {
            let what = format!(
                "{} is not offered by this process: it has no outbox",
                cmd.op
            );
            Err((Code::Unsupported, what))
        }
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err((Code::Ambiguous, "name the outbox".to_owned())),
        (Some(name), _) if names.contains(name) => Ok(name.clone()),
        (Some(name), _) => {
            let what = format!(
                "there is no outbox '{}': there are {}",
                sanitize(name),
                names.join(", ")
            );
            Err((Code::NotFound, what))
        }
    }
}

pub(super) fn letter_ids(cmd: &Cmd) -> Result<Vec<i64>, (Code, String)> {
    let ids = &cmd.on.ids;
    if ids.len() > LETTERS {
        let what = format!("{} messages are named; {LETTERS} may be", ids.len());
        return Err((Code::Invalid, what));
    }
    if cmd.op == Op::DeadPeek && ids.len() != 1 {
        return Err((Code::Invalid, "name one message, by its id".to_owned()));
    }
    let read = |id: &String| {
        id.parse().map_err(|_error| {
            let what = format!("a message's id is a number, got '{}'", sanitize(id));
            (Code::Invalid, what)
        })
    };
    ids.iter().map(read).collect()
}

pub(super) fn find_pipeline<'a>(
    cmd: &Cmd,
    pipelines: &'a [Arc<Pipeline>],
) -> Result<&'a Arc<Pipeline>, (Code, String)> {
    let running = pipelines.iter().filter(|it| !it.has_ended());
    let fits = |it: &&Arc<Pipeline>| match (cmd.on.p, &cmd.on.pipeline) {
        (Some(p), _) => it.number == p,
        (None, Some(name)) => it.facts.name == *name || sanitize(&it.facts.name) == *name,
        (None, None) => true,
    };
    let mut found = running.filter(fits);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err((
            Code::NotFound,
            "there is no such pipeline, or it has ended".to_owned(),
        )),
        (Some(_), Some(_)) => {
            let what = "several pipelines fit: name one by its number";
            Err((Code::Ambiguous, what.to_owned()))
        }
    }
}

pub(super) const fn names_no_branch(cmd: &Cmd) -> bool {
    cmd.on.branch.is_none() && cmd.on.tenant.is_none()
}

/// The branch a command names, from the first on that it may be about; or its tenant, if no branch
/// of that name was told of yet.
pub(super) fn find_branch(
    cmd: &Cmd,
    pipeline: &Pipeline,
    first: usize,
) -> Result<(Option<u32>, Option<Text>), (Code, String)> {
    let slots = &pipeline.slots;
    let named = |tenant: &str| {
        (1..slots.len()).find(|id| slots.name_of(*id).is_some_and(|name| **name == *tenant))
    };
    let number = |id: usize| u32::try_from(id).ok();
    match (cmd.on.branch, &cmd.on.tenant) {
        (Some(id), _) if (first..slots.len()).contains(&(id as usize)) => Ok((Some(id), None)),
        (Some(_), _) => Err(no_branch(&pipeline.facts.name)),
        (None, Some(tenant)) => {
            let tenant = Text::name(tenant);
            let known = named(&tenant).and_then(number);
            let unknown = known.is_none().then_some(tenant);
            Ok((known, unknown))
        }
        (None, None) => Err((Code::Invalid, "name the branch, or its tenant".to_owned())),
    }
}

/// Why a command about a branch that is not there is refused.
pub fn no_branch(pipeline: &str) -> (Code, String) {
    let what = format!("pipeline '{pipeline}' has no such branch");
    (Code::NotFound, what)
}

pub(super) fn rate(cmd: &Cmd) -> Result<Option<(f64, u32)>, (Code, String)> {
    let Some(rate) = cmd.args.rate else {
        return Ok(None);
    };
    let burst = cmd.args.burst.unwrap_or(1);
    if !(rate.is_finite() && rate > 0.0) || burst == 0 {
        let what = format!("rate must be > 0 and burst >= 1, got {rate} and {burst}");
        return Err((Code::Invalid, what));
    }
    Ok(Some((rate, burst)))
}
