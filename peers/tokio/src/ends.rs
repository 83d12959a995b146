//! One end of each kind of connection, both ways.

use std::future::Future;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use poste::tokio::{Receiver, Sender};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::Outcome;

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Framed,
    Unix,
    Merged,
    Mailbox,
}

const NAMES: [(&str, Kind); 4] = [
    ("framed", Kind::Framed),
    ("unix", Kind::Unix),
    ("merged", Kind::Merged),
    ("shm", Kind::Mailbox),
];

impl Kind {
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    pub fn named(name: &str) -> Outcome<Kind> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind).ok_or_else(|| format!("no kind {name}").into())
    }
}

/// An end that sends and receives.
pub enum End {
    Framed(Framed<UnixStream, LengthDelimitedCodec>),
    Poste(Sender, Receiver),
}

type Coming = Pin<Box<dyn Future<Output = Outcome<End>>>>;

/// What a name is for each direction of a kind.
fn addresses(kind: Kind, name: &str) -> [String; 2] {
    let scheme = if kind == Kind::Mailbox { "shm:" } else { "unix:@" };
    [format!("{scheme}{name}"), format!("{scheme}{name}-back")]
}

/// Takes away what a run has left.
pub fn remove(name: &str) {
    for address in addresses(Kind::Mailbox, name) {
        // It is there only where a mailbox was measured.
        let _ = poste::remove(address);
    }
}

impl End {
    /// The side that is there first; the future comes when the other has connected.
    pub fn listen(kind: Kind, name: &str) -> Outcome<Coming> {
        let [to, back] = addresses(kind, name);
        if kind == Kind::Framed {
            let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            return Ok(Box::pin(async move { Ok(framed(listener.accept().await?.0)) }));
        }
        let mut receiver = Receiver::create(to)?;
        if kind == Kind::Mailbox {
            let sender = Sender::create(back)?;
            return Ok(Box::pin(async move { Ok(both(sender, receiver)) }));
        }
        Ok(Box::pin(async move {
            if kind == Kind::Unix {
                let (sender, receiver) = receiver.accept().await?;
                return Ok(both(sender, receiver));
            }
            // The other side has connected when it listens for what goes back.
            while receiver.recv().await?.len() != 1 {}
            Ok(both(Sender::open(back)?, receiver))
        }))
    }

    /// The side that connects.
    pub async fn connect(kind: Kind, name: &str) -> Outcome<End> {
        let [to, back] = addresses(kind, name);
        match kind {
            Kind::Framed => {
                let stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
                stream.set_nonblocking(true)?;
                Ok(framed(UnixStream::from_std(stream)?))
            }
            Kind::Unix => {
                let (sender, receiver) = Sender::open(to)?.into_duplex()?;
                Ok(both(sender, receiver))
            }
            Kind::Merged => {
                let receiver = Receiver::create(back)?;
                let mut sender = Sender::open(to)?;
                sender.send("x").await?;
                Ok(both(sender, receiver))
            }
            Kind::Mailbox => Ok(both(Sender::create(to)?, Receiver::create(back)?)),
        }
    }

    pub async fn send(&mut self, body: &[u8]) -> Outcome<()> {
        match self {
            End::Framed(framed) => Ok(framed.send(Bytes::copy_from_slice(body)).await?),
            End::Poste(sender, _) => Ok(sender.send(body).await.map(drop)?),
        }
    }

    pub async fn feed(&mut self, body: &[u8]) -> Outcome<()> {
        match self {
            End::Framed(framed) => Ok(framed.feed(Bytes::copy_from_slice(body)).await?),
            End::Poste(sender, _) => Ok(sender.feed(body).await.map(drop)?),
        }
    }

    pub async fn flush(&mut self) -> Outcome<()> {
        match self {
            // The item says of which sink.
            End::Framed(framed) => Ok(SinkExt::<Bytes>::flush(framed).await?),
            End::Poste(sender, _) => Ok(sender.flush().await.map(drop)?),
        }
    }

    pub async fn recv<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Outcome<T> {
        match self {
            End::Framed(framed) => Ok(read(&framed.next().await.ok_or("it has ended")??)),
            End::Poste(_, receiver) => Ok(read(&receiver.recv().await?)),
        }
    }

    pub async fn close(self) -> Outcome<()> {
        match self {
            End::Framed(mut framed) => Ok(SinkExt::<Bytes>::close(&mut framed).await?),
            End::Poste(sender, _) => Ok(sender.close().await?),
        }
    }
}

fn framed(stream: UnixStream) -> End {
    End::Framed(Framed::new(stream, LengthDelimitedCodec::new()))
}

fn both(sender: Sender, receiver: Receiver) -> End {
    End::Poste(sender, receiver)
}
