//! `anabranch top` and `anabranch replay`: the dashboard where there is a terminal, else a print.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anabranch_protocol::Text;
use clap::Args;
use jiff::tz::TimeZone;

use super::whom::{self, Places};
use super::{Complaint, complain, say, session, time};
use crate::app::columns::{Column, Sort};
use crate::app::{Begin, Cmd, Model, Msg, update};
use crate::config::Config;
use crate::filter::Filter;
use crate::symbols::only_ascii;
use crate::theme::Theme;
use crate::top::{self, Options, Source};
use crate::{Exit, once, record, view};

/// Between two looks of the dashboard, and of what is printed.
const LIVE: Duration = Duration::from_millis(100);
const PRINTED: Duration = Duration::from_millis(500);

/// What is printed of a recording is as large as this.
const PAGE: (u16, u16) = (120, 40);

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(super) struct Top {
    /// Processes, by pid, by name, or by the beginning of a name; all by default
    #[arg(value_name = "NAME|PID")]
    processes: Vec<String>,
    #[command(flatten)]
    places: Places,
    /// Between two looks: 100ms, 2s [default: 100ms on a terminal, 500ms printed]
    #[arg(long, value_name = "TIME", value_parser = time)]
    interval: Option<Duration>,
    /// The order of branches: queue, p99:asc, tenant:desc, …
    #[arg(long, value_name = "COLUMN[:asc|desc]", value_parser = sort)]
    sort: Option<Sort>,
    /// Which branches are shown: 'st:fail', '^acme', 'queue:>900', '!st:ok'
    #[arg(long, value_name = "TERMS", value_parser = Filter::parse)]
    filter: Option<Filter>,
    #[command(flatten)]
    looks: Looks,
    /// Change nothing, whatever the processes allow
    #[arg(long)]
    read_only: bool,
    /// Write down all that is heard, for `anabranch replay`; the file must not be there yet
    #[arg(long, value_name = "FILE", conflicts_with_all = ["once", "batch", "json"])]
    record: Option<PathBuf>,
    /// Print once, and end, as without a terminal
    #[arg(long, conflicts_with = "batch")]
    once: bool,
    /// Print so often, and end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch: Option<u64>,
    /// Branches to print, the first of their order
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    /// Print as JSON: one object per look
    #[arg(long)]
    json: bool,
    /// Panic on the first frame: for tests of what becomes of the terminal then
    #[arg(long, hide = true)]
    panic: bool,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// What `anabranch top --record` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// So many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    #[command(flatten)]
    looks: Looks,
    /// Print its end, as without a terminal
    #[arg(long)]
    once: bool,
    /// Print its end as JSON
    #[arg(long)]
    json: bool,
}

/// How the dashboard looks.
#[derive(Debug, Args)]
struct Looks {
    /// The columns of the table of branches: tenant,state,queue, …
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = column)]
    columns: Option<Vec<Column>>,
    /// The colours: ansi, cb, mono, light or dark
    #[arg(long, value_name = "NAME", value_parser = theme)]
    theme: Option<Theme>,
    /// Draw in ASCII alone
    #[arg(long)]
    ascii: bool,
    /// Take the mouse; `m` does so later
    #[arg(long, overrides_with = "no_mouse")]
    mouse: bool,
    /// Leave the mouse to the terminal, which is the default
    #[arg(long)]
    no_mouse: bool,
}

impl Looks {
    /// How a dashboard begins, and what is wrong with the configuration.
    fn begin(self, read_only: bool, tick: Duration) -> (Begin, Vec<String>) {
        let variable = |name: &str| std::env::var_os(name);
        let (mut config, warnings) = Config::load(variable);
        let plain = Theme::default_for(variable);
        // Whoever wants no colours wants none of the configuration either.
        let chosen = config.theme.filter(|_| plain != Theme::Mono);
        if let Some(columns) = self.columns {
            config.columns = Some(columns);
        }
        let begin = Begin {
            theme: self.theme.or(chosen).unwrap_or(plain),
            config,
            ascii: self.ascii || only_ascii(variable),
            read_only,
            tick_ms: u64::try_from(tick.as_millis()).unwrap_or(u64::MAX),
            sort: Sort::default(),
            session: session(),
            zone: TimeZone::system(),
            users: users(&std::fs::read_to_string("/etc/passwd").unwrap_or_default()),
        };
        (begin, warnings)
    }
}

/// The users that `/etc/passwd` tells of: those from elsewhere stay numbers.
fn users(passwd: &str) -> BTreeMap<u32, String> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|it| !it.is_empty())?;
        Some((fields.nth(1)?.parse().ok()?, Text::name(name).to_string()))
    };
    passwd.lines().filter_map(user).collect()
}

/// Whether there is a terminal that can be drawn on.
fn can_draw() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !dumb
}

impl Top {
    pub(super) fn run(self) -> Result<Exit, Complaint> {
        whom::check(&self.processes)?;
        if self.once || self.batch.is_some() || self.json || !can_draw() {
            self.print()
        } else {
            self.show()
        }
    }

    fn print(self) -> Result<Exit, Complaint> {
        if self.record.is_some() {
            let what = "--record is of the dashboard, which needs a terminal";
            return Err(Complaint::new(Exit::Usage, what));
        }
        let mut targets = self.places.read()?;
        if targets.is_empty() || !self.processes.is_empty() {
            targets.extend(whom::find(&self.processes));
        }
        if targets.is_empty() {
            return Err(whom::nobody());
        }
        let targets: Vec<_> = targets.into_iter().map(|(_, at)| at).collect();
        let options = once::Options {
            interval: self.interval.unwrap_or(PRINTED),
            pictures: if self.once {
                1
            } else {
                self.batch.unwrap_or(1)
            },
            json: self.json,
            rows: self.rows,
            filter: self.filter.unwrap_or_default(),
            sort: self.sort.unwrap_or_default(),
        };
        Ok(once::run(&targets, &options))
    }

    fn show(self) -> Result<Exit, Complaint> {
        let targets = self.places.read()?;
        // Those that were named come and go, too: a process that is restarted has another place.
        let found = targets.is_empty() || !self.processes.is_empty();
        let tick = self.interval.unwrap_or(LIVE);
        let mouse = self.looks.mouse;
        let (mut begin, warnings) = self.looks.begin(self.read_only, tick);
        begin.sort = self.sort.unwrap_or_default();
        if let Some(filter) = self.filter {
            begin.config.filter = filter;
        }
        dashboard(Options {
            source: Source::Live {
                targets,
                find: found.then(|| whom::finder(self.processes)),
                record: self.record,
            },
            begin,
            mouse,
            warnings,
            panic: self.panic,
        })
    }
}

impl Replay {
    pub(super) fn run(self) -> Result<Exit, Complaint> {
        let draw = !self.once && !self.json && can_draw();
        let mouse = self.looks.mouse;
        let (begin, warnings) = self.looks.begin(true, LIVE);
        if draw {
            return dashboard(Options {
                source: Source::Recording(self.file, self.speed),
                begin,
                mouse,
                warnings,
                panic: false,
            });
        }
        for warning in warnings {
            complain(&warning);
        }
        let entries = record::read(&self.file).map_err(|it| failed(&it))?;
        let mut model: Option<Model> = None;
        for entry in entries {
            let model = model.get_or_insert_with(|| Model::new(begin.clone(), PAGE, entry.at));
            let id = entry.target.id;
            update(model, Msg::Found(vec![entry.target]), entry.at);
            update(model, Msg::Conn(id, entry.event), entry.at);
        }
        let mut model = model.unwrap_or_else(|| Model::new(begin, PAGE, 0));
        crate::app::prepare(&mut model);
        Ok(match view::snapshot(&model) {
            Cmd::Save { json, .. } if self.json => say(&json),
            Cmd::Save { text, .. } => say(&text),
            _ => Exit::Ok,
        })
    }
}

fn dashboard(options: Options) -> Result<Exit, Complaint> {
    top::top(options).map_err(|it| failed(&it))
}

fn failed(error: &std::io::Error) -> Complaint {
    Complaint::new(Exit::Failed, error.to_string())
}

fn sort(text: &str) -> Result<Sort, String> {
    Sort::parse(text).ok_or_else(|| format!("{} or one of these with :asc or :desc", columns()))
}

fn column(text: &str) -> Result<Column, String> {
    Column::from_name(text).ok_or_else(columns)
}

fn columns() -> String {
    let names: Vec<_> = Column::ALL.into_iter().map(Column::name).collect();
    format!("use {}", names.join(", "))
}

fn theme(text: &str) -> Result<Theme, String> {
    let names: Vec<_> = Theme::ALL.into_iter().map(Theme::name).collect();
    Theme::from_name(text).ok_or_else(|| format!("use {}", names.join(", ")))
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().ok();
    speed
        .filter(|it| (0.01..=1000.0).contains(it))
        .ok_or_else(|| format!("must be a number from 0.01 to 1000, got {text:?}"))
}
