//! Places in texts, and what is wrong there.

use std::{fmt, sync::Arc};

use super::split::Piece;

/// A place in a text; lines and columns count from 1, columns in characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file as it was named, `stdin`, or `body`.
    pub file: Arc<str>,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// One thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The line itself, if it may be shown.
    pub shown: Option<String>,
    /// How many characters are meant.
    pub width: usize,
}

/// A spot in a text, before it is known which file that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spot {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) width: usize,
}

/// What is wrong at a spot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) spot: Spot,
    pub(crate) message: String,
}

impl Spot {
    pub(crate) fn place(self, file: &Arc<str>) -> Place {
        Place { file: file.clone(), line: self.line, column: self.column }
    }
}

impl Fault {
    pub(crate) fn at(self, file: &Arc<str>, piece: &Piece<'_>) -> Mistake {
        // Within a longer line (an array's elements) only the document itself is at hand; a line
        // cut short would put the mark in the wrong place.
        let shown = (piece.column == 1).then(|| piece.text.lines().nth(self.spot.line - piece.line)).flatten();
        let place = self.spot.place(file);
        Mistake { place, message: self.message, shown: shown.map(str::to_owned), width: self.spot.width }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Lines longer than this are not shown: a mark under them would not help.
const SHOWN_MAX: usize = 160;

impl Mistake {
    /// The line with a mark under what is meant, for terminals.
    pub fn snippet(&self) -> Option<String> {
        let line = self.shown.as_deref().filter(|l| l.chars().count() <= SHOWN_MAX)?;
        let number = self.place.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs stay tabs, so that the mark stands below what it means.
        let before: String =
            line.chars().take(self.place.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let room = line.chars().count().saturating_sub(self.place.column - 1);
        let mark = "^".repeat(self.width.clamp(1, room.max(1)));
        Some(format!("{margin} |\n{number} | {line}\n{margin} | {before}{mark}"))
    }
}

/// ` did you mean ...` for a name that is not among the known ones, and the known ones.
pub fn in_words(name: &str, known: &[&str]) -> String {
    let near = |candidate: &&&str| {
        let likeness = strsim::jaro_winkler(&name.to_ascii_lowercase(), candidate);
        strsim::damerau_levenshtein(name, candidate) <= 2 || likeness >= 0.8
    };
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(name, candidate);
    let list = known.join(", ");
    match known.iter().filter(near).min_by_key(distance) {
        Some(nearest) if known.len() > 1 => format!("did you mean `{nearest}`? Known here: {list}"),
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None if known.is_empty() => "there are none here".to_owned(),
        None => format!("known here: {list}"),
    }
}
