//! What holds for every input: the envelope, addresses, the inbox, the window.

use poste::envelope::{CallBlock, HEADER_MAX, Header, Part, PieceKind, Speaker, body_check};
use poste::mechanism::Arrival;
use poste::mechanism::inbox::Inbox;
use poste::mechanism::window::Window;
use poste::{Address, Framing};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const KINDS: [PieceKind; 9] = [
    PieceKind::Message,
    PieceKind::Hello,
    PieceKind::Taken,
    PieceKind::Granted,
    PieceKind::Acknowledged,
    PieceKind::Refused,
    PieceKind::Reply,
    PieceKind::Error,
    PieceKind::Withdraw,
];

fn header() -> impl Strategy<Value = Header> {
    let numbers = (0..KINDS.len(), 0..=253_u8, any::<u16>(), any::<u32>());
    let part = (any::<u32>(), any::<u32>());
    let blocks = (
        option::of(any::<(u64, u64)>()),
        option::of(part),
        option::of(any::<(u64, u64)>()),
        option::of(any::<u32>()),
    );
    (numbers, blocks).prop_map(|((kind, descriptors, priority, size), blocks)| Header {
        kind: KINDS[kind],
        descriptors,
        priority,
        size,
        speaker: blocks.0.map(|(sender, sequence)| Speaker { sender, sequence }),
        // A part lies within its whole.
        part: blocks.1.map(|(offset, behind)| Part {
            total: u64::from(offset) + u64::from(size) + u64::from(behind),
            offset: u64::from(offset),
        }),
        call: blocks.2.map(|(call, deadline)| CallBlock { call, deadline }),
        body_check: blocks.3,
    })
}

/// A piece as a sender makes it: its kind, priority and body vary.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let speaker = option::of((any::<u64>(), any::<u64>()));
    (any::<bool>(), 0..40_u16, speaker, vec(any::<u8>(), 0..200)).prop_map(
        |(is_hello, priority, speaker, body)| {
            let body = if is_hello { Vec::new() } else { body };
            let header = Header {
                kind: if is_hello { PieceKind::Hello } else { PieceKind::Message },
                priority,
                speaker: speaker.map(|(sender, sequence)| Speaker { sender, sequence }),
                body_check: Some(body_check(&body)),
                ..Header::message(body.len() as u32)
            };
            let mut buffer = [0; HEADER_MAX];
            let length = header.encode(&mut buffer);
            [&buffer[..length], &body].concat()
        },
    )
}

/// What an inbox delivers: bytes, sender and sequence of each piece, in the order of priority.
type Delivered = Vec<(Vec<u8>, u64, u64)>;

/// Feeds a byte stream in as few or as many reads as the cuts say, and takes it out at the end.
fn through_inbox(framing: Framing, stream: &[u8], cuts: &[usize]) -> Delivered {
    let mut inbox = Inbox::new(framing, false, 1 << 20);
    let mut rest = stream;
    let mut cuts = cuts.iter().copied();
    while !rest.is_empty() {
        let limit = cuts.next().unwrap_or(usize::MAX).max(1);
        let read = |room: &mut [u8]| {
            let count = limit.min(room.len()).min(rest.len());
            let (now, later) = rest.split_at(count);
            room[..count].copy_from_slice(now);
            rest = later;
            Ok(count)
        };
        inbox.fill(None, read).unwrap();
        while inbox.take_fault().is_some() {}
    }
    inbox.fill(None, |_| Ok(0)).unwrap();
    while inbox.take_fault().is_some() {}
    let mut delivered = Vec::new();
    let mut arrival = Arrival::default();
    while inbox.take(&mut arrival).is_some() {
        delivered.push((inbox.bytes(&arrival).to_vec(), arrival.sender, arrival.sequence));
    }
    delivered
}

proptest! {
    // What fails is printed; it then gets a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_header_comes_back_as_it_was(header in header(), behind in vec(any::<u8>(), 0..40)) {
        let mut buffer = [0; HEADER_MAX];
        let length = header.encode(&mut buffer);
        prop_assert_eq!(length, header.len());
        let piece = [&buffer[..length], &behind].concat();
        prop_assert_eq!(Header::decode(&piece), Ok((header, length)));
    }

    #[test]
    fn any_bytes_are_a_header_or_a_fault(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Header::decode(&bytes);
    }

    #[test]
    fn a_changed_header_is_no_other(header in header(), at in 0..HEADER_MAX, with in 1..=255_u8) {
        let mut buffer = [0; HEADER_MAX];
        let length = header.encode(&mut buffer);
        let at = at % length;
        buffer[at] ^= with;
        prop_assert!(Header::decode(&buffer[..length]).is_err());
    }

    #[test]
    fn the_check_of_a_body_is_that_of_the_slow_way(body in vec(any::<u8>(), 0..100)) {
        let slow = body.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 }
            })
        });
        prop_assert_eq!(body_check(&body), !slow);
    }

    #[test]
    fn an_address_comes_back_as_it_was(
        scheme in "[a-z][a-z0-9]{0,8}",
        rest in vec(any::<u8>(), 0..200),
    ) {
        let address = Address::new(&scheme, rest).unwrap();
        prop_assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
    }

    #[test]
    fn options_come_back_as_they_were(
        options in vec(("[^=&?]{1,8}", ".{0,8}"), 1..4),
    ) {
        let percent = |text: &str, special: &[char]| {
            let escaped = text.chars().map(|letter| match letter {
                '%' | '&' => format!("%{:02X}", letter as u32),
                _ if special.contains(&letter) => format!("%{:02x}", letter as u32),
                _ => letter.to_string(),
            });
            escaped.collect::<String>()
        };
        let text: Vec<_> = options
            .iter()
            .map(|(name, value)| format!("{}={}", percent(name, &['=']), percent(value, &[])))
            .collect();
        let address = Address::parse(&format!("mq:/x?{}", text.join("&"))).unwrap();
        prop_assert_eq!(address.options(), &options[..]);
        prop_assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
    }

    #[test]
    fn any_text_is_an_address_or_an_error(text in ".{0,60}") {
        if let Ok(address) = Address::parse(&text) {
            prop_assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
        }
    }

    #[test]
    fn pieces_are_the_same_however_the_stream_is_split(
        pieces in vec(piece(), 0..30),
        cuts in vec(1..300_usize, 0..200),
    ) {
        let stream = pieces.concat();
        let whole = through_inbox(Framing::Enveloped, &stream, &[]);
        prop_assert_eq!(through_inbox(Framing::Enveloped, &stream, &cuts), whole);
    }

    #[test]
    fn pieces_are_found_again_behind_garbage(
        parts in vec(prop_oneof![piece(), vec(any::<u8>(), 0..60)], 0..20),
        cuts in vec(1..100_usize, 0..200),
    ) {
        let stream = parts.concat();
        let whole = through_inbox(Framing::Enveloped, &stream, &[]);
        prop_assert_eq!(through_inbox(Framing::Enveloped, &stream, &cuts), whole);
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_split(
        text in "[a\n]{0,300}",
        cuts in vec(1..20_usize, 0..100),
    ) {
        let framing = Framing::Delimited(b'\n');
        let got = through_inbox(framing, text.as_bytes(), &cuts);
        let got: Vec<_> = got.into_iter().map(|(bytes, ..)| bytes).collect();
        let lines: Vec<_> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
        prop_assert_eq!(got, lines);
    }

    #[test]
    fn packets_stand_for_themselves(
        packets in vec(prop_oneof![piece(), vec(any::<u8>(), 0..60)], 0..20),
    ) {
        let mut inbox = Inbox::new(Framing::Enveloped, true, 1 << 20);
        let mut good = 0;
        for packet in &packets {
            inbox.push_packet(packet);
            let is_message = Header::decode(packet).is_ok_and(|(h, _)| h.kind == PieceKind::Message);
            good += usize::from(is_message);
        }
        prop_assert_eq!(inbox.len(), good);
    }

    #[test]
    fn a_window_is_a_stable_sort(priorities in vec(0..40_u16, 0..100)) {
        let mut window = Window::default();
        for (index, priority) in priorities.iter().enumerate() {
            window.push(*priority, index);
        }
        let mut expected: Vec<_> =
            priorities.iter().map(|p| *p.min(&31)).zip(0..).collect::<Vec<(u16, usize)>>();
        expected.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        let got: Vec<_> = std::iter::from_fn(|| window.pop()).collect();
        prop_assert_eq!(got, expected);
    }
}
