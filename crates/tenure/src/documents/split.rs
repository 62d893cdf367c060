//! Cuts a text into documents, so that one that is wrong does not hide the others.

use serde_json::value::RawValue;

/// One document's text (or one YAML text that is a list of documents), and where it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'t> {
    pub(crate) text: &'t str,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) json: bool,
}

/// Line, column and message of what stopped the cutting.
pub(crate) type Broken = (usize, usize, String);

/// Cuts a text that may be either.
pub(crate) fn split(text: &str) -> (Vec<Piece<'_>>, Option<Broken>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if is_json(text) { split_json(text) } else { (split_yaml(text), None) }
}

/// JSON shows in a brace or bracket whose first inner thing is in quotes; `{ id: a }` is YAML.
fn is_json(text: &str) -> bool {
    let inner = text.trim_start_matches(|c: char| c.is_whitespace() || c == '{' || c == '[');
    inner.len() < text.trim_start().len() && inner.starts_with(['"', '}', ']'])
}

/// A line that begins with `---` begins a document, wherever it stands: YAML allows no other
/// reading of it, not even within a block of text.
fn split_yaml(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && offset > start {
            pieces.push(Piece { text: &text[start..offset], line: start_line, column: 1, json: false });
            (start, start_line) = (offset, number + 1);
        }
        offset += line.len();
    }
    pieces.push(Piece { text: &text[start..], line: start_line, column: 1, json: false });
    pieces.retain(|piece| !piece.text.lines().all(is_empty_line));
    pieces
}

/// Blank, a comment, a directive, or a bare marker.
fn is_empty_line(line: &str) -> bool {
    let line = line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim();
    line.is_empty() || line.starts_with(['#', '%'])
}

/// JSON documents one after another (NDJSON is that), each of them an object or an array of them.
pub(crate) fn split_json(text: &str) -> (Vec<Piece<'_>>, Option<Broken>) {
    let mut pieces = Vec::new();
    let mut cursor = Cursor::new(text);
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    for value in values {
        let raw = match value {
            Ok(raw) => raw.get(),
            Err(error) => {
                let (line, column) = (error.line(), error.column().max(1));
                return (pieces, Some((line, column, format!("malformed JSON: {}", without_place(&error)))));
            }
        };
        let parts = if raw.starts_with('[') {
            serde_json::from_str::<Vec<&RawValue>>(raw).unwrap_or_default().into_iter().map(RawValue::get).collect()
        } else {
            vec![raw]
        };
        pieces.extend(parts.into_iter().map(|part| cursor.piece(part)));
    }
    (pieces, None)
}

/// serde_json ends its messages with the place, which is said elsewhere.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

/// Counts lines and columns while going forward through a text, each character once.
struct Cursor<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
    column: usize,
}

impl<'t> Cursor<'t> {
    fn new(text: &'t str) -> Cursor<'t> {
        Cursor { text, offset: 0, line: 1, column: 1 }
    }

    /// `part` is a slice of the text, behind all earlier ones.
    fn piece(&mut self, part: &'t str) -> Piece<'t> {
        let offset = part.as_ptr() as usize - self.text.as_ptr() as usize;
        for c in self.text[self.offset..offset].chars() {
            (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.offset = offset;
        Piece { text: part, line: self.line, column: self.column, json: true }
    }
}
