//! What takes the keys before the screen does: a field, a menu, the help, a dialog.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::ask::Ask;
use super::{Cmd, Model, Screen, act, palette};
use crate::filter::Filter;
use crate::keymap::Action;

/// What takes the keys.
#[derive(Debug)]
pub enum Focus {
    /// The screen.
    Screen,
    /// A filter is being written; it holds at once.
    Filter {
        /// What is written.
        field: Field,
        /// What it was before, for whoever goes back.
        before: Filter,
        /// Why it makes no sense, if it makes none.
        error: Option<String>,
    },
    /// Words to search for are being written.
    Search(Field),
    /// A command is being written.
    Palette(Field),
    /// An action is being chosen, by its place in [`act::MENU`].
    Menu(usize),
    /// The keys are being explained.
    Help {
        /// Words that are searched for.
        field: Field,
        /// The first line that is shown.
        offset: usize,
        /// Whether keys go to the words.
        typing: bool,
    },
    /// An action is being confirmed.
    Ask(Box<Ask>),
}

/// The longest text a field takes, in characters.
const MOST: usize = 200;

/// A line of text that is being written, at its end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Field {
    /// What is written.
    pub text: String,
}

impl Field {
    /// One with a text in it.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }

    /// Takes a key; false if it means nothing here.
    pub fn press(&mut self, event: &KeyEvent) -> bool {
        let control = event.modifiers.contains(KeyModifiers::CONTROL);
        match event.code {
            KeyCode::Char('u') if control => self.text.clear(),
            KeyCode::Char('w') if control => {
                let kept = self.text.trim_end();
                let kept = kept.rfind(char::is_whitespace).map_or(0, |at| at + 1);
                self.text.truncate(kept);
            }
            KeyCode::Char('h') if control => {
                self.text.pop();
            }
            KeyCode::Char(character) if !control => self.push(character),
            KeyCode::Backspace => {
                self.text.pop();
            }
            _ => return false,
        }
        true
    }

    fn push(&mut self, character: char) {
        if !character.is_control() && self.text.chars().count() < MOST {
            self.text.push(character);
        }
    }
}

/// Pasted text goes to what is being written, and does nothing anywhere else.
pub(super) fn paste(model: &mut Model, text: &str) -> Vec<Cmd> {
    let (Focus::Filter { field, .. }
    | Focus::Search(field)
    | Focus::Palette(field)
    | Focus::Help {
        field,
        typing: true,
        ..
    }) = &mut model.focus
    else {
        // What must be typed to confirm must be typed.
        return Vec::new();
    };
    text.chars().for_each(|character| field.push(character));
    written(model);
    Vec::new()
}

/// What is written has changed.
fn written(model: &mut Model) {
    match &mut model.focus {
        Focus::Filter { field, error, .. } => match Filter::parse(&field.text) {
            Ok(filter) => {
                *error = None;
                model.filter = filter;
                model.reorder();
            }
            Err(told) => *error = Some(told.to_string()),
        },
        Focus::Search(field) => {
            model.search.clone_from(&field.text);
            model.find(true, true);
        }
        Focus::Help { offset, .. } => *offset = 0,
        _ => {}
    }
}

/// Takes a key, if something takes the keys before the screen; `None` if not.
pub(super) fn press(model: &mut Model, event: &KeyEvent) -> Option<Vec<Cmd>> {
    let cmds = match &mut model.focus {
        Focus::Screen => return None,
        Focus::Ask(_) => super::ask::press(model, event),
        Focus::Filter { .. } => filter(model, event),
        Focus::Search(_) => search(model, event),
        Focus::Palette(field) => match event.code {
            KeyCode::Esc => {
                model.focus = Focus::Screen;
                Vec::new()
            }
            KeyCode::Tab => {
                if let Some(text) = palette::complete(&field.text) {
                    field.text = text;
                }
                Vec::new()
            }
            KeyCode::Enter => {
                let text = std::mem::take(&mut field.text);
                model.focus = Focus::Screen;
                palette::run(model, &text)
            }
            _ => {
                field.press(event);
                Vec::new()
            }
        },
        Focus::Menu(at) => match event.code {
            KeyCode::Enter => {
                let action = act::MENU[*at];
                model.focus = Focus::Screen;
                act::begin(model, action)
            }
            _ => menu(model, event),
        },
        Focus::Help { .. } => help(model, event),
    };
    Some(cmds)
}

fn filter(model: &mut Model, event: &KeyEvent) -> Vec<Cmd> {
    let Focus::Filter { field, before, .. } = &mut model.focus else {
        return Vec::new();
    };
    match event.code {
        KeyCode::Enter => model.focus = Focus::Screen,
        KeyCode::Esc => {
            model.filter = std::mem::take(before);
            model.focus = Focus::Screen;
            model.reorder();
        }
        _ => {
            if field.press(event) {
                written(model);
            }
        }
    }
    Vec::new()
}

fn search(model: &mut Model, event: &KeyEvent) -> Vec<Cmd> {
    let Focus::Search(field) = &mut model.focus else {
        return Vec::new();
    };
    match event.code {
        KeyCode::Enter => model.focus = Focus::Screen,
        KeyCode::Esc => {
            model.search.clear();
            model.focus = Focus::Screen;
        }
        _ => {
            if field.press(event) {
                written(model);
            }
        }
    }
    Vec::new()
}

fn menu(model: &mut Model, event: &KeyEvent) -> Vec<Cmd> {
    let pressed = model.keymap.action(event);
    let Focus::Menu(at) = &mut model.focus else {
        return Vec::new();
    };
    let last = act::MENU.len() - 1;
    match pressed {
        Some(Action::Down) => *at = (*at + 1).min(last),
        Some(Action::Up) => *at = at.saturating_sub(1),
        Some(Action::First) => *at = 0,
        Some(Action::Last) => *at = last,
        Some(Action::Back | Action::Quit | Action::Menu) => model.focus = Focus::Screen,
        // A key of an action works here as it does on the screen.
        Some(action) if act::MENU.contains(&action) => {
            model.focus = Focus::Screen;
            return act::begin(model, action);
        }
        _ => {}
    }
    Vec::new()
}

fn help(model: &mut Model, event: &KeyEvent) -> Vec<Cmd> {
    let pressed = model.keymap.action(event);
    let page = usize::from(layout_page(model.size));
    let lines = crate::view::help::lines(model).len();
    let Focus::Help {
        field,
        offset,
        typing,
    } = &mut model.focus
    else {
        return Vec::new();
    };
    let most = lines.saturating_sub(page);
    if *typing {
        match event.code {
            KeyCode::Enter => *typing = false,
            KeyCode::Esc => {
                field.text.clear();
                *typing = false;
            }
            _ => {
                if field.press(event) {
                    written(model);
                }
            }
        }
        return Vec::new();
    }
    match pressed {
        Some(Action::Down) => *offset = (*offset + 1).min(most),
        Some(Action::Up) => *offset = offset.saturating_sub(1),
        Some(Action::PageDown | Action::HalfDown) => *offset = (*offset + page).min(most),
        Some(Action::PageUp | Action::HalfUp) => *offset = offset.saturating_sub(page),
        Some(Action::First) => *offset = 0,
        Some(Action::Last) => *offset = most,
        Some(Action::Filter) => *typing = true,
        Some(Action::Back | Action::Quit | Action::Help) => model.focus = Focus::Screen,
        _ => {}
    }
    Vec::new()
}

/// Lines of the help on one page.
pub const fn layout_page(size: (u16, u16)) -> u16 {
    super::layout::body(size).saturating_sub(1)
}

impl Model {
    /// Puts the cursor on the next row with what was searched for, or on the one before; on the
    /// present one too, if `here`.
    pub(super) fn find(&mut self, forward: bool, here: bool) {
        if self.search.is_empty() {
            return;
        }
        let wanted = self.search.to_lowercase();
        let list = self.list();
        let (rows, at) = (list.rows(), list.at());
        let count = rows.len();
        let steps = usize::from(!here)..count + usize::from(!here);
        let found = steps
            .map(|step| {
                if forward {
                    (at + step) % count
                } else {
                    (at + count - step % count) % count
                }
            })
            .find(|place| {
                let text = crate::view::row_text(self, &rows[*place]);
                text.to_lowercase().contains(&wanted)
            });
        match found {
            Some(place) => {
                let height = self.height();
                let list = &mut self.lists[self.screen.index()];
                list.go(place);
                list.scroll(height);
                if self.screen == Screen::Log {
                    self.follow = false;
                }
            }
            None => self.warn(format!("nothing here says {wanted:?}")),
        }
    }
}
