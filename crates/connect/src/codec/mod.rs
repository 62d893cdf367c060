//! From bytes to records: pure, and the same records whatever the chunks.

use tenure_core::flow::spec::{Codec, LINE_MAX_DEFAULT, Order, Spec};

use self::lines::{Framer, Line};
use crate::record::{Position, Projection, REJECTED_KEEP, Rejected, Row};

mod lines;
mod ndjson;
mod position;
#[cfg(test)]
mod properties;

pub use position::{Kind, Mark, POSITION_MAX};

/// What one record of the feed became.
#[derive(Clone, PartialEq, Debug)]
pub enum Decoded {
    /// A row for the sink, and the feed's position after it, if it said one.
    Row(Row, Option<Mark>),
    /// A bad record.
    Rejected(Rejected),
}

/// One flow's codec: cuts lines, reads them, picks the cells that the sink wants.
#[derive(Debug)]
pub struct Decoder {
    framer: Framer,
    reading: Reading,
    projection: Projection,
}

/// How a line is read.
#[derive(Debug)]
enum Reading {
    Text,
    Json { position: Option<Box<str>> },
}

impl Decoder {
    /// The codec that a flow asks for.
    pub fn new(spec: &Spec) -> Decoder {
        let (reading, max_line) = match &spec.codec {
            Codec::Lines(c) => (Reading::Text, c.max_line),
            Codec::Ndjson(c) => {
                let position = c.position.as_ref().map(|p| p.pointer().into());
                (Reading::Json { position }, c.max_line)
            }
        };
        let framer = Framer::new(max_line.unwrap_or(LINE_MAX_DEFAULT));
        Decoder { framer, reading, projection: Projection::of(&spec.sink) }
    }

    /// Takes the next record off `input`; none if its end is still to come (`input` is then used up).
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Decoded> {
        loop {
            let line = self.framer.next(input)?;
            if let Some(decoded) = self.read(line) {
                return Some(decoded);
            }
        }
    }

    /// Ends the record under way, as the end of a message does.
    pub fn end_record(&mut self) -> Option<Decoded> {
        let line = self.framer.end()?;
        self.read(line)
    }

    /// How many bytes came of a record whose end has not come yet.
    pub fn unfinished(&self) -> u64 {
        self.framer.unfinished()
    }

    /// None for a blank line.
    fn read(&self, line: Line<'_>) -> Option<Decoded> {
        let line = match line {
            Line::Whole(line) if line.trim_ascii().is_empty() => return None,
            Line::Whole(line) => line,
            Line::Long { head, length } => return Some(Decoded::Rejected(too_long(head, length))),
        };
        let read = std::str::from_utf8(&line).map_err(|e| format!("not UTF-8: {e}")).and_then(|text| self.row(text));
        Some(match read {
            Ok((row, mark)) => Decoded::Row(row, mark),
            Err(error) => Decoded::Rejected(Rejected::new(error, &line)),
        })
    }

    fn row(&self, text: &str) -> Result<(Row, Option<Mark>), String> {
        match &self.reading {
            Reading::Text => Ok((self.projection.project_text(text), None)),
            Reading::Json { position } => {
                let value = ndjson::value(text)?;
                let mark = position.as_deref().map_or(Ok(None), |pointer| ndjson::position(text, pointer))?;
                Ok((self.projection.project(&value, text.trim_ascii()), mark))
            }
        }
    }
}

fn too_long(head: Vec<u8>, length: u64) -> Rejected {
    debug_assert!(head.len() <= REJECTED_KEEP);
    let error = format!("{length} bytes are longer than max_line; only the first {} are kept", head.len());
    Rejected { error: error.into(), raw: head.into(), length }
}

/// Tells records that a feed sends again from new ones, where the flow says that its positions
/// increase.
#[derive(Debug)]
pub struct Repeats {
    /// None where positions do not compare.
    last: Option<Position>,
    increasing: bool,
}

impl Repeats {
    /// Starts above `settled`, the position that the sink holds.
    pub fn above(spec: &Spec, settled: Option<Position>) -> Repeats {
        let increasing = match &spec.codec {
            Codec::Ndjson(c) => c.position.as_ref().is_some_and(|p| p.order() == Order::Increasing),
            Codec::Lines(_) => false,
        };
        Repeats { last: settled.filter(|_| increasing), increasing }
    }

    /// True if a record with this position was there already; else this one is now the highest.
    pub fn knows(&mut self, mark: &Mark) -> bool {
        if !self.increasing {
            return false;
        }
        if self.last.as_ref().is_some_and(|last| !mark.is_above(last)) {
            return true;
        }
        self.last = Some(Position(mark.text.clone()));
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tenure_core::flow::Document;

    use super::*;
    use crate::record::Cell;

    fn spec(codec: &str) -> Spec {
        let json = format!(
            r#"{{"id": "a", "source": {{"tcp": {{"address": "x:1"}}}}, "codec": {codec},
                 "sink": {{"sqlite": {{"path": "x", "table": "t", "columns": {{"seq": "/seq"}}}}}}}}"#
        );
        serde_json::from_str::<Document>(&json).unwrap().check().unwrap()
    }

    fn decode(decoder: &mut Decoder, mut bytes: &[u8]) -> Vec<Decoded> {
        std::iter::from_fn(|| decoder.next(&mut bytes)).collect()
    }

    fn rejected(decoded: &Decoded) -> &Rejected {
        match decoded {
            Decoded::Rejected(rejected) => rejected,
            Decoded::Row(row, _) => panic!("a row: {row:?}"),
        }
    }

    #[test]
    fn a_json_line_becomes_a_row_and_its_position() {
        let mut decoder = Decoder::new(&spec(r#"{"ndjson": {"position": "/seq"}}"#));
        let decoded = decode(&mut decoder, b"{\"seq\": 7}\r\n \n\n{}\n");
        let mark = Mark { kind: Kind::Number, text: "7".into() };
        assert_eq!(decoded, [Decoded::Row([Cell::Int(7)].into(), Some(mark)), Decoded::Row([Cell::Null].into(), None)]);
    }

    #[test]
    fn a_bad_record_is_a_value_and_the_next_one_is_read() {
        let mut decoder = Decoder::new(&spec(r#"{"ndjson": {"position": "/seq", "max_line": 20}}"#));
        let bytes =
            [&b"{\"seq\": \n"[..], b"{\"seq\":\"\xc3\"}\n", &[b'x'; 30], b"\n{\"seq\":[]}\n{\"seq\":1}\n"].concat();
        let decoded = decode(&mut decoder, &bytes);
        assert_eq!(decoded.len(), 5);
        assert!(rejected(&decoded[0]).error.starts_with("not JSON"));
        assert!(rejected(&decoded[1]).error.starts_with("not UTF-8"));
        assert_eq!(rejected(&decoded[2]).length, 30);
        assert!(rejected(&decoded[3]).error.contains("neither a text nor a number"));
        assert!(matches!(decoded[4], Decoded::Row(..)));
    }

    #[test]
    fn a_text_line_is_a_record_of_its_own() {
        let json =
            r#"{"id": "a", "source": {"tcp": {"address": "x:1"}}, "codec": {"lines": {}}, "sink": {"stdout": {}}}"#;
        let mut decoder = Decoder::new(&serde_json::from_str::<Document>(json).unwrap().check().unwrap());
        let decoded = decode(&mut decoder, "grüß dich\r\n\r\nhalf \n".as_bytes());
        let row = |text: &str| Decoded::Row([Cell::Text(text.into())].into(), None);
        assert_eq!(decoded, [row("grüß dich"), row("half ")]);
    }

    #[test]
    fn a_feed_that_resumes_inclusively_repeats_itself() {
        let spec = spec(r#"{"ndjson": {"position": {"at": "/seq", "order": "increasing"}}}"#);
        let mark = |text: &str| Mark { kind: Kind::Number, text: text.into() };
        let mut repeats = Repeats::above(&spec, Some(Position("9".into())));
        let known: Vec<bool> = ["8", "9", "10", "10", "11"].map(|t| repeats.knows(&mark(t))).into();
        assert_eq!(known, [true, true, false, true, false]);
    }

    #[test]
    fn opaque_positions_are_never_repeats() {
        let spec = spec(r#"{"ndjson": {"position": "/seq"}}"#);
        let mut repeats = Repeats::above(&spec, Some(Position("9".into())));
        assert!(!repeats.knows(&Mark { kind: Kind::Number, text: "9".into() }));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_records(
            pieces in proptest::collection::vec(prop_oneof![
                Just(&b"{\"seq\":1}\n"[..]), Just(&b"{\"seq\":\"\xc3\xbc\"}\r\n"[..]), Just(&b"{\"seq\":\"\xc3\"}\n"[..]),
                Just(&b"\n"[..]), Just(&b"{\"seq\": nothing that could be read as JSON}\n"[..]), Just(&b"[1"[..]),
            ], 0..20),
            cuts in proptest::collection::vec(1usize..9, 1..40),
        ) {
            let spec = spec(r#"{"ndjson": {"position": "/seq", "max_line": 24}}"#);
            let bytes = pieces.concat();
            let whole = decode(&mut Decoder::new(&spec), &bytes);
            let mut decoder = Decoder::new(&spec);
            let mut chunked = Vec::new();
            let (mut rest, mut sizes) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (chunk, behind) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                chunked.extend(decode(&mut decoder, chunk));
                rest = behind;
            }
            prop_assert_eq!(whole, chunked);
        }
    }
}
