//! Which branches are shown.
//!
//! A filter is a list of terms; a branch is shown if all hold. A word is part of a tenant's name,
//! `^word` its beginning; `st:fail` is a state, `queue:>900` a number, `pipeline:ingest` and
//! `process:orders` say where it belongs. `!` in front of a term, or of a value, turns it around.

use std::fmt;

use anabranch_protocol::row::State;

use crate::format::real;
use crate::store::Row;
use crate::symbols::state_word;

/// Which branches are shown.
///
/// ```
/// use anabranch_tui::filter::Filter;
///
/// assert!(Filter::parse("st:!ok ^ac queue:>900").is_ok());
/// let error = Filter::parse("mood:good").unwrap_err();
/// assert_eq!(error.to_string(), "unknown key mood: use st, queue, rate, fill, age, retry, comp, dl, err, p99, tenant, pipeline or process");
/// ```
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Filter {
    source: String,
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq)]
struct Term {
    not: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Tenant(Pattern),
    Pipeline(Pattern),
    Process(Pattern),
    State(String),
    Number(Field, Compare, f64),
}

#[derive(Debug, Clone, PartialEq)]
enum Pattern {
    Part(String),
    Begin(String),
}

impl Pattern {
    fn new(text: &str) -> Self {
        match text.strip_prefix('^') {
            Some(begin) => Self::Begin(begin.to_lowercase()),
            None => Self::Part(text.to_lowercase()),
        }
    }

    fn fits(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        match self {
            Self::Part(part) => text.contains(part),
            Self::Begin(begin) => text.starts_with(begin),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Queue,
    Rate,
    Fill,
    Age,
    Retry,
    Comp,
    Dead,
    Failed,
    P99,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compare {
    More,
    AtLeast,
    Less,
    AtMost,
    Is,
}

/// Why a filter makes no sense, with what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFilter(String);

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadFilter {}

impl Filter {
    /// Reads a filter; an empty one shows all.
    ///
    /// # Errors
    /// [`BadFilter`] if a key, a state or a number is not understood.
    pub fn parse(source: &str) -> Result<Self, BadFilter> {
        let terms = source.split_whitespace().filter(|word| *word != "!");
        Ok(Self {
            source: source.trim().to_owned(),
            terms: terms.map(term).collect::<Result<_, _>>()?,
        })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it shows all.
    pub const fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether any branch of that pipeline may be shown.
    pub fn allows(&self, process: &str, pipeline: &str) -> bool {
        self.terms.iter().all(|term| match &term.test {
            Test::Pipeline(pattern) => pattern.fits(pipeline) != term.not,
            Test::Process(pattern) => pattern.fits(process) != term.not,
            _ => true,
        })
    }

    /// Whether a branch is shown, of a pipeline that is allowed.
    pub fn shows(&self, row: &Row) -> bool {
        self.terms.iter().all(|term| term.holds(row))
    }
}

impl Term {
    fn holds(&self, row: &Row) -> bool {
        let holds = match &self.test {
            Test::Tenant(pattern) => pattern.fits(&row.tenant),
            Test::Pipeline(_) | Test::Process(_) => return true,
            Test::State(word) => is_state(row.branch.state, word),
            Test::Number(field, compare, number) => {
                field.of(row).is_some_and(|it| compare.holds(it, *number))
            }
        };
        holds != self.not
    }
}

fn is_state(state: State, word: &str) -> bool {
    match word {
        "ok" => matches!(state, State::Run | State::Idle),
        _ => state.word().starts_with(word) || state_word(state).starts_with(word),
    }
}

impl Field {
    fn of(self, row: &Row) -> Option<f64> {
        let branch = &row.branch;
        let share = |part: u64, of: u64| (of > 0).then(|| real(part) * 100.0 / real(of));
        match self {
            Self::Queue => Some(real(branch.queued)),
            Self::Rate => Some(f64::from(row.rate_in)),
            Self::Fill => share(branch.queued, branch.capacity),
            Self::Age => branch.window_age_ms.map(|ms| real(ms) / 1000.0),
            Self::Retry => Some(real(branch.retried)),
            Self::Comp => Some(real(row.undone())),
            Self::Dead => Some(real(branch.dead_lettered)),
            Self::Failed => Some(real(branch.failed)),
            Self::P99 => branch.p99.map(|us| real(us) / 1000.0),
        }
    }
}

impl Compare {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::More => left > right,
            Self::AtLeast => left >= right,
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Is => (left - right).abs() < 0.5,
        }
    }
}

fn term(word: &str) -> Result<Term, BadFilter> {
    let (mut not, word) = match word.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let Some((key, value)) = word.split_once(':') else {
        let test = Test::Tenant(Pattern::new(word));
        return Ok(Term { not, test });
    };
    let value = match value.strip_prefix('!') {
        Some(rest) => {
            not = !not;
            rest
        }
        None => value,
    };
    let number = |field| number(key, value).map(|(compare, n)| Test::Number(field, compare, n));
    let test = match key {
        "tenant" => Test::Tenant(Pattern::new(value)),
        "pipeline" => Test::Pipeline(Pattern::new(value)),
        "process" => Test::Process(Pattern::new(value)),
        "st" | "state" => Test::State(state(value)?),
        "queue" | "q" => number(Field::Queue)?,
        "rate" | "in" => number(Field::Rate)?,
        "fill" => number(Field::Fill)?,
        "age" => number(Field::Age)?,
        "retry" => number(Field::Retry)?,
        "comp" | "cmp" => number(Field::Comp)?,
        "dl" => number(Field::Dead)?,
        "err" => number(Field::Failed)?,
        "p99" => number(Field::P99)?,
        _ => {
            return Err(BadFilter(format!(
                "unknown key {key}: use st, queue, rate, fill, age, retry, comp, dl, err, p99, \
                 tenant, pipeline or process"
            )));
        }
    };
    Ok(Term { not, test })
}

/// A state, or the beginning of one.
fn state(value: &str) -> Result<String, BadFilter> {
    let word = value.to_lowercase();
    let mut known = State::ALL.iter();
    if word == "ok" || known.any(|it| is_state(*it, &word)) {
        return Ok(word);
    }
    let words: Vec<_> = State::ALL.iter().map(|it| it.word()).collect();
    Err(BadFilter(format!(
        "no branch is {value:?}: use ok, {}",
        words.join(", ")
    )))
}

fn number(key: &str, value: &str) -> Result<(Compare, f64), BadFilter> {
    let signs = [
        (">=", Compare::AtLeast),
        ("<=", Compare::AtMost),
        (">", Compare::More),
        ("<", Compare::Less),
        ("=", Compare::Is),
        ("", Compare::Is),
    ];
    let found = signs
        .into_iter()
        .find_map(|(sign, compare)| Some((compare, value.strip_prefix(sign)?)));
    let (compare, text) = found.unwrap_or((Compare::Is, value));
    let units = [("k", 1e3), ("K", 1e3), ("M", 1e6), ("%", 1.0), ("", 1.0)];
    let read = units
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .and_then(|(digits, factor)| Some(digits.parse::<f64>().ok()? * factor))
        .filter(|number| number.is_finite());
    match read {
        Some(number) => Ok((compare, number)),
        None => Err(BadFilter(format!(
            "{key} needs a number, such as {key}:>900, not {value:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_protocol::Text;
    use proptest::prelude::*;

    fn row(tenant: &str, state: State, queued: u64) -> Row {
        let mut row = Row {
            tenant: Text::new(tenant),
            told: true,
            rate_in: 2_000,
            ..Row::default()
        };
        row.branch.state = state;
        row.branch.queued = queued;
        row.branch.capacity = 1_000;
        row
    }

    #[test]
    fn terms_are_joined_and_turned_around() {
        let branch = row("Acme-eu", State::Full, 950);
        let table = [
            ("", true),
            ("acme", true),
            ("^eu", false),
            ("!^eu", true),
            ("st:full", true),
            ("st:!full", false),
            ("st:!ok", true),
            ("!st:!ok", false),
            ("queue:>900", true),
            ("queue:>=950 queue:<=950 queue:950", true),
            ("queue:!>900", false),
            ("rate:>1.5k", true),
            ("fill:>=95%", true),
            ("age:>0", false),
            ("acme st:full queue:<900", false),
            ("tenant:ACME", true),
        ];
        for (source, shown) in table {
            let filter = Filter::parse(source).unwrap();
            assert_eq!(filter.shows(&branch), shown, "{source:?}");
        }
    }

    #[test]
    fn words_of_the_screen_and_of_the_wire_are_states() {
        for (word, state) in [
            ("paus", State::Paused),
            ("pause", State::Paused),
            ("drn", State::Draining),
            ("drain", State::Draining),
        ] {
            let filter = Filter::parse(&format!("st:{word}")).unwrap();
            assert!(filter.shows(&row("a", state, 0)), "{word}");
            assert!(!filter.shows(&row("a", State::Run, 0)), "{word}");
        }
    }

    #[test]
    fn v6_a_state_that_no_branch_has_is_told() {
        let error = Filter::parse("st:bogus").unwrap_err();
        let told = "no branch is \"bogus\": use ok, run, idle, full, pause, drain, restart, fail, \
                    evict, remove";
        assert_eq!(error.to_string(), told);
        // While it is being written it is the beginning of one.
        for begun in ["st:", "st:f", "st:gon", "!st:OK"] {
            assert!(Filter::parse(begun).is_ok(), "{begun}");
        }
    }

    #[test]
    fn a_pipeline_is_left_out_as_a_whole() {
        let filter = Filter::parse("pipeline:ingest process:!billing").unwrap();
        assert!(filter.allows("orders-svc[1]", "ingest"));
        assert!(!filter.allows("billing[2]", "ingest"));
        assert!(!filter.allows("orders-svc[1]", "audit"));
    }

    #[test]
    fn a_number_that_is_none_is_told() {
        let error = Filter::parse("queue:>many").unwrap_err();
        let told = "queue needs a number, such as queue:>900, not \">many\"";
        assert_eq!(error.to_string(), told);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(source in "\\PC{0,40}") {
            if let Ok(filter) = Filter::parse(&source) {
                filter.shows(&row("acme", State::Run, 1));
            }
        }
    }
}
