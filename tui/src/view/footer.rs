//! The line below each screen: what is being written, what the operator is told, or the keys.

use ratatui::text::Line;

use super::Look;
use crate::app::focus::Focus;
use crate::app::{Screen, palette};
use crate::keymap::Action;
use crate::theme::Role;

/// The last line of the terminal.
pub(super) fn line(look: &Look<'_>, width: u16) -> Line<'static> {
    match &look.model.focus {
        Focus::Filter { field, error, .. } => {
            let mut parts = vec![look.span(Role::Key, format!("/{}_", field.text))];
            match error {
                Some(error) => parts.push(look.span(Role::Bad, error.clone())),
                None => parts.push(look.span(
                    Role::Dim,
                    "acme ^ac st:fail st:!ok queue:>900 !word   enter keep  esc undo",
                )),
            }
            cut(look, width, parts)
        }
        Focus::Search(field) => {
            let keys = "enter keep  esc end  then n next, N previous";
            let parts = vec![
                look.span(Role::Key, format!("/{}_", field.text)),
                look.span(Role::Dim, keys),
            ];
            cut(look, width, parts)
        }
        Focus::Palette(field) => {
            let mut parts = vec![look.span(Role::Key, format!(":{}_", field.text))];
            if let Some(argument) = palette::argument(field.text.trim()) {
                parts.push(look.span(Role::Dim, argument));
            }
            let names = palette::candidates(&field.text);
            parts.extend(names.into_iter().map(|it| look.span(Role::Dim, it)));
            look.parts(width, parts)
        }
        _ => match &look.model.notice {
            Some(notice) => {
                let role = if notice.bad { Role::Bad } else { Role::Text };
                cut(look, width, vec![look.span(role, notice.text.clone())])
            }
            None => keys(look, width),
        },
    }
}

/// Parts of which the last is cut, not left out.
fn cut(look: &Look<'_>, width: u16, mut parts: Vec<ratatui::text::Span<'static>>) -> Line<'static> {
    let margin = look.margin();
    let before: usize = parts[..parts.len() - 1]
        .iter()
        .map(|part| crate::format::width(&part.content) + 2)
        .sum();
    let rest = usize::from(width).saturating_sub(before + margin);
    if let Some(last) = parts.last_mut() {
        last.content = look.fit_at_most(&last.content, rest).into();
    }
    look.parts(width, parts)
}

/// The keys of the screen, as they are bound.
fn keys(look: &Look<'_>, width: u16) -> Line<'static> {
    let model = look.model;
    let key = |action: Action, what: &str| (model.keymap.first(action), what.to_owned());
    if let Focus::Help { .. } = model.focus {
        let down = model.keymap.first(Action::Down);
        let both = format!("{down}/{}", model.keymap.first(Action::Up));
        let keys = [
            (both, "move".to_owned()),
            key(Action::Filter, "search"),
            key(Action::Back, "back"),
        ];
        return line_of(look, width, &keys);
    }
    let freeze = match model.frozen {
        Some(_) => "unfreeze",
        None => "freeze",
    };
    let mut keys = if model.open.is_some() {
        vec![key(Action::Back, "back")]
    } else {
        let down = model.keymap.first(Action::Down);
        vec![(
            format!("{down}/{}", model.keymap.first(Action::Up)),
            "move".to_owned(),
        )]
    };
    let own = if model.open.is_some() {
        vec![]
    } else {
        own(look)
    };
    keys.extend(own.iter().map(|(action, what)| key(*action, what)));
    keys.push(key(Action::Freeze, freeze));
    let mark = model.screen == Screen::Branches && model.open.is_none();
    keys.extend(mark.then(|| key(Action::Mark, "mark")));
    keys.push(key(Action::Menu, "actions"));
    if look.wide {
        keys.push(key(Action::Save, "save"));
        keys.push(key(Action::Copy, "copy"));
    }
    keys.push(key(Action::Palette, "cmd"));
    if look.wide || model.open.is_some() {
        keys.push(key(Action::Help, "help"));
    }
    keys.push(key(Action::Quit, "quit"));
    line_of(look, width, &keys)
}

/// The keys that do something of its own on a screen.
fn own(look: &Look<'_>) -> Vec<(Action, String)> {
    let model = look.model;
    let keys: &[(Action, &str)] = match model.screen {
        Screen::Pipes => {
            let span = format!("window {}", model.span.name());
            let branches = "branches".to_owned();
            return vec![(Action::Enter, branches), (Action::Span, span)];
        }
        Screen::Branches if look.wide => &[
            (Action::ColumnRight, "column"),
            (Action::Filter, "filter"),
            (Action::Sort, "sort"),
            (Action::Enter, "open"),
            (Action::Back, "back"),
        ],
        Screen::Branches => &[
            (Action::Filter, "filter"),
            (Action::Sort, "sort"),
            (Action::Enter, "open"),
        ],
        Screen::Windows => &[(Action::Enter, "branch"), (Action::Filter, "search")],
        Screen::Comps => &[
            (Action::Enter, "fold"),
            (Action::Retry, "retry"),
            (Action::Skip, "skip"),
            (Action::Filter, "search"),
        ],
        Screen::Outbox if model.open_store.is_some() => &[
            (Action::Enter, "peek"),
            (Action::Requeue, "requeue"),
            (Action::Back, "stores"),
        ],
        Screen::Outbox => &[
            (Action::Enter, "dead letters"),
            (Action::Requeue, "requeue"),
            (Action::Filter, "search"),
        ],
        Screen::Errors => &[(Action::Filter, "search"), (Action::Copy, "copy")],
        Screen::Log => {
            let follow = if model.follow { "unfollow" } else { "follow" };
            return vec![
                (Action::Level, format!("level {}", model.level)),
                (Action::Follow, follow.to_owned()),
                (Action::Filter, "search".to_owned()),
                (Action::NextMatch, "next".to_owned()),
            ];
        }
    };
    let owned = keys
        .iter()
        .map(|(action, what)| (*action, (*what).to_owned()));
    owned.collect()
}

fn line_of(look: &Look<'_>, width: u16, keys: &[(String, String)]) -> Line<'static> {
    let mut line = vec![ratatui::text::Span::raw(" ".repeat(look.margin()))];
    let mut used = look.margin();
    // What an action has no key for is not named; the last one, how to leave, has its place kept.
    let keys: Vec<_> = keys.iter().filter(|(key, _)| !key.is_empty()).collect();
    let wide = |(key, what): &(String, String)| crate::format::width(key) + what.len() + 1;
    let gap = if look.wide { 1 } else { 2 };
    let last = keys.last().map_or(0, |it| wide(it) + gap);
    for (index, (key, what)) in keys.iter().enumerate() {
        let gap = if line.len() > 1 { gap } else { 0 };
        let more = wide(keys[index]) + gap;
        let kept = if index + 1 == keys.len() { 0 } else { last };
        if used + more + kept > usize::from(width) {
            continue;
        }
        line.push(ratatui::text::Span::raw(" ".repeat(gap)));
        line.push(look.span(Role::Key, key.clone()));
        line.push(look.span(Role::Dim, format!(" {what}")));
        used += more;
    }
    Line::from(line)
}
