//! The higher priority comes first, within one priority the earlier; what is above the highest is
//! refused.

use std::time::Duration;

use poste::{Kind, Outgoing, Priorities, Sender};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

/// Of what was sent before the first look, the highest priority is received first.
pub(crate) static ORDER: Clause = Clause { name: "priority_order", run: order, ..Clause::PLAIN };

/// An urgent message overtakes what was sent before it and lies there still.
pub(crate) static OVERTAKING: Clause =
    Clause { name: "priority_overtaking", run: overtaking, ..Clause::PLAIN };

/// A priority above the highest is refused, and nothing is sent.
pub(crate) static LIMIT: Clause =
    Clause { name: "priority_limit", applies: |_, _| true, run: limit, ..Clause::PLAIN };

/// Sends as many of the priorities as there is room for, and gives those back.
fn send_all(sender: &mut Sender, priorities: &[u16]) -> Vec<(u16, usize)> {
    let mut sent = Vec::new();
    for (index, &priority) in priorities.iter().enumerate() {
        let body = index.to_string();
        match sender.try_send(Outgoing::from(&body).priority(priority)) {
            Ok(_) => sent.push((priority, index)),
            Err(error) if error.kind() == Kind::Full => break,
            Err(error) => panic!("{error}"),
        }
    }
    // Over a network it takes a moment.
    std::thread::sleep(Duration::from_millis(30));
    sent
}

fn order(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let mut random = cell.random();
    let mut levels = vec![(0..=31).collect::<Vec<u16>>()];
    if let Priorities::Native(max @ 32..) = cell.capabilities().priorities {
        levels.push(vec![0, 31, 32, 1000, max - 1, max]);
    }
    for round in 0..6 {
        let mut priorities = levels[round % levels.len()].repeat(3);
        random.shuffle(&mut priorities);
        if is_window(cell) && cell.capabilities().raw_boundaries {
            // So many packets the first look takes in.
            priorities.truncate(poste::limits::PACKETS_AT_ONCE);
        }
        let mut sent = send_all(&mut sender, &priorities);
        assert!(sent.len() >= 2, "no room for two messages");
        sent.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        let received: Vec<_> = sent
            .iter()
            .map(|_| {
                let message = receiver.recv_timeout(PATIENCE).unwrap();
                (message.priority(), message.text().unwrap().parse::<usize>().unwrap())
            })
            .collect();
        assert_eq!(received, sent, "round {round}");
    }
}

fn overtaking(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    for _ in 0..3 {
        assert_eq!(send_all(&mut sender, &[0, 1, 0, 1, 0]).len(), 5);
        let mut expect = |priority, text: &str| {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            assert_eq!((message.priority(), message.text().unwrap()), (priority, text));
        };
        // This takes all of them in, and what is sent now comes after that.
        expect(1, "1");
        assert_eq!(sender.send(Outgoing::from("urgent").priority(31)).unwrap().min(QUEUED), QUEUED);
        std::thread::sleep(Duration::from_millis(20));
        expect(31, "urgent");
        expect(1, "3");
        expect(0, "0");
        sender.send(Outgoing::from("later").priority(1)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        expect(1, "later");
        expect(0, "2");
        expect(0, "4");
    }
}

const QUEUED: poste::Level = poste::Level::Queued;

fn limit(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let max = cell.capabilities().priorities.max();
    assert_eq!(sender.facts().priority_max, max);
    let mut refused: Vec<u16> = [32, 33, 1000, max.saturating_add(1), u16::MAX].into();
    refused.retain(|priority| *priority > max);
    for priority in refused {
        let error = sender.send(Outgoing::from("x").priority(priority)).unwrap_err();
        let Kind::Limit { name: "priority", value, .. } = error.kind() else { panic!("{error}") };
        assert_eq!(value, u64::from(max));
    }
    if cell.form == Form::Raw && is_window(cell) {
        let error = sender.send(Outgoing::from("x").priority(1)).unwrap_err();
        assert_eq!(error.kind(), Kind::NotSupported, "raw bytes have no priority");
    } else {
        sender.send(Outgoing::from("y").priority(max)).unwrap();
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!(&message[..], b"y");
        if cell.form == Form::Enveloped {
            assert_eq!(message.priority(), max);
        }
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty, "what is refused is not sent");
}

fn is_window(cell: &Cell) -> bool {
    matches!(cell.capabilities().priorities, Priorities::Window(_))
}
