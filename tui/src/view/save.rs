//! A snapshot: what the screen shows, as text, and what is known, as JSON.

use anabranch_protocol::row::COLUMNS;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::{Map, Value, json};

use super::{Look, render};
use crate::app::{Cmd, Model};
use crate::store::{Pipeline, Process};

/// Everything that is shown and known, to be written down.
pub fn snapshot(model: &Model) -> Cmd {
    let look = Look::new(model);
    let stem = look.time(model.now, false).replace(':', "");
    Cmd::Save {
        stem: format!("anabranch-{stem}"),
        text: text(model),
        json: format!("{:#}\n", json(model)),
    }
}

/// What the screen shows, without the spaces at the ends of lines.
fn text(model: &Model) -> String {
    let (width, height) = model.size;
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    render(model, &mut buffer);
    let mut text = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut covered = 0;
        for x in 0..width {
            let symbol = buffer[(x, y)].symbol();
            // What a wide character covers is not there.
            if covered == 0 {
                line.push_str(symbol);
                covered = crate::format::width(symbol).saturating_sub(1);
            } else {
                covered -= 1;
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn json(model: &Model) -> Value {
    let store = model.shown();
    let processes: Vec<_> = store.processes().map(|(_, it)| process(it)).collect();
    json!({ "at": model.shown_at(), "processes": processes })
}

fn process(process: &Process) -> Value {
    json!({
        "process": process.info,
        "live": process.is_live(),
        "heard": process.heard.map(|(ts, _)| ts),
        "pipelines": process.pipelines.values().map(pipeline).collect::<Vec<_>>(),
        "compensations": process.scopes,
        "outbox": process.stores,
        "errors": process.errors,
    })
}

fn pipeline(pipeline: &Pipeline) -> Value {
    let rows = pipeline.rows.iter().filter(|row| pipeline.shows(row));
    let branches: Vec<Value> = rows
        .map(|row| {
            let cells = COLUMNS.iter().map(|name| {
                let cell = serde_json::to_value(row.branch.cell(name));
                ((*name).to_owned(), cell.unwrap_or(Value::Null))
            });
            let mut branch: Map<_, _> = cells.collect();
            branch.insert("tenant".to_owned(), row.tenant.to_string().into());
            branch.insert("rate_in".to_owned(), row.rate_in.into());
            branch.insert("rate_out".to_owned(), row.rate_out.into());
            Value::Object(branch)
        })
        .collect();
    json!({
        "pipeline": pipeline.pipe,
        "totals": pipeline.totals,
        "branches": branches,
    })
}
