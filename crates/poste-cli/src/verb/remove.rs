//! `poste remove`: takes objects away, as many as it can.

use poste::Address;

use crate::args::Remove;
use crate::exit::{Failure, Stop};
use crate::resolve;

/// Reads every address before it touches any; then one that fails doesn't keep the others.
pub(crate) fn run(args: &Remove) -> Result<(), Stop> {
    let addresses: Vec<Address> = args
        .addresses
        .iter()
        .map(|text| resolve::place(text).map(|(address, _)| address))
        .collect::<Result<_, _>>()?;
    let failures: Vec<Failure> = addresses
        .iter()
        .filter_map(|address| poste::remove(address.to_string()).err())
        .map(Failure::from)
        .collect();
    match Failure::of_several(failures, addresses.len()) {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}
