//! How resume positions compare.

use std::cmp::Ordering;

use crate::record::Position;

/// The longest position that is kept, in bytes.
pub const POSITION_MAX: usize = 4096;

/// A position as it was found in a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// What it was.
    pub kind: Kind,
    /// A text without its quotes, or a number as it was written.
    pub text: Box<str>,
}

/// What a position is in the feed's JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Compared by value.
    Number,
    /// Compared byte by byte.
    Text,
}

impl Mark {
    /// True if this position comes after `last`. A number after something that is no number cannot
    /// be compared and counts as above: to keep a record twice is better than to lose one.
    pub fn is_above(&self, last: &Position) -> bool {
        match self.kind {
            Kind::Text => self.text > last.0,
            Kind::Number => compare(&self.text, &last.0).is_none_or(Ordering::is_gt),
        }
    }
}

/// Compares two JSON numbers by value, without rounding.
fn compare(a: &str, b: &str) -> Option<Ordering> {
    if let (Ok(a), Ok(b)) = (a.parse::<i64>(), b.parse::<i64>()) {
        return Some(a.cmp(&b));
    }
    let (a, b) = (Decimal::read(a)?, Decimal::read(b)?);
    Some(match (a.negative, b.negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => a.size(&b),
        (true, true) => b.size(&a),
    })
}

/// 0.DIGITS times ten to the power of `point`; no leading or trailing zeros, no digits for zero.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    fn read(text: &str) -> Option<Decimal> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        if whole.is_empty() || !digits().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let zeros = digits().take_while(|b| *b == b'0').count();
        let mut digits: Vec<u8> = digits().skip(zeros).collect();
        digits.truncate(digits.iter().rposition(|b| *b != b'0').map_or(0, |at| at + 1));
        if digits.is_empty() {
            return Some(Decimal { negative: false, digits, point: i64::MIN });
        }
        let point = power(exponent)?.saturating_add(whole.len() as i64 - zeros as i64);
        Some(Decimal { negative, digits, point })
    }

    fn size(&self, other: &Decimal) -> Ordering {
        self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits))
    }
}

/// An exponent; one that no number of ours can have is held at the end of the scale.
fn power(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let end = if text.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
    Some(text.parse().unwrap_or(end).clamp(i64::MIN / 2, i64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Mark {
        Mark { kind: Kind::Number, text: text.into() }
    }

    #[test]
    fn numbers_compare_by_value_and_texts_byte_by_byte() {
        assert!(number("10").is_above(&Position("9".into())));
        assert!(!number("10").is_above(&Position("10.0".into())));
        assert!(!Mark { kind: Kind::Text, text: "10".into() }.is_above(&Position("9".into())));
        assert!(Mark { kind: Kind::Text, text: "b".into() }.is_above(&Position("abc".into())));
        assert!(number("1").is_above(&Position("abc".into())), "not comparable: kept");
    }

    #[test]
    fn no_digit_is_lost() {
        let rising = [
            "-1e400",
            "-123456789012345678901234567891",
            "-123456789012345678901234567890",
            "-1",
            "-0.5",
            "0",
            "1e-400",
            "0.1",
            "0.10000000000000000000000000000001",
            "2",
            "18446744073709551615",
            "18446744073709551616",
            "1.8446744073709551617e19",
            "1e99999999999999999999",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Some(Ordering::Less), "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Some(Ordering::Greater), "{pair:?}");
        }
        for same in [("0", "-0.0e7"), ("1e2", "100"), ("1.50", "15e-1"), ("0.001", "1e-3")] {
            assert_eq!(compare(same.0, same.1), Some(Ordering::Equal), "{same:?}");
        }
    }

    proptest! {
        #[test]
        fn decimals_agree_with_integers(a in any::<i32>(), b in any::<i32>(), zeros in 0usize..4) {
            let spelled = format!("{b}.{}", "0".repeat(zeros + 1));
            prop_assert_eq!(compare(&a.to_string(), &spelled), Some(a.cmp(&b)));
        }

        #[test]
        fn numbers_are_in_one_order_however_they_are_spelled(
            numbers in proptest::collection::vec("-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][-+]?[0-9]{1,20})?", 3),
        ) {
            let above = |a: usize, b: usize| number(&numbers[a]).is_above(&Position(numbers[b].as_str().into()));
            prop_assert!((0..3).all(|n| !above(n, n)), "above itself: {numbers:?}");
            prop_assert!(!(above(0, 1) && above(1, 0)), "above each other: {numbers:?}");
            prop_assert!(!(above(0, 1) && above(1, 2)) || above(0, 2), "not transitive: {numbers:?}");
        }
    }
}
