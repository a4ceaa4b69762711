//! Errors by code: how often each has come up, and one of them.

use std::collections::{HashMap, VecDeque};

use anabranch_core::clock::Time;
use anabranch_protocol::Text;
use pyo3::prelude::*;

use super::super::told::told_of;
use super::super::{Run, locked};
use crate::monitor::{BRANCHES, ErrorCount, Pipeline, Told};

/// Codes of failures that are told of one by one.
const CODES: usize = 256;

/// Notes how often a code has come up.
pub(super) fn count(
    codes: &mut HashMap<String, (u64, u64)>,
    told: &mut Told,
    code: &str,
    items: u64,
    now: Time,
) {
    let minute = now.as_nanos() / 60_000_000_000;
    let (place, before) = match codes.get(code) {
        Some(known) => *known,
        None if told.codes.len() < CODES => {
            told.codes.push(Text::name(code));
            told.errors.push(ErrorCount {
                items: 0,
                seen: (now.as_nanos(), now.as_nanos()),
                minutes: [(0, 0); 60],
                sample: Vec::new(),
                stage: None,
                former: VecDeque::new(),
            });
            (told.codes.len() as u64, 0)
        }
        None => return,
    };
    let index = usize::try_from(place).unwrap_or(usize::MAX) - 1;
    if items == before {
        return;
    }
    if let Some(error) = told.errors.get_mut(index) {
        error.items = items;
        error.seen.1 = now.as_nanos();
        let slot = &mut error.minutes[usize::try_from(minute % 60).unwrap_or(0)];
        if slot.0 != minute {
            *slot = (minute, 0);
        }
        slot.1 += items - before;
    }
    codes.insert(code.to_owned(), (place, items));
}

/// Notes that a branch has had another error since the one of that place, counted from 1.
pub(super) fn was(told: &mut Told, place: u64, at: u64, branch: u32) {
    let index = usize::try_from(place).ok().and_then(|it| it.checked_sub(1));
    let Some(error) = index.and_then(|it| told.errors.get_mut(it)) else {
        return;
    };
    error.former.retain(|(_, it)| *it != branch);
    if error.former.len() == BRANCHES {
        error.former.pop_front();
    }
    error.former.push_back((at, branch));
}

impl Run {
    /// Tells of one error of each code that has come up.
    pub(super) fn sample_errors(&self, py: Python<'_>, pipeline: &Pipeline) {
        let missing: Vec<_> = pipeline.slots.told(|told| {
            let codes = told.codes.iter().zip(&told.errors).enumerate();
            let missing = codes.filter(|(_, (_, error))| error.sample.is_empty());
            missing
                .map(|(index, (code, _))| (index, code.clone()))
                .collect()
        });
        for (index, code) in missing {
            let found = {
                let engine = locked(&self.engine);
                let samples = engine.failures().iter();
                let found = samples
                    .map(|failed| &failed.error)
                    .find(|it| Text::name(&it.code) == code);
                found.map(|it| (it.error.clone_ref(py), it.stage))
            };
            let (sample, stage) = match found {
                Some((error, stage)) => (told_of(error.bind(py)), Some(stage)),
                // There are more kinds of errors than samples.
                None => (vec![code], None),
            };
            pipeline.slots.retell(|told| {
                if let Some(error) = told.errors.get_mut(index) {
                    error.sample = sample;
                    error.stage = stage;
                }
            });
        }
    }
}
