//! What keys do on a screen.

use anabranch_protocol::message::{Arguments, Op, Severity, Target};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::act;
use super::aim::Aim;
use super::columns::{Column, Sort};
use super::focus::{self, Field, Focus};
use super::list::RowId;
use super::{Cmd, Model, Screen, Span, layout};
use crate::keymap::Action;
use crate::store::{Link, ProcessId};

/// The ticks there are, in milliseconds.
const TICKS: [u64; 6] = [50, 100, 200, 500, 1000, 2000];

/// A key was pressed.
pub(super) fn press(model: &mut Model, event: &KeyEvent) -> Vec<Cmd> {
    if event.kind == KeyEventKind::Release {
        return Vec::new();
    }
    // Whatever is open, whatever the configuration says: there is always a way out.
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    if control && event.code == KeyCode::Char('c') {
        return vec![Cmd::Quit];
    }
    if layout::too_small(model.size) && matches!(model.focus, Focus::Ask(_)) {
        // What is not seen is not confirmed.
        model.focus = Focus::Screen;
    }
    if let Some(cmds) = focus::press(model, event) {
        return cmds;
    }
    match model.keymap.action(event) {
        Some(action) => act(model, action),
        None => Vec::new(),
    }
}

/// Does what a key, or a command by name, is for.
pub(super) fn act(model: &mut Model, action: Action) -> Vec<Cmd> {
    if act::MENU.contains(&action) {
        return act::begin(model, action);
    }
    let page = isize::try_from(model.height()).unwrap_or(1).max(1);
    match action {
        Action::Pipes => model.go(Screen::Pipes),
        Action::Branches => model.go(Screen::Branches),
        Action::Windows => model.go(Screen::Windows),
        Action::Comps => model.go(Screen::Comps),
        Action::Outbox => model.go(Screen::Outbox),
        Action::Errors => model.go(Screen::Errors),
        Action::Log => model.go(Screen::Log),
        Action::NextScreen => turn(model, 1),
        Action::LastScreen => turn(model, Screen::ALL.len() - 1),
        Action::Help => {
            model.focus = Focus::Help {
                field: Field::default(),
                offset: 0,
                typing: false,
            };
        }
        Action::Down => step(model, 1),
        Action::Up => step(model, -1),
        Action::First => step(model, isize::MIN),
        Action::Last => step(model, isize::MAX),
        Action::HalfDown => step(model, page / 2),
        Action::HalfUp => step(model, -(page / 2)),
        Action::PageDown => step(model, page),
        Action::PageUp => step(model, -page),
        Action::ColumnLeft => column(model, false),
        Action::ColumnRight => column(model, true),
        Action::Enter => return enter(model),
        Action::Back => back(model),
        Action::Filter => write(model),
        Action::NextMatch => model.find(true, false),
        Action::LastMatch => model.find(false, false),
        Action::Sort => {
            let column = model.column;
            sort(
                model,
                Sort {
                    column,
                    falling: column.falls(),
                },
            );
        }
        Action::Reverse => {
            let now = model.sort;
            sort(
                model,
                Sort {
                    falling: !now.falling,
                    ..now
                },
            );
        }
        Action::Freeze => model.freeze(),
        Action::Faster => tick(model, false),
        Action::Slower => tick(model, true),
        Action::Span => {
            model.span = model.span.next();
            model.tell(format!("history of {}", model.span.name()));
        }
        Action::Level => return level(model),
        Action::Follow => {
            model.follow = !model.follow;
            model.reorder();
        }
        Action::Theme => {
            model.theme = model.theme.next();
            model.tell(format!("theme {}", model.theme.name()));
        }
        Action::Mark => mark(model),
        Action::Unmark => model.marks.clear(),
        Action::Menu => model.focus = Focus::Menu(0),
        Action::Palette => model.focus = Focus::Palette(Field::default()),
        Action::Copy => return copy(model),
        Action::Save => return vec![crate::view::snapshot(model)],
        Action::Mouse => {
            model.mouse = !model.mouse;
            model.tell(if model.mouse {
                "mouse on: hold shift to select text"
            } else {
                "mouse off"
            });
            return vec![Cmd::Mouse(model.mouse)];
        }
        Action::Reconnect => return reconnect(model),
        Action::Redraw => return vec![Cmd::Redraw],
        Action::Suspend => return vec![Cmd::Suspend],
        Action::Quit => return vec![Cmd::Quit],
        // Those of the menu, above.
        _ => {}
    }
    Vec::new()
}

fn turn(model: &mut Model, by: usize) {
    let next = (model.screen.index() + by) % Screen::ALL.len();
    model.go(Screen::ALL[next]);
}

pub(super) fn step(model: &mut Model, by: isize) {
    if model.open.is_some() {
        return;
    }
    let height = model.height();
    let list = &mut model.lists[model.screen.index()];
    list.step(by);
    list.scroll(height);
    if model.screen == Screen::Log {
        // At the end it follows what comes; anywhere else it stays where it is.
        model.follow = list.at() + 1 >= list.rows().len();
    }
}

fn column(model: &mut Model, right: bool) {
    let columns: Vec<Column> = crate::view::branches::columns(model)
        .into_iter()
        .filter(|column| *column != Column::Spark)
        .collect();
    let at = columns.iter().position(|it| *it == model.column);
    let next = match (at, right) {
        (Some(at), true) => (at + 1).min(columns.len().saturating_sub(1)),
        (Some(at), false) => at.saturating_sub(1),
        (None, _) => 0,
    };
    if let Some(column) = columns.get(next) {
        model.column = *column;
    }
}

fn sort(model: &mut Model, sort: Sort) {
    model.sort = sort;
    model.reorder();
}

fn enter(model: &mut Model) -> Vec<Cmd> {
    let Some(row) = model.selected().cloned() else {
        return Vec::new();
    };
    match (&row, model.screen) {
        (RowId::Pipe(process, number), Screen::Pipes) => {
            let lost = model
                .store
                .process(*process)
                .is_some_and(|it| matches!(it.link, Link::Lost { .. }));
            if lost {
                return reconnect(model);
            }
            if let Some(number) = number {
                model.go(Screen::Branches);
                model.scope = Some((*process, *number));
                model.reorder();
            }
        }
        (RowId::Branch(id), _) => model.open = Some(*id),
        (RowId::Window(id, _), _) => {
            let id = *id;
            model.go(Screen::Branches);
            model.lists[Screen::Branches.index()].replace(vec![RowId::Branch(id)]);
            model.open = Some(id);
        }
        (RowId::Pipe(..) | RowId::Undo(_) | RowId::Scope(..), _) => {
            if !model.folded.remove(&row) {
                model.folded.insert(row);
            }
            model.reorder();
        }
        (RowId::Store(process, name), _) => {
            model.open_store = Some((*process, name.clone()));
            model.lists[Screen::Outbox.index()].go(0);
            model.reorder();
        }
        (RowId::Dead(process, store, id), _) => return peek(model, *process, store, id),
        _ => {}
    }
    Vec::new()
}

/// Asks what a dead letter holds. It changes nothing, so nobody is asked.
fn peek(model: &mut Model, process: ProcessId, store: &str, id: &str) -> Vec<Cmd> {
    let live = model
        .store
        .process(process)
        .is_some_and(crate::store::Process::is_live);
    if model.frozen.is_some() || !live {
        model.warn("what a dead letter holds can only be asked of a process that answers");
        return Vec::new();
    }
    let aim = Aim {
        process,
        on: Target {
            store: Some(store.to_owned()).filter(|it| !it.is_empty()),
            ids: vec![id.to_owned()],
            ..Target::default()
        },
        generation: None,
        label: id.to_owned(),
    };
    let (_, cmd) = act::send(model, Op::DeadPeek, &aim, Arguments::default(), false);
    cmd.into_iter().collect()
}

fn back(model: &mut Model) {
    if model.open.take().is_some() {
        model.reorder();
    } else if let Some((process, name)) = model.open_store.take() {
        model.reorder();
        model.arrange();
        model.lists[Screen::Outbox.index()].select(&RowId::Store(process, name));
    } else if !model.filter.is_empty() && model.screen == Screen::Branches {
        model.filter = crate::filter::Filter::default();
        model.reorder();
    } else if model.screen != Screen::Pipes {
        model.go(Screen::Pipes);
    }
}

fn write(model: &mut Model) {
    model.focus = if model.screen == Screen::Branches && model.open.is_none() {
        Focus::Filter {
            field: Field::new(model.filter.source()),
            before: model.filter.clone(),
            error: None,
        }
    } else {
        Focus::Search(Field::default())
    };
}

fn tick(model: &mut Model, slower: bool) {
    let next = if slower {
        TICKS.iter().find(|it| **it > model.tick_ms)
    } else {
        TICKS.iter().rev().find(|it| **it < model.tick_ms)
    };
    if let Some(next) = next {
        model.tick_ms = *next;
    }
    model.tell(format!(
        "a tick every {}",
        crate::format::span(model.tick_ms)
    ));
}

fn level(model: &mut Model) -> Vec<Cmd> {
    model.level = match model.level {
        Severity::Debug => Severity::Info,
        Severity::Info => Severity::Warn,
        Severity::Warn => Severity::Error,
        Severity::Error | Severity::Unknown => Severity::Debug,
    };
    model.tell(format!("log from {} on", model.level));
    model.reorder();
    let live: Vec<_> = model
        .store
        .processes()
        .filter(|(_, process)| process.is_live())
        .map(|(id, process)| (id, process.label()))
        .collect();
    let level = model.level;
    let ask = |(process, label): (ProcessId, String)| {
        let aim = Aim {
            process,
            on: Target::default(),
            generation: None,
            label,
        };
        let args = Arguments {
            level: Some(level),
            ..Arguments::default()
        };
        act::send(model, Op::LogLevel, &aim, args, false).1
    };
    live.into_iter().filter_map(ask).collect()
}

fn mark(model: &mut Model) {
    if let Some(RowId::Branch(id)) = model.selected().cloned() {
        if !model.marks.remove(&id) {
            model.marks.insert(id);
        }
        step(model, 1);
    }
}

fn copy(model: &mut Model) -> Vec<Cmd> {
    let Some(row) = model.selected().cloned() else {
        return Vec::new();
    };
    let text = crate::view::row_text(model, &row);
    model.tell("copied");
    vec![Cmd::Copy(text)]
}

fn reconnect(model: &mut Model) -> Vec<Cmd> {
    let lost = model
        .store
        .processes()
        .filter(|(_, process)| matches!(process.link, Link::Lost { again: Some(_), .. }));
    let cmds: Vec<_> = lost.map(|(_, it)| Cmd::Reconnect(it.target)).collect();
    model.tell(match cmds.len() {
        0 => "no process is lost that could come back".to_owned(),
        1 => "reconnecting".to_owned(),
        n => format!("reconnecting to {n} processes"),
    });
    cmds
}

/// Goes to the first branch whose tenant begins so.
pub(super) fn go_to(model: &mut Model, tenant: &str) {
    if model.screen != Screen::Branches {
        model.go(Screen::Branches);
    }
    model.arrange();
    let store = model.shown();
    let found = model.list().rows().iter().find(|row| match row {
        RowId::Branch(id) => store
            .row(*id)
            .is_some_and(|it| it.tenant.starts_with(tenant)),
        _ => false,
    });
    match found.cloned() {
        Some(row) => {
            let height = model.height();
            let list = &mut model.lists[Screen::Branches.index()];
            list.select(&row);
            list.scroll(height);
        }
        None => model.warn(format!("no branch here begins with {tenant:?}")),
    }
}

const _: () = assert!(Span::Five.seconds() <= crate::store::POINTS);
