//! `anabranch ls`: the processes that can be looked at, from their files alone.

use serde_json::json;

use crate::Exit;
use crate::cli::{complain, say};
use crate::find::{Found, directories, look, processes};
use crate::table::{Table, span};

/// Prints them.
pub(crate) fn run(as_json: bool, now_ms: u64) -> Exit {
    let found = processes();
    let unsafe_ones = directories().into_iter().filter_map(|it| look(&it).err());
    for error in unsafe_ones.filter(|it| !it.is_missing()) {
        complain(&format!("{error} (no process is found there)"));
    }
    let text = if as_json {
        let rows: Vec<_> = found.iter().map(row).collect();
        format!("{}\n", json!(rows))
    } else {
        table(&found, now_ms)
    };
    say(&text)
}

fn row(found: &Found) -> serde_json::Value {
    let marker = &found.marker;
    json!({
        "pid": marker.pid,
        "name": marker.name,
        "version": marker.version,
        "start": marker.start,
        "cwd": marker.cwd,
        "at": found.at.to_string(),
    })
}

fn table(found: &[Found], now_ms: u64) -> String {
    let mut table = Table::new(&["PID>", "NAME", "UP>", "VERSION", "CWD", "AT"]);
    for it in found {
        let marker = &it.marker;
        table.row(vec![
            marker.pid.to_string(),
            marker.name.to_string(),
            span(now_ms.saturating_sub(marker.start)),
            marker.version.to_string(),
            marker.cwd.to_string(),
            it.at.to_string(),
        ]);
    }
    table.render()
}
