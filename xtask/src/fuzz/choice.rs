//! Which inputs are kept with the sources: those that reach most for their length.

use std::path::PathBuf;

/// For each target, so many bytes and so many inputs are kept.
const BYTES: usize = 8 * 1024;
const FILES: usize = 32;
/// What an input costs besides its length, so that both of these are used up at about the same time.
const FILE_COST: usize = BYTES / FILES;

/// An input, and what it reaches.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    length: usize,
    /// Each once, in order: there are thousands, of thousands of inputs.
    edges: Vec<u32>,
}

impl Input {
    fn mark(&self, is_known: &mut [bool]) {
        self.edges.iter().for_each(|edge| is_known[*edge as usize] = true);
    }
}

/// Reads what libFuzzer wrote down while it merged (its control file): two counts, the names of the files,
/// and then for each of them a line with its length and a line with what it reached. An input that did
/// not get to its end has only the first of the two, and is left out.
pub(super) fn read(control: &str) -> Vec<Input> {
    let mut lines = control.lines();
    let count = lines.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let names: Vec<&str> = lines.by_ref().skip(1).take(count).collect();
    let (mut inputs, mut length) = (Vec::new(), 0);
    for line in lines {
        let mut words = line.split(' ');
        let (kind, number) = (words.next(), words.next().and_then(|number| number.parse::<usize>().ok()));
        let mut numbers = words.filter_map(|word| word.parse::<u32>().ok());
        match (kind, number.and_then(|number| names.get(number))) {
            (Some("STARTED"), _) => length = numbers.next().unwrap_or(0) as usize,
            // Each edge has eight features, by how often it was passed; they come in order.
            (Some("FT"), Some(name)) => {
                let mut edges: Vec<u32> = numbers.map(|feature| feature / 8).collect();
                edges.dedup();
                inputs.push(Input { path: name.into(), length, edges });
            }
            _ => {}
        }
    }
    inputs
}

/// Chooses, one after another, the input that reaches most that is new for what it costs. What is `known`
/// need not be reached again.
pub(super) fn choose(inputs: Vec<Input>, known: &[Input]) -> Vec<PathBuf> {
    let end = inputs.iter().chain(known).filter_map(|input| input.edges.last()).max().map_or(0, |last| last + 1);
    let mut is_known = vec![false; end as usize];
    known.iter().for_each(|input| input.mark(&mut is_known));
    let (mut left, mut room, mut chosen) = (inputs, BYTES, Vec::new());
    while chosen.len() < FILES {
        left.retain_mut(|input| {
            input.edges.retain(|edge| !is_known[*edge as usize]);
            !input.edges.is_empty() && input.length <= room
        });
        // In whole numbers, so that it is the same everywhere; the first of equals.
        let worth = |input: &Input| input.edges.len() * 1_000_000 / (input.length + FILE_COST);
        let Some(best) = (0..left.len()).rev().max_by_key(|n| worth(&left[*n])) else { break };
        let best = left.remove(best);
        room -= best.length;
        best.mark(&mut is_known);
        chosen.push(best.path);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, length: usize, edges: &[u32]) -> Input {
        Input { path: name.into(), length, edges: edges.to_vec() }
    }

    fn chosen(inputs: Vec<Input>, known: &[u32]) -> Vec<String> {
        let names = choose(inputs, &[input("seed", 1, known)]).into_iter();
        names.map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn what_the_fuzzer_wrote_down_is_read() {
        let control = "3\n0\nd/a\nd/b\nd/c\nSTARTED 0 5\nFT 0 8 9 16\nCOV 0 1\nSTARTED 1 7\nSTARTED 2 9\nFT 2\nCOV 2\n";
        let inputs = read(control);
        let all: Vec<(String, usize, usize)> =
            inputs.iter().map(|i| (i.path.display().to_string(), i.length, i.edges.len())).collect();
        assert_eq!(all, [("d/a".to_owned(), 5, 2), ("d/c".to_owned(), 9, 0)]);
        assert_eq!(inputs[0].edges, [1, 2]);
        assert!(read("").is_empty());
    }

    #[test]
    fn the_input_that_reaches_most_for_its_length_comes_first() {
        let inputs = vec![input("long", 4000, &[1, 2, 3]), input("short", 10, &[1, 2]), input("none", 0, &[2])];
        assert_eq!(chosen(inputs, &[]), ["short", "long"]);
    }

    #[test]
    fn what_is_known_is_not_kept_twice() {
        assert_eq!(chosen(vec![input("a", 1, &[1]), input("b", 1, &[1, 2])], &[1]), ["b"]);
    }

    #[test]
    fn what_is_kept_is_small() {
        let long = (0..20).map(|n| input("a", 1000, &[n])).collect();
        assert_eq!(chosen(long, &[]).len(), BYTES / 1000);
        let short = (0..100).map(|n| input("a", 1, &[n])).collect();
        assert_eq!(chosen(short, &[]).len(), FILES);
    }
}
