//! The ends for tokio, where they do more than the clauses of the contract try: calls, connections,
//! sinks and streams, senders that wait for somebody to receive, receivers that share a FIFO.

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_lite::future::poll_once;
use futures_sink::Sink;
use poste::tokio::{Receiver, Sender};
use poste::{Kind, Options, OwnedMessage, Wait};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const PATIENCE: Duration = Duration::from_secs(10);

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("poste-tokio-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn address(&self, scheme: &str) -> String {
        format!("{scheme}:{}/{scheme}", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let done = timeout(PATIENCE, future).await.expect("it comes soon");
    // A timeout looks once more when its time is over, and would find what nobody was woken for.
    assert!(start.elapsed() < PATIENCE, "it was there, and nobody was woken");
    done
}

#[test]
fn several_mechanisms_are_waited_for_at_once() -> Outcome {
    let folder = Folder::new("select");
    runtime().block_on(async {
        let mut orders = Receiver::open(folder.address("unix"))?;
        let mut log = Receiver::create(folder.address("fifo"))?;
        let mut one = Sender::open(folder.address("unix"))?;
        let mut other = Sender::open(folder.address("fifo"))?;
        let sending = tokio::spawn(async move {
            for _ in 0..100 {
                one.send("order").await?;
                other.send("line").await?;
            }
            Outcome::Ok(())
        });
        let (mut ordered, mut logged) = (0, 0);
        while ordered < 100 || logged < 100 {
            tokio::select! {
                m = orders.recv() => { assert_eq!(m?.text()?, "order"); ordered += 1 }
                m = log.recv() => { assert_eq!(m?.text()?, "line"); logged += 1 }
                () = sleep(PATIENCE) => panic!("{ordered} orders, {logged} lines"),
            }
        }
        soon(sending).await?
    })
}

#[test]
fn outside_of_a_runtime_opening_says_so() {
    let address = format!("unix:@poste-tokio-outside-{}", std::process::id());
    let error = Receiver::create(&address).unwrap_err();
    assert_eq!(error.kind(), Kind::NotSupported);
    assert!(error.hint().contains("runtime"), "{error:?}");
    let _there = poste::Receiver::create(&address).unwrap();
    assert_eq!(Sender::open(&address).unwrap_err().kind(), Kind::NotSupported);
}

#[test]
fn what_a_runtime_refuses_is_said_of_the_address() {
    let one = || Builder::new_current_thread().enable_all().build().unwrap();
    let (mut receiver, mut sender) = one().block_on(async {
        let (sender, receiver) = poste::pipe().unwrap();
        let (mut sender, receiver) =
            (Sender::over(sender).unwrap(), Receiver::over(receiver).unwrap());
        // It has waited for room, so that it is registered.
        let full = async { while sender.send(&[0; 4096]).await.is_ok() {} };
        assert!(timeout(Duration::from_millis(20), full).await.is_err());
        (receiver, sender)
    });
    // The runtime that they were registered with is gone.
    one().block_on(async {
        let error = sender.send(&[0; 4096]).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot poll pipe:"), "{error}");
        while receiver.try_recv().is_ok() {}
        let error = receiver.recv().await.unwrap_err();
        assert!(error.to_string().starts_with("cannot poll pipe:"), "{error}");
    });
}

#[test]
fn a_call_waits_for_its_answer_and_one_that_is_dropped_leaves_none_to_the_next() -> Outcome {
    let folder = Folder::new("call");
    runtime().block_on(async {
        for scheme in ["unix", "seqpacket", "dgram"] {
            let mut server = Receiver::create(folder.address(scheme))?;
            let mut client = Sender::open(folder.address(scheme))?;
            let serving = tokio::spawn(async move {
                for _ in 0..3 {
                    let mut question = server.recv().await?;
                    sleep(Duration::from_millis(30)).await;
                    let answer = question.text()?.to_uppercase();
                    question.reply(&answer)?;
                }
                Outcome::Ok(())
            });
            assert_eq!(soon(client.call("one")).await?.text()?, "ONE", "{scheme}");
            let dropped = timeout(Duration::from_millis(5), client.call("two")).await;
            assert!(dropped.is_err(), "{scheme}: answered before its time");
            assert_eq!(soon(client.call("three")).await?.text()?, "THREE", "{scheme}");
            soon(serving).await??;
        }
        Outcome::Ok(())
    })
}

#[test]
fn connections_are_accepted_one_by_one_and_go_both_ways() -> Outcome {
    let folder = Folder::new("accept");
    runtime().block_on(async {
        let mut server = Receiver::create(folder.address("unix"))?;
        assert!(timeout(Duration::from_millis(20), server.accept()).await.is_err());
        for number in 0..3 {
            let address = folder.address("unix");
            let client = tokio::spawn(async move {
                sleep(Duration::from_millis(20)).await;
                let (mut sender, mut receiver) = Sender::open(address)?.into_duplex()?;
                sender.send("ping").await?;
                assert_eq!(receiver.recv().await?.text()?, "pong");
                drop(sender);
                // The other side ends it in turn.
                assert_eq!(receiver.recv().await.unwrap_err().kind(), Kind::Disconnected);
                Outcome::Ok(())
            });
            let (mut sender, mut receiver) = soon(server.accept()).await?;
            assert_eq!(soon(receiver.recv()).await?.text()?, "ping", "connection {number}");
            sender.send("pong").await?;
            assert_eq!(soon(receiver.recv()).await.unwrap_err().kind(), Kind::Disconnected);
            drop(sender);
            soon(client).await??;
        }
        // Who waited for a connection meanwhile has not swallowed the news of a message.
        let mut other = Sender::open(folder.address("unix"))?;
        other.send("merged").await?;
        assert_eq!(soon(server.recv()).await?.text()?, "merged");
        assert!(timeout(Duration::from_millis(20), server.accept()).await.is_err());
        other.send("behind a wait for another").await?;
        assert!(timeout(Duration::from_millis(20), server.accept()).await.is_err());
        assert_eq!(soon(server.recv()).await?.text()?, "behind a wait for another");
        Ok(())
    })
}

#[test]
fn what_a_sink_takes_comes_out_of_the_stream() -> Outcome {
    let folder = Folder::new("sink");
    let mailbox = format!("shm:poste-tokio-sink-{}", std::process::id());
    let done = runtime().block_on(async {
        for address in [folder.address("unix"), folder.address("fifo"), mailbox.clone()] {
            // A few fill it: the sink has to keep what it has taken.
            let full = Options::new().create();
            let full = if address == mailbox { full.capacity(3) } else { full };
            let mut receiver = Receiver::open_with(&address, &full)?;
            let mut sender = Sender::open(&address)?;
            let count = 2000_u64;
            let sending = tokio::spawn(async move {
                for number in 0..count {
                    let item = number.to_le_bytes().to_vec();
                    poll_fn(|cx| Sink::<Vec<u8>>::poll_ready(Pin::new(&mut sender), cx)).await?;
                    Sink::<Vec<u8>>::start_send(Pin::new(&mut sender), item)?;
                }
                poll_fn(|cx| Sink::<Vec<u8>>::poll_close(Pin::new(&mut sender), cx)).await?;
                Outcome::Ok(())
            });
            for number in 0..count {
                let next = poll_fn(|cx| Pin::new(&mut receiver).poll_next(cx));
                let message = soon(next).await.ok_or("the stream has ended")??;
                assert_eq!(message[..], number.to_le_bytes(), "of {address}");
            }
            soon(sending).await??;
        }
        // It ends where nothing can come any more.
        let (sender, receiver) = poste::pipe()?;
        let (mut sender, mut receiver) = (Sender::over(sender)?, Receiver::over(receiver)?);
        sender.send("the last").await?;
        drop(sender);
        let mut next = async || poll_fn(|cx| Pin::new(&mut receiver).poll_next(cx)).await;
        assert_eq!(next().await.ok_or("it ended early")??.text()?, "the last");
        assert!(next().await.is_none());
        Ok(())
    });
    let _ = poste::remove(&mailbox);
    done
}

/// Room that comes before the drop is used, as of what any other sender holds.
#[test]
fn what_a_sink_of_a_full_mailbox_took_goes_when_it_is_dropped() -> Outcome {
    let mailbox = format!("shm:poste-tokio-kept-{}", std::process::id());
    let done = runtime().block_on(async {
        let full = Options::new().create().capacity(3);
        let mut receiver = Receiver::open_with(&mailbox, &full)?;
        for over in [drop, |sender: Sender| sender.into_inner().abandon()] {
            let mut sender = Sender::open(&mailbox)?;
            let mut taken = 0_u8;
            // One that it can't hand on is the last that it takes.
            while {
                let ready = poll_fn(|cx| Sink::<Vec<u8>>::poll_ready(Pin::new(&mut sender), cx));
                timeout(Duration::from_millis(20), ready).await.is_ok()
            } {
                Sink::<Vec<u8>>::start_send(Pin::new(&mut sender), vec![taken])?;
                taken += 1;
            }
            assert!(taken > 1 && sender.counters().messages == u64::from(taken) - 1);
            let first = receiver.recv().await?;
            assert_eq!(first[..], [0]);
            drop(first);
            over(sender);
            for number in 1..taken {
                assert_eq!(soon(receiver.recv()).await?[..], [number], "of {taken}");
            }
        }
        Ok(())
    });
    let _ = poste::remove(&mailbox);
    done
}

/// What a socket has no room for, with its descriptors, the sink keeps too.
#[test]
fn a_sink_keeps_the_descriptors_of_what_it_takes() -> Outcome {
    struct Item<'a>([u8; 4096], [BorrowedFd<'a>; 1]);
    impl<'a> From<&'a Item<'_>> for poste::Outgoing<'a> {
        fn from(item: &'a Item<'_>) -> Self {
            poste::Outgoing::from(&item.0).descriptors(&item.1)
        }
    }
    let folder = Folder::new("sink-descriptors");
    for scheme in ["unix", "seqpacket", "dgram"] {
        let address = folder.address(scheme);
        runtime().block_on(async {
            let mut receiver = Receiver::create(&address)?;
            let mut sender = Sender::open(&address)?;
            let (end, other) = std::os::unix::net::UnixStream::pair()?;
            let mut taken = 0_u32;
            while {
                let ready = poll_fn(|cx| Sink::<Item<'_>>::poll_ready(Pin::new(&mut sender), cx));
                timeout(Duration::from_millis(20), ready).await.map(Result::unwrap).is_ok()
            } {
                let item = Item([taken as u8; 4096], [end.as_fd()]);
                Sink::<Item<'_>>::start_send(Pin::new(&mut sender), item)?;
                taken += 1;
            }
            drop(end);
            drop(other);
            let sending = tokio::spawn(async move {
                poll_fn(|cx| Sink::<Vec<u8>>::poll_close(Pin::new(&mut sender), cx)).await
            });
            for number in 0..taken {
                let mut message = soon(receiver.recv()).await?;
                assert_eq!(message[..], [number as u8; 4096], "of {taken} over {address}");
                assert_eq!(
                    message.take_descriptors().len(),
                    1,
                    "{number} of {taken} over {address}"
                );
            }
            soon(sending).await??;
            Outcome::Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_relay_is_a_stream_into_a_sink_and_keeps_priorities() -> Outcome {
    runtime().block_on(async {
        let (mut first, receiver) = poste::local()?;
        let (sender, mut last) = poste::local()?;
        let (mut receiver, mut sender) = (Receiver::over(receiver)?, Sender::over(sender)?);
        first.send(poste::Outgoing::from("urgent").priority(7))?;
        first.send("plain")?;
        for _ in 0..2 {
            let next = poll_fn(|cx| Pin::new(&mut receiver).poll_next(cx)).await;
            let message = next.ok_or("it ended early")??;
            let mut sink = Pin::new(&mut sender);
            poll_fn(|cx| Sink::<OwnedMessage>::poll_ready(sink.as_mut(), cx)).await?;
            sink.as_mut().start_send(message)?;
            poll_fn(|cx| Sink::<OwnedMessage>::poll_flush(sink.as_mut(), cx)).await?;
        }
        let message = last.try_recv()?;
        assert_eq!((message.text()?, message.priority()), ("urgent", 7));
        assert_eq!(last.try_recv()?.text()?, "plain");
        Ok(())
    })
}

#[test]
fn a_fifos_sender_waits_for_a_reader_of_any_kind() -> Outcome {
    let folder = Folder::new("fifo");
    runtime().block_on(async {
        let raw = Options::new().raw().create();
        let mut sender = Sender::open_with(folder.address("fifo"), &raw)?;
        // One that waits in open(2), as a shell does, and is no event.
        for program in ["cat", "late"] {
            let path = folder.0.join("fifo");
            let reading = tokio::task::spawn_blocking(move || {
                std::thread::sleep(Duration::from_millis(60));
                if program == "cat" {
                    let mut command = Command::new("cat");
                    let output = command.arg(&path).stdin(Stdio::null()).output()?;
                    return Ok(output.stdout);
                }
                let address = format!("fifo:{}", path.display());
                let mut receiver = poste::Receiver::open_with(address, &Options::new().raw())?;
                let message = receiver.recv_timeout(PATIENCE)?;
                std::io::Result::Ok(message.to_vec())
            });
            assert_eq!(soon(sender.send("for whoever comes")).await?, poste::Level::Queued);
            if program == "cat" {
                // It reads to the end.
                sender.close().await?;
                assert_eq!(soon(reading).await??, b"for whoever comes");
                sender = Sender::open_with(folder.address("fifo"), &raw)?;
                // What is fed while nobody reads is still there when somebody does.
                sender.feed("fed, ").await?;
                let nobody = timeout(Duration::from_millis(30), sender.flush()).await;
                assert!(nobody.is_err(), "nobody reads");
            } else {
                let text = soon(reading).await??;
                assert!(text.starts_with(b"fed, "), "{}", text.escape_ascii());
            }
        }
        Ok(())
    })
}

#[test]
fn a_sender_that_listens_waits_for_who_connects_and_for_the_next() -> Outcome {
    let folder = Folder::new("listen");
    runtime().block_on(async {
        let address = folder.address("unix");
        let mut sender = Sender::open_with(&address, &Options::new().listen())?;
        for round in 0..2 {
            let connecting = address.clone();
            let receiving = tokio::task::spawn_blocking(move || {
                std::thread::sleep(Duration::from_millis(50));
                let options = Options::new().connect();
                let mut receiver = poste::Receiver::open_with(connecting, &options)?;
                // So long that the sender has to wait for room on this connection.
                std::thread::sleep(Duration::from_millis(100));
                let mut bytes = 0;
                while bytes < 3_000_000 {
                    bytes += receiver.recv_timeout(PATIENCE)?.len();
                }
                Result::<_, poste::Error>::Ok(bytes)
            });
            for _ in 0..30 {
                soon(sender.send(&vec![round; 100_000])).await?;
            }
            assert_eq!(soon(receiving).await??, 3_000_000);
        }
        Ok(())
    })
}

#[test]
fn receivers_that_share_a_fifo_lose_no_wake_up() -> Outcome {
    let folder = Folder::new("shared");
    let count = 3000_usize;
    runtime().block_on(async {
        let address = folder.address("fifo");
        let options = Options::new().shared().create();
        let (told, mut taken) = tokio::sync::mpsc::unbounded_channel();
        let mut receiving = Vec::new();
        for _ in 0..3 {
            let mut receiver = Receiver::open_with(&address, &options)?;
            let told = told.clone();
            receiving.push(tokio::spawn(async move {
                while let Ok(message) = receiver.recv().await {
                    if told.send(message.to_vec()).is_err() {
                        break;
                    }
                }
            }));
        }
        let mut sender = Sender::open(&address)?;
        let mut seen = vec![false; count];
        for burst in (0..count).collect::<Vec<_>>().chunks(30) {
            for number in burst {
                soon(sender.send(&number.to_string())).await?;
            }
            // Each burst is taken before the next: a message nobody is woken for is missed.
            for _ in burst {
                let number = soon(taken.recv()).await.ok_or("all receivers are gone")?;
                let number: usize = String::from_utf8(number)?.parse()?;
                assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
            }
        }
        receiving.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(())
    })
}

#[test]
fn many_are_received_at_once() -> Outcome {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (sender, receiver) = poste::pipe()?;
        let (mut sender, mut receiver) = (Sender::over(sender)?, Receiver::over(receiver)?);
        for _ in 0..5 {
            sender.feed("x").await?;
        }
        sender.flush().await?;
        let mut count = 0;
        while count < 5 {
            count += soon(receiver.recv_many(3, |message| assert_eq!(&message[..], b"x"))).await?;
        }
        assert_eq!(receiver.recv_many(0, |_| panic!("none was wanted")).await?, 0);
        Ok(())
    })
}

#[test]
fn one_that_always_finds_something_lets_others_have_their_turn() -> Outcome {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        // These bytes never end, and nobody has to wait for them.
        let zeros = std::fs::File::open("/dev/zero")?;
        let raw = Options::new().raw();
        let mut receiver = Receiver::open_with(format!("fd:{}", zeros.as_raw_fd()), &raw)?;
        let count = Cell::new(0);
        let mut flood = pin!(async {
            while count.get() < 10_000 {
                receiver.recv().await.unwrap();
                count.set(count.get() + 1);
            }
        });
        assert!(poll_once(flood.as_mut()).await.is_none(), "nobody else had a turn");
        assert!((1..1000).contains(&count.get()), "{} in a row", count.get());
        // And it is woken again by itself.
        soon(flood).await;
        Ok(())
    })
}

#[test]
fn memory_is_lent_when_there_is_room() -> Outcome {
    let mailbox = format!("shm:poste-tokio-loan-{}", std::process::id());
    let done = runtime().block_on(async {
        let options = Options::new().create().capacity(2);
        let mut receiver = Receiver::open_with(&mailbox, &options)?;
        let mut sender = Sender::open(&mailbox)?;
        let sending = tokio::spawn(async move {
            for number in 0..50_u8 {
                let mut loan = sender.loan(10_000).await?;
                loan.fill(number);
                loan.send()?;
            }
            Outcome::Ok(())
        });
        for number in 0..50_u8 {
            let message = soon(receiver.recv()).await?;
            assert!(message.len() == 10_000 && message.iter().all(|byte| *byte == number));
        }
        soon(sending).await?
    });
    let _ = poste::remove(&mailbox);
    done
}

#[test]
fn an_end_goes_on_in_the_other_forms() -> Outcome {
    runtime().block_on(async {
        let (mut sender, receiver) = poste::pipe()?;
        sender.send("one")?;
        sender.send("two")?;
        let mut receiver = Receiver::over(receiver)?;
        assert_eq!(soon(receiver.recv()).await?.text()?, "one");
        let mut receiver = receiver.into_inner();
        assert_eq!(receiver.recv_wait(Wait::For(PATIENCE))?.text()?, "two");
        Ok(())
    })
}

/// Both ends of a channel that has no address, or another's: of each kind, what it is called.
fn nameless() -> Result<Vec<(&'static str, poste::Sender, poste::Receiver)>, poste::Error> {
    let (here, there) = poste::pair()?;
    let (pair, paired) = (here.split().0, there.split().1);
    let (here, there) = poste::pipes()?;
    let (pipes, piped) = (here.split().0, there.split().1);
    let (reading, writing) = rustix::pipe::pipe().expect("descriptors are left");
    let fd = |number| format!("fd:{number}");
    let by_number = poste::Sender::open(fd(writing.as_raw_fd()))?;
    let numbered = poste::Receiver::open(fd(reading.as_raw_fd()))?;
    let (here, there) = poste::pair()?;
    let (options, wait) = (Options::new(), Wait::For(PATIENCE));
    let sealing = std::thread::spawn(move || poste::Sender::sealed(there, &Options::new(), wait));
    let unsealing = poste::Receiver::sealed(here, &options, wait)?;
    let sealed = sealing.join().expect("it was made or refused")?;
    Ok(vec![
        ("a pair", pair, paired),
        ("pipes", pipes, piped),
        ("fd:", by_number, numbered),
        ("sealed memory", sealed, unsealing),
    ])
}

/// A pause at random places.
async fn pause(number: u64) {
    match number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 {
        0 => sleep(Duration::from_micros(number % 300)).await,
        1..9 => tokio::task::yield_now().await,
        _ => {}
    }
}

#[test]
fn ends_without_an_address_lose_no_wake_up() -> Outcome {
    let is_long = std::env::var_os("POSTE_LONG").is_some_and(|value| !value.is_empty());
    let count = if is_long { 500_000 } else { 1000 };
    for ((name, to, there), (_, back, here)) in nameless()?.into_iter().zip(nameless()?) {
        let start = Instant::now();
        runtime().block_on(async {
            let (mut to, mut there) = (Sender::over(to)?, Receiver::over(there)?);
            let (mut back, mut here) = (Sender::over(back)?, Receiver::over(here)?);
            let other = tokio::spawn(async move {
                for number in 0..count {
                    pause(number).await;
                    let message = soon(there.recv()).await?;
                    assert_eq!(message[..], number.to_le_bytes(), "over {name}");
                    back.send(&message[..]).await?;
                }
                Outcome::Ok(())
            });
            let mut next = 0;
            for number in 0..count {
                pause(number + 7).await;
                to.send(&number.to_le_bytes()).await?;
                // Some in a row, some one by one.
                let behind = if number % 1000 < 500 { 5 } else { 1 };
                while number + 1 - next >= behind {
                    let message = soon(here.recv()).await?;
                    assert_eq!(message[..], next.to_le_bytes(), "over {name}");
                    next += 1;
                }
            }
            soon(other).await?
        })?;
        println!("{name}: {count} there and back in {:?}", start.elapsed());
    }
    Ok(())
}
