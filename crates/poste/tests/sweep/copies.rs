//! The first form: at every boundary between two instructions at which the mailbox's files differ
//! from the last look, they are copied, and a checker for which everybody is dead recovers the copy.
//! A copy that is the same as the last one would be recovered in the same way; the long form shows
//! that of each eighth too.
//!
//! A kill comes between two instructions, and what was stored stays: so the copy is what a kill
//! there leaves. Locks are not copied, as the kernel drops them with their owner.

use std::collections::BTreeSet;

use crate::checker;
use crate::operations::{self, Operation};
use crate::partner::{Partner, address};
use crate::stage::{self, Cast, Others, Stepped, Went};
use crate::tally::{Tally, is_long};
use crate::tree::{House, Tree};

/// No operation takes so many instructions.
const STEPS_MAX: usize = 1_000_000;

/// Of the boundaries at which nothing has changed the long form looks at one in so many.
const SAME_EVERY: usize = 8;

/// What must hold of the messages at each boundary.
struct Judge {
    name: &'static str,
    before: BTreeSet<(char, u32)>,
    after: BTreeSet<(char, u32)>,
    /// As of the last copy.
    last: BTreeSet<(char, u32)>,
}

impl Judge {
    fn new(operation: &Operation) -> Judge {
        let before = operations::set(operation.before, 0);
        let after = operations::set(operation.after, 0);
        Judge { name: operation.name, last: before.clone(), before, after }
    }

    /// What lay there all the time is there; what comes, comes once for all and in order; what goes
    /// is gone.
    fn judge(&mut self, letters: Vec<(char, u32)>) -> Result<(), String> {
        let now: BTreeSet<_> = letters.into_iter().collect();
        let (before, after) = (&self.before, &self.after);
        let names = |letters: Vec<&(char, u32)>| {
            letters.iter().map(|(sender, number)| format!(" {sender}{number}")).collect::<String>()
        };
        let lost = before.intersection(after).filter(|letter| !now.contains(letter)).collect();
        let strange = now.iter().filter(|l| !before.contains(l) && !after.contains(l)).collect();
        let back = now.difference(&self.last).filter(|letter| !after.contains(letter)).collect();
        let undone = self.last.difference(&now).filter(|letter| after.contains(letter)).collect();
        let lists: [(&str, Vec<_>); 4] = [
            ("are lost:", lost),
            ("are nobody's:", strange),
            ("were gone and come again:", back),
            ("were sent and are gone:", undone),
        ];
        for (what, letters) in lists {
            if !letters.is_empty() {
                return Err(format!("these messages {what}{}", names(letters)));
            }
        }
        self.last = now;
        Ok(())
    }
}

/// Sweeps one operation.
pub(crate) fn sweep(operation: &Operation, tally: &Tally) -> Result<(), String> {
    let house = House::new();
    let (live, copy) = (house.live(), house.copy());
    if operation.name != "create" {
        stage::make(&live, operation)?;
    }
    let mut cast = Cast::play(&live, operation, 0, Others::StandStill)?;
    let start = || Stepped::start(&live, operation, 0);
    let mut stepped = if operation.ready.is_empty() {
        cast.meet_fate();
        start()?
    } else {
        let stepped = start()?;
        cast.meet_fate();
        stepped
    };
    stepped.begin()?;
    // What a receiver looks for only now and then is due.
    std::thread::sleep(poste::limits::RECOVER_EVERY * 2);
    let checker = Checker::start(&copy, operation);
    walk(&mut stepped, Tree::new(live), checker, Judge::new(operation), tally)
}

/// Steps a process from mark to mark, and has its copies checked.
fn walk(
    stepped: &mut Stepped,
    mut tree: Tree,
    mut checker: Checker,
    mut judge: Judge,
    tally: &Tally,
) -> Result<(), String> {
    let (mut steps, mut copies) = (0, 0);
    let mut went = Went::Plain;
    let mut is_new = true;
    let done = loop {
        let is_again = is_long() && steps % SAME_EVERY == 0;
        if is_new || is_again || went == Went::ToTheEnd {
            copies += 1;
            let judged = checker.check(&tree).and_then(|letters| judge.judge(letters));
            if let Err(fault) = judged {
                break Err(fault);
            }
        }
        if went == Went::ToTheEnd {
            break if judge.last == judge.after {
                Ok(())
            } else {
                Err("it is done, and what it did is not there".to_owned())
            };
        }
        if steps == STEPS_MAX {
            break Err("the process doesn't come to its end".to_owned());
        }
        went = match stepped.step() {
            Ok(went) => went,
            Err(fault) => break Err(fault),
        };
        steps += 1;
        let is_listed = went != Went::Plain && tree.list();
        is_new = tree.look() || is_listed;
    };
    tally.count(steps, copies, checker.half_made);
    println!("{}: {steps} boundaries, {copies} copies", judge.name);
    done.map_err(|fault| {
        let place = stepped.traced.place().unwrap_or(0);
        let at = stepped.at;
        format!(
            "killed after {steps} instructions ({} calls and {} instructions; the next is at \
             {place:#x}): {fault}",
            at.calls, at.steps
        )
    })
}

/// Sweeps a role of this program that is no script.
pub(crate) fn sweep_role(role: &str, operation: &Operation, tally: &Tally) -> Result<(), String> {
    let house = House::new();
    let live = house.live();
    stage::make(&live, operation)?;
    let _cast = Cast::play(&live, operation, 0, Others::StandStill)?;
    let folder = stage::folder(&live);
    let mut stepped = Stepped::start_role(&live, role, &[&folder.to_string_lossy()])?;
    let checker = Checker::start(&house.copy(), operation);
    walk(&mut stepped, Tree::new(live), checker, Judge::new(operation), tally)
}

/// The process that recovers copies.
struct Checker {
    partner: Partner,
    place: std::path::PathBuf,
    half_made: usize,
}

impl Checker {
    fn start(copy: &std::path::Path, operation: &Operation) -> Checker {
        let partner = Partner::start(copy, "check", &[&address(operation)]);
        Checker { partner, place: copy.to_owned(), half_made: 0 }
    }

    fn check(&mut self, tree: &Tree) -> Result<Vec<(char, u32)>, String> {
        tree.copy_to(&self.place);
        self.partner.tell("check")?;
        let (half_made, letters) = checker::read(&self.partner.hear()?)?;
        self.half_made = self.half_made.max(half_made);
        Ok(letters)
    }
}
