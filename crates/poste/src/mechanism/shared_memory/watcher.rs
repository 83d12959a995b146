//! Notices that other processes die, for those in this one that sleep: a freed lock wakes nobody.
//!
//! One thread for the whole process, started when the first end is about to sleep, or receives beside
//! other processes, and ended with the last such end. It waits on the pidfds of all participants of the
//! mailboxes in use here, buries the dead, and wakes everybody. Now and then it makes those who sleep
//! here look by themselves, so that they need no time limit of their own, which costs a sleep a tenth
//! more. A participant that comes later wakes who sleeps, and who sleeps again looks here first. A forked
//! child has no such thread; it gets one of its own. Sources: pidfd_open(2), epoll(7).

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::mailbox::Mailbox;
use super::participants::{Proof, Whose, myself};
use crate::error::Error;
use crate::limits::{BLIND_SLEEP, BURIED_AFTER, LOOK_AGAIN};
use crate::ring::layout::Part;
use crate::ring::wake;
use crate::wait::{Halt, Wait};

/// The watcher of this process.
static WATCHER: Mutex<Option<Watcher>> = Mutex::new(None);

/// How often the watcher has told who sleeps here to look.
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// What stands in epoll for the end of the thread; no process has this number.
const ENOUGH: u64 = u64::MAX;

/// The thread's name, for who looks at a process's threads.
const NAME: &str = "poste-watcher";

struct Watcher {
    /// The life of the process that it belongs to.
    life: u64,
    epoll: Arc<OwnedFd>,
    /// Readable when the thread is to end.
    enough: OwnedFd,
    thread: JoinHandle<()>,
    mailboxes: Vec<Watched>,
    processes: HashMap<u32, OwnedFd>,
}

struct Watched {
    instance: [u64; 2],
    /// Opened for the watcher alone, so that its locks exclude those of the ends here.
    mailbox: Arc<Mailbox>,
    /// How many ends here rely on it.
    users: usize,
    /// The places of those that have slept.
    sleepers: Vec<usize>,
}

/// That one end relies on the watcher.
#[derive(Debug)]
pub(crate) struct Watch {
    instance: [u64; 2],
    life: u64,
    /// The end's place.
    place: usize,
    /// It has slept, and the watcher knows.
    sleeps: bool,
    /// Up to which change of the table the participants are watched.
    epoch: Option<u64>,
    /// All of them could be.
    complete: bool,
}

/// When a sleeper looks after its mailbox by itself.
#[derive(Debug)]
pub(super) enum Vigil {
    /// When the watcher says so; it has had so many rounds.
    Told(u64),
    /// Every [`BLIND_SLEEP`], since not everybody can be watched; it looked then.
    Blind(Instant),
}

impl Vigil {
    /// How long to sleep at most.
    pub(super) fn slice(&self) -> Option<Duration> {
        match self {
            Vigil::Told(_) => None,
            Vigil::Blind(_) => Some(BLIND_SLEEP),
        }
    }

    /// Whether it is time to look, and by what proof.
    pub(super) fn is_due(&mut self) -> Option<Proof> {
        match self {
            Vigil::Told(seen) => {
                // Counted before the alert, whose release the sleeper's swap has acquired.
                let rounds = ROUNDS.load(Ordering::Acquire);
                (std::mem::replace(seen, rounds) != rounds).then_some(Proof::Lock)
            }
            Vigil::Blind(looked) if looked.elapsed() >= BLIND_SLEEP => {
                *looked = Instant::now();
                Some(Proof::Process)
            }
            Vigil::Blind(_) => None,
        }
    }
}

impl Watch {
    /// Sees to it that a mailbox is watched, for the end in a place of it.
    pub(crate) fn new(mailbox: &Mailbox, place: usize) -> Result<Watch, Error> {
        let instance = mailbox.instance();
        let mut guard = lock();
        let watcher = of_this_life(&mut guard)?;
        match watcher.mailboxes.iter_mut().find(|watched| watched.instance == instance) {
            Some(watched) => watched.users += 1,
            None => {
                let mailbox = Arc::new(mailbox.reopen()?);
                let sleepers = Vec::new();
                watcher.mailboxes.push(Watched { instance, mailbox, users: 1, sleepers });
            }
        }
        let life = watcher.life;
        Ok(Watch { instance, life, place, sleeps: false, epoch: None, complete: false })
    }

    /// As [`Watch::everybody`], for who is about to sleep: when it looks by itself.
    #[inline]
    pub(super) fn vigil(&mut self, mailbox: &Mailbox) -> Vigil {
        if !self.sleeps {
            self.sleeps = self.enlist();
        }
        match self.everybody(mailbox) && self.sleeps {
            // Before the first look: a round after this is seen.
            true => Vigil::Told(ROUNDS.load(Ordering::Acquire)),
            false => Vigil::Blind(Instant::now()),
        }
    }

    /// Lets the watcher know that this end sleeps at times: whether there is one.
    #[cold]
    fn enlist(&self) -> bool {
        let mut guard = lock();
        let watcher = guard.as_mut().filter(|watcher| watcher.life == self.life);
        let mut mailboxes = watcher.into_iter().flat_map(|watcher| watcher.mailboxes.iter_mut());
        let own = mailboxes.find(|watched| watched.instance == self.instance);
        own.map(|watched| watched.sleepers.push(self.place)).is_some()
    }

    /// Sees to it that everybody is watched who takes part now: whether that could be done. If not,
    /// the caller must not rely on being woken.
    pub(crate) fn everybody(&mut self, mailbox: &Mailbox) -> bool {
        let epoch = mailbox.epoch();
        if self.epoch == Some(epoch) {
            return self.complete;
        }
        self.complete = self.those(mailbox, |part| part != Part::Orphan);
        self.epoch = Some(epoch);
        self.complete
    }

    /// Sees to it that all receivers are watched, for one that doesn't sleep: what a dead sender
    /// leaves needs nobody at once.
    pub(super) fn receivers(&self, mailbox: &Mailbox) {
        // Of whom it can't be told, who only looks sees to them itself.
        self.those(mailbox, |part| part == Part::Receiver);
    }

    fn those(&self, mailbox: &Mailbox, is_one: impl Fn(Part) -> bool) -> bool {
        let mut guard = lock();
        let Ok(watcher) = of_this_life(&mut guard) else { return false };
        let mut dead = Vec::new();
        let mut is_complete = true;
        for (place, _) in mailbox.parts().filter(|(_, part)| is_one(*part)) {
            let owner = mailbox.owner(place);
            match watcher.watch(&owner) {
                Ok(()) => {}
                Err(Errno::SRCH) => dead.push(u64::from(owner.pid)),
                Err(_) => is_complete = false,
            }
        }
        let watched = watcher.mailboxes.iter().find(|watched| watched.instance == self.instance);
        let own = watched.map(|watched| Arc::clone(&watched.mailbox));
        drop(guard);
        if let (false, Some(own)) = (dead.is_empty(), own) {
            own.recover(Whose::Of(&dead), Proof::Process);
            // Where another is burying it, and is killed, the caller does it, when it looks again.
            is_complete &= !own.has_dead(Whose::Of(&dead));
        }
        is_complete
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut guard = lock();
        let Some(watcher) = guard.as_mut().filter(|watcher| watcher.life == self.life) else {
            return;
        };
        for watched in &mut watcher.mailboxes {
            if watched.instance == self.instance {
                watched.users -= 1;
                // Once: who has the place by now may have said so too.
                let own = watched.sleepers.iter().position(|place| *place == self.place);
                if let Some(own) = own.filter(|_| self.sleeps) {
                    watched.sleepers.swap_remove(own);
                }
            }
        }
        watcher.mailboxes.retain(|watched| watched.users > 0);
        if !watcher.mailboxes.is_empty() {
            return;
        }
        let last = guard.take();
        drop(guard);
        if let Some(watcher) = last {
            watcher.end();
        }
    }
}

fn lock() -> MutexGuard<'static, Option<Watcher>> {
    WATCHER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watcher, with its thread; after a fork a new one.
fn of_this_life<'a>(
    guard: &'a mut MutexGuard<'static, Option<Watcher>>,
) -> Result<&'a mut Watcher, Error> {
    let life = poste_sys::fork::life();
    let system = |errno: Errno| Error::system(errno, "the thread that notices deaths");
    if guard.as_ref().is_none_or(|watcher| watcher.life != life) {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC).map_err(system)?);
        let enough = eventfd(0, EventfdFlags::CLOEXEC).map_err(system)?;
        epoll::add(&epoll, &enough, EventData::new_u64(ENOUGH), EventFlags::IN).map_err(system)?;
        let watched = Arc::clone(&epoll);
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || watch(&watched, life))
            .map_err(|error| system(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
        let (mailboxes, processes) = (Vec::new(), HashMap::new());
        **guard = Some(Watcher { life, epoll, enough, thread, mailboxes, processes });
    }
    match guard.as_mut() {
        Some(watcher) => Ok(watcher),
        None => unreachable!("it was just made"),
    }
}

impl Watcher {
    /// Ends the thread, and with it all that is watched.
    fn end(self) {
        for process in self.processes.values() {
            // A forked child may hold it open: then epoll would go on reporting it.
            let _ = epoll::delete(&self.epoll, process);
        }
        // It takes eight bytes, once; and a thread that panicked has ended too.
        let _ = rustix::io::write(&self.enough, &1_u64.to_ne_bytes());
        let _ = self.thread.join();
    }

    /// Makes all who sleep here look.
    fn make_round(&self) {
        ROUNDS.fetch_add(1, Ordering::Release);
        for watched in &self.mailboxes {
            for place in &watched.sleepers {
                wake::alert(watched.mailbox.header(), *place);
            }
        }
    }

    /// Watches a process, if it isn't watched yet.
    ///
    /// # Errors
    /// `ESRCH`: it is gone; others: it can't be watched.
    fn watch(&mut self, owner: &crate::name::owner::Owner) -> Result<(), Errno> {
        let me = myself();
        if owner.pid == me.pid && owner.start == me.start {
            return Ok(());
        }
        if owner.namespace != me.namespace {
            return Err(Errno::XDEV);
        }
        if self.processes.contains_key(&owner.pid) {
            return Ok(());
        }
        let pid = i32::try_from(owner.pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        // Only now that its number can't be another's any more.
        if owner.is_gone() {
            return Err(Errno::SRCH);
        }
        epoll::add(&self.epoll, &process, EventData::new_u64(owner.pid.into()), EventFlags::IN)?;
        self.processes.insert(owner.pid, process);
        Ok(())
    }

    /// Takes note of the ends of processes: the mailboxes to look at.
    fn ended(&mut self, pids: &[u64]) -> Vec<Arc<Mailbox>> {
        for pid in pids {
            if let Some(process) = self.processes.remove(&(*pid as u32)) {
                // It was added; deleting fails only where it is gone already.
                let _ = epoll::delete(&self.epoll, &process);
            }
        }
        self.mailboxes.iter().map(|watched| Arc::clone(&watched.mailbox)).collect()
    }
}

/// What the thread does, as long as the process lives.
fn watch(epoll: &OwnedFd, life: u64) {
    let mut ended = Vec::new();
    // How soon to look again, where somebody is dead and not buried.
    let mut again: Option<Duration> = None;
    let mut round = Instant::now();
    loop {
        let is_again = again.is_some();
        let left = LOOK_AGAIN.saturating_sub(round.elapsed());
        let pause = again.map_or(left, |again| again.min(left));
        match Wait::For(pause).events(epoll.as_fd(), &mut ended) {
            Ok(()) => again = None,
            Err(Halt::Later) => ended.clear(),
            Err(_) => return,
        }
        if ended.contains(&ENOUGH) {
            return;
        }
        let is_round = round.elapsed() >= LOOK_AGAIN;
        let mailboxes = match lock().as_mut().filter(|watcher| watcher.life == life) {
            Some(watcher) => {
                if is_round {
                    round = Instant::now();
                    watcher.make_round();
                }
                if ended.is_empty() && again.is_none() {
                    continue;
                }
                watcher.ended(&ended)
            }
            None => return,
        };
        // Who else takes part lives, unless somebody was left unburied before.
        let whose = if is_again { Whose::All } else { Whose::Of(&ended) };
        for mailbox in &mailboxes {
            mailbox.recover(whose, Proof::Process);
        }
        // Another is at it, behind the door, and may be killed there: nobody need know of that one.
        let is_done = !mailboxes.iter().any(|mailbox| mailbox.has_dead(whose));
        again = match again {
            _ if is_done => None,
            None => Some(BURIED_AFTER),
            Some(time) => Some((time * 2).min(BLIND_SLEEP)),
        };
    }
}
