//! From chunks to lines, whatever the chunks' borders, in bounded memory.

use std::borrow::Cow;

use memchr::memchr;

use crate::record::REJECTED_KEEP;

/// One line, without its end.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Line<'a> {
    /// Its bytes; borrowed where it lay within one chunk.
    Whole(Cow<'a, [u8]>),
    /// It was longer than allowed; the rest was skipped while it streamed by.
    Long {
        /// Its first [`REJECTED_KEEP`] bytes.
        head: Vec<u8>,
        /// Its whole length in bytes, a carriage return at its end included.
        length: u64,
    },
}

/// Cuts a stream into lines. Holds nothing between lines, and never more than the longest allowed line.
#[derive(Debug)]
pub(super) struct Framer {
    /// The beginning of a line whose end has not come yet.
    head: Vec<u8>,
    /// The length so far of a line that is already too long; 0 while it is not.
    skipped: u64,
    max: usize,
}

impl Framer {
    /// Lines of up to `max` bytes, their end not counted.
    pub(super) fn new(max: u32) -> Framer {
        Framer { head: Vec::new(), skipped: 0, max: max as usize }
    }

    /// Takes the next line off `input`; none if its end is still to come (`input` is then used up).
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Line<'a>> {
        let Some(at) = memchr(b'\n', input) else {
            self.keep(input);
            *input = &[];
            return None;
        };
        let line = &input[..at];
        *input = &input[at + 1..];
        Some(self.close(line))
    }

    /// Ends the line under way, as the end of a message does.
    pub(super) fn end(&mut self) -> Option<Line<'static>> {
        if self.unfinished() == 0 { None } else { Some(self.take()) }
    }

    /// How many bytes of a line came whose end has not come yet.
    pub(super) fn unfinished(&self) -> u64 {
        self.skipped.max(self.head.len() as u64)
    }

    fn close<'a>(&mut self, rest: &'a [u8]) -> Line<'a> {
        if self.unfinished() > 0 {
            self.keep(rest);
            return self.take();
        }
        let line = chomp(rest);
        if line.len() <= self.max { Line::Whole(line.into()) } else { long(rest.to_vec()) }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let length = self.unfinished() + bytes.len() as u64;
        // One more than allowed: it may be the carriage return of a line that just fits.
        if self.skipped == 0 && length <= self.max as u64 + 1 {
            self.head.extend_from_slice(bytes);
            return;
        }
        self.skipped = length;
        self.head.truncate(REJECTED_KEEP);
        self.head.shrink_to(REJECTED_KEEP);
        let room = REJECTED_KEEP - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn take(&mut self) -> Line<'static> {
        let mut head = std::mem::take(&mut self.head);
        let skipped = std::mem::take(&mut self.skipped);
        if skipped > 0 {
            return Line::Long { head, length: skipped };
        }
        let fits = chomp(&head).len();
        if fits > self.max {
            return long(head);
        }
        head.truncate(fits);
        Line::Whole(head.into())
    }
}

fn long(mut line: Vec<u8>) -> Line<'static> {
    let length = line.len() as u64;
    line.truncate(REJECTED_KEEP);
    line.shrink_to(REJECTED_KEEP);
    Line::Long { head: line, length }
}

/// Without the carriage return of a line that ended in CR LF.
fn chomp(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(framer: &mut Framer, chunks: &[&[u8]]) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        for mut chunk in chunks.iter().copied() {
            while let Some(line) = framer.next(&mut chunk) {
                lines.push(match line {
                    Line::Whole(line) => Line::Whole(line.into_owned().into()),
                    Line::Long { head, length } => Line::Long { head, length },
                });
            }
        }
        lines
    }

    fn whole(text: &str) -> Line<'static> {
        Line::Whole(text.as_bytes().to_vec().into())
    }

    #[test]
    fn a_line_within_one_chunk_is_not_copied() {
        let mut input = &b"one\r\ntwo\nthr"[..];
        let mut framer = Framer::new(10);
        assert!(matches!(framer.next(&mut input), Some(Line::Whole(Cow::Borrowed(b"one")))));
        assert!(matches!(framer.next(&mut input), Some(Line::Whole(Cow::Borrowed(b"two")))));
        assert_eq!(framer.next(&mut input), None);
        assert_eq!(framer.unfinished(), 3);
    }

    #[test]
    fn the_end_of_a_message_ends_a_line() {
        let mut framer = Framer::new(10);
        assert_eq!(cut(&mut framer, &[b"one\ntw", b"o"]), [whole("one")]);
        assert_eq!(framer.end(), Some(whole("two")));
        assert_eq!(framer.end(), None);
    }

    #[test]
    fn a_line_of_the_longest_length_fits_with_its_carriage_return() {
        for chunks in [&[&b"1234\r\n12345\n1234\n"[..]][..], &[b"1234", b"\r\n123", b"45\n1234\n"]] {
            let long = Line::Long { head: b"12345".to_vec(), length: 5 };
            assert_eq!(cut(&mut Framer::new(4), chunks), [whole("1234"), long, whole("1234")]);
        }
    }

    #[test]
    fn ten_mebibytes_without_an_end_cost_no_more_than_what_is_kept() {
        let mut framer = Framer::new(1024);
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..160 {
            assert_eq!(cut(&mut framer, &[&chunk]), []);
            assert!(framer.head.capacity() <= REJECTED_KEEP, "{}", framer.head.capacity());
        }
        let lines = cut(&mut framer, &[b"yz\nnext\n"]);
        assert_eq!(
            lines,
            [Line::Long { head: vec![b'x'; REJECTED_KEEP], length: 10 * 1024 * 1024 + 2 }, whole("next")]
        );
        assert_eq!(framer.head.capacity(), 0, "nothing is held between lines");
    }

    proptest! {
        #[test]
        fn the_borders_of_chunks_do_not_matter(
            text in proptest::collection::vec(prop_oneof![5 => b'a'..=b'c', 1 => Just(b'\r'), 2 => Just(b'\n')], 0..200),
            mut cuts in proptest::collection::vec(0usize..200, 0..12),
            max in 1u32..12,
        ) {
            cuts.iter_mut().for_each(|at| *at = (*at).min(text.len()));
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for at in cuts {
                chunks.push(&text[from..at]);
                from = at;
            }
            chunks.push(&text[from..]);
            let (mut one, mut many) = (Framer::new(max), Framer::new(max));
            prop_assert_eq!(cut(&mut one, &[&text]), cut(&mut many, &chunks));
            prop_assert_eq!(one.unfinished(), many.unfinished());
            prop_assert_eq!(one.end(), many.end());
        }
    }
}
