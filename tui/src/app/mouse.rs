//! What the mouse does on a screen, once it is taken.

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::focus::Focus;
use super::key::step;
use super::{Cmd, Model};

/// The mouse was used: the wheel moves, a click selects.
pub(super) fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Cmd> {
    if !matches!(model.focus, Focus::Screen) {
        return Vec::new();
    }
    model.arrange();
    match event.kind {
        MouseEventKind::ScrollDown => step(model, 3),
        MouseEventKind::ScrollUp => step(model, -3),
        MouseEventKind::Down(MouseButton::Left) => {
            let first = crate::view::first_row(model);
            let line = event
                .row
                .checked_sub(first)
                .filter(|it| *it < model.height());
            let Some(line) = line else {
                return Vec::new();
            };
            let list = &mut model.lists[model.screen.index()];
            let at = list.offset + usize::from(line);
            if at < list.rows().len() {
                list.go(at);
            }
        }
        _ => return Vec::new(),
    }
    model.dirty = true;
    Vec::new()
}
