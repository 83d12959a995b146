//! Whatever arrives, in whatever reads: the inbox keeps its bounds, and its pieces don't depend on
//! the reads. The first bytes of the input say the framing and the sizes of the reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use poste::Framing;
use poste::mechanism::Arrival;
use poste::mechanism::inbox::Inbox;

/// The largest delimited message.
const MESSAGE_MAX: usize = 100;

fuzz_target!(|input: &[u8]| {
    let Some((&[framing, sizes, ref cuts @ ..], stream)) = input.split_first_chunk::<8>() else {
        return;
    };
    let framing = match framing % 3 {
        0 => Framing::Enveloped,
        1 => Framing::Delimited(b'\n'),
        _ => Framing::Raw,
    };
    packets(framing, stream, usize::from(sizes) + 1);
    let split = pieces(framing, stream, cuts);
    if framing != Framing::Raw {
        assert_eq!(split, pieces(framing, stream, &[]));
    }
});

/// What a stream gives when it is read in pieces of `cuts` bytes, one after the other.
fn pieces(framing: Framing, mut stream: &[u8], cuts: &[u8]) -> Vec<Vec<u8>> {
    let mut inbox = Inbox::new(framing, false, MESSAGE_MAX);
    let mut cuts = cuts.iter().cycle();
    while !stream.is_empty() {
        let limit = cuts.next().map_or(usize::MAX, |cut| usize::from(*cut) + 1);
        let read = |room: &mut [u8]| {
            let (now, later) = stream.split_at(limit.min(room.len()).min(stream.len()));
            room[..now.len()].copy_from_slice(now);
            stream = later;
            Ok(now.len())
        };
        inbox.fill(None, read).unwrap();
        while inbox.take_fault().is_some() {}
    }
    inbox.fill(None, |_| Ok(0)).unwrap();
    while inbox.take_fault().is_some() {}
    take_all(&mut inbox)
}

fn packets(framing: Framing, stream: &[u8], size: usize) {
    let mut inbox = Inbox::new(framing, true, MESSAGE_MAX);
    stream.chunks(size).for_each(|packet| inbox.push_packet(packet));
    while inbox.take_fault().is_some() {}
    take_all(&mut inbox);
}

fn take_all(inbox: &mut Inbox) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    let mut arrival = Arrival::default();
    while inbox.take(&mut arrival).is_some() {
        taken.push(inbox.bytes(&arrival).to_vec());
    }
    assert!(inbox.is_empty());
    taken
}
