//! Cells as PostgreSQL's binary COPY wants them, and what does not fit.
//!
//! A cell that a column cannot hold is found here, without asking the server.

use super::instant::{date, timestamp};
use crate::{
    record::Cell,
    sink::aside::{json, real},
};

/// The column types that are sent in binary. A table with any other type is sent as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// `text`, and `varchar(n)` with its n characters.
    Text {
        max: Option<usize>,
    },
    Json,
    Jsonb,
    Timestamp,
    TimestampTz,
    Date,
    Uuid,
}

impl Kind {
    /// The kind of a type's object id, with the column's type modifier.
    pub(super) fn of(oid: u32, modifier: i32) -> Option<Kind> {
        // A varchar's modifier is its length plus 4; -1 is none.
        let max = usize::try_from(modifier - 4).ok();
        Some(match oid {
            16 => Kind::Bool,
            21 => Kind::Int2,
            23 => Kind::Int4,
            20 => Kind::Int8,
            700 => Kind::Float4,
            701 => Kind::Float8,
            25 => Kind::Text { max: None },
            1043 => Kind::Text { max },
            114 => Kind::Json,
            3802 => Kind::Jsonb,
            1082 => Kind::Date,
            // A modifier is a precision; the server rounds text, so text is sent.
            1114 if modifier < 0 => Kind::Timestamp,
            1184 if modifier < 0 => Kind::TimestampTz,
            2950 => Kind::Uuid,
            _ => return None,
        })
    }

    fn wants(self) -> &'static str {
        match self {
            Kind::Bool => "a boolean",
            Kind::Int2 => "a whole number from -32768 to 32767",
            Kind::Int4 => "a whole number of 32 bits",
            Kind::Int8 => "a whole number of 64 bits",
            Kind::Float4 => "a number that 32 bits can hold",
            Kind::Float8 => "a number that 64 bits can hold",
            Kind::Text { .. } => "text",
            Kind::Json | Kind::Jsonb => "JSON",
            Kind::Timestamp | Kind::TimestampTz => "a time such as 2026-01-31T12:00:00Z",
            Kind::Date => "a date such as 2026-01-31",
            Kind::Uuid => "a UUID",
        }
    }
}

/// What opens a binary COPY.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What closes it.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];

/// Appends one row in binary; on an error (the column's index and what is wrong) nothing is left of it.
pub(super) fn binary_row(row: &[Cell], kinds: &[Kind], out: &mut Vec<u8>) -> Result<(), (usize, String)> {
    let start = out.len();
    out.extend((row.len() as i16).to_be_bytes());
    for (i, (cell, kind)) in row.iter().zip(kinds).enumerate() {
        if let Err(wrong) = binary_cell(cell, *kind, out) {
            out.truncate(start);
            return Err((i, wrong));
        }
    }
    Ok(())
}

fn binary_cell(cell: &Cell, kind: Kind, out: &mut Vec<u8>) -> Result<(), String> {
    let at = out.len();
    out.extend((-1_i32).to_be_bytes());
    if *cell == Cell::Null {
        return Ok(());
    }
    let fits = match kind {
        Kind::Bool => boolean(cell).map(|b| out.push(b.into())),
        Kind::Int2 => integer(cell).and_then(|i| i16::try_from(i).ok()).map(|i| out.extend(i.to_be_bytes())),
        Kind::Int4 => integer(cell).and_then(|i| i32::try_from(i).ok()).map(|i| out.extend(i.to_be_bytes())),
        Kind::Int8 => integer(cell).map(|i| out.extend(i.to_be_bytes())),
        Kind::Float4 => float(cell).and_then(single).map(|f| out.extend(f.to_be_bytes())),
        Kind::Float8 => float(cell).map(|f| out.extend(f.to_be_bytes())),
        Kind::Text { max } => return text(cell, max, out).map(|()| close(out, at)),
        Kind::Json => {
            out.extend(json(cell).into_bytes());
            Some(())
        }
        Kind::Jsonb => {
            // The version of the format.
            out.push(1);
            out.extend(json(cell).into_bytes());
            Some(())
        }
        Kind::Timestamp | Kind::TimestampTz => {
            words(cell).and_then(|t| timestamp(t, kind == Kind::TimestampTz)).map(|t| out.extend(t.to_be_bytes()))
        }
        Kind::Date => words(cell).and_then(date).map(|d| out.extend(d.to_be_bytes())),
        Kind::Uuid => words(cell).and_then(uuid).map(|u| out.extend(u.to_be_bytes())),
    };
    fits.map(|()| close(out, at)).ok_or_else(|| format!("{} is not {}", shown(cell), kind.wants()))
}

/// Writes the length of the cell that began at `at`.
fn close(out: &mut [u8], at: usize) {
    let length = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn shown(cell: &Cell) -> String {
    let all = json(cell);
    match all.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &all[..end]),
        None => all,
    }
}

fn words(cell: &Cell) -> Option<&str> {
    match cell {
        Cell::Text(text) => Some(text.trim()),
        _ => None,
    }
}

fn boolean(cell: &Cell) -> Option<bool> {
    match cell {
        Cell::Bool(b) => Some(*b),
        Cell::Int(0) => Some(false),
        Cell::Int(1) => Some(true),
        Cell::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn integer(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(i) => Some(*i),
        Cell::Real(r) if r.fract() == 0.0 && r.abs() < 9.0e18 => Some(*r as i64),
        Cell::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn float(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Int(i) => Some(*i as f64),
        Cell::Real(r) => Some(*r),
        Cell::Text(text) | Cell::Json(text) => double(text.trim()),
        Cell::Null | Cell::Bool(_) => None,
    }
}

/// The server refuses digits that are too many for the type, where a parser makes infinity or zero of
/// them. Infinity that is meant is a word.
fn double(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_word = !text.contains(|c: char| c.is_ascii_digit());
    let is_zero = !mantissa.contains(|c: char| matches!(c, '1'..='9'));
    let kept = if number == 0.0 { is_zero } else { number.is_finite() || is_word };
    kept.then_some(number)
}

fn single(number: f64) -> Option<f32> {
    let short = number as f32;
    let kept = short.is_infinite() == number.is_infinite() && (short == 0.0) == (number == 0.0);
    kept.then_some(short)
}

fn text(cell: &Cell, max: Option<usize>, out: &mut Vec<u8>) -> Result<(), String> {
    let at = out.len();
    match cell {
        Cell::Text(text) | Cell::Json(text) => out.extend_from_slice(text.as_bytes()),
        Cell::Bool(b) => out.extend_from_slice(b.to_string().as_bytes()),
        Cell::Int(i) => out.extend_from_slice(i.to_string().as_bytes()),
        Cell::Real(r) => out.extend_from_slice(real(*r).as_bytes()),
        Cell::Null => {}
    }
    if memchr::memchr(0, &out[at..]).is_some() {
        return Err(format!("{} holds a NUL character, which PostgreSQL's text cannot", shown(cell)));
    }
    let longest = max.unwrap_or(usize::MAX);
    // Bytes are at least as many as characters; only then is counting worth it.
    if out.len() - at > longest && String::from_utf8_lossy(&out[at..]).trim_end_matches(' ').chars().count() > longest {
        return Err(format!("{} is longer than {longest} characters", shown(cell)));
    }
    Ok(())
}

fn uuid(text: &str) -> Option<u128> {
    let digits: String = text.trim_matches(['{', '}']).chars().filter(|c| *c != '-').collect();
    let hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { u128::from_str_radix(&digits, 16).ok() } else { None }
}

/// Appends one row as COPY's text format: cells parted by tabs, closed by a newline. The server
/// judges the values.
pub(super) fn text_row(row: &[Cell], json_columns: &[bool], out: &mut Vec<u8>) {
    for (i, (cell, is_json)) in row.iter().zip(json_columns).enumerate() {
        if i > 0 {
            out.push(b'\t');
        }
        match cell {
            Cell::Null => out.extend_from_slice(b"\\N"),
            Cell::Text(text) if !is_json => escaped(text, out),
            other => escaped(&json(other), out),
        }
    }
    out.push(b'\n');
}

fn escaped(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(cell: Cell, kind: Kind) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        binary_cell(&cell, kind, &mut out).map(|()| out)
    }

    fn text(t: &str) -> Cell {
        Cell::Text(t.into())
    }

    #[test]
    fn each_kind_takes_what_it_can_hold() {
        assert_eq!(cell(Cell::Int(7), Kind::Int2).unwrap(), [0, 0, 0, 2, 0, 7]);
        assert_eq!(cell(Cell::Null, Kind::Int2).unwrap(), [255, 255, 255, 255]);
        assert_eq!(cell(text(" -1 "), Kind::Int4).unwrap(), [0, 0, 0, 4, 255, 255, 255, 255]);
        assert_eq!(cell(Cell::Real(3.0), Kind::Int8).unwrap()[11], 3);
        assert_eq!(cell(Cell::Bool(true), Kind::Bool).unwrap(), [0, 0, 0, 1, 1]);
        assert_eq!(cell(Cell::Int(12), Kind::Text { max: None }).unwrap(), [0, 0, 0, 2, b'1', b'2']);
        assert_eq!(cell(text("a"), Kind::Json).unwrap(), [0, 0, 0, 3, b'"', b'a', b'"']);
        assert_eq!(cell(Cell::Json("[]".into()), Kind::Jsonb).unwrap(), [0, 0, 0, 3, 1, b'[', b']']);
        let zero = "00000000-0000-0000-0000-000000000001";
        assert_eq!(cell(text(zero), Kind::Uuid).unwrap()[19], 1);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = |c: Cell, kind| cell(c, kind).unwrap_err();
        assert_eq!(wrong(Cell::Int(40_000), Kind::Int2), "40000 is not a whole number from -32768 to 32767");
        assert_eq!(wrong(text("x"), Kind::Int8), "\"x\" is not a whole number of 64 bits");
        assert_eq!(
            wrong(text("a\0b"), Kind::Text { max: None }),
            "\"a\\u0000b\" holds a NUL character, which PostgreSQL's text cannot"
        );
        assert_eq!(wrong(text("äöü"), Kind::Text { max: Some(2) }), "\"äöü\" is longer than 2 characters");
        assert!(cell(text("äö   "), Kind::Text { max: Some(2) }).is_ok(), "spaces at the end are cut by the server");
    }

    #[test]
    fn a_number_is_refused_rather_than_made_infinite_or_zero() {
        let real = |r: f64| cell(Cell::Real(r), Kind::Float4);
        assert!(real(3.4e38).is_ok() && real(-0.0).is_ok() && real(1e-38).is_ok());
        assert_eq!(real(3.5e38).unwrap_err(), "3.5e+38 is not a number that 32 bits can hold");
        assert!(real(1e-60).is_err());
        for (word, fits) in [("1e999", false), ("-1e-999", false), ("0e-999", true), ("-Infinity", true), ("nan", true)]
        {
            assert_eq!(cell(text(word), Kind::Float8).is_ok(), fits, "{word}");
            assert_eq!(cell(text(word), Kind::Float4).is_ok(), fits, "{word}");
        }
    }

    #[test]
    fn of_a_row_that_does_not_fit_nothing_is_left() {
        let mut out = vec![9];
        let row = [Cell::Int(1), text("x")];
        assert_eq!(binary_row(&row, &[Kind::Int8, Kind::Int8], &mut out).unwrap_err().0, 1);
        assert_eq!(out, [9]);
    }

    #[test]
    fn text_rows_are_escaped() {
        let mut out = Vec::new();
        let row = [text("a\tb\\c\nd\r"), Cell::Null, Cell::Json("{\"a\":\"\\n\"}".into()), text("x"), Cell::Real(0.1)];
        text_row(&row, &[false, false, true, true, false], &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a\\tb\\\\c\\nd\\r\t\\N\t{\"a\":\"\\\\n\"}\t\"x\"\t0.1\n");
    }

    fn any_cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            Just(Cell::Null),
            any::<bool>().prop_map(Cell::Bool),
            any::<i64>().prop_map(Cell::Int),
            (-300i64..300).prop_map(Cell::Int),
            any::<f64>().prop_filter("JSON has no other", |real| real.is_finite()).prop_map(Cell::Real),
            "\\PC{0,9}|[-+0-9.eE ]{0,9}|[a\t\n\r\\\\]{0,9}".prop_map(|text| Cell::Text(text.into())),
            "\\PC{0,9}".prop_map(|text| Cell::Json(quoted(&text).into())),
        ]
    }

    fn quoted(text: &str) -> String {
        serde_json::Value::from(text).to_string()
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        use Kind::*;
        let text = Text { max: Some(4) };
        let all = vec![
            Bool,
            Int2,
            Int4,
            Int8,
            Float4,
            Float8,
            Text { max: None },
            text,
            Json,
            Jsonb,
            Timestamp,
            TimestampTz,
            Date,
            Uuid,
        ];
        proptest::sample::select(all)
    }

    proptest! {
        #[test]
        fn what_a_column_takes_is_as_long_as_it_says_and_as_its_kind_wants(c in any_cell(), kind in any_kind()) {
            let Ok(bytes) = cell(c.clone(), kind) else {
                prop_assert!(c != Cell::Null, "nothing fits everywhere");
                return Ok(());
            };
            let length = i32::from_be_bytes(bytes[..4].try_into().unwrap());
            let value = &bytes[4..];
            prop_assert_eq!(length, if c == Cell::Null { -1 } else { value.len() as i32 });
            let wanted = match kind {
                Kind::Bool => Some(1),
                Kind::Int2 => Some(2),
                Kind::Int4 | Kind::Float4 | Kind::Date => Some(4),
                Kind::Int8 | Kind::Float8 | Kind::Timestamp | Kind::TimestampTz => Some(8),
                Kind::Uuid => Some(16),
                Kind::Text { .. } | Kind::Json | Kind::Jsonb => None,
            };
            prop_assert!(length == -1 || wanted.is_none_or(|wanted| wanted == value.len()));
            match (kind, &c) {
                (Kind::Int2, Cell::Int(i)) => prop_assert_eq!(value, (*i as i16).to_be_bytes()),
                (Kind::Int8, Cell::Int(i)) => prop_assert_eq!(value, i.to_be_bytes()),
                (Kind::Float8, Cell::Real(r)) => prop_assert_eq!(value, r.to_be_bytes()),
                (Kind::Float4, Cell::Real(r)) => {
                    let stored = f32::from_be_bytes(value.try_into().unwrap());
                    prop_assert!(stored.is_finite() && (stored == 0.0) == (*r == 0.0), "{} became {}", r, stored);
                }
                (Kind::Text { .. }, Cell::Text(text)) => prop_assert_eq!(value, text.as_bytes()),
                _ => {}
            }
        }

        #[test]
        fn a_text_row_is_one_line_of_as_many_cells(row in proptest::collection::vec(any_cell(), 1..6)) {
            let mut out = Vec::new();
            text_row(&row, &vec![false; row.len()], &mut out);
            prop_assert_eq!(out.iter().position(|b| *b == b'\n'), Some(out.len() - 1));
            let cells: Vec<&[u8]> = out[..out.len() - 1].split(|b| *b == b'\t').collect();
            prop_assert_eq!(cells.len(), row.len());
            for (cell, written) in row.iter().zip(cells) {
                prop_assert_eq!(written == &b"\\N"[..], *cell == Cell::Null, "nothing else is taken for NULL");
            }
        }
    }
}
