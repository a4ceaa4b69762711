//! What the monitors are asked to tell: only what is looked at comes often, or at all.

use anabranch_protocol::Text;
use anabranch_protocol::message::{Sub, Topic};

use super::list::RowId;
use super::{Cmd, Model, Screen, layout};
use crate::store::{BranchId, COLUMNS, ProcessId};

/// Rows that a monitor tells of every tick, at most.
const VISIBLE: usize = 512;

/// How soon a monitor is told of other rows on the screen, in milliseconds: while they are sorted
/// by a number, they change with every tick.
const PATIENCE_MS: u64 = 500;

/// What the monitors are to be told, where it is not what they were told last.
pub(super) fn wanted(model: &mut Model) -> Vec<Cmd> {
    let mut cmds = Vec::new();
    let live: Vec<_> = model
        .store
        .processes()
        .filter(|(_, process)| process.is_live())
        .map(|(id, process)| (id, process.target))
        .collect();
    for (id, target) in live {
        let sub = sub(model, id);
        let told = model.subscribed.get(&target);
        let (same, soon) = told.map_or((false, false), |(told, at)| {
            let but_rows = Sub {
                id: told.id,
                visible: told.visible.clone(),
                ..sub.clone()
            };
            let rows = told.visible == sub.visible;
            let soon = model.now.saturating_sub(*at) < PATIENCE_MS;
            (*told == but_rows && rows, *told == but_rows && soon)
        });
        if !same && !soon {
            let sub = Sub {
                id: model.subscription(),
                ..sub
            };
            let now = model.now;
            model.subscribed.insert(target, (sub.clone(), now));
            cmds.push(Cmd::Send(target, Box::new(sub.into())));
        }
    }
    cmds
}

fn sub(model: &Model, process: ProcessId) -> Sub {
    let visible = match model.screen {
        Screen::Branches => model.list().shown(model.height()),
        _ => &[],
    };
    let visible = visible.iter().filter_map(|row| match row {
        RowId::Branch(id) if id.process == process => Some(id.key),
        _ => None,
    });
    let panes = model.screen == Screen::Branches && layout::panes(model.size);
    let open = model.open.is_some();
    let mut topics = vec![Topic::Totals, Topic::Branches, Topic::Log];
    let also = [
        (Topic::Windows, Screen::Windows, panes),
        (Topic::Comp, Screen::Comps, panes || open),
        // What waits in them is told of on the first screen, too.
        (
            Topic::Outbox,
            Screen::Outbox,
            panes || model.screen == Screen::Pipes,
        ),
        (Topic::Errors, Screen::Errors, panes),
    ];
    for (topic, screen, beside) in also {
        if model.screen == screen || beside {
            topics.push(topic);
        }
    }
    let mut visible: Vec<_> = visible.take(VISIBLE).collect();
    // Their order is ours alone.
    visible.sort_unstable();
    Sub {
        id: 0,
        tick_ms: model.tick_ms,
        bulk_ms: model.tick_ms.max(1000),
        visible,
        topics,
        cols: COLUMNS.iter().map(|it| Text::new(it)).collect(),
        detail: looked_at(model, panes)
            .filter(|id| id.process == process)
            .map(|id| id.key),
    }
}

/// The branch that is shown in detail.
fn looked_at(model: &Model, panes: bool) -> Option<BranchId> {
    model.open.or_else(|| match model.selected() {
        Some(RowId::Branch(id)) if panes => Some(*id),
        _ => None,
    })
}
