//! Feeds: whatever an upstream sends, in whatever chunks, becomes the same records, in bounded memory.

use tenure_connect::{
    codec::{Decoded, Decoder, Kind, Mark, POSITION_MAX, Repeats},
    record::{Position, REJECTED_KEEP},
};
use tenure_core::flow::{Document, Spec};

use crate::{draw::Draw, memory};

/// Text lines.
pub(crate) fn lines(data: &[u8]) {
    codec(data, "lines", "");
}

/// JSON lines with positions.
pub(crate) fn ndjson(data: &[u8]) {
    codec(data, "ndjson", r#""position": {"at": "/seq", "order": "increasing"},"#);
}

fn codec(data: &[u8], name: &str, options: &str) {
    let mut draw = Draw::new(data);
    let max_line = 1 + draw.below(64) as u32;
    let sizes: Vec<usize> = (0..4).map(|_| 1 + draw.below(64)).collect();
    let spec = spec(&format!(r#"{{"{name}": {{{options} "max_line": {max_line}}}}}"#));
    let whole = decoded(&spec, [draw.rest()]);
    let chunks = || Chunks { rest: draw.rest(), sizes: &sizes, next: 0 };
    is_bounded(&spec, chunks(), max_line);
    assert_eq!(decoded(&spec, chunks()), whole, "the borders of chunks mean nothing");
    whole.iter().for_each(sound);
    repeats(&spec, &whole);
}

fn spec(codec: &str) -> Spec {
    let json = format!(
        r#"{{"id": "a", "source": {{"tcp": {{"address": "h:1"}}}}, "codec": {codec}, "sink": {{"sqlite": {{"path": "x",
            "table": "t", "columns": {{"seq": "/seq", "first": "/a/0", "odd": "/~0~1", "raw": ""}}}}}}}}"#
    );
    serde_json::from_str::<Document>(&json).expect("a document").check().expect("a spec")
}

fn decoded<'d>(spec: &Spec, chunks: impl IntoIterator<Item = &'d [u8]>) -> Vec<Decoded> {
    let mut decoder = Decoder::new(spec);
    let mut records = Vec::new();
    for mut chunk in chunks {
        records.extend(std::iter::from_fn(|| decoder.next(&mut chunk)));
        assert!(chunk.is_empty(), "a chunk is used up");
    }
    records.extend(decoder.end_record());
    assert_eq!(decoder.unfinished(), 0);
    records
}

/// Between two chunks no more is held than the longest line, or what is kept of a longer one.
fn is_bounded<'d>(spec: &Spec, chunks: impl IntoIterator<Item = &'d [u8]>, max_line: u32) {
    let mut decoder = Decoder::new(spec);
    let before = memory::held();
    for mut chunk in chunks {
        while let Some(record) = decoder.next(&mut chunk) {
            drop(record);
        }
        // A buffer that grows may have room for twice as much as is in it.
        let most = 2 * REJECTED_KEEP.max(max_line as usize + 1);
        let held = memory::held() - before;
        assert!(held <= most as isize, "{held} bytes are held; at most {most} are expected");
        let arrived = decoder.unfinished();
        assert!(arrived > 0 || held == 0, "{held} bytes are held between lines");
    }
}

fn sound(record: &Decoded) {
    match record {
        Decoded::Row(row, mark) => {
            assert_eq!(row.len(), 4);
            assert!(mark.as_ref().is_none_or(|mark| mark.text.len() <= POSITION_MAX && !mark.text.contains('\0')));
        }
        Decoded::Rejected(rejected) => {
            assert!(rejected.raw.len() <= REJECTED_KEEP && !rejected.error.is_empty());
            assert_eq!(rejected.raw.len() as u64, rejected.length.min(REJECTED_KEEP as u64));
        }
    }
}

/// Positions that increase: none is taken for a repeat that is above all before it.
fn repeats(spec: &Spec, records: &[Decoded]) {
    let marks: Vec<&Mark> = records
        .iter()
        .filter_map(|record| if let Decoded::Row(_, mark) = record { mark.as_ref() } else { None })
        .collect();
    let (mut once, mut twice) = (Repeats::above(spec, None), Repeats::above(spec, None));
    for mark in &marks {
        let known = once.knows(mark);
        assert_eq!(twice.knows(mark), known);
        // Sent again, it is known, unless it cannot be compared with itself.
        let comparable = !mark.is_above(&Position(mark.text.clone()));
        assert!(comparable, "{mark:?} is above itself");
        assert!(twice.knows(mark));
    }
}

/// Cuts bytes into chunks of these sizes, over and over.
struct Chunks<'d> {
    rest: &'d [u8],
    sizes: &'d [usize],
    next: usize,
}

impl<'d> Iterator for Chunks<'d> {
    type Item = &'d [u8];

    fn next(&mut self) -> Option<&'d [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let size = self.sizes[self.next % self.sizes.len()];
        self.next += 1;
        let (chunk, rest) = self.rest.split_at(size.min(self.rest.len()));
        self.rest = rest;
        Some(chunk)
    }
}

/// How positions compare: a strict order among numbers, and among texts.
pub(crate) fn position(data: &[u8]) {
    let mut draw = Draw::new(data);
    let kind = if draw.chance(128) { Kind::Number } else { Kind::Text };
    let [a, b, c] = [draw.text(), draw.text(), draw.text()];
    let above = |x: &str, y: &str| Mark { kind, text: x.into() }.is_above(&Position(y.into()));
    let is_number = |text: &String| text.trim() == text && serde_json::from_str::<serde_json::Number>(text).is_ok();
    let numbers = [&a, &b, &c].into_iter().all(is_number);
    if kind == Kind::Number && !numbers {
        return;
    }
    assert!(!above(&a, &a));
    assert!(!(above(&a, &b) && above(&b, &a)), "{a} and {b} are above each other");
    assert!(!(above(&a, &b) && above(&b, &c)) || above(&a, &c), "{a} > {b} > {c}");
    if let (Kind::Number, Ok(x), Ok(y)) = (kind, a.parse::<i128>(), b.parse::<i128>()) {
        assert_eq!(above(&a, &b), x > y, "{a} and {b}");
    }
}

pub(crate) fn line_seeds() -> Vec<Vec<u8>> {
    let feed = "grüß dich\r\n\r\nhalf \nlong long long long long\nlast".as_bytes();
    vec![[&[20, 3, 1, 9, 2], feed].concat(), [&[63, 1, 1, 1, 1], feed].concat()]
}

pub(crate) fn ndjson_seeds() -> Vec<Vec<u8>> {
    let feed = concat!(
        "{\"seq\":1,\"a\":[1.5]}\r\n\n{\"seq\":\"x\",\"~/\":{\"b\":null}}\n{\"seq\":2}\n{\"seq\":-1e3}\n[1\n",
        "{\"seq\":[]}\n{\"\\u0073eq\":18446744073709551616}\n\"\u{fc}\"\n{\"seq\":1,\"seq\":3}"
    );
    vec![[&[63, 3, 1, 9, 2], feed.as_bytes()].concat(), [&[30, 63, 63, 63, 63], feed.as_bytes()].concat()]
}

pub(crate) fn position_seeds() -> Vec<Vec<u8>> {
    [
        "\x001\x002\x003",
        "\x001e2\x00100\x0099.5",
        "\x00-0.0\x000e7\x001e-400",
        "\u{1}abc\x00abd\x00b",
        "\x0018446744073709551616\x001.8446744073709551617e19\x001e99999999999999999999",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
