//! A row's channel, opened on either side.

use crate::peer::{self, Outcome, Receiver, Sender, Setup};
use crate::row::With;

/// A receiver, or one whose sender has yet to come for what it needs.
pub enum Desk {
    Open(Box<dyn Receiver>),
    Waits(Box<peer::shmem_ipc::Offer>),
}

impl Desk {
    pub fn accept(self) -> Outcome<Box<dyn Receiver>> {
        Ok(match self {
            Desk::Open(receiver) => receiver,
            Desk::Waits(mut offer) => Box::new(offer.accept()?),
        })
    }
}

/// The name of one direction.
pub struct Name<'a> {
    /// Of this run.
    pub run: &'a str,
    /// Which of its directions.
    pub stream: i32,
}

impl Name<'_> {
    fn text(&self) -> String {
        format!("{}-{}", self.run, self.stream)
    }

    #[cfg(feature = "aeron")]
    fn folder(&self) -> String {
        aeron_folder(self.run)
    }
}

/// Where a run's media driver keeps its logs.
pub fn aeron_folder(run: &str) -> String {
    format!("/dev/shm/{run}-aeron")
}

/// Makes the receiving side, which its senders find when this has returned.
pub fn desk(with: With, name: &Name, setup: Setup) -> Outcome<Desk> {
    let text = name.text();
    Ok(Desk::Open(match with {
        With::Poste(spin, how) => Box::new(peer::poste::receiver(&text, setup, spin, how)?),
        With::Bare { sleeps } => Box::new(peer::bare::open(&text, setup, sleeps)?),
        With::Claims => Box::new(peer::claims::open(&text, setup)?),
        With::Iceoryx { events } => Box::new(peer::iceoryx::receiver(&text, setup, events)?),
        With::Ipmpsc => Box::new(peer::ipmpsc::receiver(&text, setup)?),
        With::ShmemIpc => return Ok(Desk::Waits(Box::new(peer::shmem_ipc::offer(&text, setup)?))),
        #[cfg(feature = "aeron")]
        With::Aeron => Box::new(peer::aeron::receiver(&name.folder(), name.stream, setup)?),
        #[cfg(not(feature = "aeron"))]
        With::Aeron => return Err("built without Aeron".into()),
    }))
}

/// Opens the sending side.
pub fn sender(with: With, name: &Name, setup: Setup) -> Outcome<Box<dyn Sender>> {
    let text = name.text();
    Ok(match with {
        With::Poste(spin, how) => Box::new(peer::poste::sender(&text, setup, spin, how)?),
        With::Bare { sleeps } => Box::new(peer::bare::open(&text, setup, sleeps)?),
        With::Claims => Box::new(peer::claims::open(&text, setup)?),
        With::Iceoryx { events } => Box::new(peer::iceoryx::sender(&text, setup, events)?),
        With::Ipmpsc => Box::new(peer::ipmpsc::sender(&text, setup)?),
        With::ShmemIpc => Box::new(peer::shmem_ipc::sender(&text, setup)?),
        #[cfg(feature = "aeron")]
        With::Aeron => Box::new(peer::aeron::sender(&name.folder(), name.stream, setup)?),
        #[cfg(not(feature = "aeron"))]
        With::Aeron => return Err("built without Aeron".into()),
    })
}

/// Takes away what stays after both sides are gone.
pub fn remove(with: With, name: &Name) -> Outcome<()> {
    match with {
        With::Poste(..) => peer::poste::remove(&name.text()),
        With::Bare { .. } | With::Claims => peer::bare::remove(&name.text()),
        With::Ipmpsc => peer::ipmpsc::remove(&name.text()),
        With::Iceoryx { .. } | With::ShmemIpc | With::Aeron => Ok(()),
    }
}
