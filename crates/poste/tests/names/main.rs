//! Names: claimed by one, never taken from the living, free when their owner is dead; and whatever
//! others plant where poste looks is refused.
//!
//! Everything is done by helpers, this program again, each with a runtime directory that its test
//! gives it.

mod helper;
mod modes;
mod owners;
mod planted;
mod races;

use helper::{HELPER, Open};

/// What a helper does; nothing where this is none.
#[test]
fn as_a_helper() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let mut open = Open::default();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match open.follow(&line) {
            Ok(answer) => eprintln!("= ok {answer}"),
            Err(error) => eprintln!("= {} {error}", error.kind().code()),
        }
    }
}
