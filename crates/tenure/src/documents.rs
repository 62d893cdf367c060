//! Flow documents as people write them: YAML or JSON, one or many, from files, directories,
//! standard input or a request's body. Everything that is wrong is named with its place.
//!
//! ```text
//!   text --split--> one document's text --tree--> spanned tree --diagnosis--> Document --check--> Spec
//! ```
//!
//! JSON takes a short cut past the tree, and comes back to it only when something is wrong.

pub(crate) mod diagnosis;
pub(crate) mod place;
mod split;
pub(crate) mod tree;

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use tenure_core::{
    flow::{
        Document, Spec,
        spec::{DOCUMENT_MAX, Problem},
    },
    id::FlowId,
};

pub use place::{Mistake, Place, in_words};
use split::Piece;
use tree::Node;

/// A good document, and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// The document, checked.
    pub spec: Spec,
    /// Where it stands.
    pub place: Place,
}

/// What was read: the good documents, and everything that is wrong with the others.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Gathered {
    /// The good ones, in the order they were found.
    pub found: Vec<Found>,
    /// What is wrong with the others.
    pub mistakes: Vec<Mistake>,
}

/// Endings of files that are read from a directory.
const ENDINGS: [&str; 5] = ["yaml", "yml", "json", "ndjson", "jsonl"];

impl Gathered {
    /// Reads all of these: files, directories (every `.yaml`, `.yml`, `.json`, `.ndjson` and
    /// `.jsonl` file in them, in the order of their names), or `-` for standard input.
    ///
    /// # Errors
    /// A file that cannot be read, with its name. What is wrong *in* the files is in
    /// [`Gathered::mistakes`], ids that occur twice included.
    pub fn from_paths(paths: &[String]) -> io::Result<Gathered> {
        let mut all = Gathered::default();
        for path in paths {
            for (name, text) in texts(path)? {
                all.add(Gathered::from_text(&name, &text));
            }
        }
        all.find_twins();
        Ok(all)
    }

    /// Reads one text; whether it is JSON shows in its first character.
    pub fn from_text(name: &str, text: &str) -> Gathered {
        let name: Arc<str> = name.into();
        let (pieces, broken) = split::split(text);
        let mut all = Gathered::default();
        for piece in &pieces {
            match read_piece(&name, piece) {
                Ok(found) => all.found.extend(found),
                Err(mistakes) => all.mistakes.extend(mistakes),
            }
        }
        all.mistakes.extend(broken.map(|(line, column, message)| {
            let shown = text.lines().nth(line.saturating_sub(1)).map(str::to_owned);
            Mistake { place: Place { file: name, line, column }, message, shown, width: 1 }
        }));
        all
    }

    fn add(&mut self, other: Gathered) {
        self.found.extend(other.found);
        self.mistakes.extend(other.mistakes);
    }

    /// Takes out documents whose id occurred before, and complains about each.
    pub fn find_twins(&mut self) {
        let mut first: HashMap<FlowId, Place> = HashMap::with_capacity(self.found.len());
        let mut twins = Vec::new();
        self.found.retain(|found| match first.get(&found.spec.id) {
            None => {
                first.insert(found.spec.id.clone(), found.place.clone());
                true
            }
            Some(before) => {
                let message = format!("the id {} is given twice in one apply; first at {before}", found.spec.id);
                twins.push(Mistake { place: found.place.clone(), message, shown: None, width: 1 });
                false
            }
        });
        self.mistakes.append(&mut twins);
    }
}

/// Reads one JSON document that stands by itself, as in a request.
///
/// # Errors
/// Everything that is wrong with it. Lines are counted from `line`.
pub fn from_json(name: &str, line: usize, text: &str) -> Result<Spec, Vec<Mistake>> {
    let piece = Piece { text, line, column: 1, json: true };
    let mut found = read_piece(&name.into(), &piece)?;
    let is_list = found.len() > 1 || text.trim_start().starts_with(['[', '-']);
    match found.pop() {
        // One of several would be used, and the others forgotten.
        Some(_) if is_list => Err(vec![whole(&name.into(), &piece, "expected one document, found a list")]),
        Some(found) => Ok(found.spec),
        None => Err(vec![whole(&name.into(), &piece, "there is no document here")]),
    }
}

/// Cuts a JSON array, or JSON documents one after another, into its documents, each with its line.
///
/// # Errors
/// Malformed JSON. Nothing of it was used.
pub fn cut_json(name: &str, text: &str) -> Result<Vec<(usize, String)>, Mistake> {
    let (pieces, broken) = split::split_json(text);
    match broken {
        None => Ok(pieces.iter().map(|p| (p.line, p.text.to_owned())).collect()),
        Some((line, column, message)) => {
            Err(Mistake { place: Place { file: name.into(), line, column }, message, shown: None, width: 1 })
        }
    }
}

fn texts(path: &str) -> io::Result<Vec<(String, String)>> {
    if path == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(|e| named("standard input", &e))?;
        return Ok(vec![("stdin".to_owned(), text)]);
    }
    let mut files = Vec::new();
    walk(Path::new(path), true, &mut files)?;
    if files.is_empty() {
        let kinds = ENDINGS.map(|e| format!(".{e}")).join(", ");
        return Err(io::Error::other(format!("{path}: the directory has no {kinds} file")));
    }
    let read = |file: PathBuf| {
        let name = file.display().to_string();
        fs::read_to_string(&file).map(|text| (name.clone(), text)).map_err(|e| named(&name, &e))
    };
    files.into_iter().map(read).collect()
}

fn walk(path: &Path, asked_for: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let at = |e: io::Error| named(&path.display().to_string(), &e);
    if fs::metadata(path).map_err(at)?.is_dir() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).map_err(at)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>().map_err(at)?;
        entries.sort();
        return entries.iter().try_for_each(|entry| walk(entry, false, files));
    }
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if asked_for || ENDINGS.contains(&ending) {
        files.push(path.to_owned());
    }
    Ok(())
}

fn named(name: &str, error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{name}: {why}"))
}

fn read_piece(name: &Arc<str>, piece: &Piece<'_>) -> Result<Vec<Found>, Vec<Mistake>> {
    if piece.json
        && let Ok(document) = serde_json::from_str::<Document>(piece.text)
        && let Ok(spec) = checked(document)
    {
        let place = Place { file: name.clone(), line: piece.line, column: piece.column };
        return Ok(vec![Found { spec, place }]);
    }
    let tree =
        tree::parse(piece).map_err(|fault| told_by_json(name, piece).unwrap_or_else(|| vec![fault.at(name, piece)]))?;
    let mut found = Vec::new();
    let mut mistakes = Vec::new();
    for node in tree.documents() {
        match read_node(name, piece, node) {
            Ok(one) => found.push(one),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
}

/// What is wrong with a document that is JSON, but holds characters that YAML has no place for.
fn told_by_json(name: &Arc<str>, piece: &Piece<'_>) -> Option<Vec<Mistake>> {
    match serde_json::from_str::<Document>(piece.text) {
        _ if !piece.json => None,
        Ok(document) => {
            let problems = checked(document).err()?;
            Some(problems.iter().map(|problem| whole(name, piece, &problem.to_string())).collect())
        }
        Err(error) if error.is_data() => {
            let column =
                if error.line() == 1 { piece.column + error.column().max(1) - 1 } else { error.column().max(1) };
            let place = Place { file: name.clone(), line: piece.line + error.line() - 1, column };
            Some(vec![Mistake { place, message: split::without_place(&error), shown: None, width: 1 }])
        }
        Err(_) => None,
    }
}

fn read_node(name: &Arc<str>, piece: &Piece<'_>, node: &Node) -> Result<Found, Vec<Mistake>> {
    let document = diagnosis::read::<Document>(node).map_err(|fault| vec![fault.at(name, piece)])?;
    let spec = checked(document).map_err(|problems| {
        problems
            .into_iter()
            .map(|p| place::Fault { spot: node.find(&p.path), message: p.to_string() }.at(name, piece))
            .collect::<Vec<_>>()
    })?;
    Ok(Found { spec, place: node.find("id").place(name) })
}

fn checked(document: Document) -> Result<Spec, Vec<Problem>> {
    let length = serde_json::to_vec(&document).map_or(0, |json| json.len());
    if length > DOCUMENT_MAX {
        let message = format!("the document is too long: {length} bytes as JSON; at most {DOCUMENT_MAX}");
        return Err(vec![Problem { path: String::new(), message }]);
    }
    document.check()
}

fn whole(name: &Arc<str>, piece: &Piece<'_>, message: &str) -> Mistake {
    let place = Place { file: name.clone(), line: piece.line, column: piece.column };
    Mistake { place, message: message.to_owned(), shown: None, width: 1 }
}

#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
mod tests;
