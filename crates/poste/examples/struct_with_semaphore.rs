//! A structure in shared memory with the semaphore that guards it, as C has it:
//!
//! ```c
//! struct shared { sem_t lock; int counter; char text[64]; };
//! ```
//!
//! The program starts itself four times; each adds to the counter under the semaphore.
//! Run it: `cargo run --example struct_with_semaphore`

use std::process::Command;

use poste::{Error, Memory, Semaphore};

// Where C puts the members.
const LOCK: usize = 0;
const COUNTER: usize = LOCK + Semaphore::SIZE;
const TEXT: usize = COUNTER + 4;
const SIZE: usize = TEXT + 64;

const TURNS: usize = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(name) = std::env::args().nth(1) {
        return Ok(add(&name)?);
    }
    let name = format!("/poste-struct-{}", std::process::id());
    let memory = Memory::create(&name, SIZE)?;
    let counted = count(&memory, &name);
    Memory::remove(&name)?;
    counted
}

fn count(memory: &Memory, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    Semaphore::init_at(memory, LOCK, 1)?;
    let program = std::env::current_exe()?;
    let adding = (0..4).map(|_| Command::new(&program).arg(name).spawn());
    for child in adding.collect::<Vec<_>>() {
        if !child?.wait()?.success() {
            return Err("a child failed".into());
        }
    }
    let (mut counter, mut text) = ([0; 4], [0; 64]);
    memory.read(COUNTER, &mut counter)?;
    memory.read(TEXT, &mut text)?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    println!("{}: {}", String::from_utf8_lossy(text), i32::from_ne_bytes(counter));
    Ok(())
}

fn add(name: &str) -> Result<(), Error> {
    let memory = Memory::open(name)?;
    let lock = Semaphore::open_at(&memory, LOCK)?;
    for _ in 0..TURNS {
        let mut counter = [0; 4];
        lock.wait()?;
        memory.read(COUNTER, &mut counter)?;
        memory.write(COUNTER, &(i32::from_ne_bytes(counter) + 1).to_ne_bytes())?;
        memory.write(TEXT, b"counted by several\0")?;
        lock.post()?;
    }
    Ok(())
}
