//! A row in words: to be searched, and to be copied.

use super::{Look, branches, comps, errors, log, windows};
use crate::app::Model;
use crate::app::list::RowId;

/// What a row says.
pub fn row_text(model: &Model, row: &RowId) -> String {
    let look = Look::new(model);
    let store = look.store;
    match row {
        RowId::Pipe(process, number) => {
            let label = store.process(*process).map(crate::store::Process::label);
            let pipeline = number.and_then(|it| store.pipeline(*process, it));
            let name = pipeline.map_or("", |it| &*it.pipe.name);
            format!("{} {name}", label.unwrap_or_default())
        }
        RowId::Branch(id) => store.row(*id).map_or_else(String::new, branches::text),
        RowId::Window(id, leg) => windows::text(&look, *id, *leg),
        RowId::Undo(id) => {
            let pipeline = store.pipeline(id.process, id.key.0);
            pipeline.map_or_else(String::new, |it| it.tenant(id.key.1))
        }
        RowId::Scope(process, pipeline, number) => {
            let process = store.process(*process);
            let scope = process.and_then(|it| comps::scope(it, *pipeline, *number));
            scope.map_or_else(String::new, |it| {
                format!("{} {} {}", it.level, it.id, it.what)
            })
        }
        RowId::Action(process, pipeline, number, action) => {
            let process = store.process(*process);
            let scope = process.and_then(|it| comps::scope(it, *pipeline, *number));
            let found = scope.and_then(|it| it.actions.iter().find(|undo| undo.n == *action));
            found.map_or_else(String::new, |it| {
                let error = it.error.as_deref().unwrap_or_default();
                format!("#{} {} {} {error}", it.n, it.name, it.state)
            })
        }
        RowId::Store(_, name) => name.to_string(),
        RowId::Dead(process, store_name, id) => {
            let process = store.process(*process);
            let letters = process.and_then(|it| it.dead.get(store_name));
            let found = letters.and_then(|(_, letters)| letters.iter().find(|it| it.id == *id));
            found.map_or_else(String::new, |it| {
                format!("{} {} {} {}", it.id, it.topic, it.tenant, it.error)
            })
        }
        RowId::Error(..) => {
            errors::find(&look, row).map_or_else(String::new, |(_, process, error)| {
                let tenants = errors::tenants(process, error);
                let sample: Vec<&str> = error.sample.iter().map(|it| &**it).collect();
                format!(
                    "{} {} {} {tenants}",
                    error.code,
                    error.n,
                    sample.join(" <- ")
                )
            })
        }
        RowId::Log(..) => log::find(&look, row).map_or_else(String::new, |line| {
            let time = look.time(line.entry.at, true);
            format!(
                "{time} {} {} {}",
                line.entry.level,
                log::who(&look, line),
                log::what(&look, line)
            )
        }),
    }
}
