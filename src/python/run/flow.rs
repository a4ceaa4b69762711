//! Fresh items on their way: from the source, through the generated pass, to their branch.

use std::sync::atomic::Ordering;

use anabranch_core::branch::BranchId;
use anabranch_core::engine::{Engine, Item, Spot};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::super::domain::PyDomain;
use super::super::leg::{Leg, Sizes};
use super::super::pass::{Input, Taken};
use super::super::results;
use super::super::source::Source;
use super::super::work::ends_the_process;
use super::order::{Lost, Routed, Standing};
use super::tracked::Way;
use super::{Hand, Run, locked};

/// A stretch of a list, which may shrink meanwhile: keys run Python.
struct Slots<'a, 'py> {
    list: &'a Bound<'py, PyList>,
    next: usize,
    end: usize,
}

impl<'py> Iterator for Slots<'_, 'py> {
    type Item = Bound<'py, PyAny>;

    #[inline]
    fn next(&mut self) -> Option<Bound<'py, PyAny>> {
        if self.next >= self.end {
            return None;
        }
        let item = self.list.get_item(self.next).ok();
        self.next += 1;
        item
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Slots<'_, '_> {}

/// Where the source's own failures arise.
const AT_SOURCE: Spot = Spot {
    ahead_of: 0,
    behind: 0,
};

impl Run {
    /// Takes a chunk from the source and sends it on its way.
    pub(super) fn take_chunk(
        &self,
        this: &Bound<'_, Self>,
        hand: &mut Hand,
        room: usize,
    ) -> PyResult<bool> {
        let py = this.py();
        let start = self.shared.now();
        let most = hand.chunk.min(room).min(self.wanted_of(&hand.source));
        let legs = self.legs()?;
        let entry = &legs[hand.entry];
        if entry.r#pass.is_none()
            && !results::known(py)
            && let Source::Sequence { items, next } = &mut hand.source
            && let Ok(list) = items.bind(py).cast_exact::<PyList>()
        {
            // Nothing to call: the items are taken where they are, without a slice in between.
            let list = list.clone();
            let begin = (*next).min(list.len());
            let end = list.len().min(begin + most);
            *next = end;
            let slots = Slots {
                list: &list,
                next: begin,
                end,
            };
            let routed = self.route_plain(py, hand, entry, slots, None);
            let seen = routed.seen;
            self.settle_plain(py, hand, routed, Vec::new());
            locked(&self.engine).received(seen);
            Self::resize_chunk(hand, end - begin, self.shared.now().since(start));
            if end == list.len() {
                hand.source = Source::Ended;
                locked(&self.engine).end(self.shared.now());
            }
            return Ok(true);
        }
        self.enter_call(0, BranchId::TRUNK);
        let chunk = hand.source.pull(py, most, &self.shared, || {
            let mut pushed = locked(&self.pushed);
            let most = most.min(pushed.items.len());
            let items = pushed.items.drain(..most).collect();
            let ended = if pushed.items.is_empty() {
                pushed.ended.take()
            } else {
                None
            };
            (items, ended)
        });
        self.leave_call();
        let chunk = chunk?;
        let count = chunk.items.len();
        let progress = count > 0 || !chunk.broken.is_empty() || chunk.ended.is_some();
        if !progress {
            return Ok(false);
        }
        if chunk.slow {
            // What became due while the source kept us waiting leaves before these come in.
            let now = self.shared.now();
            let mut engine = locked(&self.engine);
            if engine.deadline().is_some_and(|due| due <= now) {
                engine.poll(now);
            }
        }
        locked(&self.engine).received((count + chunk.broken.len()) as u64);
        for error in &chunk.broken {
            let failure = self.shared.failure(py, error, 0, None, None, None);
            let now = self.shared.now();
            locked(&self.engine).fail_item(AT_SOURCE, BranchId::TRUNK, failure, 1, None, now);
        }
        if count > 0 {
            let interrupted = self.enter(py, hand, entry, &chunk.items)?;
            if let Some(error) = interrupted {
                return Err(error);
            }
            Self::resize_chunk(hand, count, self.shared.now().since(start));
        }
        match chunk.ended {
            Some(ended) => self.source_ended_with(py, hand, ended).map(|()| true),
            None => Ok(true),
        }
    }

    /// How many items to take, at most. What a native or an async source has brought is taken,
    /// wanted or not: it is nobody else's any more, and its end comes behind it.
    fn wanted_of(&self, source: &Source) -> usize {
        match source {
            Source::Native(_) | Source::Pushed => usize::MAX,
            _ => self.wanted(),
        }
    }

    /// The source brings nothing more.
    ///
    /// # Errors
    /// What it raised, if that ends the process.
    fn source_ended_with(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        ended: PyResult<()>,
    ) -> PyResult<()> {
        hand.source = Source::Ended;
        if let Err(error) = &ended
            && ends_the_process(py, error)
        {
            return Err(error.clone_ref(py));
        }
        let stopped = match ended {
            Ok(()) => self.drained.load(Ordering::Acquire),
            Err(error) => {
                self.source_failed(py, &error);
                true
            }
        };
        let now = self.shared.now();
        let mut engine = locked(&self.engine);
        if stopped {
            engine.drain(now);
        } else {
            engine.end(now);
        }
        Ok(())
    }

    /// Takes at most `most` items straight from the source into a worker's hand; None where they
    /// go through the queue, and where there are none.
    ///
    /// What is ready needs no queue: a copy of it would only leave the cache before it is handled.
    pub(crate) fn take_straight<'py>(
        &self,
        py: Python<'py>,
        most: usize,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        // Taken while the driver is at work, which a source may be part of.
        let Ok(mut hand) = self.hand.try_lock() else {
            return Ok(None);
        };
        let Some(hand) = hand.as_mut() else {
            return Ok(None);
        };
        let room = Self::straight_room(py, hand, &locked(&self.engine));
        if room == 0 {
            return Ok(None);
        }
        let most = most.min(room).min(self.wanted_of(&hand.source));
        let chunk = hand.source.pull(py, most, &self.shared, Default::default)?;
        let count = chunk.items.len();
        if count > 0 {
            locked(&self.engine).lend(count);
        }
        if let Some(ended) = chunk.ended
            && let Err(fatal) = self.source_ended_with(py, hand, ended)
        {
            self.shared.postpone(py, fatal);
        }
        Ok((count > 0).then_some(chunk.items))
    }

    /// How many items a worker may take straight from the source now.
    pub(super) fn straight_room(py: Python<'_>, hand: &Hand, engine: &Engine<PyDomain>) -> usize {
        // Results are looked for on the way to the queue.
        let may =
            hand.straight && hand.source.is_ready() && engine.straight() && !results::known(py);
        if may { engine.room() } else { 0 }
    }

    /// Makes items of the heartbeats that are due.
    pub(super) fn beat(&self, py: Python<'_>) -> PyResult<bool> {
        let beats = locked(&self.engine).take_beats();
        if beats.is_empty() {
            return Ok(false);
        }
        let heartbeat = py.import("anabranch.heartbeat")?.getattr("Heartbeat")?;
        for beat in beats {
            let tenant = self.tenant(py, beat.branch);
            let made = heartbeat.call1((tenant, beat.silent.as_secs_f64(), beat.number))?;
            let now = self.shared.now();
            locked(&self.engine).offer_beat(beat, made.unbind(), now);
        }
        Ok(true)
    }

    /// The source has raised: a failure that is no item's.
    fn source_failed(&self, py: Python<'_>, error: &PyErr) {
        let mut failure = self.shared.failure(py, error, 0, None, None, None);
        "source.failed".clone_into(&mut failure.code);
        self.failed.store(true, Ordering::Release);
        let now = self.shared.now();
        let mut engine = locked(&self.engine);
        engine.fail();
        engine.fail_item(AT_SOURCE, BranchId::TRUNK, failure, 0, None, now);
    }

    /// Sends fresh items to the first leg.
    fn enter(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        leg: &Leg,
        items: &Bound<'_, PyList>,
    ) -> PyResult<Option<PyErr>> {
        let tracked = leg.pass.as_ref().is_some_and(|pass| pass.tracked);
        if tracked {
            let inputs = items
                .iter()
                .map(|value| Input::new(BranchId::TRUNK, Item::new(value.unbind())))
                .collect();
            let way = Way::ahead(hand, hand.entry, leg);
            return self.flow_tracked(py, hand, &way, inputs);
        }
        let count = items.len();
        let passed = match &leg.pass {
            Some(spec) => Some(self.run_pass(py, hand, spec, items, Vec::new())?),
            None => results::sifted(py, items, 0)?,
        };
        let Some(passed) = passed else {
            let routed = self.route_plain(py, hand, leg, items.iter(), None);
            self.settle_plain(py, hand, routed, Vec::new());
            return Ok(None);
        };
        let produced = usize::try_from(passed.produced).unwrap_or(usize::MAX);
        let gone = passed.out.len() + passed.failed.len();
        // A signal handler may raise right after an item was let through: it then fails, too.
        let produced = produced.max(gone.saturating_sub(count));
        // The item in hand counts as unfinished, unless it was let through just before.
        let unfinished = passed.interrupted.as_ref().map_or(0, |(_, left)| *left);
        let unfinished = unfinished.min((count + produced).saturating_sub(gone));
        let filtered = (count + produced).saturating_sub(gone + unfinished);
        {
            let mut engine = locked(&self.engine);
            engine.passed(BranchId::TRUNK, filtered as u64, produced as u64);
            engine.left_behind(unfinished as u64);
        }
        let mut routed = self.route_plain(py, hand, leg, passed.out.iter(), passed.keys.as_ref());
        let lost = passed.failed.into_iter().map(|failed| Lost {
            standing: Standing {
                place: failed.place,
                outputs: failed.outputs,
            },
            branch: match &failed.key {
                Some(key) => self.branch_at(hand, key),
                None => Ok(BranchId::TRUNK),
            },
            error: failed.error,
            stage: failed.stage,
            item: failed.item,
        });
        let lost: Vec<_> = lost.collect();
        // Behind the failures: what has failed may have opened its branch.
        let tell = |taken: Taken<'_>| (taken.place, Self::branch_behind(hand, &taken.key));
        routed.taken = passed.taken.into_iter().map(tell).collect();
        self.settle_plain(py, hand, routed, lost);
        Ok(passed.interrupted.map(|(error, _)| error))
    }

    /// The hot path: items without history to the first leg.
    ///
    /// First the keys, which runs Python, then the engine, which must not.
    fn route_plain<'py>(
        &self,
        py: Python<'py>,
        hand: &mut Hand,
        leg: &Leg,
        items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
        keys: Option<&Bound<'py, PyList>>,
    ) -> Routed {
        let mut strays = Vec::new();
        let mut routed: Vec<(BranchId, Py<PyAny>)> = Vec::with_capacity(items.len());
        if hand.key_leg == Some(hand.entry) {
            // In two rounds, so that the cache misses on the objects overlap.
            let values: Vec<_> = items.collect();
            for (index, value) in values.into_iter().enumerate() {
                match self.branch_of(hand, &value, keys, index) {
                    Ok(branch) => routed.push((branch, value.unbind())),
                    Err(error) => strays.push(Lost {
                        standing: Standing::at_output(index),
                        error: Some(error),
                        stage: hand.fan_stage,
                        branch: Ok(BranchId::TRUNK),
                        item: Some(value.unbind()),
                    }),
                }
            }
        } else {
            routed.extend(items.map(|value| (BranchId::TRUNK, value.unbind())));
        }
        let seen = (routed.len() + strays.len()) as u64;
        let sizes = match &leg.sizes {
            Sizes::Uncounted => None,
            sizes => Some(Self::weigh(py, leg.window, sizes, &mut routed, &mut strays)),
        };
        let now = self.shared.now();
        let branches;
        {
            let mut engine = locked(&self.engine);
            let asked = hand.counts && (keys.is_some() || sizes.is_some());
            branches = asked.then(|| routed.iter().map(|(branch, _)| *branch).collect());
            match sizes {
                None => engine.offer_plain(hand.entry, routed, now),
                Some(sizes) => {
                    for ((branch, value), bytes) in routed.into_iter().zip(sizes) {
                        engine.offer(
                            hand.entry,
                            branch,
                            Item {
                                bytes,
                                ..Item::new(value)
                            },
                            now,
                        );
                    }
                }
            }
        }
        Routed {
            seen,
            branches,
            strays,
            taken: Vec::new(),
        }
    }

    /// Whether an exception ends the process: then it is raised by the next step, and the item it
    /// arose at is no failure.
    pub(super) fn ends(&self, py: Python<'_>, error: &PyErr) -> bool {
        let ends = ends_the_process(py, error);
        if ends {
            self.shared.postpone(py, error.clone_ref(py));
        }
        ends
    }

    /// The sizes of items, for a window that counts bytes; those without one become strays.
    fn weigh(
        py: Python<'_>,
        stage: usize,
        sizes: &Sizes,
        routed: &mut Vec<(BranchId, Py<PyAny>)>,
        strays: &mut Vec<Lost>,
    ) -> Vec<u32> {
        let mut weighed = Vec::with_capacity(routed.len());
        let before: Vec<_> = strays.iter().map(|stray| stray.standing.outputs).collect();
        let mut gaps = before.into_iter().peekable();
        let mut position = 0;
        for (branch, value) in std::mem::take(routed) {
            while gaps.next_if_eq(&position).is_some() {
                position += 1;
            }
            match sizes.of(value.bind(py)) {
                Ok(bytes) => {
                    weighed.push(bytes);
                    routed.push((branch, value));
                }
                Err(error) => strays.push(Lost {
                    standing: Standing::at_output(position),
                    error: Some(error),
                    stage,
                    branch: Ok(branch),
                    item: Some(value),
                }),
            }
            position += 1;
        }
        weighed
    }

    /// The branch of a key.
    #[inline]
    pub(super) fn branch_at(&self, hand: &mut Hand, key: &Bound<'_, PyAny>) -> PyResult<BranchId> {
        let Hand {
            router, branches, ..
        } = hand;
        router.branch(key, |again| self.open_branch(branches, key, again))
    }

    #[inline]
    pub(super) fn branch_of(
        &self,
        hand: &mut Hand,
        value: &Bound<'_, PyAny>,
        keys: Option<&Bound<'_, PyList>>,
        index: usize,
    ) -> PyResult<BranchId> {
        let key = match (keys, &hand.key) {
            (Some(keys), _) => keys.get_item(index)?,
            (None, Some(key)) => key.get(value)?,
            (None, None) => return Ok(BranchId::TRUNK),
        };
        self.branch_at(hand, &key)
    }
}
