//! Log lines as runc writes them, because engines read them: `--log FILE --log-format text|json`.
//!
//! Invariant: one line per event; nothing is logged before [`init`].

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// `time="..." level=error msg="..."`.
    #[default]
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`.
    Json,
}

/// A log that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("opening the log {path}")]
pub(crate) struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// Begins to log to `path`, or to standard error.
///
/// # Errors
/// The file cannot be opened for appending.
pub(crate) fn init(path: Option<&Path>, format: Format, debug: bool) -> Result<(), LogError> {
    let level = match (debug, path.is_some()) {
        (true, _) => Level::DEBUG,
        (false, true) => Level::INFO,
        (false, false) => Level::WARN,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .event_format(Lines { format });
    match path {
        None => drop(builder.with_writer(io::stderr).try_init()),
        Some(path) => {
            let file = open(path).map_err(|source| LogError { path: path.to_owned(), source })?;
            drop(builder.with_writer(Mutex::new(file)).try_init());
        }
    }
    Ok(())
}

/// Begins to log to `file`; what it does not take at once is lost.
pub(crate) fn init_lossy(file: File, debug: bool) {
    let level = if debug { Level::DEBUG } else { Level::INFO };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .event_format(Lines { format: Format::Text });
    drop(builder.with_writer(Mutex::new(Lossy(file))).try_init());
}

/// Writes what it can: nobody waits for who reads a log.
struct Lossy(File);

impl io::Write for Lossy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o644).open(path)
}

struct Lines {
    format: Format,
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => self.others.push((name, text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.others.push((name, value.to_owned())),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let time = rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        writer.write_str(&line(self.format, level, &time, &fields))
    }
}

fn line(format: Format, level: &str, time: &str, fields: &Fields) -> String {
    let mut text = String::new();
    match format {
        Format::Json => {
            let mut object = serde_json::Map::new();
            let all = fields.others.iter().map(|(name, value)| (*name, value.as_str()));
            let fixed = [("level", level), ("msg", fields.message.as_str()), ("time", time)];
            for (name, value) in all.chain(fixed) {
                object.insert(name.to_owned(), value.into());
            }
            text += &serde_json::Value::Object(object).to_string();
        }
        Format::Text => {
            let _ = write!(text, "time={time:?} level={level} msg={:?}", fields.message);
            for (name, value) in &fields.others {
                let _ = write!(text, " {name}={value:?}");
            }
        }
    }
    text.push('\n');
    text
}

/// A time since 1970 as RFC 3339, in UTC.
fn rfc3339(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The same with nanoseconds.
pub(crate) fn rfc3339_nanos(since: Duration) -> String {
    let text = rfc3339(since);
    format!("{}.{:09}Z", text.trim_end_matches('Z'), since.subsec_nanos())
}

/// The Gregorian date `days` after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

#[cfg(test)]
#[path = "logging_test.rs"]
mod logging_test;
