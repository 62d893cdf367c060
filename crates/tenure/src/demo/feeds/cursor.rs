//! Where one reader is in its feed. A slow reader costs a number, never a queue: what it has not
//! taken yet is made again when it can take more.

use std::sync::Arc;

use tenure_core::moment::Moment;

use super::{
    schedule::{Schedule, render},
    websocket,
};

/// How many bytes are made at once for one reader.
const CHUNK: usize = 64 * 1024;

/// How records are told apart on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// One line per record.
    Lines,
    /// One WebSocket text message per record.
    Messages,
}

impl Framing {
    /// Appends one record.
    pub(super) fn wrap(self, out: &mut Vec<u8>, record: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Framing::Messages => websocket::text_frame(out, record),
            Framing::Lines => {
                record(out);
                out.push(b'\n');
            }
        }
    }
}

/// The content of one feed, as a cursor sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    /// The feed's name.
    pub(super) name: &'a str,
    /// Its time table.
    pub(super) schedule: Schedule,
    /// Unix milliseconds of the server's start.
    pub(super) wall: u64,
}

/// A place in the stream of bytes that one reader gets.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    framing: Framing,
    /// The number of the record under way.
    next: u64,
    /// How many bytes of what is under way have been taken: of `aside`, else of record `next`.
    taken: usize,
    /// Bytes that are no record and go out before the next one.
    aside: Option<Arc<[u8]>>,
}

/// Bytes to offer to a socket, kept between calls to save the allocation.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    /// Where each record of `bytes` ends.
    ends: Vec<usize>,
}

impl Cursor {
    /// A reader that has everything up to and including record `after`.
    pub(super) fn new(framing: Framing, after: u64, aside: Option<Arc<[u8]>>) -> Cursor {
        Cursor { framing, next: after.saturating_add(1), taken: 0, aside }
    }

    /// The next record that it needs.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// True if bytes other than records are waiting, so that there is something to send whatever
    /// the schedule says.
    pub(super) fn has_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// Puts other bytes before the next record. Refused (false) while anything is half sent.
    pub(super) fn put_aside(&mut self, bytes: Vec<u8>) -> bool {
        let free = self.aside.is_none() && self.taken == 0;
        if free {
            self.aside = Some(bytes.into());
        }
        free
    }

    /// Up to about 64 KiB to offer next, with records up to number `upto`; empty if it has all.
    pub(super) fn offer<'s>(&'s self, content: Content<'_>, upto: u64, scratch: &'s mut Scratch) -> &'s [u8] {
        if let Some(aside) = &self.aside {
            let rest = &aside[self.taken..];
            return &rest[..rest.len().min(CHUNK)];
        }
        scratch.bytes.clear();
        scratch.ends.clear();
        for seq in self.next..=upto {
            let born = content.schedule.born(seq);
            self.framing.wrap(&mut scratch.bytes, |out| render(content.name, seq, born, content.wall, out));
            scratch.ends.push(scratch.bytes.len());
            if scratch.bytes.len() >= CHUNK {
                break;
            }
        }
        // Production never goes back, so a record that was half taken is still there.
        &scratch.bytes[self.taken.min(scratch.bytes.len())..]
    }

    /// The reader took that many bytes of what [`Cursor::offer`] gave with this scratch.
    pub(super) fn took(&mut self, bytes: usize, scratch: &Scratch) {
        let reached = self.taken + bytes;
        if let Some(aside) = &self.aside {
            let done = reached == aside.len();
            self.taken = if done { 0 } else { reached };
            if done {
                self.aside = None;
            }
            return;
        }
        let whole = scratch.ends.partition_point(|end| *end <= reached);
        let start = if whole == 0 { 0 } else { scratch.ends[whole - 1] };
        self.next += whole as u64;
        self.taken = reached - start;
    }

    /// When there will be something to send, if all up to now was taken.
    pub(super) fn due(&self, schedule: Schedule) -> Moment {
        if self.has_aside() { Moment(0) } else { schedule.born(self.next) }
    }
}

#[cfg(test)]
mod tests {
    use tenure_core::moment::Dice;

    use super::*;

    fn content() -> Content<'static> {
        Content { name: "f001", schedule: Schedule::new(5.0, &mut Dice::from_seed(1)), wall: 0 }
    }

    /// Everything that a reader gets that takes at most `bite` bytes at once.
    fn read(cursor: &mut Cursor, upto: u64, bite: usize) -> Vec<u8> {
        let mut scratch = Scratch::default();
        let mut got = Vec::new();
        loop {
            let offered = cursor.offer(content(), upto, &mut scratch);
            if offered.is_empty() {
                return got;
            }
            let bite = bite.min(offered.len());
            got.extend_from_slice(&offered[..bite]);
            cursor.took(bite, &scratch);
        }
    }

    #[test]
    fn a_reader_gets_the_same_bytes_in_any_bites() {
        for framing in [Framing::Lines, Framing::Messages] {
            let all = read(&mut Cursor::new(framing, 0, None), 50, usize::MAX);
            for bite in [1, 7, 63, 64, 65, 1000] {
                assert_eq!(read(&mut Cursor::new(framing, 0, None), 50, bite), all, "{framing:?} {bite}");
            }
        }
    }

    #[test]
    fn a_reader_that_resumes_gets_exactly_what_follows_its_position() {
        let all = read(&mut Cursor::new(Framing::Lines, 0, None), 50, usize::MAX);
        let lines: Vec<&[u8]> = all.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 50);
        for after in [0, 1, 49, 50, 60] {
            let rest = read(&mut Cursor::new(Framing::Lines, after, None), 50, 100);
            assert_eq!(rest, lines[after.min(50) as usize..].concat(), "after {after}");
        }
    }

    #[test]
    fn what_is_produced_later_joins_without_a_seam() {
        let all = read(&mut Cursor::new(Framing::Messages, 0, None), 50, usize::MAX);
        let mut cursor = Cursor::new(Framing::Messages, 0, None);
        let got: Vec<u8> = (1..=50).flat_map(|upto| read(&mut cursor, upto, 11)).collect();
        assert_eq!(got, all);
        assert_eq!(cursor.next(), 51);
    }

    #[test]
    fn other_bytes_go_between_records_and_never_into_one() {
        let mut cursor = Cursor::new(Framing::Lines, 0, Some(b"first\n".to_vec().into()));
        assert!(!cursor.put_aside(b"no".to_vec()), "something waits already");
        let mut scratch = Scratch::default();
        assert_eq!(cursor.offer(content(), 3, &mut scratch), b"first\n");
        cursor.took(6, &scratch);
        let offered = cursor.offer(content(), 3, &mut scratch).len();
        cursor.took(offered - 1, &scratch);
        assert!(!cursor.put_aside(b"no".to_vec()), "a record is half sent");
        assert_eq!(cursor.next(), 3);
        assert_eq!(read(&mut cursor, 3, 1), b"\n");
        assert!(cursor.put_aside(b"yes".to_vec()));
        assert_eq!(read(&mut cursor, 3, 1), b"yes");
    }

    #[test]
    fn a_reader_far_behind_gets_a_bounded_chunk_at_once() {
        let cursor = Cursor::new(Framing::Lines, 0, None);
        let mut scratch = Scratch::default();
        assert!(cursor.offer(content(), u64::MAX, &mut scratch).len() < CHUNK + 1000);
    }
}
