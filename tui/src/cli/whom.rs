//! The processes that are meant: those that were named, those that are found, those at a place.

use std::path::PathBuf;

use clap::Args;

use super::Complaint;
use crate::find::{Found, processes};
use crate::session::At;
use crate::{Exit, top::Find};

/// Places that were named.
#[derive(Debug, Args)]
pub(super) struct Places {
    /// A process at this place: unix:PATH or tcp:ADDRESS:PORT
    #[arg(long, value_name = "PLACE", value_parser = At::parse)]
    connect: Vec<At>,
    /// The file with what lets one in over TCP
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Places {
    /// The places, with what lets one in.
    pub(super) fn read(self) -> Result<Vec<(String, At)>, Complaint> {
        let token = match &self.token_file {
            Some(file) => {
                let read = std::fs::read_to_string(file).map_err(|error| {
                    let why = crate::record::told(&error);
                    Complaint::new(Exit::Usage, format!("{}: {why}", file.display()))
                })?;
                Some(read.trim().to_owned())
            }
            None => None,
        };
        let places = self.connect.into_iter().map(|at| {
            let label = at.to_string();
            match at {
                At::Tcp(address, _) => (label, At::Tcp(address, token.clone())),
                at @ At::Unix(_) => (label, at),
            }
        });
        Ok(places.collect())
    }
}

fn labelled(found: Found) -> (String, At) {
    (
        format!("{}[{}]", found.marker.name, found.name.pid),
        found.at,
    )
}

/// The processes that these words mean, or all without any.
pub(super) fn find(words: &[String]) -> Vec<(String, At)> {
    let meant = |it: &Found| words.is_empty() || words.iter().any(|word| it.is_meant(word));
    let found = processes().into_iter().filter(meant);
    found.map(labelled).collect()
}

/// The same, now and again.
pub(super) fn finder(words: Vec<String>) -> Find {
    Box::new(move || find(&words))
}

/// Refuses words that mean nothing.
pub(super) fn check(words: &[String]) -> Result<(), Complaint> {
    let found = processes();
    let unknown = |word: &&String| !found.iter().any(|it| it.is_meant(word));
    match words.iter().find(unknown) {
        Some(word) => {
            let what = format!("no process with pipelines is called {word:?} (see anabranch ls)");
            Err(Complaint::new(Exit::Nothing, what))
        }
        None => Ok(()),
    }
}

/// Nothing runs here.
pub(super) fn nobody() -> Complaint {
    Complaint::new(
        Exit::Nothing,
        "no process with pipelines runs here (see anabranch doctor)",
    )
}
