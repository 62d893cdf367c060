//! How the demo talks: a line per happening with the time, a table of nodes now and then, and a
//! progress bar where there is a terminal to draw it on.

use std::{
    io::{IsTerminal, Write},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often progress becomes a line where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The stage.
#[derive(Debug)]
pub(super) struct Show {
    start: Instant,
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

/// One row of the table of nodes.
#[derive(Clone, Debug)]
pub(super) struct NodeRow {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) flows: u64,
    pub(super) running: u64,
    pub(super) roles: String,
}

impl Show {
    /// A show of known length, or of none.
    pub(super) fn new(length: Option<Duration>) -> Show {
        let bar = std::io::stdout().is_terminal().then(|| match length {
            Some(length) => {
                let style = ProgressStyle::with_template("  {bar:24} {msg}");
                ProgressBar::new(length.as_millis() as u64).with_style(style.unwrap_or_else(|_| plain()))
            }
            None => {
                let style = ProgressStyle::with_template("  {spinner} {msg}");
                ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| plain()))
            }
        });
        Show { start: Instant::now(), bar, last_line: Mutex::new(Instant::now()) }
    }

    /// Something happened.
    pub(super) fn say(&self, what: &str) {
        self.line(&format!("{:>6.1} s  {what}", self.start.elapsed().as_secs_f64()));
    }

    /// A line as it is.
    pub(super) fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write(line)),
            None => write(line),
        }
    }

    /// How far it is, and how things are.
    pub(super) fn progress(&self, done: Duration, how: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done.as_millis() as u64);
            bar.set_message(how.to_owned());
            return;
        }
        let mut last = self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            self.say(how);
        }
    }

    /// Who has how much.
    pub(super) fn table(&self, rows: &[NodeRow]) {
        table(rows).iter().for_each(|line| self.line(line));
    }

    /// No more progress; lines only.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn plain() -> ProgressStyle {
    ProgressStyle::default_bar()
}

/// A reader that has gone, such as `head`, must not end the demo in the middle.
fn write(line: &str) {
    let _reader_gone = writeln!(std::io::stdout(), "{line}");
}

fn table(rows: &[NodeRow]) -> Vec<String> {
    let head = format!("          {:<6}{:<10}{:>7}{:>9}", "node", "state", "flows", "running");
    let row = |row: &NodeRow| {
        let NodeRow { name, state, flows, running, roles } = row;
        format!("          {name:<6}{state:<10}{flows:>7}{running:>9}   {roles}").trim_end().to_owned()
    };
    std::iter::once(head).chain(rows.iter().map(row)).collect()
}

/// `12,345,678`
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// `3.42 s`
pub(super) fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_groups_of_three() {
        let written: Vec<String> = [0, 7, 999, 1_000, 12_345_678].into_iter().map(number).collect();
        assert_eq!(written, ["0", "7", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn a_table_of_nodes_reads_in_columns() {
        let row = |name: &str, flows, roles: &str| NodeRow {
            name: name.into(),
            state: "live".into(),
            flows,
            running: flows,
            roles: roles.into(),
        };
        let lines = table(&[row("n1", 100, "coordinator"), row("n2", 7, "")]);
        assert_eq!(
            lines,
            [
                "          node  state       flows  running",
                "          n1    live          100      100   coordinator",
                "          n2    live            7        7",
            ]
        );
    }
}
