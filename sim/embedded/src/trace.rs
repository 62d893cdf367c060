//! Every log line of a run, with the simulated time and the process, and without what a wall clock
//! put into it.

use std::{
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hasher as _},
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::{Context, SubscriberExt as _},
};

use crate::scene;

/// Where the lines go.
pub type Sink = Arc<Mutex<dyn Write + Send>>;

/// A log of which only this is kept: equal logs have equal hashes.
#[derive(Debug, Default)]
pub struct Hash {
    hasher: DefaultHasher,
    /// How many lines it had.
    pub lines: u64,
}

impl Hash {
    /// Of all lines so far.
    pub fn value(&self) -> u64 {
        self.hasher.finish()
    }
}

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.write(bytes);
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does something with this thread's log going to `sink`.
pub(crate) fn with<T>(sink: Option<Sink>, work: impl FnOnce() -> T) -> T {
    let Some(sink) = sink else { return work() };
    let levels = Targets::new().with_default(LevelFilter::DEBUG);
    let subscriber = tracing_subscriber::registry().with(Lines(sink).with_filter(levels));
    tracing::subscriber::with_default(subscriber, work)
}

struct Lines(Sink);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let level: &Level = event.metadata().level();
        let line = format!("{} {level} {}{}", scene::here(), event.metadata().target(), mask(&fields.0));
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(sink, "{line}").expect("the log can be written");
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("a string takes anything");
    }
}

/// Instants are counted from the boot of this machine, and openraft prints them as times of day:
/// `12:34:56.789012` and `tv_nsec: 123` mean nothing here. A run that differs only in time is seen all
/// the same: by the simulated time in front of each line.
fn mask(line: &str) -> String {
    let (mut masked, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(first) = rest.chars().next() {
        let length = clock_length(rest).or_else(|| instant_length(rest));
        match length {
            Some(length) => {
                masked.push_str("<time>");
                rest = &rest[length..];
            }
            None => {
                masked.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    masked
}

fn clock_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let shape = digit(0) && digit(1) && bytes.get(2) == Some(&b':') && digit(3) && digit(4);
    if !(shape && bytes.get(5) == Some(&b':') && digit(6) && digit(7)) {
        return None;
    }
    let tail = bytes[8..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    Some(8 + tail)
}

fn instant_length(text: &str) -> Option<usize> {
    let start = "Instant { tv_sec: ";
    let end = text.starts_with(start).then(|| text.find('}'))??;
    Some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Pulse, Time},
        host::Host,
    };

    /// The log of a process that says something after so many milliseconds.
    fn log_of(ms: u64) -> String {
        let log = Arc::new(Mutex::new(Vec::new()));
        with(Some(log.clone()), || {
            let mut host = Host::boot("s9", 7, Time(0), Pulse::default(), 0);
            host.spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
                tracing::info!("something");
            });
            host.step(Time(0), Time(5_000));
        });
        let log = log.lock().expect("no panic").clone();
        String::from_utf8(log).expect("text")
    }

    #[test]
    fn runs_that_differ_only_in_time_have_different_logs() {
        assert!(log_of(3).contains("0.003000 s9 INFO"), "{}", log_of(3));
        assert_eq!(log_of(3), log_of(3));
        assert_ne!(log_of(3), log_of(2));
    }

    #[test]
    fn times_of_day_and_instants_are_masked_and_nothing_else() {
        assert_eq!(mask("at 12:34:56.789012 in term 3"), "at <time> in term 3");
        assert_eq!(mask("Some(Instant { tv_sec: 1, tv_nsec: 2 }) 10.0.0.1:7000"), "Some(<time>) 10.0.0.1:7000");
    }
}
