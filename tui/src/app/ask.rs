//! The dialog before an action: what it would do, and whether it is wanted.

use anabranch_protocol::message::{Arguments, Op};
use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::act::{self, State};
use super::aim::Aim;
use super::focus::{Field, Focus};
use super::{Cmd, Model};

/// Enter within this time after the last one does nothing, in milliseconds: nobody reads that fast.
pub const GUARD_MS: u64 = 300;

/// Branches a dry run is asked for, at most; the rest is told by their number.
const DRY: usize = 16;

/// A question that is open.
#[derive(Debug)]
pub struct Ask {
    /// What would be done.
    pub op: Op,
    /// To what.
    pub aims: Vec<Aim>,
    /// What is to be answered now.
    pub step: Step,
    /// Since when an Enter counts, in milliseconds since 1970.
    pub armed: u64,
    /// How fast a branch may be, once that was answered: items per second.
    pub rate: Option<f64>,
    /// Numbers of the commands that ask what would happen.
    dry: Vec<u64>,
}

/// What is to be answered.
#[derive(Debug)]
pub enum Step {
    /// How fast a branch may be, in items per second; nothing, for no limit.
    Rate(Field),
    /// Whether it is wanted: a word must be typed.
    Word {
        /// The word.
        word: String,
        /// What it is, for people.
        what: &'static str,
        /// What was typed so far.
        field: Field,
    },
    /// Whether it is wanted: no, unless chosen otherwise.
    Choice {
        /// Whether "yes" is chosen.
        yes: bool,
    },
}

impl Ask {
    pub(super) fn new(model: &Model, op: Op, aims: Vec<Aim>) -> Self {
        let step = match op {
            Op::BranchThrottle => Step::Rate(Field::default()),
            _ => confirm(op, &aims),
        };
        Self {
            op,
            aims,
            step,
            armed: model.now + GUARD_MS,
            rate: None,
            dry: Vec::new(),
        }
    }

    /// Asks the monitors what would happen.
    pub(super) fn dry_run(&mut self, model: &mut Model) -> Vec<Cmd> {
        if matches!(self.step, Step::Rate(_)) {
            return Vec::new();
        }
        let args = self.arguments();
        let mut cmds = Vec::new();
        for aim in self.aims.iter().take(DRY) {
            let (number, cmd) = act::send(model, self.op, aim, args.clone(), true);
            self.dry.push(number);
            cmds.extend(cmd);
        }
        cmds
    }

    const fn arguments(&self) -> Arguments {
        Arguments {
            deadline_ms: None,
            rate: self.rate,
            burst: None,
            level: None,
            reason: None,
        }
    }

    /// Whether a command is one of those that ask what would happen.
    pub fn asked(&self, number: u64) -> bool {
        self.dry.contains(&number)
    }

    /// What would happen, in lines.
    pub fn forecast(&self, model: &Model) -> Vec<String> {
        let answers = model.sent.iter().filter(|it| self.asked(it.cmd.id));
        let (mut n, mut skipped, mut waiting) = (0, 0, 0);
        let mut lines = Vec::new();
        for sent in answers {
            match &sent.state {
                State::Done(done) => {
                    if let Some(failure) = &done.err {
                        lines.push(format!("{}: {}", sent.label, failure.msg));
                    } else {
                        n += done.n;
                        skipped += done.skipped;
                        if !done.msg.is_empty() && self.aims.len() == 1 {
                            lines.push(done.msg.to_string());
                        }
                    }
                }
                State::Gone => lines.push(format!("{}: its process is gone", sent.label)),
                _ => waiting += 1,
            }
        }
        if waiting > 0 {
            lines.insert(0, "dry run: asking ...".to_owned());
        } else if lines.is_empty() && !self.dry.is_empty() {
            let what = match self.op {
                Op::CompRetry | Op::CompSkip => "undo actions",
                _ => "items inside",
            };
            let left = match skipped {
                0 => String::new(),
                skipped => format!(", {} skipped", crate::format::count(skipped)),
            };
            let n = crate::format::count(n);
            lines.push(format!("dry run: {n} {what}{left}"));
        }
        lines.truncate(3);
        lines
    }

    /// How many dead letters the operator was told of, if all are to be thrown away: those that
    /// come meanwhile are not among them.
    fn seen(&self, model: &Model, aim: &Aim) -> Option<u32> {
        if self.op != Op::DeadDiscard || !aim.on.ids.is_empty() {
            return None;
        }
        let mut answers = model.sent.iter().filter(|it| self.asked(it.cmd.id));
        match &answers.find(|it| it.cmd.on == aim.on)?.state {
            State::Done(done) if done.ok => u32::try_from(done.n).ok(),
            _ => None,
        }
    }

    /// The action as a title.
    pub const fn title(&self) -> &'static str {
        match self.op {
            Op::BranchPause => "Pause",
            Op::BranchResume => "Unpause",
            Op::BranchDrain => "Drain",
            Op::BranchCancel => "Cancel",
            Op::BranchThrottle => "Throttle",
            Op::BranchRestart => "Restart",
            Op::CompRetry => "Retry compensations",
            Op::CompSkip => "Skip compensations",
            Op::PipelineDrain => "Drain the pipeline",
            Op::PipelineCancel => "Cancel the pipeline",
            Op::DeadRequeue => "Requeue dead letters",
            Op::DeadDiscard => "Discard dead letters",
            _ => "Ask",
        }
    }

    /// What it means, in a line.
    pub const fn meaning(&self) -> &'static str {
        match self.op {
            Op::BranchPause => "Units wait; items still come in until the queue is full.",
            Op::BranchResume => "Units go on.",
            Op::BranchDrain => "It finishes what is inside; the next item opens it again.",
            Op::BranchCancel => "What was not begun is given up, the rest is undone.",
            Op::BranchThrottle => "Its units leave no faster than that.",
            Op::BranchRestart => "It opens again, empty.",
            Op::CompRetry => "Stuck undo actions run once more. They must be idempotent.",
            Op::CompSkip => "Stuck undo actions are given up: what they undo stays done.",
            Op::PipelineDrain => "It takes nothing more in and finishes what is inside.",
            Op::PipelineCancel => "It rolls back what is under way, and ends.",
            Op::DeadRequeue => "They are handled again. Handlers must be idempotent.",
            Op::DeadDiscard => "They are gone for good.",
            _ => "",
        }
    }
}

/// How an action is confirmed: what cannot be taken back, or is about several, by typing.
fn confirm(op: Op, aims: &[Aim]) -> Step {
    let single = match aims {
        [aim] => Some(aim),
        _ => None,
    };
    if !op.is_dangerous() && single.is_some() {
        return Step::Choice { yes: false };
    }
    let typable = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let (word, what) = match single {
        Some(aim) if typable(&aim.label) => (
            aim.label.clone(),
            match op {
                Op::PipelineDrain | Op::PipelineCancel => "the pipeline's name",
                Op::DeadRequeue | Op::DeadDiscard | Op::CompRetry | Op::CompSkip => "the name",
                _ => "the tenant's name",
            },
        ),
        // A name that not every keyboard has.
        Some(_) => ("yes".to_owned(), "yes"),
        None => (aims.len().to_string(), "their number"),
    };
    Step::Word {
        word,
        what,
        field: Field::default(),
    }
}

/// Takes a key.
pub(super) fn press(model: &mut Model, event: &KeyEvent) -> Vec<Cmd> {
    let Focus::Ask(mut ask) = std::mem::replace(&mut model.focus, Focus::Screen) else {
        return Vec::new();
    };
    if event.code == KeyCode::Esc {
        return Vec::new();
    }
    if event.code == KeyCode::Enter {
        if model.now < ask.armed {
            model.focus = Focus::Ask(ask);
            return Vec::new();
        }
        ask.armed = model.now + GUARD_MS;
        return enter(model, ask);
    }
    match &mut ask.step {
        Step::Rate(field) | Step::Word { field, .. } => {
            field.press(event);
        }
        Step::Choice { yes } => match event.code {
            KeyCode::Tab
            | KeyCode::BackTab
            | KeyCode::Left
            | KeyCode::Right
            | KeyCode::Char('h' | 'l') => *yes = !*yes,
            _ => {}
        },
    }
    model.focus = Focus::Ask(ask);
    Vec::new()
}

fn enter(model: &mut Model, mut ask: Box<Ask>) -> Vec<Cmd> {
    match &ask.step {
        Step::Rate(field) => {
            let text = field.text.trim();
            let rate = text
                .parse::<f64>()
                .ok()
                .filter(|it| it.is_finite() && *it > 0.0);
            if rate.is_none() && !text.is_empty() {
                model.warn("a rate is a number of items per second, above 0; nothing for no limit");
                model.focus = Focus::Ask(ask);
                return Vec::new();
            }
            ask.rate = rate;
            ask.step = confirm(ask.op, &ask.aims);
            let cmds = ask.dry_run(model);
            model.focus = Focus::Ask(ask);
            cmds
        }
        Step::Word { word, field, .. } if *word != field.text => {
            model.focus = Focus::Ask(ask);
            Vec::new()
        }
        // The default.
        Step::Choice { yes: false } => Vec::new(),
        Step::Word { .. } | Step::Choice { yes: true } => carry_out(model, &ask),
    }
}

/// Sends what was asked about: with the generations the operator saw, so that what has changed
/// since is refused.
fn carry_out(model: &mut Model, ask: &Ask) -> Vec<Cmd> {
    let mut cmds = Vec::new();
    for aim in &ask.aims {
        if let Some(why) = act::refused(model, aim) {
            model.warn(format!("{} {}: {why}", act::verb(ask.op), aim.label));
            continue;
        }
        let aim = Aim {
            generation: aim.generation.or_else(|| ask.seen(model, aim)),
            ..aim.clone()
        };
        let (_, cmd) = act::send(model, ask.op, &aim, ask.arguments(), false);
        cmds.extend(cmd);
    }
    cmds
}
