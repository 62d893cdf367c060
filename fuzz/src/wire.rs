//! What other processes send: frames, hellos, messages.

use tenure_store_embedded::{APP_FRAME_MAX, fuzz};

use crate::draw::Draw;

/// A connection's bytes as frames.
pub(crate) fn peer_frames(data: &[u8]) {
    let mut draw = Draw::new(data);
    let max = 1 + draw.below(256);
    let (frames, ended) = fuzz::frames(draw.rest(), max);
    assert!(frames.iter().all(|frame| frame.len() <= max));
    let wire: Vec<u8> = frames.iter().flat_map(|frame| fuzz::frame(frame).expect("short enough")).collect();
    assert!(draw.rest().starts_with(&wire), "what was read is what was there");
    assert_eq!(ended.is_ok(), wire.len() == draw.rest().len(), "only a whole frame is an end");
    // What this side would send is what the other reads.
    let sent = fuzz::frame(draw.rest()).expect("short enough");
    let (again, ended) = fuzz::frames(&sent, APP_FRAME_MAX);
    assert!(ended.is_ok() && again == [draw.rest()]);
    if let Some(cut) = sent.len().checked_sub(1) {
        assert!(fuzz::frames(&sent[..cut], APP_FRAME_MAX).1.is_err(), "a cut frame is no end");
    }
}

/// A caller's first words.
pub(crate) fn peer_hello(data: &[u8]) {
    match fuzz::objection(data, 7, 2) {
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::InvalidData),
        Ok(Some(why)) => assert!(!why.is_empty()),
        // Nobody is let in who does not say exactly what a member of the cluster, or a newcomer, says.
        Ok(None) => {
            let welcome: Vec<Vec<u8>> = [fuzz::hellos(Some(7), 2), fuzz::hellos(None, 2)].concat();
            assert!(welcome.iter().any(|hello| canonical(data) == *hello), "{data:?}");
        }
    }
}

/// The same hello with its numbers in their shortest form, which is how they are written.
fn canonical(data: &[u8]) -> Vec<u8> {
    fuzz::hello_again(data).unwrap_or_default()
}

/// A message of any kind.
pub(crate) fn peer_message(data: &[u8]) {
    let mut draw = Draw::new(data);
    let kind = draw.below(fuzz::KINDS + 1);
    if kind == fuzz::KINDS {
        if let Some([whole, joined]) = fuzz::answer_in_pieces(draw.rest()) {
            assert_eq!(whole, joined, "an answer in pieces is the answer");
        }
    } else if let Some([once, twice]) = fuzz::message(kind, draw.rest()) {
        assert_eq!(once, twice, "what was understood is passed on as it was understood");
        assert!(once.len() <= draw.rest().len(), "nothing is added to what was said");
    }
}

pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let frames: Vec<u8> =
        [&b"one"[..], b"", b"three"].iter().flat_map(|f| fuzz::frame(f).unwrap_or_default()).collect();
    vec![[&[100][..], &frames].concat(), b"\x05\xff\xff\xff\xff".to_vec(), b"\x05HTTP/1.1 400 Bad Request".to_vec()]
}

pub(crate) fn hello_seeds() -> Vec<Vec<u8>> {
    [fuzz::hellos(Some(7), 2), fuzz::hellos(None, 2), fuzz::hellos(Some(8), 3)].concat()
}

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        fuzz::messages().into_iter().map(|(kind, message)| [&[kind as u8][..], &message].concat()).collect();
    // An answer without its number.
    let answers = fuzz::messages().into_iter().filter(|(kind, _)| *kind == 5);
    seeds.extend(answers.map(|(_, message)| [&[fuzz::KINDS as u8][..], &message[1..]].concat()));
    seeds
}
