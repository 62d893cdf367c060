//! What a check found: how bad, where, and what to do.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Tenure promises that this does not happen.
    Violation,
    /// Worth knowing; there are honest reasons for it.
    Note,
}

/// One thing that a check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// Stable and machine-readable, such as `hole`.
    pub code: &'static str,
    /// The flow it is about; none if it is about a table or a sink as a whole.
    pub flow: Option<String>,
    /// Where it is: `trades.seq`, `tenure_flow_fence`.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it, or what explains it.
    pub remedy: String,
}

impl Finding {
    /// Something that must not be.
    pub fn violation(code: &'static str, place: &str, what: impl Into<String>, remedy: &str) -> Finding {
        let (what, remedy, place) = (what.into(), remedy.to_owned(), place.to_owned());
        Finding { weight: Weight::Violation, code, flow: None, place, what, remedy }
    }

    /// Something worth knowing.
    pub fn note(code: &'static str, place: &str, what: impl Into<String>, remedy: &str) -> Finding {
        Finding { weight: Weight::Note, ..Finding::violation(code, place, what, remedy) }
    }

    /// The same, about a flow.
    pub fn of(self, flow: &str) -> Finding {
        Finding { flow: Some(flow.to_owned()), ..self }
    }

    /// The same, no worse than a note if `excuse` says what may explain it.
    pub fn unless(self, excuse: Option<&str>) -> Finding {
        match excuse {
            Some(excuse) => Finding { weight: Weight::Note, remedy: excuse.to_owned(), ..self },
            None => self,
        }
    }

    /// True for what must not be.
    pub fn is_violation(&self) -> bool {
        self.weight == Weight::Violation
    }
}

/// One line: flow, place, what, remedy.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(flow) = &self.flow {
            write!(f, "{flow}: ")?;
        }
        write!(f, "{}: {}", self.place, self.what)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// The first three by name, and how many more: `1, 2, 3 and 6 more holes`.
pub(super) fn some_of<T: fmt::Display>(items: impl IntoIterator<Item = T>, noun: &str) -> String {
    let mut items = items.into_iter();
    let first: Vec<T> = items.by_ref().take(3).collect();
    first_of(first, items.count(), noun)
}

/// These, and so many more.
pub(super) fn first_of<T: fmt::Display>(first: Vec<T>, more: usize, noun: &str) -> String {
    let first: Vec<String> = first.iter().map(T::to_string).collect();
    match more {
        0 => first.join(", "),
        1 => format!("{} and 1 more {noun}", first.join(", ")),
        more => format!("{} and {more} more {noun}s", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_flow_place_and_remedy() {
        let finding = Finding::violation("hole", "t.n", "17 is missing", "ask the feed").of("f");
        assert_eq!(finding.to_string(), "f: t.n: 17 is missing; ask the feed");
        let noted = finding.unless(Some("it was kept aside"));
        assert_eq!((noted.weight, noted.remedy.as_str()), (Weight::Note, "it was kept aside"));
        assert!(!noted.is_violation());
    }

    #[test]
    fn of_many_the_first_three_are_named() {
        assert_eq!(some_of([1, 2, 3], "hole"), "1, 2, 3");
        assert_eq!(some_of(1..=9, "hole"), "1, 2, 3 and 6 more holes");
        assert_eq!(some_of(1..=4, "hole"), "1, 2, 3 and 1 more hole");
    }
}
