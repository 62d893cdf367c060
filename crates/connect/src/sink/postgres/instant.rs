//! Times and dates as people write them (ISO 8601), as PostgreSQL stores them.

/// Days from 1970-01-01 to PostgreSQL's first day, 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;

/// Microseconds since 2000-01-01, or none if it is no time. With `zoned`, an offset counts (none
/// means UTC); without, it is read and ignored, as the server does.
pub(super) fn timestamp(text: &str, zoned: bool) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let days = i64::from(date(day)?);
    let (time, offset) = match rest.strip_prefix(['T', 't', ' ']) {
        Some(rest) => time_and_offset(rest.trim_start())?,
        None if rest.is_empty() => (0, 0),
        None => return None,
    };
    Some(days * DAY_MICROS + time - if zoned { offset } else { 0 })
}

/// Days since 2000-01-01.
pub(super) fn date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let valid = year >= 1 && (1..=length).contains(&day);
    valid.then(|| (days_since_1970(year, month, day) - EPOCH_DAYS) as i32)
}

/// Counts from March, so that the leap day is the year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let within_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + within_year - 719_468
}

fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// `hh:mm[:ss[.f]]` and `Z`, `+hh`, `+hhmm` or `+hh:mm`; both in microseconds.
fn time_and_offset(text: &str) -> Option<(i64, i64)> {
    let end = text.find(['Z', 'z', '+', '-', ' ']).unwrap_or(text.len());
    let (time, offset) = text.split_at(end);
    Some((time_of_day(time)?, offset_micros(offset.trim())?))
}

fn time_of_day(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes) = (two(parts.next()?)?, two(parts.next()?)?);
    let (seconds, micros) = match parts.next() {
        None => (0, 0),
        Some(rest) => {
            let (whole, fraction) = rest.split_once(['.', ',']).unwrap_or((rest, "0"));
            (two(whole)?, fraction_micros(fraction)?)
        }
    };
    // 24:00 is the end of a day; :60 is a leap second, which counts into the next minute.
    let valid = minutes < 60 && seconds <= 60 && (hours < 24 || (hours == 24 && minutes + seconds + micros == 0));
    valid.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

fn two(text: &str) -> Option<i64> {
    if text.len() == 2 { digits(text) } else { None }
}

/// Digits after the sixth are dropped.
fn fraction_micros(text: &str) -> Option<i64> {
    digits(text)?;
    let six: String = text.chars().chain("000000".chars()).take(6).collect();
    digits(&six)
}

fn offset_micros(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes() {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => (1, &text[1..]),
        [b'-', ..] => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_at_checked(2)? {
        (hours, "") => (hours, "00"),
        (hours, minutes) => (hours, minutes.strip_prefix(':').unwrap_or(minutes)),
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 16 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_counted_from_the_year_2000() {
        assert_eq!(timestamp("2000-01-01T00:00:00Z", true), Some(0));
        assert_eq!(timestamp("2000-01-01 00:00:01.5", true), Some(1_500_000));
        assert_eq!(timestamp("1999-12-31T23:59:59.999999Z", true), Some(-1));
        assert_eq!(timestamp("2000-01-01T02:00:00+02:00", true), Some(0));
        assert_eq!(timestamp("2000-01-01T02:00:00+02:00", false), Some(7_200_000_000));
        assert_eq!(timestamp("1999-12-31T18:30:00-0530", true), Some(0));
        assert_eq!(timestamp("2000-01-02", true), Some(DAY_MICROS));
        assert_eq!(timestamp("2026-11-21T10:20:30.123456789Z", true), Some(848_571_630_123_456));
    }

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(date("2000-02-29"), Some(59));
        assert_eq!(date("2000-03-01"), Some(60));
        assert_eq!(date("1900-02-29"), None);
        assert_eq!(date("1970-01-01"), Some(-(EPOCH_DAYS as i32)));
        assert_eq!(date("2024-12-31"), Some(9131));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [
            "",
            "now",
            "2000-13-01T00:00:00Z",
            "2000-01-01T25:00Z",
            "2000-01-01T1:00Z",
            "2000-01-01x",
            "2000-01-01T00:00:00+99",
            "2000-01-01T00:00:00.Z",
            "ä000-01-01",
            "2000-01-01T00:00:00+0é",
            "2000-01-01T00:00:00+01:0:2",
            "2000-01-01T00:00:00+0:100",
        ] {
            assert_eq!(timestamp(bad, true), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in r"[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9é]{0,9})?)?[-+Zé]?[0-9é:]{0,6})?|\PC{0,30}") {
            for zoned in [false, true] {
                let _time = timestamp(&text, zoned);
            }
            let _date = date(&text);
        }

        #[test]
        fn later_days_and_later_times_are_later(
            year in 1i64..9999, month in 1i64..=12, day in 1i64..=28, seconds in 0i64..86_399, offset in -12i64..=14,
        ) {
            let at = |seconds: i64| {
                let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{offset:+03}:00")
            };
            let micros = timestamp(&at(seconds), true).unwrap();
            prop_assert_eq!(timestamp(&at(seconds + 1), true).unwrap() - micros, 1_000_000);
            prop_assert_eq!(timestamp(&at(seconds), false).unwrap() - micros, offset * 3_600_000_000);
            let next = format!("{year:04}-{month:02}-{:02}", day + 1);
            // The 29th of February is there in leap years only.
            if let Some(next) = date(&next) {
                prop_assert_eq!(next, date(&at(0)[..10]).unwrap() + 1);
            }
        }
    }
}
