//! Where a stage can stand: what leads to it, in the course of the items or in one of copies.

use super::{Kind, Plan, Stage};
use crate::error::PlanError;

impl Plan {
    /// The plan behind the end of the course of copies that was begun last.
    ///
    /// # Errors
    /// [`PlanError`] if no course is open, or it has no sink.
    pub fn leave(mut self) -> Result<Self, PlanError> {
        if self.open.is_empty() {
            let problem = "no course of copies is open, so there is none to leave";
            return Err(PlanError::place(problem).at(&self.name, None));
        }
        if self.find(Kind::is_sink).is_none() {
            let missing = "a course of copies has no sink; end it with for_each(...), collect() or \
                           to_channel(...)";
            let tee = self.tee().map(Stage::name);
            return Err(PlanError::place(missing).at(&self.name, tee));
        }
        self.open.pop();
        Ok(self)
    }

    /// The course that the next stage belongs to.
    pub fn course(&self) -> usize {
        self.open.last().copied().unwrap_or(0)
    }

    /// The tee that makes the copies of the course that is being described.
    fn tee(&self) -> Option<&Stage> {
        let course = self.course().checked_sub(1)?;
        let mut tees = self.stages.iter().filter(|stage| stage.kind == Kind::Tee);
        tees.nth(course)
    }

    /// The first such stage of the course that is being described.
    pub(super) fn find(&self, matches: impl Fn(Kind) -> bool) -> Option<&Stage> {
        let course = self.course();
        let mut stages = self.stages.iter().filter(|stage| stage.course == course);
        stages.find(|stage| matches(stage.kind))
    }

    /// Whether a stage of this kind can come next.
    pub(super) fn place(&self, kind: Kind) -> Result<(), PlanError> {
        let problem = if kind != Kind::Source && self.stages.is_empty() {
            format!("source(...) must come first, before {}(...)", kind.name())
        } else if let (Kind::Source, Some(source)) = (kind, self.stages.first()) {
            format!(
                "a pipeline has one source, and this one has {}",
                source.quoted()
            )
        } else if let Some(sink) = self.find(Kind::is_sink).filter(|_| !kind.is_operator()) {
            format!(
                "nothing can follow the sink {} but what takes failures",
                sink.quoted()
            )
        } else if let (Kind::FanOut, Some(tee)) = (kind, self.tee()) {
            format!(
                "the items of {} are copies, which do not part by tenant: fan out before it, or \
                 behind it, in the course that goes on",
                tee.quoted()
            )
        } else if let (Kind::Collect, Some(other)) = (
            kind,
            self.stages.iter().find(|stage| stage.kind == Kind::Collect),
        ) {
            format!(
                "a report has one list of items, which {} fills; collect the others by \
                 for_each(items.append, inline=True)",
                other.quoted()
            )
        } else if let (Kind::FanOut, Some(other)) = (kind, self.find(|kind| kind == Kind::FanOut)) {
            format!(
                "a pipeline fans out once, and this one does so at {}",
                other.quoted()
            )
        } else {
            return Ok(());
        };
        Err(PlanError::place(problem))
    }
}
