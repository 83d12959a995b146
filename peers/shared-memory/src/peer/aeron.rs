//! Aeron IPC: a log that publications append to, through a media driver in a process of its own.

use std::time::Duration;

use rusteron_client::{
    Aeron, AeronContext, AeronExclusivePublication, AeronFragmentClosureAssembler, AeronHeader,
    AeronSubscription, Handlers, IntoCString,
};

use super::{Outcome, Receiver, Sender, Setup, check, fill};

const CHANNEL: &std::ffi::CStr = c"aeron:ipc";
const LIMIT: Duration = Duration::from_secs(10);
/// Fragments that one look takes.
const FRAGMENTS: usize = 256;

pub struct Sending {
    publication: AeronExclusivePublication,
    body: Vec<u8>,
    fits: bool,
    _client: Aeron,
}

pub struct Receiving {
    subscription: AeronSubscription,
    assembler: AeronFragmentClosureAssembler,
    seen: Seen,
    fits: bool,
    _client: Aeron,
}

#[derive(Default)]
struct Seen {
    size: usize,
    count: u64,
    last: u64,
}

/// The driver's process: runs until it is killed.
pub fn drive(folder: &str) -> Outcome<()> {
    use rusteron_media_driver::{AeronDriver, AeronDriverContext};
    let context = AeronDriverContext::new()?;
    context.set_dir(&folder.into_c_string())?;
    context.set_dir_delete_on_start(true)?;
    let driver = AeronDriver::new(&context)?;
    driver.start(false)?;
    println!("ready");
    loop {
        std::thread::park();
    }
}

fn client(folder: &str) -> Outcome<Aeron> {
    let context = AeronContext::new()?;
    context.set_dir(&folder.into_c_string())?;
    let client = Aeron::new(&context)?;
    client.start()?;
    Ok(client)
}

/// A message goes as one fragment if it fits one.
const FITS: usize = 1344;

pub fn sender(folder: &str, stream: i32, setup: Setup) -> Outcome<Sending> {
    let client = client(folder)?;
    let publication =
        client.async_add_exclusive_publication(CHANNEL, stream)?.poll_blocking(LIMIT)?;
    while !publication.is_connected() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let fits = setup.size <= FITS;
    Ok(Sending { publication, body: vec![0; setup.size], fits, _client: client })
}

pub fn receiver(folder: &str, stream: i32, setup: Setup) -> Outcome<Receiving> {
    let client = client(folder)?;
    let subscription = client
        .async_add_subscription(CHANNEL, stream, Handlers::NONE, Handlers::NONE)?
        .poll_blocking(LIMIT)?;
    Ok(Receiving {
        subscription,
        assembler: AeronFragmentClosureAssembler::new()?,
        seen: Seen { size: setup.size, ..Seen::default() },
        fits: setup.size <= FITS,
        _client: client,
    })
}

impl Sender for Sending {
    fn send(&mut self, number: u64) -> Outcome<()> {
        if self.fits {
            loop {
                match self.publication.try_claim_owned(self.body.len()) {
                    Ok(mut claim) => {
                        fill(claim.data(), number);
                        claim.commit()?;
                        return Ok(());
                    }
                    Err(error) if error.is_retryable() => std::hint::spin_loop(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        fill(&mut self.body, number);
        loop {
            match self.publication.offer(&self.body) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => std::hint::spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Seen {
    fn take(&mut self, body: &[u8]) {
        self.last = check(body, self.size);
        self.count += 1;
    }
}

fn whole(seen: &mut Seen, body: &[u8], _: AeronHeader) {
    seen.take(body);
}

impl Receiving {
    fn look(&mut self, limit: usize) -> Outcome<()> {
        self.seen.count = 0;
        while self.seen.count == 0 {
            let seen = &mut self.seen;
            let fragments = if self.fits {
                self.subscription.poll_fn(|body: &[u8], _: AeronHeader| seen.take(body), limit)?
            } else {
                self.assembler.poll(&self.subscription, seen, whole, limit)?
            };
            if fragments == 0 {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }
}

impl Receiver for Receiving {
    fn receive(&mut self) -> Outcome<u64> {
        self.look(1)?;
        Ok(self.seen.last)
    }

    fn receive_many(&mut self) -> Outcome<u64> {
        self.look(FRAGMENTS)?;
        Ok(self.seen.count)
    }
}
