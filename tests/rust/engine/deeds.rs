//! What must become of each undo action and finalizer: the reference for the rows C.
//!
//! An action belongs to a unit, to a generation of a branch, or to the run. It is released if what
//! it belongs to has ended well and, where the run commits at its end, all is well then. Otherwise
//! it is due: it runs once, or is listed. A finalizer is due in any case.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anabranch_core::branch::BranchId;
use anabranch_core::compensation::Policy;
use anabranch_core::engine::{
    Config, Engine, Fate, MAX_SAMPLES, RollbackId, RollbackOptions, Turn,
};

use crate::driver::Lab;
use crate::held::{Held, Holding};

/// What an action belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Unit,
    Branch(BranchId),
    Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Ran,
    Released,
    Skipped,
    Unrun,
}

#[derive(Debug)]
struct Deed {
    owner: Owner,
    finalizer: bool,
    /// The rollback in which it was registered, and how many passes of it lie before.
    during: Option<(RollbackId, u32)>,
    /// How the generation of its branch has ended.
    ended: Option<bool>,
    seen: Option<Seen>,
    /// The actions of the unit that it stands on, and that stand under other outputs, too.
    below: BTreeSet<u64>,
    /// The rollback that has handed it out.
    handed: Option<RollbackId>,
}

/// How far a rollback has come.
#[derive(Debug)]
struct Playback {
    pass: u32,
    last: u64,
    last_finalizer: u64,
    arranged: VecDeque<u64>,
}

#[derive(Debug)]
pub(crate) struct Deeds {
    options: RollbackOptions,
    by_order: BTreeMap<u64, Deed>,
    pub(crate) holding: Holding,
    playbacks: BTreeMap<RollbackId, Playback>,
    /// Compensations the custom policy does not want run.
    left_out: BTreeSet<u64>,
    /// How many of the engine's samples have been looked at.
    samples: (usize, usize),
    /// Whether what ends no item has failed: the source, or, if all is kept to the end, a branch.
    fell: bool,
    /// The branches that have failed now.
    broken: Vec<BranchId>,
    /// Those that are drained, or idle.
    closing: Vec<BranchId>,
    /// Whether the run was left before all was undone.
    pub(crate) forsaken: bool,
}

impl Deeds {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            options: config.rollback,
            by_order: BTreeMap::new(),
            holding: Holding::default(),
            playbacks: BTreeMap::new(),
            left_out: BTreeSet::new(),
            samples: (0, 0),
            fell: false,
            broken: Vec::new(),
            closing: Vec::new(),
            forsaken: false,
        }
    }

    pub(crate) fn register(
        &mut self,
        order: u64,
        owner: Owner,
        finalizer: bool,
        during: Option<(RollbackId, u32)>,
    ) {
        let deed = Deed {
            owner,
            finalizer,
            during: during.filter(|_| owner == Owner::Unit),
            ended: None,
            seen: None,
            below: BTreeSet::new(),
            handed: None,
        };
        self.by_order.insert(order, deed);
    }

    /// These were registered for what is `held`.
    pub(crate) fn stand_on(&mut self, orders: &[u64], held: &Held) {
        let below = self.holding.below(held);
        for order in orders {
            if let Some(deed) = self.by_order.get_mut(order) {
                deed.below.clone_from(&below);
            }
        }
    }

    /// Along every path the order is last in, first out, across rollbacks too: nothing stands any
    /// more on what is undone now. `running` are those handed out that have not come back.
    fn check_paths(&self, order: u64, by: RollbackId, running: &[u64]) {
        if self.options.deadline.is_some() {
            // What does not end in time is not waited for.
            return;
        }
        for above in running {
            let deed = &self.by_order[above];
            assert!(
                deed.handed == Some(by) || !deed.below.contains(&order),
                "C17: {order} is undone under {above}, which runs"
            );
        }
        for below in &self.by_order[&order].below {
            let handed = self.by_order[below].handed;
            assert!(
                handed.is_none_or(|rollback| rollback == by),
                "C17: {below} was undone before {order}, which stands on it"
            );
        }
    }

    pub(crate) const fn source_failed(&mut self) {
        self.fell = true;
    }

    /// The branches that have failed now, at least for the time being, and those whose generation is
    /// about to end well.
    pub(crate) fn branches_end(&mut self, broken: Vec<BranchId>, closing: Vec<BranchId>) {
        self.broken = broken;
        self.closing = closing;
    }

    /// A generation of a branch has ended.
    pub(crate) fn generation_ended(&mut self, branch: BranchId, well: bool) {
        self.fell |= !well && self.options.commit_at_end;
        for deed in self.by_order.values_mut() {
            // Those that have run went with the run as a whole.
            let open = deed.ended.is_none() && deed.seen.is_none();
            if open && deed.owner == Owner::Branch(branch) {
                deed.ended = Some(well);
            }
        }
    }

    /// What ended well with its branch has been released by now, unless the run has ended before
    /// it: then it goes with that.
    pub(crate) fn generations_over(&mut self, run_ended: bool) {
        let early = !self.options.commit_at_end;
        for (order, deed) in &mut self.by_order {
            let kept = deed.ended == Some(true) && deed.seen.is_none() && !deed.finalizer;
            if kept && early {
                assert!(run_ended, "C11: {order} is kept: {deed:?}");
                deed.ended = None;
            }
        }
    }

    /// Whether the run is good as a whole, if it ends now.
    fn well(&self, engine: &Engine<Lab>) -> bool {
        let counts = engine.counts();
        let lost = counts.failed + counts.dropped + counts.returned + counts.left;
        let whole = lost == 0 || !self.options.commit_at_end;
        whole && !engine.aborted() && !engine.stopping() && !self.fell
    }

    /// Whether what undoes it is not needed, if the run is good, or not, as a whole.
    fn is_good(&self, order: u64, deed: &Deed, well: bool) -> bool {
        let early = !self.options.commit_at_end;
        match deed.owner {
            Owner::Unit => self.holding.released.contains(&order) && (early || well),
            Owner::Branch(_) => match deed.ended {
                Some(ended_well) => ended_well && (early || well),
                None => well,
            },
            Owner::Run => well,
        }
    }

    /// An action has its fate, which must not be that of one whose owner has ended well. What units
    /// hold together is known at the end only.
    fn due(&mut self, order: u64, seen: Seen, by: BranchId, engine: &Engine<Lab>) {
        let well = self.well(engine);
        let deed = &self.by_order[&order];
        assert_eq!(
            deed.seen, None,
            "C5, C11: {order} has one fate, not {seen:?}, too"
        );
        let good = match deed.owner {
            Owner::Unit => false,
            // It goes with the run, which may have ended before the branch.
            Owner::Branch(branch) if branch != by => well,
            // Its generation ends when all of these have run.
            Owner::Branch(branch) if deed.ended.is_none() && self.broken.contains(&branch) => false,
            Owner::Branch(_) | Owner::Run => self.is_good(order, deed, well),
        };
        assert!(
            deed.finalizer || !good,
            "C11, C19: {order} is {seen:?}, and was committed: {deed:?}"
        );
        if let Some(deed) = self.by_order.get_mut(&order) {
            deed.seen = Some(seen);
        }
    }

    /// Looks at what the engine has listed since the last time.
    pub(crate) fn listed(&mut self, engine: &Engine<Lab>) {
        let (undone, stuck) = self.samples;
        self.samples = (engine.undone().len(), engine.stuck().len());
        for it in engine.undone()[undone..]
            .iter()
            .chain(&engine.stuck()[stuck..])
        {
            match it.fate {
                Fate::Skipped => self.due(it.step.undo.0, Seen::Skipped, it.branch, engine),
                Fate::Unrun => self.due(it.step.undo.0, Seen::Unrun, it.branch, engine),
                Fate::Done | Fate::Failed(_) => {}
            }
        }
    }

    /// The engine has buried an action.
    pub(crate) fn buried(&mut self, order: u64, engine: &Engine<Lab>) {
        let well = self.well(engine);
        let deed = &self.by_order[&order];
        if deed.seen.is_some_and(|seen| seen != Seen::Released) {
            return;
        }
        // Its generation ends well when its finalizers have run.
        let closing = |branch| deed.ended.is_none() && self.closing.contains(&branch);
        let early = !self.options.commit_at_end;
        let closes = early && matches!(deed.owner, Owner::Branch(branch) if closing(branch));
        let good = !deed.finalizer && (closes || self.is_good(order, deed, well));
        // More were left out than are kept as samples.
        let skips = matches!(self.options.policy, Policy::Skip | Policy::Custom);
        let surplus = skips && engine.undone().len() == MAX_SAMPLES;
        assert!(
            good || surplus,
            "C11: {order} is released too early: {deed:?}"
        );
        assert_eq!(deed.seen, None, "C11: {order} is released twice");
        if let Some(deed) = self.by_order.get_mut(&order) {
            deed.seen = Some(if good { Seen::Released } else { Seen::Skipped });
        }
    }

    /// The driver's policy arranges a rollback.
    pub(crate) fn arranged(&mut self, id: RollbackId, run: VecDeque<u64>, left_out: &[u64]) {
        self.left_out.extend(left_out);
        self.playback(id).arranged = run;
    }

    fn playback(&mut self, id: RollbackId) -> &mut Playback {
        self.playbacks.entry(id).or_insert(Playback {
            pass: 0,
            last: u64::MAX,
            last_finalizer: u64::MAX,
            arranged: VecDeque::new(),
        })
    }

    /// The engine hands an action out, while `busy` others of its rollback run; returns how many
    /// passes lie before what it registers.
    pub(crate) fn handed(
        &mut self,
        turn: &Turn<Lab>,
        busy: usize,
        running: &[u64],
        engine: &Engine<Lab>,
    ) -> u32 {
        let (id, order) = (turn.rollback, turn.step.undo.0);
        let policy = self.options.policy;
        self.due(order, Seen::Ran, turn.branch, engine);
        if !self.by_order[&order].finalizer {
            self.check_paths(order, id, running);
            if let Some(deed) = self.by_order.get_mut(&order) {
                deed.handed = Some(id);
            }
        }
        let deed = &self.by_order[&order];
        let finalizer = deed.finalizer;
        let during = deed.during.filter(|(rollback, _)| *rollback == id);
        let pass = during.map_or(0, |(_, pass)| pass);
        assert!(
            busy == 0 || (policy == Policy::Parallel && !finalizer),
            "C13: {order} waits for the one before it"
        );
        let playback = self.playback(id);
        if finalizer {
            assert!(playback.arranged.is_empty(), "C15: {order} comes last");
            assert!(
                order < playback.last_finalizer || during.is_some(),
                "C15: {order} after {}",
                playback.last_finalizer
            );
            // What it registers comes in a pass of its own, and nothing else any more.
            playback.last_finalizer = order;
            playback.pass += 1;
            playback.last = 0;
        } else if let Some(next) = playback.arranged.pop_front() {
            assert_eq!(order, next, "C14: the policy's order");
            playback.last = 0;
        } else {
            assert!(policy != Policy::Skip, "C13: {order} is to be left out");
            // Those of one pass that run at once may be handed out to several ports.
            let unordered = policy == Policy::Parallel;
            let descends = pass > playback.pass
                || (pass == playback.pass && (unordered || order < playback.last));
            assert!(descends, "C1: {order}, in pass {pass}, after {playback:?}");
            playback.pass = pass;
            playback.last = order;
        }
        playback.pass + 1
    }

    /// How many actions ran.
    pub(crate) fn ran(&self) -> u64 {
        let ran = self
            .by_order
            .values()
            .filter(|it| it.seen == Some(Seen::Ran));
        ran.count() as u64
    }

    /// What must hold once the run is over: each action has had the one fate that was its own.
    pub(crate) fn check_end(&self, engine: &Engine<Lab>) {
        let well = self.well(engine);
        for (order, deed) in &self.by_order {
            let due = deed.finalizer || !self.is_good(*order, deed, well);
            let told = format!("{order}, {deed:?}");
            let unit = deed.owner == Owner::Unit;
            match deed.seen {
                None => panic!("C9, C17: {told} is lost"),
                Some(Seen::Released) => {}
                Some(_) if unit && !due => panic!("C11: {told} was committed"),
                Some(Seen::Ran) => {}
                Some(Seen::Unrun) => {
                    let hurried = self.options.deadline.is_some() || self.forsaken;
                    assert!(hurried, "C3: {told} has had time");
                }
                Some(Seen::Skipped) => {
                    let skips = self.options.policy == Policy::Skip;
                    let left_out = skips || self.left_out.contains(order);
                    assert!(left_out && !deed.finalizer, "C13, C15: {told} must run");
                }
            }
        }
    }
}
