//! The PostgreSQL sink without a server: cells in binary, times, connection strings.

use tenure_connect::{record::Cell, sink::postgres::fuzz};

use crate::draw::Draw;

/// Object ids of the types that are sent in binary, with a modifier for `varchar(4)`.
const TYPES: [(u32, i32); 13] = [
    (16, -1),
    (21, -1),
    (23, -1),
    (20, -1),
    (700, -1),
    (701, -1),
    (25, -1),
    (1043, 8),
    (114, -1),
    (3802, -1),
    (1114, -1),
    (1184, -1),
    (2950, -1),
];

/// A row of any cells for columns of any types.
pub(crate) fn postgres_row(data: &[u8]) {
    let mut draw = Draw::new(data);
    let (mut row, mut types) = (Vec::new(), Vec::new());
    while !draw.is_empty() && row.len() < 8 {
        types.push(TYPES[draw.below(TYPES.len())]);
        row.push(cell(&mut draw));
    }
    match fuzz::binary_row(&row, &types).expect("all of these are sent in binary") {
        Ok(bytes) => read_back(&bytes, &row, &types),
        Err((column, wrong)) => {
            assert!(column < row.len() && !wrong.is_empty());
            assert!(row[column] != Cell::Null, "nothing fits everywhere");
            let wide = matches!(types[column].0, 25 | 114 | 3802);
            assert!(!wide || wrong.contains("NUL"), "text and JSON take everything but NUL: {wrong}");
        }
    }
    as_text(&row);
}

fn cell(draw: &mut Draw<'_>) -> Cell {
    match draw.below(7) {
        0 => Cell::Null,
        1 => Cell::Bool(draw.chance(128)),
        2 => Cell::Int(i64::from(draw.u32()) << draw.below(33)),
        3 => Cell::Int(i64::from(draw.byte()) - 128),
        4 => {
            let real = f64::from_bits(u64::from(draw.u32()) << 32 | u64::from(draw.u32()));
            // JSON has no other.
            if real.is_finite() { Cell::Real(real) } else { Cell::Null }
        }
        5 => Cell::Text(draw.text().into()),
        _ => Cell::Json(serde_json::Value::from(draw.text()).to_string().into()),
    }
}

/// Reads a row as the server would.
fn read_back(bytes: &[u8], row: &[Cell], types: &[(u32, i32)]) {
    let mut rest = bytes;
    let mut next = |length: usize| {
        let (taken, behind) = rest.split_at(length);
        rest = behind;
        taken
    };
    assert_eq!(next(2), (row.len() as u16).to_be_bytes());
    for (cell, (oid, _)) in row.iter().zip(types) {
        let length = i32::from_be_bytes(next(4).try_into().expect("four bytes"));
        assert_eq!(length == -1, *cell == Cell::Null, "{cell:?}");
        if let Ok(length) = usize::try_from(length) {
            column_holds(next(length), cell, *oid);
        }
    }
    assert!(rest.is_empty());
}

/// The value is the cell's own.
fn column_holds(value: &[u8], cell: &Cell, oid: u32) {
    let whole = || match value.len() {
        2 => i64::from(i16::from_be_bytes(value.try_into().expect("two"))),
        4 => i64::from(i32::from_be_bytes(value.try_into().expect("four"))),
        _ => i64::from_be_bytes(value.try_into().expect("eight")),
    };
    let length = match oid {
        16 => Some(1),
        21 => Some(2),
        23 | 700 => Some(4),
        20 | 701 | 1114 | 1184 => Some(8),
        2950 => Some(16),
        _ => None,
    };
    assert!(length.is_none_or(|length| value.len() == length), "{oid} in {} bytes", value.len());
    match (oid, cell) {
        (16, Cell::Bool(b)) => assert_eq!(value, [u8::from(*b)]),
        (21 | 23 | 20, Cell::Int(i)) => assert_eq!(whole(), *i),
        (21 | 23 | 20, Cell::Real(r)) => assert_eq!(whole() as f64, *r),
        (21 | 23 | 20, Cell::Text(t)) => assert_eq!(t.trim().parse(), Ok(whole())),
        (701, Cell::Real(r)) => assert_eq!(value, r.to_be_bytes()),
        // PostgreSQL has no infinite numbers in JSON, and no feed can mean one where it wrote digits.
        (700, Cell::Real(r)) => {
            let stored = f32::from_be_bytes(value.try_into().expect("four"));
            assert!(stored.is_finite(), "{r} became {stored}");
        }
        (25 | 1043, Cell::Text(t)) => {
            assert_eq!(value, t.as_bytes());
            assert!(oid == 25 || t.trim_end_matches(' ').chars().count() <= 4, "{t:?} in varchar(4)");
        }
        (114, _) => is_json(value),
        (3802, _) => {
            assert_eq!(value.first(), Some(&1));
            is_json(&value[1..]);
        }
        _ => {}
    }
}

fn is_json(value: &[u8]) {
    serde_json::from_slice::<serde_json::Value>(value).expect("JSON");
}

/// COPY's text format: as many cells as there are, and one line.
fn as_text(row: &[Cell]) {
    let json: Vec<bool> = (0..row.len()).map(|column| column % 2 == 1).collect();
    let line = fuzz::text_row(row, &json);
    assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
    assert_eq!(line.iter().filter(|b| **b == b'\t').count(), row.len().saturating_sub(1));
    let cells: Vec<&[u8]> = line[..line.len() - 1].split(|b| *b == b'\t').collect();
    for (column, (cell, written)) in row.iter().zip(cells).enumerate() {
        assert_eq!(*written == b"\\N"[..], *cell == Cell::Null);
        if let (Cell::Text(text), false) = (cell, json[column]) {
            assert_eq!(unescaped(written), text.as_bytes());
        }
    }
    let columns: Vec<Box<str>> = (0..row.len()).map(|column| format!("c{column}").into()).collect();
    let aside = fuzz::readable(&columns, row);
    let plain = matches!(row, [Cell::Json(_)]);
    assert!(plain || row.is_empty() || serde_json::from_str::<serde_json::Value>(&aside).is_ok(), "{aside}");
}

fn unescaped(written: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = written.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                other => *other.expect("something is escaped"),
            },
            other => *other,
        });
    }
    out
}

/// A time or a date.
pub(crate) fn postgres_time(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // PostgreSQL's own limits are far outside of four digits of a year.
    const MOST: i64 = 8_000 * 366 * 86_400_000_000;
    for zoned in [false, true] {
        if let Some(micros) = fuzz::timestamp(text, zoned) {
            assert!(micros.abs() <= MOST, "{text}: {micros}");
        }
    }
    if let Some(days) = fuzz::date(text) {
        assert_eq!(text.len(), 10);
        assert_eq!(fuzz::timestamp(text, false), Some(i64::from(days) * 86_400_000_000), "midnight");
        assert_eq!(fuzz::timestamp(&format!("{text}T00:00:00Z"), true), fuzz::timestamp(text, true));
        assert_eq!(
            fuzz::timestamp(&format!("{text} 00:00:00+01"), true),
            Some((i64::from(days) * 24 - 1) * 3_600_000_000)
        );
        assert_eq!(written(days), text, "the day before and after this one are others");
    }
}

/// A day as it is written, by counting years and months.
fn written(days: i32) -> String {
    let leap = |year: i32| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut left = days + 730_119;
    let mut year = 1;
    while left >= 365 + i32::from(leap(year)) {
        left -= 365 + i32::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i32::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!("{year:04}-{:02}-{:02}", month + 1, left + 1)
}

/// A connection string: what is shown of it, or of what is wrong with it, never holds the password.
pub(crate) fn postgres_address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // It would read that file.
    if text.contains("sslrootcert") {
        return;
    }
    match fuzz::address(text) {
        Err(wrong) => assert!(!wrong.is_empty()),
        Ok(understood) => {
            let asks = ["require", "verify-ca", "verify-full"].iter().any(|mode| text.contains(mode));
            let spelled_otherwise = text.contains(['%', '\\']);
            assert!(asks || spelled_otherwise || !understood.encrypted, "nobody asked for TLS");
        }
    }
    // The same with a password that stands out.
    for secret in [format!("postgres://u:hunter2@{text}"), format!("password=hunter2 {text}")] {
        let shown = match fuzz::address(&secret) {
            Err(wrong) => wrong,
            Ok(understood) if understood.password.as_deref() == Some(b"hunter2") => understood.shown,
            Ok(_) => continue,
        };
        assert!(text.contains("hunter2") || !shown.contains("hunter2"), "{secret} is shown as {shown}");
    }
}

pub(crate) fn row_seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x00\x01\x01\x01\x02\x07\x00\x00\x00\x00\x03\x03\x80\x06\x05gr\xc3\xbc\xc3\x9f\0\x07\x05abcde\0\x08\x06x\0".to_vec(),
        b"\x0a\x052026-01-31T12:00:00Z\0\x0b\x052026-01-31 12:00:00.5+02:00\0\x0c\x0500000000-0000-0000-0000-000000000001\0".to_vec(),
        b"\x04\x04\x00\x00\xf0\x7f\x01\x00\x00\x00\x05\x04\x00\x00\x00\x40\x00\x00\x00\x00\x06\x00\x09\x05a\tb\\\n\0".to_vec(),
        b"\x01\x05 7 \0\x00\x05yes\0\x03\x04\x00\x00\x00\x43\x00\x00\x00\x00".to_vec(),
    ]
}

pub(crate) fn time_seeds() -> Vec<Vec<u8>> {
    [
        "2000-02-29",
        "2026-11-21T10:20:30.123456789Z",
        "1999-12-31 18:30:00-0530",
        "2000-01-01T24:00",
        "0001-01-01T00:00:60+15:59",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn address_seeds() -> Vec<Vec<u8>> {
    [
        "h:5432/d?sslmode=prefer&connect_timeout=1",
        "postgres://u:p@h:1234/d?sslmode=disable",
        "host=h user=u password='p q' sslmode=prefer",
        "postgresql:///d?host=/run",
        "[::1]/d?options=-c%20a%3Db",
        "u:p%40@h1,h2:1,2/d",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
