//! The dead letters of a store: as a list, whose ids are what the other verbs take, and what one holds.

use anabranch_protocol::Text;
use anabranch_protocol::message::{DeadLetter, Server};
use serde_json::json;

use super::aim::Aim;
use super::{Order, PATIENCE, hear};
use crate::Exit;
use crate::cli::{complain, say};
use crate::format;
use crate::session::{Failed, Session};
use crate::store::{Process, Store};
use crate::table::Table;
use crate::top::instant;

/// Lists them.
pub(super) fn list(
    store: &mut Store,
    session: &mut Session,
    aim: &Aim,
    order: &Order,
) -> Result<Exit, Failed> {
    read_anew(store, session, aim)?;
    let Some(process) = store.process(aim.process) else {
        return Ok(Exit::Lost);
    };
    let (name, label) = (&order.target, process.label());
    let Some(told) = process.stores.iter().find(|it| *it.store == **name) else {
        let names: Vec<_> = process.stores.iter().map(|it| &*it.store).collect();
        let there = match names.as_slice() {
            [] => "has none".to_owned(),
            names => format!("has {}", names.join(", ")),
        };
        complain(&format!("no outbox is called {name:?}: {label} {there}"));
        return Ok(Exit::Failed);
    };
    if &*told.state != "up" {
        complain(&format!("{name}: its database cannot be read by {label}"));
        return Ok(Exit::Failed);
    }
    let known = process.dead.get(&told.store);
    let (all, letters) = known.map_or((told.dead, &[][..]), |(all, letters)| {
        (*all, letters.as_slice())
    });
    let text = if order.json {
        let process = process.info.as_ref();
        let told = json!({"store": name, "process": process, "all": all, "letters": letters});
        format!("{told}\n")
    } else {
        table(process, name, all, letters)
    };
    Ok(say(&text))
}

/// Listens until the store was read after it was asked for: what is told at first may be older.
fn read_anew(store: &mut Store, session: &mut Session, aim: &Aim) -> Result<(), Failed> {
    let polled = |store: &Store| {
        let process = store.process(aim.process)?;
        let mut stores = process.stores.iter();
        let told = stores.find(|it| aim.on.store.as_deref() == Some(&*it.store))?;
        Some((told.polled, told.state.clone()))
    };
    let before = polled(store);
    let until = instant() + PATIENCE;
    loop {
        let Some(message) = session.receive(until)? else {
            return Ok(());
        };
        // What is told of a store comes whole between two ticks.
        let is_tick = matches!(message, Server::Tick(_));
        hear(store, aim.process, message);
        let now = polled(store);
        if is_tick && (now.is_none() || now != before) {
            return Ok(());
        }
    }
}

fn table(process: &Process, name: &str, all: u64, letters: &[DeadLetter]) -> String {
    if all == 0 {
        return format!("{name}: no dead letters\n");
    }
    let clock = process.heard.map_or(0, |(ts, _)| ts);
    let mut table = Table::new(&["ID>", "TOPIC", "TRIES>", "AGE>", "LAST ERROR"]);
    for letter in letters {
        table.row(vec![
            letter.id.to_string(),
            letter.topic.to_string(),
            letter.attempts.to_string(),
            format::ago(clock, letter.at),
            letter.error.to_string(),
        ]);
    }
    let text = table.render();
    match all.saturating_sub(letters.len() as u64) {
        0 => text,
        more => format!("{text}... and {} more\n", format::count(more)),
    }
}

/// What the dead letter holds that was to be shown.
pub(super) fn payload<'a>(store: &'a Store, aim: &Aim) -> Option<&'a Text> {
    let process = store.process(aim.process)?;
    let name = Text::new(aim.on.store.as_deref()?);
    let (_, letters) = process.dead.get(&name)?;
    let letter = letters.iter().find(|it| aim.on.ids == [&*it.id])?;
    letter.payload.as_ref()
}
