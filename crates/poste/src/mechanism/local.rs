//! A channel inside one process: a bounded queue in memory. The reference implementation of the
//! contract, and the only mechanism whose every step can be read here.
//!
//! Names live in one table of the process; a name is there while an end of it is. Not for other
//! processes: a forked child has a copy, not the channel.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use rustix::event::{EventfdFlags, PollFlags, eventfd};

use super::pipe::{OpenedReceiver, OpenedSender};
use super::window::Window;
use super::{
    Arrival, EndTraits, Frame, Mechanism, News, Opened, Opening, Pollable, RecvEnd, SendEnd,
    no_objects,
};
use crate::address::Address;
use crate::capabilities::{Capabilities, Identity, Peers, Priorities, Redelivers, Unit};
use crate::credentials::Credentials;
use crate::error::{Error, Kind};
use crate::limits::{LOCAL_CAPACITY, PRIORITY_MAX};
use crate::object::Listing;
use crate::options::{Create, Options};
use crate::wait::{Halt, Wait};

/// Inside one process.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "local",
    title: "inside one process",
    example: "local:x",
    capabilities: Capabilities {
        raw_boundaries: true,
        raw_empty: true,
        pieces: false,
        many_receivers: true,
        priorities: Priorities::Native(PRIORITY_MAX),
        identity: Identity::SameProcess,
        capacity: Some(Unit::Messages),
        redelivers: Redelivers::Never,
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size"],
    create: |_| {
        Err(Error::new(Kind::NotSupported, "a channel inside one process lives with its ends")
            .with_hint("open it in the program that uses it"))
    },
    open_sender,
    open_receiver,
    remove: |_| {
        Err(Error::new(Kind::NotSupported, "a channel inside one process goes with its ends"))
    },
    list: |_| Listing::none(),
    place: no_objects,
    limits: &[],
};

/// The names of this process's channels.
static NAMES: Mutex<Option<HashMap<Vec<u8>, Weak<Channel>>>> = Mutex::new(None);

/// What the two sides share.
#[derive(Debug)]
struct Channel {
    state: Mutex<State>,
    capacity: usize,
    /// The largest message.
    message_size: usize,
    /// Signalled when a message comes, and when a side goes.
    arrived: Condvar,
    /// Signalled when a message is taken, and when a side goes.
    freed: Condvar,
    named: bool,
}

#[derive(Debug, Default)]
struct State {
    queue: Window<Letter>,
    senders: usize,
    receivers: usize,
    had_sender: bool,
    had_receiver: bool,
    /// Made when somebody polls; readable while the queue has something, or nothing will come.
    may_receive: Option<OwnedFd>,
    /// Readable while the queue has room.
    may_send: Option<OwnedFd>,
}

#[derive(Debug)]
struct Letter {
    bytes: Vec<u8>,
    priority: u16,
    descriptors: Vec<OwnedFd>,
}

/// A new channel without a name.
pub(crate) fn pair(options: &Options) -> Result<(OpenedSender, OpenedReceiver), Error> {
    let channel = Arc::new(Channel::new(options, false));
    let address = Address::new(MECHANISM.scheme, "")?;
    let opening = Opening { address: &address, options };
    Ok((sender_on(Arc::clone(&channel), &opening), receiver_on(channel, &opening)))
}

fn open_sender(opening: &Opening<'_>) -> Result<Opened<dyn SendEnd>, Error> {
    Ok(sender_on(find_or_make(opening)?, opening))
}

fn open_receiver(opening: &Opening<'_>) -> Result<Opened<dyn RecvEnd>, Error> {
    Ok(receiver_on(find_or_make(opening)?, opening))
}

/// The channel of a name. Its first end, on whichever side, makes it: there is nothing that could
/// be there before.
fn find_or_make(opening: &Opening<'_>) -> Result<Arc<Channel>, Error> {
    let name = opening.address.rest();
    if name.is_empty() {
        return Err(Error::new(Kind::Invalid, "a name is missing").with_hint("as in local:x"));
    }
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    names.retain(|_, channel| channel.strong_count() > 0);
    let found = names.get(name).and_then(Weak::upgrade);
    match (found, opening.options.create) {
        (Some(_), Create::New) => Err(Error::new(Kind::NameInUse { owner: None }, "")),
        (Some(channel), _) => channel.check(opening.options).map(|()| channel),
        (None, Create::No) => Err(Error::new(Kind::NotFound, "no such channel in this process")
            .with_hint("create it: the first end makes it (create)")),
        (None, _) => {
            let channel = Arc::new(Channel::new(opening.options, true));
            names.insert(name.to_vec(), Arc::downgrade(&channel));
            Ok(channel)
        }
    }
}

fn sender_on(channel: Arc<Channel>, opening: &Opening<'_>) -> Opened<dyn SendEnd> {
    channel.change(|state| {
        state.senders += 1;
        state.had_sender = true;
    });
    let (traits, address) = describe(&channel, opening);
    Opened { end: Box::new(Sending { channel, may_send: None }), traits, address }
}

fn receiver_on(channel: Arc<Channel>, opening: &Opening<'_>) -> Opened<dyn RecvEnd> {
    channel.change(|state| {
        state.receivers += 1;
        state.had_receiver = true;
    });
    let (traits, address) = describe(&channel, opening);
    Opened { end: Box::new(Receiving::new(channel)), traits, address }
}

fn describe(channel: &Channel, opening: &Opening<'_>) -> (EndTraits, Address) {
    let size = channel.message_size;
    let traits = EndTraits {
        piece_size: size.saturating_add(crate::envelope::HEADER_MAX),
        pieces: false,
        gather: 0,
        message_size: Some(size),
        capacity: Some(channel.capacity),
        priority_max: PRIORITY_MAX,
        introduces: false,
        reliable: true,
        bare: false,
    };
    (traits, opening.address.clone())
}

impl Channel {
    fn new(options: &Options, named: bool) -> Channel {
        Channel {
            state: Mutex::default(),
            capacity: options.capacity.unwrap_or(LOCAL_CAPACITY).max(1),
            message_size: options.message_size_or_default(),
            arrived: Condvar::new(),
            freed: Condvar::new(),
            named,
        }
    }

    /// Refuses other attributes than it was made with, where some are asked for.
    fn check(&self, options: &Options) -> Result<(), Error> {
        let Channel { capacity, message_size, .. } = self;
        let differs = options.capacity.is_some_and(|asked| asked.max(1) != *capacity)
            || options.message_size.is_some_and(|asked| asked != *message_size);
        if !differs {
            return Ok(());
        }
        let detail = format!("it holds {capacity} messages of up to {message_size} bytes");
        Err(Error::new(Kind::Mismatch, detail)
            .with_hint("ask for these, or for none; it goes with its last end"))
    }

    /// A panic of another thread leaves the queue whole: nothing is half done between two lines.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and shows it on the descriptors that are polled.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = (self.may_receive(&state), self.may_send(&state));
        let result = change(&mut state);
        show(state.may_receive.as_ref(), before.0, self.may_receive(&state));
        show(state.may_send.as_ref(), before.1, self.may_send(&state));
        result
    }

    fn may_receive(&self, state: &State) -> bool {
        !state.queue.is_empty() || self.no_more_can_come(state)
    }

    fn may_send(&self, state: &State) -> bool {
        state.queue.len() < self.capacity || self.nobody_will_take(state)
    }

    /// A channel without a name has the ends that it was made with, and theirs.
    fn no_more_can_come(&self, state: &State) -> bool {
        !self.named && state.senders == 0
    }

    fn nobody_will_take(&self, state: &State) -> bool {
        !self.named && state.receivers == 0
    }

    /// Waits on a condition of the state as `wait` allows; `ready` says whether to go on.
    fn wait_for(
        &self,
        condition: &Condvar,
        wait: Wait,
        ready: impl Fn(&State) -> bool,
    ) -> Result<(), Halt> {
        let mut state = self.lock();
        while !ready(&state) {
            state = match wait.left() {
                None => condition.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Err(Halt::Later),
                Some(left) => {
                    condition.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Ok(())
    }
}

/// An eventfd is readable exactly while its condition holds.
fn show(descriptor: Option<&OwnedFd>, before: bool, now: bool) {
    let Some(descriptor) = descriptor else { return };
    let mut count = [0; 8];
    let done = match (before, now) {
        (false, true) => rustix::io::write(descriptor, &1_u64.to_ne_bytes()),
        (true, false) => rustix::io::read(descriptor, &mut count),
        _ => return,
    };
    debug_assert!(done == Ok(8), "an eventfd of ours takes and gives eight bytes");
}

/// An eventfd for a condition: the shared one, and a copy for this end to lend.
fn watch(slot: &mut Option<OwnedFd>, now: bool) -> Result<OwnedFd, Error> {
    let mut make = || {
        if slot.is_none() {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            *slot = Some(eventfd(u32::from(now), flags)?);
        }
        match slot {
            Some(descriptor) => rustix::io::fcntl_dupfd_cloexec(&*descriptor, 0),
            None => unreachable!("it was just made"),
        }
    };
    make().map_err(|errno| Error::system(errno, ""))
}

struct Sending {
    channel: Arc<Channel>,
    may_send: Option<OwnedFd>,
}

impl SendEnd for Sending {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let channel = &self.channel;
        let wait = wait.begin();
        let mut bytes = Vec::with_capacity(frame.size());
        bytes.extend_from_slice(frame.head);
        bytes.extend_from_slice(frame.body);
        let mut letter = Some(Letter { bytes, priority: frame.priority, descriptors: Vec::new() });
        while letter.is_some() {
            channel
                .wait_for(&channel.freed, wait, |state| channel.may_send(state))
                .map_err(|halt| halt.sending(wait))?;
            channel.change(|state| {
                if channel.nobody_will_take(state) {
                    return Err(Error::new(Kind::Disconnected, "every receiver is gone"));
                }
                // Another sender may have taken the room meanwhile.
                if state.queue.len() < channel.capacity {
                    if let Some(letter) = letter.take() {
                        state.queue.push(letter.priority, letter);
                    }
                }
                Ok(())
            })?;
        }
        channel.arrived.notify_one();
        Ok(frame.size())
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        if self.may_send.is_none() {
            let mut state = self.channel.lock();
            let now = self.channel.may_send(&state);
            self.may_send = Some(watch(&mut state.may_send, now)?);
        }
        match &self.may_send {
            Some(descriptor) => {
                Ok(Pollable { descriptor: descriptor.as_fd(), events: PollFlags::IN })
            }
            None => unreachable!("it was just made"),
        }
    }

    fn duplicate(&self) -> Result<Option<Box<dyn SendEnd>>, Error> {
        self.channel.change(|state| state.senders += 1);
        Ok(Some(Box::new(Sending { channel: Arc::clone(&self.channel), may_send: None })))
    }

    fn peers(&self) -> Peers {
        let state = self.channel.lock();
        present(state.receivers, state.had_receiver)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.channel.change(|state| state.senders -= 1);
        self.channel.arrived.notify_all();
    }
}

struct Receiving {
    channel: Arc<Channel>,
    bytes: Vec<u8>,
    myself: Credentials,
    may_receive: Option<OwnedFd>,
}

impl Receiving {
    fn new(channel: Arc<Channel>) -> Receiving {
        Receiving { channel, bytes: Vec::new(), myself: Credentials::myself(), may_receive: None }
    }
}

impl RecvEnd for Receiving {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        let channel = &self.channel;
        let wait = wait.begin();
        arrival.reset();
        loop {
            channel
                .wait_for(&channel.arrived, wait, |state| channel.may_receive(state))
                .map_err(|halt| halt.receiving(wait))?;
            let letter = channel.change(|state| match state.queue.pop() {
                None if channel.no_more_can_come(state) => {
                    Err(Error::new(Kind::Disconnected, "every sender is gone"))
                }
                // Another receiver may have taken it meanwhile.
                taken => Ok(taken.map(|(_, letter)| letter)),
            })?;
            if let Some(letter) = letter {
                channel.freed.notify_one();
                self.bytes = letter.bytes;
                arrival.news = News::Piece;
                arrival.size = self.bytes.len();
                arrival.priority = Some(letter.priority);
                arrival.credentials = self.myself;
                arrival.descriptors = letter.descriptors;
                return Ok(());
            }
        }
    }

    fn bytes(&self, arrival: &Arrival) -> &[u8] {
        &self.bytes[arrival.at..arrival.at + arrival.size]
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        if self.may_receive.is_none() {
            let mut state = self.channel.lock();
            let now = self.channel.may_receive(&state);
            self.may_receive = Some(watch(&mut state.may_receive, now)?);
        }
        match &self.may_receive {
            Some(descriptor) => {
                Ok(Pollable { descriptor: descriptor.as_fd(), events: PollFlags::IN })
            }
            None => unreachable!("it was just made"),
        }
    }

    fn duplicate(&self) -> Result<Option<Box<dyn RecvEnd>>, Error> {
        self.channel.change(|state| state.receivers += 1);
        Ok(Some(Box::new(Receiving::new(Arc::clone(&self.channel)))))
    }

    fn peers(&self) -> Peers {
        let state = self.channel.lock();
        present(state.senders, state.had_sender)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.channel.change(|state| state.receivers -= 1);
        self.channel.freed.notify_all();
    }
}

fn present(count: usize, had: bool) -> Peers {
    match (count, had) {
        (0, false) => Peers::NobodyYet,
        (0, true) => Peers::AllGone,
        _ => Peers::Present(count),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Kind, Options, Receiver, Sender};

    #[test]
    fn a_channel_that_is_there_is_not_taken_for_another_one() {
        let address = format!("local:attributes-{}", std::process::id());
        let options = Options::new().create().capacity(5).message_size(64);
        let mut receiver = Receiver::open_with(&address, &options).unwrap();
        for other in [Options::new().capacity(6), Options::new().message_size(65)] {
            let error = Sender::open_with(&address, &other).unwrap_err();
            assert_eq!(error.kind(), Kind::Mismatch, "{error}");
        }
        for same in [options, Options::new(), Options::new().capacity(5)] {
            let mut sender = Sender::open_with(&address, &same).unwrap();
            assert_eq!(sender.facts().message_size, 64, "the channel's, whoever opens it");
            let error = sender.try_send(&[0; 65]).unwrap_err();
            assert!(matches!(error.kind(), Kind::TooLarge { .. }), "{error}");
            sender.try_send(&[0; 64]).unwrap();
            assert_eq!(receiver.try_recv().unwrap().len(), 64);
        }
    }
}
