//! The rings under loom: every order in which two or three threads can take their steps, as far as
//! the memory model allows it.
//!
//! `RUSTFLAGS="--cfg poste_loom" cargo test -p poste --lib ring::model --release`
//!
//! A process that is killed is a thread that ends where it is killed; what it left in its private
//! variables is gone with it, and what it left in the words stays.

use std::sync::Arc;

use loom::sync::atomic::{Ordering, fence};
use loom::thread;
use poste_sys::mapping::Mapping;

use super::claim::{Reader, Wanted};
use super::lane::{ANY, Lane};
use super::layout::{Place, REMOVED, Word, descriptor, header, lane, participant, participant_at};
use super::producer::{Kind, Obstacle, Producer};
use super::wake::{self, Set};
use crate::error::Error;
use crate::wait::Wait;

const SLOTS: u64 = 2;

/// A lane's words, and a sender's side of it.
fn lane(capacity: u64) -> (Arc<Lane>, Producer) {
    let mut words =
        vec![lane::URGENT, lane::REWINDS, lane::WANTED, lane::HEAD, lane::REDELIVERED, lane::ASIDE];
    for slot in 0..SLOTS as usize {
        let fields =
            [descriptor::WORD, descriptor::PLACE, descriptor::SEQUENCE, descriptor::SENDER];
        words.extend(fields.map(|field| lane::DESCRIPTORS + slot * descriptor::SIZE + field));
    }
    let control = Mapping::model(&words, &[], usize::MAX);
    control.word(lane::HEAD).store(SLOTS, Ordering::Relaxed);
    let lane = Arc::new(Lane::over(control, SLOTS).unwrap());
    let bodies = Mapping::model(&[], &[], 4096);
    let producer = Producer::resume(Arc::clone(&lane), bodies, capacity).unwrap();
    (lane, producer)
}

/// A header's words, for three participants.
fn header() -> Arc<Mapping> {
    let mut words: Vec<_> = (0..8).map(|n| header::ASLEEP + n * 8).collect();
    words.extend((0..4).map(|n| header::DROWSY + n * 8));
    words.extend([header::EPOCH, header::LIFE]);
    let halves: Vec<_> = (0..3).map(|place| participant_at(place) + participant::WORD).collect();
    Arc::new(Mapping::model(&words, &halves, usize::MAX))
}

/// Sends a message if there is room, with its number as its sequence.
fn send(producer: &mut Producer, sequence: u64, priority: u8) -> Result<(), Obstacle> {
    let offset = producer.room_for(1)?;
    producer.write(Place { offset, size: 1 }, Kind { priority, raw: false }, sequence, 9);
    producer.publish();
    Ok(())
}

/// What a sender that takes part in barriers does when it has published, without bells.
fn notify(header: &Mapping) {
    if wake::is_everybody_awake(header) {
        return;
    }
    fence(Ordering::SeqCst);
    if !wake::nobody(header) {
        if let Some(place) = Set::Asleep.choose(header) {
            wake::alert(header, place);
        }
    }
}

/// What a receiver does before it first announces that it sleeps; the barrier that it makes in other
/// processes is the whole fence that [`poste_sys::atomic::light_fence`] is here.
fn become_drowsy(header: &Mapping, place: usize) {
    Set::Drowsy.enter(header, place);
    fence(Ordering::SeqCst);
}

/// Takes the next message of the highest priority: its sequence and its deliveries.
fn take(reader: &mut Reader, receiver: u16) -> Option<(u64, Word)> {
    let urgent = reader.urgent();
    for priority in (0..32).rev() {
        if priority > 0 && urgent & 1 << priority == 0 {
            continue;
        }
        if let Some((number, word)) = reader.find(priority).unwrap() {
            if reader.lane().take(number, word, receiver) {
                return Some((number, word));
            }
        }
    }
    None
}

/// As `Receiving::sleep`: announced, looks, sleeps.
fn sleep_and_take(header: &Mapping, reader: &mut Reader, place: usize) -> (u64, Word) {
    become_drowsy(header, place);
    let mut sleeps = false;
    let found = Wait::Forever.sleep(wake::word(header, place), None, || {
        if std::mem::replace(&mut sleeps, true) && !Set::Asleep.holds(header, place) {
            let found = take(reader, place as u16);
            if found.is_some() {
                return Ok(found);
            }
        }
        Set::Asleep.enter(header, place);
        Ok::<_, Error>(take(reader, place as u16))
    });
    let _chosen = !(Set::Asleep.holds(header, place) && Set::Asleep.leave(header, place));
    found.unwrap().unwrap()
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.check(check);
}

#[test]
fn what_is_taken_was_wholly_written_and_comes_once_in_order() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        let reader = thread::spawn(move || {
            let mut reader = Reader::new(Arc::clone(&lane));
            let mut seen = Vec::new();
            while seen.len() < 3 {
                match take(&mut reader, 1) {
                    Some((number, _)) => {
                        seen.push(lane.origin(number));
                        assert!(lane.finish(number, 1).is_some());
                    }
                    None => thread::yield_now(),
                }
            }
            assert_eq!(seen, [(1, 9), (2, 9), (3, 9)]);
        });
        for sequence in 1..=3 {
            while send(&mut producer, sequence, 0).is_err() {
                thread::yield_now();
            }
        }
        reader.join().unwrap();
    });
}

#[test]
fn an_urgent_message_is_seen_by_who_sees_any_after_it() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        let reader = thread::spawn(move || {
            let mut reader = Reader::new(Arc::clone(&lane));
            let mut seen = Vec::new();
            while seen.len() < 2 {
                match take(&mut reader, 1) {
                    Some((number, word)) => {
                        seen.push((lane.origin(number).0, word.priority()));
                        lane.finish(number, 1).unwrap();
                    }
                    None => thread::yield_now(),
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, [(1, 0), (2, 7)]);
        });
        send(&mut producer, 1, 0).unwrap();
        send(&mut producer, 2, 7).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn of_two_receivers_one_wins() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        send(&mut producer, 1, 0).unwrap();
        let other = Arc::clone(&lane);
        let thread = thread::spawn(move || take(&mut Reader::new(other), 1).is_some());
        let mine = take(&mut Reader::new(lane), 2).is_some();
        assert!(mine ^ thread.join().unwrap());
    });
}

#[test]
fn a_batch_and_a_single_claim_share_what_is_there() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        for sequence in [1, 2] {
            let offset = producer.room_for(1).unwrap();
            let kind = Kind { priority: 0, raw: false };
            producer.write(Place { offset, size: 1 }, kind, sequence, 9);
        }
        let other = Arc::clone(&lane);
        let batch = thread::spawn(move || {
            let mut seen = Vec::new();
            let mut reader = Reader::new(Arc::clone(&other));
            reader.claim(0, 1, 2, |number| seen.push(other.origin(number).0)).unwrap();
            seen
        });
        // Two that were held back become ready one after the other.
        producer.publish();
        let mut mine = Vec::new();
        let mut reader = Reader::new(Arc::clone(&lane));
        if let Some((number, _)) = take(&mut reader, 2) {
            mine.push(lane.origin(number).0);
        }
        let mut all = batch.join().unwrap();
        assert!(all.is_sorted(), "in their sender's order");
        all.append(&mut mine);
        while let Some((number, _)) = take(&mut reader, 2) {
            all.push(lane.origin(number).0);
        }
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn a_sleeping_receiver_is_woken() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        let header = header();
        let shared = Arc::clone(&header);
        let sleeper = thread::spawn(move || {
            let (number, _) = sleep_and_take(&shared, &mut Reader::new(Arc::clone(&lane)), 1);
            assert_eq!(lane.origin(number), (1, 9));
        });
        send(&mut producer, 1, 0).unwrap();
        notify(&header);
        sleeper.join().unwrap();
    });
}

#[test]
fn a_receiver_that_is_awake_at_times_misses_nothing() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        let header = header();
        let shared = Arc::clone(&header);
        let receiver = thread::spawn(move || {
            let mut reader = Reader::new(Arc::clone(&lane));
            for sequence in 1..3 {
                let (number, _) = sleep_and_take(&shared, &mut reader, 1);
                assert_eq!(lane.origin(number).0, sequence);
                Set::Drowsy.leave(&shared, 1);
            }
        });
        for sequence in 1..3 {
            send(&mut producer, sequence, 0).unwrap();
            notify(&header);
        }
        receiver.join().unwrap();
    });
}

#[test]
fn a_sleeping_sender_is_woken() {
    model(|| {
        let (lane, mut producer) = lane(1);
        let header = header();
        let shared = Arc::clone(&header);
        let receiver = thread::spawn(move || {
            let mut reader = Reader::new(Arc::clone(&lane));
            let mut count = 0;
            while count < 2 {
                match take(&mut reader, 1) {
                    Some((number, _)) => {
                        count += 1;
                        if lane.finish(number, 1).unwrap() == Wanted::Yes {
                            wake::alert(&shared, 0);
                        }
                    }
                    None => thread::yield_now(),
                }
            }
        });
        send(&mut producer, 1, 0).unwrap();
        while let Err(obstacle) = send(&mut producer, 2, 0) {
            let Some(number) = producer.to_wait_for(obstacle) else {
                thread::yield_now();
                continue;
            };
            assert_eq!(number, ANY);
            producer.want(number);
            let came = || Ok::<_, Error>(producer.came(number).then_some(()));
            Wait::Forever.sleep(wake::word(&header, 0), None, came).unwrap();
            producer.want_nothing();
        }
        receiver.join().unwrap();
    });
}

#[test]
fn a_waiter_that_vanishes_after_it_was_chosen_costs_nobody_the_message() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        let header = header();
        // Receiver 1 announces itself, and is killed there.
        let (shared, dead) = (Arc::clone(&header), Arc::clone(&lane));
        let vanishing = thread::spawn(move || {
            become_drowsy(&shared, 1);
            Set::Asleep.enter(&shared, 1);
            drop(dead);
        });
        let (shared, theirs) = (Arc::clone(&header), Arc::clone(&lane));
        let sleeper = thread::spawn(move || {
            sleep_and_take(&shared, &mut Reader::new(theirs), 2);
        });
        send(&mut producer, 1, 0).unwrap();
        notify(&header);
        vanishing.join().unwrap();
        // The watcher of receiver 2 hears of the death: as `Mailbox::recover`.
        Set::Asleep.leave(&header, 1);
        lane.rewind();
        for place in [1, 2] {
            Set::Asleep.leave(&header, place);
            wake::alert(&header, place);
        }
        sleeper.join().unwrap();
    });
}

#[test]
fn a_waiter_that_gives_up_when_it_was_chosen_takes_the_message() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        let header = header();
        let (shared, theirs) = (Arc::clone(&header), Arc::clone(&lane));
        let impatient = thread::spawn(move || {
            let mut reader = Reader::new(theirs);
            become_drowsy(&shared, 1);
            Set::Asleep.enter(&shared, 1);
            if let Some(found) = take(&mut reader, 1) {
                Set::Asleep.leave(&shared, 1);
                return Some(found);
            }
            // Its time is over.
            let chosen = !Set::Asleep.leave(&shared, 1);
            if chosen { take(&mut reader, 1) } else { None }
        });
        send(&mut producer, 1, 0).unwrap();
        notify(&header);
        let by_it = impatient.join().unwrap().is_some();
        // Else it still lies there, and nobody else's wake-up was spent on it.
        assert!(by_it ^ take(&mut Reader::new(lane), 2).is_some());
    });
}

#[test]
fn what_a_dead_receiver_had_comes_again_once_and_marked() {
    model(|| {
        let (lane, mut producer) = lane(SLOTS);
        let header = header();
        send(&mut producer, 1, 0).unwrap();
        // Receiver 1 took it, and is dead.
        assert!(take(&mut Reader::new(Arc::clone(&lane)), 1).is_some());
        let (shared, theirs) = (Arc::clone(&header), Arc::clone(&lane));
        let sleeper = thread::spawn(move || {
            let (number, word) = sleep_and_take(&shared, &mut Reader::new(Arc::clone(&theirs)), 2);
            assert_eq!((theirs.origin(number), word.deliveries()), ((1, 9), 1));
            assert!(theirs.finish(number, 2).is_some());
        });
        // Two recover at once; the second may be the first one's successor.
        let (shared, theirs) = (Arc::clone(&header), Arc::clone(&lane));
        let recover = move |header: &Mapping, lane: &Lane| {
            for number in lane.taken_by(1) {
                lane.give_back(number, 1);
            }
            lane.rewind();
            Set::Asleep.leave(header, 2);
            wake::alert(header, 2);
        };
        let other = thread::spawn(move || recover(&shared, &theirs));
        recover(&header, &lane);
        other.join().unwrap();
        sleeper.join().unwrap();
    });
}

#[test]
fn a_sleeper_learns_that_the_mailbox_is_removed() {
    model(|| {
        let header = header();
        let shared = Arc::clone(&header);
        let sleeper = thread::spawn(move || {
            let removed = || {
                Set::Asleep.enter(&shared, 1);
                let removed = shared.word(header::LIFE).load(Ordering::Acquire) == REMOVED;
                Ok::<_, Error>(removed.then_some(()))
            };
            Wait::Forever.sleep(wake::word(&shared, 1), None, removed).unwrap();
        });
        header.word(header::LIFE).store(REMOVED, Ordering::Release);
        wake::alert(&header, 1);
        sleeper.join().unwrap();
    });
}
