//! `poste create`: makes the object at an address, which must not be there yet.

use crate::args::Create;
use crate::exit::Stop;
use crate::resolve;

/// Makes it; what is made stays until `remove`.
pub(crate) fn run(args: &Create) -> Result<(), Stop> {
    let (address, _) = resolve::place(&args.address)?;
    poste::create(address.to_string(), &resolve::attributes(&args.attributes))?;
    Ok(())
}
