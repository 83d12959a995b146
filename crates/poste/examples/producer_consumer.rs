//! Producer and consumer: a ring in shared memory, and three named semaphores as every course on
//! operating systems draws them.
//!
//! `empty` counts the free places, `full` the taken ones, `mutex` lets one at a time into the ring.
//! The program starts itself once more as the consumer. Run it: `cargo run --example producer_consumer`

use std::process::Command;

use poste::{Error, Memory, Semaphore};

const PLACES: usize = 4;
const ITEMS: u32 = 20;

/// The names, the same for both: they end with the number of the producer.
struct Names([String; 4]);

impl Names {
    fn new(of: &str) -> Names {
        Names(["ring", "empty", "full", "mutex"].map(|word| format!("/poste-{word}-{of}")))
    }

    /// A crashed run before this one could have left them; what isn't there needs no removal.
    fn remove(&self) {
        let [ring, semaphores @ ..] = &self.0;
        let _ = Memory::remove(ring);
        semaphores.iter().for_each(|name| drop(Semaphore::remove(name)));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(producer) = std::env::args().nth(1) {
        return Ok(consume(&Names::new(&producer))?);
    }
    let producer = std::process::id().to_string();
    let names = Names::new(&producer);
    names.remove();
    let produced = produce(&names, &producer);
    names.remove();
    produced
}

fn produce(names: &Names, producer: &str) -> Result<(), Box<dyn std::error::Error>> {
    let [ring, empty, full, mutex] = &names.0;
    let ring = Memory::create(ring, PLACES * 4)?;
    let empty = Semaphore::create(empty, PLACES as u32)?;
    let full = Semaphore::create(full, 0)?;
    let mutex = Semaphore::create(mutex, 1)?;

    let mut consumer = Command::new(std::env::current_exe()?).arg(producer).spawn()?;
    for item in 0..ITEMS {
        empty.wait()?;
        mutex.wait()?;
        ring.write(item as usize % PLACES * 4, &item.to_ne_bytes())?;
        mutex.post()?;
        full.post()?;
    }
    if consumer.wait()?.success() { Ok(()) } else { Err("the consumer failed".into()) }
}

fn consume(names: &Names) -> Result<(), Error> {
    let [ring, empty, full, mutex] = &names.0;
    let ring = Memory::open(ring)?;
    let (empty, full, mutex) =
        (Semaphore::open(empty)?, Semaphore::open(full)?, Semaphore::open(mutex)?);
    let mut sum = 0;
    for place in 0..ITEMS as usize {
        let mut item = [0; 4];
        full.wait()?;
        mutex.wait()?;
        ring.read(place % PLACES * 4, &mut item)?;
        mutex.post()?;
        empty.post()?;
        sum += u32::from_ne_bytes(item);
    }
    println!("consumed {ITEMS} items, their sum is {sum}");
    Ok(())
}
