//! The ends for async-io, where they do more than the clauses of the contract try, or where its
//! reactor is another than tokio's: no runtime around, any executor, no count of steps.

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::pin::{Pin, pin};
use std::time::Duration;

use async_executor::LocalExecutor;
use async_io::{Timer, block_on};
use futures_core::Stream;
use futures_lite::future::{or, poll_once, zip};
use futures_sink::Sink;
use poste::async_io::{Receiver, Sender};
use poste::{Kind, Options};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const PATIENCE: Duration = Duration::from_secs(10);

fn address(name: &str) -> String {
    format!("unix:@poste-async-io-{name}-{}", std::process::id())
}

/// What comes within a time.
async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let over = async {
        Timer::after(time).await;
        None
    };
    or(async { Some(future.await) }, over).await
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    within(PATIENCE, future).await.expect("it comes soon")
}

#[test]
fn an_end_goes_from_one_executor_to_another() -> Outcome {
    let address = address("executors");
    // Made where there is none.
    let mut receiver = Receiver::create(&address)?;
    let mut sender = Sender::open(&address)?;
    let sending = std::thread::spawn(move || {
        futures_lite::future::block_on(async {
            for number in 0..3 {
                Timer::after(Duration::from_millis(20)).await;
                sender.send(&[number]).await?;
            }
            Outcome::Ok(())
        })
    });
    // One that knows nothing of the reactor: then the reactor's own thread looks.
    assert_eq!(futures_lite::future::block_on(receiver.recv())?[..], [0]);
    assert_eq!(block_on(receiver.recv())?[..], [1]);
    let executor = LocalExecutor::new();
    let task = executor.spawn(async move { receiver.recv().await.map(|message| message.to_vec()) });
    assert_eq!(block_on(executor.run(soon(task)))?, [2]);
    sending.join().expect("it sends")
}

#[test]
fn a_call_waits_for_its_answer_and_one_that_is_dropped_leaves_none_to_the_next() -> Outcome {
    let address = address("call");
    block_on(async {
        let mut server = Receiver::create(&address)?;
        let mut client = Sender::open(&address)?;
        let serving = async {
            for _ in 0..3 {
                let mut question = soon(server.recv()).await?;
                Timer::after(Duration::from_millis(30)).await;
                let answer = question.text()?.to_uppercase();
                question.reply(&answer)?;
            }
            Outcome::Ok(())
        };
        let calling = async {
            assert_eq!(soon(client.call("one")).await?.text()?, "ONE");
            let dropped = within(Duration::from_millis(5), client.call("two")).await;
            assert!(dropped.is_none(), "answered before its time");
            assert_eq!(soon(client.call("three")).await?.text()?, "THREE");
            Outcome::Ok(())
        };
        let (served, called) = zip(serving, calling).await;
        served.and(called)
    })
}

#[test]
fn connections_are_accepted_one_by_one_and_go_both_ways() -> Outcome {
    let address = address("accept");
    block_on(async {
        let mut server = Receiver::create(&address)?;
        assert!(within(Duration::from_millis(20), server.accept()).await.is_none());
        for _ in 0..3 {
            let client = async {
                Timer::after(Duration::from_millis(20)).await;
                let (mut sender, mut receiver) = Sender::open(&address)?.into_duplex()?;
                sender.send("ping").await?;
                assert_eq!(soon(receiver.recv()).await?.text()?, "pong");
                Outcome::Ok(())
            };
            let serving = async {
                let (mut sender, mut receiver) = soon(server.accept()).await?;
                assert_eq!(soon(receiver.recv()).await?.text()?, "ping");
                sender.send("pong").await?;
                assert_eq!(soon(receiver.recv()).await.unwrap_err().kind(), Kind::Disconnected);
                Outcome::Ok(())
            };
            let (asked, served) = zip(client, serving).await;
            asked.and(served)?;
        }
        Ok(())
    })
}

#[test]
fn what_a_sink_takes_comes_out_of_the_stream() -> Outcome {
    block_on(async {
        let (sender, receiver) = poste::pipe()?;
        let (mut sender, mut receiver) = (Sender::over(sender)?, Receiver::over(receiver)?);
        let count = 3000_u64;
        let sending = async move {
            for number in 0..count {
                let item = vec![number as u8; 1 + (number % 500) as usize];
                poll_fn(|cx| Sink::<Vec<u8>>::poll_ready(Pin::new(&mut sender), cx)).await?;
                Sink::<Vec<u8>>::start_send(Pin::new(&mut sender), item)?;
            }
            poll_fn(|cx| Sink::<Vec<u8>>::poll_close(Pin::new(&mut sender), cx)).await?;
            // It goes here, and the stream ends.
            drop(sender);
            Outcome::Ok(())
        };
        let receiving = async {
            let mut next = async || poll_fn(|cx| Pin::new(&mut receiver).poll_next(cx)).await;
            for number in 0..count {
                let message = soon(next()).await.ok_or("the stream has ended")??;
                assert_eq!(message[..], vec![number as u8; 1 + (number % 500) as usize]);
            }
            assert!(soon(next()).await.is_none());
            Outcome::Ok(())
        };
        let (sent, received) = zip(sending, receiving).await;
        sent.and(received)
    })
}

#[test]
fn one_that_always_finds_something_lets_others_have_their_turn() -> Outcome {
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
    block_on(async {
        for _ in 0..3 {
            let before = count.get();
            assert!(poll_once(flood.as_mut()).await.is_none(), "nobody else had a turn");
            assert!((1..1000).contains(&(count.get() - before)), "{} in a row", count.get());
        }
        // And it is woken again by itself.
        soon(flood).await;
    });
    Ok(())
}

#[test]
fn a_file_is_always_ready() -> Outcome {
    let path = std::env::temp_dir().join(format!("poste-async-io-file-{}", std::process::id()));
    let mut file = std::fs::File::create_new(&path)?;
    file.write_all(b"what stands in it")?;
    let file = std::fs::File::open(&path)?;
    std::fs::remove_file(&path)?;
    let raw = Options::new().raw();
    let mut receiver = Receiver::open_with(format!("fd:{}", file.as_raw_fd()), &raw)?;
    block_on(async {
        assert_eq!(soon(receiver.recv()).await?.text()?, "what stands in it");
        assert_eq!(soon(receiver.recv()).await.unwrap_err().kind(), Kind::Disconnected);
        Ok(())
    })
}

/// They belong to the open file description, which another process may share.
#[test]
fn a_descriptor_keeps_its_flags() -> Outcome {
    let (reading, writing) = rustix::pipe::pipe()?;
    let raw = Options::new().raw();
    let mut receiver = Receiver::open_with(format!("fd:{}", reading.as_raw_fd()), &raw)?;
    let mut sender = Sender::open_with(format!("fd:{}", writing.as_raw_fd()), &raw)?;
    block_on(async {
        assert!(within(Duration::from_millis(5), receiver.recv()).await.is_none());
        let full = async { while sender.send(&[0; 4096]).await.is_ok() {} };
        assert!(within(Duration::from_millis(20), full).await.is_none());
    });
    for end in [&reading, &writing] {
        assert!(!rustix::fs::fcntl_getfl(end)?.contains(rustix::fs::OFlags::NONBLOCK));
    }
    Ok(())
}
