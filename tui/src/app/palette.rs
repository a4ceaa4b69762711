//! Commands by name: every action, and what takes an argument.

use super::columns::{Column, Sort};
use super::{Cmd, Model, key};
use crate::filter::Filter;
use crate::keymap::Action;
use crate::theme::Theme;

/// Commands that take an argument, with what it is.
const WITH: [(&str, &str); 4] = [
    ("filter", "TERMS"),
    ("sort", "COLUMN[:asc|:desc]"),
    ("theme", "ansi|cb|mono|light|dark"),
    ("go", "TENANT"),
];

/// What a text may become, the nearest first: whole commands, and values of arguments.
pub fn candidates(text: &str) -> Vec<String> {
    let text = text.trim_start();
    if let Some((name, value)) = text.split_once(' ') {
        let values: Vec<&str> = match name {
            "sort" => Column::ALL.iter().map(|it| it.name()).collect(),
            "theme" => Theme::ALL.iter().map(|it| it.name()).collect(),
            _ => vec![],
        };
        return values
            .into_iter()
            .filter(|it| it.starts_with(value))
            .map(|it| format!("{name} {it}"))
            .collect();
    }
    let plain = Action::ALL.iter().map(|it| it.name());
    let with = WITH.iter().map(|(name, _)| *name);
    let mut found: Vec<_> = plain
        .chain(with)
        .filter(|name| name.starts_with(text))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// What an argument of a command is, if it takes one.
pub fn argument(name: &str) -> Option<&'static str> {
    let found = WITH.iter().find(|(it, _)| *it == name);
    found.map(|(_, what)| *what)
}

/// The longest beginning that all candidates share, if it is more than what is there.
pub(super) fn complete(text: &str) -> Option<String> {
    let candidates = candidates(text);
    let first = candidates.first()?;
    let shared = candidates.iter().fold(first.len(), |shared, it| {
        let same = first.bytes().zip(it.bytes()).take_while(|(a, b)| a == b);
        shared.min(same.count())
    });
    let mut longer = first.get(..shared)?.to_owned();
    if candidates.len() == 1 && argument(&longer).is_some() {
        longer.push(' ');
    }
    (longer.len() > text.len()).then_some(longer)
}

/// Carries a command out.
pub(super) fn run(model: &mut Model, text: &str) -> Vec<Cmd> {
    let text = text.trim();
    let (name, value) = match text.split_once(' ') {
        Some((name, value)) => (name, value.trim()),
        None => (text, ""),
    };
    match (name, value) {
        ("", _) => {}
        ("filter", terms) if !terms.is_empty() => match Filter::parse(terms) {
            Ok(filter) => {
                model.filter = filter;
                model.reorder();
            }
            Err(error) => model.warn(error.to_string()),
        },
        ("sort", order) if !order.is_empty() => match Sort::parse(order) {
            Some(sort) => {
                model.sort = sort;
                model.column = sort.column;
                model.reorder();
            }
            None => model.warn(format!("there is no column {order:?}")),
        },
        ("theme", name) if !name.is_empty() => match Theme::from_name(name) {
            Some(theme) => model.theme = theme,
            None => model.warn(format!("there is no theme {name:?}")),
        },
        ("go", tenant) => key::go_to(model, tenant),
        (name, "") => {
            // What is shown first is meant, as with a key of its own.
            let action = Action::from_name(name).or_else(|| {
                let found = candidates(name);
                found.first().and_then(|it| Action::from_name(it))
            });
            match action {
                Some(action) => return key::act(model, action),
                None => model.warn(format!("there is no command {name:?}")),
            }
        }
        _ => model.warn(format!("{name} takes nothing behind it")),
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_begun_is_completed_as_far_as_it_is_clear() {
        assert_eq!(complete("thr").as_deref(), Some("throttle"));
        assert_eq!(complete("fi").as_deref(), Some("fi").filter(|_| false));
        assert_eq!(complete("filt").as_deref(), Some("filter "));
        assert_eq!(complete("sort que").as_deref(), Some("sort queue"));
        assert_eq!(complete("zzz"), None);
        assert!(candidates("").len() > Action::ALL.len());
    }
}
