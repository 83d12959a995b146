//! The second form: the stepped process is really killed (SIGKILL) at a boundary, in a mailbox in
//! which a sender and a receiver live on. Nobody helps them: what the dead one had is to come to the
//! living receiver by itself, which sleeps in the kernel meanwhile, or did when it was stopped there;
//! then the living sender sends, and that comes too.
//!
//! The short form kills at boundaries chosen by chance, the long one at every boundary.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use poste::{Outgoing, Receiver, Sender};
use poste_sys::testing::trace::Stop;
use rustix::process::Signal;

use crate::checker::{self, aside};
use crate::image;
use crate::letter::Letter;
use crate::operations::{self, Operation, Reader};
use crate::partner::{Partner, address};
use crate::party::say;
use crate::stage::{self, Cast, Others, Position, Stepped, Went, folder};
use crate::tally::{Dice, Tally, is_long};
use crate::tree::{House, Tree};

/// How many boundaries of each operation are killed at: of those at which a file had just changed or
/// a system call ended, and of the others.
const SHORT: (usize, usize) = (30, 4);

/// The same for the long form: all, unless an operation takes more instructions than this. Those of
/// one take minutes.
const LONG: (usize, usize) = (usize::MAX, 2000);

/// How long the living receiver works beside the stepped process before that is killed, every other
/// time.
const EARLY: Duration = Duration::from_millis(2);

/// How long it may take until all has come to the living. A sleeper looks by itself after
/// [`poste::limits::LOOK_AGAIN`]: it must not need to.
const BY_ITSELF: Duration = Duration::from_secs(3);

/// Numbers of one kill are below this; those of the next begin there.
const ROUND: u32 = 100;

/// The sender that lives on: sends the letter whose number it is told.
pub(crate) fn send(words: &[&str]) {
    let &[address] = words else { panic!("an address: {words:?}") };
    let mut sender = Sender::open(address).expect("a sender opens");
    say("there");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if line == "end" {
            drop(sender);
            return say("gone");
        }
        let letter = Letter::parse('z', &line, 0);
        sender.send(Outgoing::from(&letter.body())).expect("it is sent");
    }
}

/// The receiver that lives on: told to go, it receives until a letter of the living sender comes.
pub(crate) fn receive(words: &[&str]) {
    let &[address] = words else { panic!("an address: {words:?}") };
    let mut receiver = Receiver::open(address).expect("a receiver opens");
    say("there");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if line == "end" {
            drop(receiver);
            return say("gone");
        }
        loop {
            let message = receiver.recv().expect("a message");
            let mark = if message.redelivered() { "again" } else { "first" };
            match Letter::read(&message) {
                Ok(letter) => {
                    drop(message);
                    say(&format!("{} {} {mark}", letter.sender, letter.number));
                    if letter.sender == 'z' {
                        break;
                    }
                }
                Err(fault) => say(&format!("fault: {fault}")),
            }
        }
    }
}

/// Those who live on.
struct Living {
    sender: Partner,
    receiver: Partner,
}

/// One operation, being swept.
struct Scene<'a> {
    operation: &'a Operation,
    tally: &'a Tally,
    house: House,
    living: Option<Living>,
}

/// Sweeps one operation.
pub(crate) fn sweep(operation: &Operation, tally: &Tally) -> Result<(), String> {
    let mut scene = Scene { operation, tally, house: House::new(), living: None };
    let live = scene.house.live();
    if operation.reader != Reader::None {
        stage::make(&live, operation)?;
        let start = |role| Partner::start(&live, role, &[&address(operation)]);
        let mut living = Living { sender: start("sender"), receiver: start("receiver") };
        living.sender.expect("there")?;
        living.receiver.expect("there")?;
        scene.living = Some(living);
    }
    let mut boundaries = Vec::new();
    scene.round(0, |stepped| {
        let mut tree = Tree::new(live.clone());
        let mut is_new = false;
        loop {
            boundaries.push((stepped.at, is_new));
            match stepped.step()? {
                Went::ToTheEnd => return Ok(()),
                // Locks show in no file.
                Went::Call => {
                    tree.list();
                    tree.look();
                    is_new = true;
                }
                Went::Plain => is_new = tree.look(),
            }
        }
    })?;
    let chosen = choose(&boundaries, &mut Dice::new(operation.name));
    println!("{}: {} boundaries, {} kills", operation.name, boundaries.len(), chosen.len());
    for (round, at) in chosen.iter().enumerate() {
        let killed = scene.round(round as u32 + 1, |stepped| stepped.go_to(*at).map(drop));
        tally.count_kills(1);
        killed.map_err(|fault| {
            let Position { calls, steps } = *at;
            format!("killed after {calls} calls and {steps} instructions: {fault}")
        })?;
    }
    scene.end()
}

/// The boundaries to kill at: those at which something is new and others, the first and the last
/// among them.
fn choose(all: &[(Position, bool)], dice: &mut Dice) -> Vec<Position> {
    let of = |is_new| all.iter().filter(move |(_, new)| *new == is_new).map(|(at, _)| *at);
    let (mut new, mut others): (Vec<_>, Vec<_>) = (of(true).collect(), of(false).collect());
    let mut count = if is_long() { LONG } else { SHORT };
    if let Some(kills) = std::env::var("POSTE_KILLS").ok().and_then(|kills| kills.parse().ok()) {
        count = (kills, kills);
    }
    let mut chosen = vec![all[0].0, all[all.len() - 1].0];
    for (from, count) in [(&mut new, count.0), (&mut others, count.1)] {
        for _ in 0..count.min(from.len()) {
            chosen.push(from.swap_remove(dice.roll(from.len())));
        }
    }
    chosen
}

impl Scene<'_> {
    /// Everybody plays, the stepped process goes as far as `go` lets it and is killed there, and
    /// what it leaves is looked at.
    fn round(
        &mut self,
        round: u32,
        go: impl FnOnce(&mut Stepped) -> Result<(), String>,
    ) -> Result<(), String> {
        let base = round * ROUND;
        let (live, operation) = (self.house.live(), self.operation);
        if operation.name == "remove" {
            stage::make(&live, operation)?;
        }
        let mut cast = Cast::play(&live, operation, base, Others::GoOn)?;
        let mut stepped = None;
        if !operation.ready.is_empty() {
            stepped = Some(Stepped::start(&live, operation, base)?);
        }
        if let (Reader::Asleep, Some(living)) = (operation.reader, &mut self.living) {
            living.receiver.tell("go")?;
            living.receiver.until_asleep()?;
            living.receiver.stop()?;
        }
        cast.meet_fate();
        let mut stepped = match stepped {
            Some(stepped) => {
                if operation.name.ends_with("while_receiving") {
                    // What a receiver looks for only now and then is due.
                    std::thread::sleep(poste::limits::RECOVER_EVERY * 2);
                }
                stepped
            }
            None => Stepped::start(&live, operation, base)?,
        };
        stepped.begin()?;
        let was_out = self.was_out()?;
        let went = go(&mut stepped);
        let is_early = round % 2 == 1;
        if is_early {
            self.go_on()?;
            // It finds what is half done, and whoever does it alive.
            std::thread::sleep(EARLY);
        }
        stepped.traced.kill();
        went?;
        if !is_early {
            self.go_on()?;
        }
        match self.living {
            Some(_) => {
                let time = self.live_on(round, &was_out)?;
                if !is_early && !was_out.is_empty() && self.operation.reader == Reader::Asleep {
                    self.tally.note_time(time);
                }
                Ok(())
            }
            None => {
                drop(cast);
                self.check_alone()
            }
        }
    }

    /// Has the living receiver go on.
    fn go_on(&mut self) -> Result<(), String> {
        match (&mut self.living, self.operation.reader) {
            (None, _) => Ok(()),
            (Some(living), Reader::Asleep) => {
                living.receiver.signal(Signal::CONT);
                Ok(())
            }
            (Some(living), _) => living.receiver.tell("go"),
        }
    }

    /// The letters that were handed out before the operation.
    fn was_out(&self) -> Result<Vec<(char, u32)>, String> {
        if self.operation.reader == Reader::None {
            return Ok(Vec::new());
        }
        let lying = image::messages(&folder(&self.house.live()))?;
        let out = lying.iter().filter(|lying| lying.was_out);
        Ok(out.map(|lying| (lying.letter.sender, lying.letter.number)).collect())
    }

    /// The living go on: what must come to the receiver comes, and nothing else. Says how long it
    /// took.
    fn live_on(&mut self, round: u32, was_out: &[(char, u32)]) -> Result<Duration, String> {
        let (operation, base) = (self.operation, round * ROUND);
        let mailbox = folder(&self.house.live());
        let Some(living) = &mut self.living else { return Ok(Duration::ZERO) };
        let mut came = BTreeMap::new();
        let later = operations::set(operation.later, base);
        let start = Instant::now();
        loop {
            for line in living.receiver.said() {
                note(&line, &mut came)?;
            }
            // While others work a lane may go between two looks: then there is one more.
            let is_quiet = image::messages(&mailbox).is_ok_and(|lying| lying.is_empty());
            if is_quiet && later.iter().all(|letter| came.contains_key(letter)) {
                break;
            }
            if start.elapsed() > BY_ITSELF {
                let lying = image::messages(&mailbox)?;
                return Err(format!("nobody takes what lies there: {lying:?}"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let time = start.elapsed();
        living.sender.tell(&round.to_string())?;
        while !came.contains_key(&('z', round)) {
            note(&living.receiver.hear_within(BY_ITSELF)?, &mut came)?;
        }
        came.remove(&('z', round));
        for letter in aside(&mailbox)? {
            if letter.number >= base {
                came.insert((letter.sender, letter.number), true);
            }
        }
        let before = operations::set(operation.before, base);
        let after = operations::set(operation.after, base);
        for letter in before.intersection(&after).chain(&later) {
            if !came.contains_key(letter) {
                return Err(format!("{}{} is lost", letter.0, letter.1 - base));
            }
        }
        for (letter, is_marked) in &came {
            let (sender, number) = (letter.0, letter.1.wrapping_sub(base));
            if ![&before, &after, &later].iter().any(|set| set.contains(letter)) {
                return Err(format!("{sender}{number} is nobody's"));
            }
            if was_out.contains(letter) && !is_marked {
                return Err(format!("{sender}{number} was out and came unmarked"));
            }
        }
        Ok(time)
    }

    /// Where there is no mailbox before or after, a checker comes.
    fn check_alone(&self) -> Result<(), String> {
        let live = self.house.live();
        let mut checker = Partner::start(&live, "check", &[&address(self.operation)]);
        checker.tell("check")?;
        let (_, letters) = checker::read(&checker.hear()?)?;
        let before = operations::set(self.operation.before, 0).len();
        if ![0, before].contains(&letters.len()) {
            return Err(format!("of {before} messages {} are left", letters.len()));
        }
        std::fs::remove_dir_all(live.join("shm")).map_err(|error| error.to_string())
    }

    /// All go, and nothing is left.
    fn end(self) -> Result<(), String> {
        let Some(mut living) = self.living else { return Ok(()) };
        for partner in [&mut living.sender, &mut living.receiver] {
            partner.tell("end")?;
            partner.expect("gone")?;
            partner.finish()?;
        }
        let live = self.house.live();
        let mut checker = Partner::start(&live, "check", &[&address(self.operation)]);
        checker.tell("check")?;
        let (_, letters) = checker::read(&checker.hear()?)?;
        let aside = aside(&folder(&live))?;
        if letters.len() > aside.len() {
            return Err(format!("in the end there is left {letters:?}"));
        }
        Ok(())
    }
}

/// Takes in what the living receiver says: `a 101 first`.
fn note(line: &str, came: &mut BTreeMap<(char, u32), bool>) -> Result<(), String> {
    let words: Vec<_> = line.split(' ').collect();
    let [sender, number, mark] = words[..] else { return Err(line.to_owned()) };
    let (Some(sender), Ok(number)) = (sender.chars().next(), number.parse()) else {
        return Err(line.to_owned());
    };
    match came.insert((sender, number), mark == "again") {
        None => Ok(()),
        Some(_) => Err(format!("{sender}{number} came twice")),
    }
}

/// A process can be stepped here: what else is to be said, if not.
pub(crate) fn lacks() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("single steps are known for x86_64 only".to_owned());
    }
    let mut command = std::process::Command::new(std::env::current_exe().ok()?);
    match poste_sys::testing::trace::Traced::start(command.arg("--list")) {
        Ok(mut traced) => match traced.run(poste_sys::testing::trace::Run::Step) {
            Ok(Stop::Step) => None,
            other => Some(format!("a step does not stop: {other:?}")),
        },
        Err(error) => Some(format!("this machine forbids ptrace: {error}")),
    }
}
