//! Which outputs and failures of a pass hold what undoes their inputs.
//!
//! What an item carried into the pass belongs to all that came of it; what a stage registered, to
//! what came of the item that stage was called with: behind a `flat_map` that is one child, and
//! its siblings have no part in it.

use anabranch_core::compensation::Scope;

use super::super::pass::{Input, Passed};
use super::super::undo::Undo;

type Held = Option<Box<Scope<Undo>>>;

/// What each output and each failure of a pass holds; empty where nothing was registered.
#[derive(Debug, Default)]
pub(super) struct Holders {
    outputs: Vec<Held>,
    failures: Vec<Held>,
}

impl Holders {
    /// Shares out what the inputs carry and what was registered. Inputs from `reached` on were not
    /// finished: they hold a part themselves. Those that nothing came of hold it all: it has ended
    /// well, in one, so that its finalizers follow each other in their order.
    pub(super) fn find(inputs: &mut [Input], passed: &mut Passed<'_>, reached: usize) -> Self {
        let mut holders = Self::default();
        if passed.noted.is_empty() && inputs.iter().all(|input| input.item.scope.is_none()) {
            return holders;
        }
        holders.outputs.resize_with(passed.at.len(), || None);
        holders.failures.resize_with(passed.failed.len(), || None);
        for (index, input) in inputs.iter_mut().enumerate() {
            let Some(scope) = input.item.scope.take() else {
                continue;
            };
            let outputs = of_input(&passed.at, index);
            let failures = places(passed, |failed| failed.index == Some(index));
            holders.share(scope, outputs, &failures, input, index >= reached);
        }
        for mut noted in std::mem::take(&mut passed.noted) {
            let Some(input) = inputs.get_mut(noted.index) else {
                continue;
            };
            let Some(scope) = noted.registered.scope() else {
                continue;
            };
            let all = of_input(&passed.at, noted.index);
            let outputs = all.start.max(noted.outputs.start)..all.end.min(noted.outputs.end);
            let failures = places(passed, |failed| {
                failed.index == Some(noted.index)
                    && failed.stage >= noted.stage
                    && noted.failures.contains(&failed.place)
            });
            let unfinished = noted.index >= reached;
            holders.share(scope, outputs, &failures, input, unfinished);
        }
        holders
    }

    pub(super) fn of_output(&mut self, position: usize) -> Held {
        self.outputs.get_mut(position)?.take()
    }

    pub(super) fn of_failure(&mut self, place: usize) -> Held {
        self.failures.get_mut(place)?.take()
    }

    fn share(
        &mut self,
        mut scope: Box<Scope<Undo>>,
        outputs: std::ops::Range<usize>,
        failures: &[usize],
        input: &mut Input,
        unfinished: bool,
    ) {
        let outputs = self.outputs.get_mut(outputs).into_iter().flatten();
        let mut places: Vec<&mut Held> = outputs.collect();
        for (place, held) in self.failures.iter_mut().enumerate() {
            if failures.contains(&place) {
                places.push(held);
            }
        }
        if unfinished {
            places.push(&mut input.item.scope);
        }
        let Some(last) = places.pop() else {
            hold(&mut input.item.scope, scope);
            return;
        };
        for held in places {
            hold(held, Box::new(scope.fork()));
        }
        hold(last, scope);
    }
}

fn hold(held: &mut Held, more: Box<Scope<Undo>>) {
    match held {
        Some(scope) => scope.absorb(*more),
        None => *held = Some(more),
    }
}

/// The outputs of an input: they are in the order of the inputs.
fn of_input(at: &[usize], index: usize) -> std::ops::Range<usize> {
    at.partition_point(|of| *of < index)..at.partition_point(|of| *of <= index)
}

fn places(
    passed: &Passed<'_>,
    of: impl Fn(&super::super::pass::FailedItem<'_>) -> bool,
) -> Vec<usize> {
    let failed = passed.failed.iter().enumerate();
    failed.filter(|(_, it)| of(it)).map(|(at, _)| at).collect()
}
