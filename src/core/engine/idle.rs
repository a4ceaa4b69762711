//! Branches in which nothing happens: they are evicted once they have been idle for `idle_ttl`.

use std::cmp::Reverse;

use super::end::Phase;
use super::{Domain, Engine};
use crate::branch::{BranchId, Ending, State};
use crate::clock::Time;

impl<D: Domain> Engine<D> {
    /// Something has ended in a branch: it may be idle from now on.
    pub(super) fn watch_idle(&mut self, branch: BranchId, now: Time) {
        let life = &mut self.branches[branch.index()].life;
        life.touched = now;
        if !life.watched
            && branch != BranchId::TRUNK
            && let Some(ttl) = self.config.branches.idle_ttl
        {
            life.watched = true;
            self.lives.idle.push(Reverse((now.after(ttl), branch)));
        }
    }

    /// When the next branch may be idle.
    pub(super) fn idle_deadline(&self) -> Option<Time> {
        let next = self.lives.idle.peek().filter(|_| !self.winds_up());
        next.map(|Reverse((at, _))| *at)
    }

    /// Whether all branches are about to close anyway.
    fn winds_up(&self) -> bool {
        match self.phase {
            Phase::Running => false,
            Phase::Ending => !self.config.branches.stay_open,
            Phase::Draining | Phase::Aborted | Phase::Discarding => true,
        }
    }

    /// Evicts the branches that have been idle for long enough.
    pub(super) fn evict_idle(&mut self, now: Time) {
        let Some(ttl) = self.config.branches.idle_ttl else {
            return;
        };
        while let Some(&Reverse((at, branch))) = self.lives.idle.peek()
            && at <= now
        {
            self.lives.idle.pop();
            let winds_up = self.winds_up();
            let row = &mut self.branches[branch.index()];
            if row.life.state != State::Open || !row.is_at_rest() || winds_up {
                // Looked at again once something ends in it: a branch where nothing does would
                // else keep the clock going for ever.
                row.life.watched = false;
                continue;
            }
            let until = row.life.touched.after(ttl);
            if until > now {
                self.lives.idle.push(Reverse((until, branch)));
                continue;
            }
            row.life.state = State::Evicted;
            row.life.after = State::Evicted;
            row.life.watched = false;
            row.life.ending = Ending::Well;
            if !self.end_generation(branch, now) {
                self.lives.ending.push(branch);
            }
        }
    }
}
