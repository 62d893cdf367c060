//! Taking decisions out of a fuzzer's bytes.

/// Bytes not yet used. When they run out, every draw is zero: short inputs are simple ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw<'d>(&'d [u8]);

impl<'d> Draw<'d> {
    pub(crate) fn new(data: &'d [u8]) -> Draw<'d> {
        Draw(data)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `end`, which is at most 256.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    pub(crate) fn chance(&mut self, of: u8) -> bool {
        self.byte() < of
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `length` of the bytes that are left.
    pub(crate) fn take(&mut self, length: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'d [u8] {
        self.0
    }

    /// All up to the next NUL, as text; broken UTF-8 is mended, so that no byte is wasted.
    pub(crate) fn text(&mut self) -> String {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(self.take(end)).into_owned();
        self.byte();
        text
    }
}
