//! Which seeds.

use std::{fs, io, ops::Range, path::Path, str::FromStr};

/// A range of seeds: `0..500`, or one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
        let seeds = match text.split_once("..") {
            Some((first, end)) => number(first)?..number(end)?,
            None => number(text).map(|one| one..one + 1)?,
        };
        if seeds.is_empty() { Err(format!("there is no seed in {text}")) } else { Ok(Seeds(seeds)) }
    }
}

/// The seeds of a file: the first word of each line that is not empty and does not begin with `#`.
///
/// # Errors
/// The file cannot be read, or a line begins with something else.
pub fn of_file(path: &Path) -> io::Result<Vec<u64>> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let seed = |(number, line): (usize, &str)| {
        let word = line.split_whitespace().next().unwrap_or_default();
        let wrong = |_| io::Error::other(format!("{}:{}: {word:?} is not a seed", path.display(), number + 1));
        word.parse().map_err(wrong)
    };
    lines.map(seed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_or_one() {
        assert_eq!("3..9".parse(), Ok(Seeds(3..9)));
        assert_eq!("7".parse(), Ok(Seeds(7..8)));
        assert!("x".parse::<Seeds>().is_err());
    }
}
