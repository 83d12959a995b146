//! The forms whose waits are futures keep the same promises: nothing and full are waited out, who
//! waits is woken, a future that is dropped at any await point loses, doubles and tears nothing, and
//! no wake-up is lost. On every runtime, with one thread and with several.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::future::{yield_now, zip};
use poste::futures::{Receiver, Sender};
use poste::{Capabilities, Kind, Level};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form, is_long};
use crate::letters::{Checker, Letters, Random};
use crate::runtime::{Runtime, timeout};

pub(crate) const fn waiting<R: Runtime>(name: &'static str) -> Clause {
    Clause { name, applies: exact, alone: true, run: wait::<R>, ..Clause::PLAIN }
}

pub(crate) const fn full<R: Runtime>(name: &'static str) -> Clause {
    Clause { name, applies: exact_and_safe, run: fill::<R>, ..Clause::PLAIN }
}

pub(crate) const fn dropped_recv<R: Runtime>(name: &'static str) -> Clause {
    Clause { name, applies: exact, run: drop_recv::<R>, ..Clause::PLAIN }
}

pub(crate) const fn dropped_send<R: Runtime>(name: &'static str) -> Clause {
    Clause { name, applies: exact_and_safe, run: drop_send::<R>, ..Clause::PLAIN }
}

pub(crate) const fn wake_ups<R: Runtime>(name: &'static str) -> Clause {
    Clause { name, applies: exact, run: wake_up::<R>, ..Clause::PLAIN }
}

/// Where what is received can be compared with what was sent.
fn exact(capabilities: &Capabilities, form: Form) -> bool {
    capabilities.pollable && (form == Form::Enveloped || capabilities.raw_boundaries)
}

/// And nothing is lost on the way.
fn exact_and_safe(capabilities: &Capabilities, form: Form) -> bool {
    exact(capabilities, form) && !capabilities.may_lose
}

/// A runtime's ends.
type Ends<R> = (Sender<<R as Runtime>::Reactor>, Receiver<<R as Runtime>::Reactor>);

/// Both ends of a fresh channel.
fn open<R: Runtime>(channel: &crate::fixture::Channel) -> Ends<R> {
    let (sender, receiver) = channel.open();
    (Sender::over(sender).unwrap(), Receiver::over(receiver).unwrap())
}

/// The largest letter that shows what can go wrong: in many pieces, where there are pieces.
fn letters<R: Runtime>(cell: &Cell, sender: &Sender<R::Reactor>) -> Letters {
    let capabilities = cell.capabilities();
    let most = match cell.form {
        Form::Enveloped if capabilities.pieces && !capabilities.may_lose => 200_000,
        _ if capabilities.may_lose => 200,
        _ => 3000,
    };
    let size_max = sender.facts().message_size.min(most);
    Letters { seed: cell.random().next(), size_max }
}

/// What comes; `None` where it doesn't.
async fn soon<R: Runtime, T>(future: impl Future<Output = T>) -> Option<T> {
    let start = Instant::now();
    let done = timeout::<R, _>(PATIENCE, future).await?;
    // A timeout looks once more when its time is over, and would find what nobody was woken for.
    assert!(start.elapsed() < PATIENCE, "it was there, and nobody was woken");
    Some(done)
}

/// Polls a future at most `polls` times, and then drops it.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn pause<R: Runtime>(random: &mut Random) {
    match random.below(40) {
        0 => R::sleep(Duration::from_micros(random.below(300) as u64)).await,
        1..9 => yield_now().await,
        _ => {}
    }
}

fn wait<R: Runtime>(cell: &Cell) {
    for runtime in R::flavours() {
        runtime.block_on(async {
            let channel = cell.channel();
            let (mut sender, mut receiver) = open::<R>(&channel);
            for round in 0..3 {
                let time = Duration::from_millis(40);
                let start = Instant::now();
                assert!(timeout::<R, _>(time, receiver.recv()).await.is_none(), "nothing was sent");
                let took = start.elapsed();
                assert!(took >= time, "too early, after {took:?}");
                assert!(took < time + cell.lateness(), "too late, after {took:?}");
                let sending = runtime.spawn(async move {
                    R::sleep(Duration::from_millis(30)).await;
                    let start = Instant::now();
                    sender.send("wake up").await.unwrap();
                    (sender, start)
                });
                let received = receiver.recv().await.unwrap().into_owned();
                assert_eq!(&received[..], b"wake up", "in round {round}");
                let start;
                (sender, start) = sending.await;
                let took = start.elapsed();
                assert!(took < cell.lateness(), "woken {took:?} after the message was sent");
                // One that lies there is no reason to wait, and two come one after the other.
                sender.feed("one").await.unwrap();
                sender.send("two").await.unwrap();
                for expected in ["one", "two"] {
                    let received = soon::<R, _>(receiver.recv()).await.unwrap().unwrap();
                    assert_eq!(&received[..], expected.as_bytes());
                }
                assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
            }
            if !channel.has_address() {
                sender.send("the last").await.unwrap();
                drop(sender);
                assert_eq!(&receiver.recv().await.unwrap()[..], b"the last");
                let end = soon::<R, _>(receiver.recv()).await.expect("the end is news");
                assert_eq!(end.unwrap_err().kind(), Kind::Disconnected);
            }
        });
    }
}

fn fill<R: Runtime>(cell: &Cell) {
    for runtime in R::flavours() {
        runtime.block_on(async {
            let channel = cell.channel();
            let (mut sender, mut receiver) = open::<R>(&channel);
            let letters = letters::<R>(cell, &sender);
            let mut checker = Checker::new(letters, 1, false);
            let mut count = 0;
            for _ in 0..2 {
                // Until a send has to wait: what it began is counted, and goes on later.
                let time = Duration::from_millis(60);
                loop {
                    let before = sender.counters().messages;
                    match timeout::<R, _>(time, sender.send(&letters.letter(0, count))).await {
                        Some(level) => assert_eq!(level.unwrap(), Level::Queued),
                        None => {
                            count += (sender.counters().messages - before) as u32;
                            break;
                        }
                    }
                    count += 1;
                }
                let last = letters.letter(0, count);
                let (sent, ()) = zip(soon::<R, _>(sender.send(&last)), async {
                    while checker.received <= u64::from(count) {
                        let received = soon::<R, _>(receiver.recv()).await;
                        let message = received.expect("what was sent comes").unwrap();
                        checker.check(&message, message.sequence());
                    }
                })
                .await;
                assert_eq!(sent.expect("woken when there is room").unwrap(), Level::Queued);
                count += 1;
            }
            // What was begun when it is closed goes on.
            let time = Duration::from_millis(60);
            let fill = async {
                while sender.send(&letters.letter(0, count)).await.is_ok() {
                    count += 1
                }
            };
            assert!(timeout::<R, _>(time, fill).await.is_none());
            let count = sender.counters().messages;
            let (closed, ()) = zip(soon::<R, _>(sender.close()), async {
                while checker.received < count {
                    let received = soon::<R, _>(receiver.recv()).await;
                    let message = received.expect("what was begun comes").unwrap();
                    checker.check(&message, message.sequence());
                }
            })
            .await;
            closed.expect("woken when there is room").unwrap();
        });
    }
}

fn drop_recv<R: Runtime>(cell: &Cell) {
    for runtime in R::flavours() {
        let channel = cell.channel();
        runtime.block_on(async {
            let (mut sender, mut receiver) = open::<R>(&channel);
            let letters = letters::<R>(cell, &sender);
            let count = if is_long() { 5000 } else { 120 };
            let mut random = cell.random();
            let sending = async {
                for index in 0..count {
                    pause::<R>(&mut random).await;
                    sender.send(&letters.letter(0, index)).await.unwrap();
                }
            };
            let mut random = cell.random();
            let mut checker = Checker::new(letters, 1, false);
            let receiving = async {
                let mut polls = 0;
                while checker.received < u64::from(count) {
                    polls = (polls + 1) % 7;
                    let receiving = async { receiver.recv().await.map(|m| m.into_owned()) };
                    let dropped = dropped_after(polls, receiving);
                    if let Some(message) = soon::<R, _>(dropped).await.expect("it comes") {
                        let message = message.unwrap();
                        checker.check(&message, message.sequence());
                        pause::<R>(&mut random).await;
                    } else {
                        yield_now().await;
                    }
                }
            };
            zip(sending, receiving).await;
            let more = timeout::<R, _>(Duration::from_millis(5), receiver.recv()).await;
            assert!(more.is_none(), "one came twice");
        });
    }
}

fn drop_send<R: Runtime>(cell: &Cell) {
    for runtime in R::flavours() {
        let channel = cell.channel();
        runtime.block_on(async {
            let (mut sender, mut receiver) = open::<R>(&channel);
            let letters = letters::<R>(cell, &sender);
            let count = if is_long() { 5000 } else { 120 };
            let sending = async {
                let (mut index, mut polls) = (0, 0);
                while index < count {
                    polls = (polls + 1) % 7;
                    let before = sender.counters().messages;
                    let letter = letters.letter(0, index);
                    let sent = if polls % 2 == 0 {
                        dropped_after(polls, sender.send(&letter)).await
                    } else {
                        dropped_after(polls, sender.feed(&letter)).await
                    };
                    let accepted = sender.counters().messages - before;
                    match sent {
                        Some(level) => assert_eq!((level.is_ok(), accepted), (true, 1)),
                        None => yield_now().await,
                    }
                    index += accepted as u32;
                    let _ = dropped_after(polls, sender.flush()).await.transpose().unwrap();
                }
                sender.flush().await.unwrap();
            };
            let mut random = cell.random();
            let mut checker = Checker::new(letters, 1, false);
            let receiving = async {
                while checker.received < u64::from(count) {
                    pause::<R>(&mut random).await;
                    let received = soon::<R, _>(receiver.recv()).await;
                    let message = received.expect("it comes").unwrap();
                    checker.check(&message, message.sequence());
                }
            };
            zip(sending, receiving).await;
            let more = timeout::<R, _>(Duration::from_millis(5), receiver.recv()).await;
            assert!(more.is_none(), "one came twice");
        });
    }
}

/// Two channels, one for each direction; half of the messages in a row, so that both sides wait and
/// are waited for, and half one at a time, so that each is a wake-up.
fn wake_up<R: Runtime>(cell: &Cell) {
    let count = if is_long() { 500_000 } else { 400 };
    for (runtime, seed) in R::flavours().into_iter().zip(1..) {
        let channels = [cell.channel(), cell.channel()];
        let [(mut to, mut there), (mut back, mut here)] =
            channels.each_ref().map(|channel| runtime.block_on(async { open::<R>(channel) }));
        let window = if cell.capabilities().may_lose { 1 } else { count };
        let mut random = Random::new(crate::cell::seed() + seed);
        let other = runtime.spawn(async move {
            let mut number = 0;
            let mut came = Vec::new();
            while number < count {
                pause::<R>(&mut random).await;
                // One, or all that lie there.
                let max = if random.below(4) == 0 { 4 } else { 1 };
                let taken = there.recv_many(max, |message| came.push(message.to_vec()));
                let taken = soon::<R, _>(taken).await;
                taken.unwrap_or_else(|| panic!("{number} is not noticed")).unwrap();
                for message in came.drain(..) {
                    assert_eq!(message, u64::to_le_bytes(number));
                    back.send(&message).await.unwrap();
                    number += 1;
                }
            }
        });
        let mut random = Random::new(crate::cell::seed() + seed * 7);
        runtime.block_on(async {
            let mut next = 0;
            for number in 0..count {
                pause::<R>(&mut random).await;
                to.send(&u64::to_le_bytes(number)).await.unwrap();
                let in_row = number < count / 2 && random.below(200) != 0;
                let behind = if in_row { window.min(5) } else { 1 };
                while number + 1 - next >= behind {
                    let received = soon::<R, _>(here.recv()).await;
                    let message = received.unwrap_or_else(|| panic!("{next} comes not back"));
                    assert_eq!(message.unwrap()[..], u64::to_le_bytes(next));
                    next += 1;
                }
            }
            other.await;
        });
    }
}
