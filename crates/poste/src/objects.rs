//! Looking at objects: every one that is there, or one with the limits that hold it.
//!
//! How they are found is each mechanism's business. Nothing is opened in a way that its users would
//! notice, and nothing is changed.

use std::path::Path;

use crate::address::Address;
use crate::error::{Error, Kind};
use crate::mechanism::{self, ALL, Mechanism};
use crate::object::{Listing, Object};
use crate::options::Options;
use crate::survey::Survey;
use crate::system_limits::{self, SystemLimit};

/// An object, the limits that hold it, and what could not be seen of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Info {
    /// The object.
    pub object: Object,
    /// The limits of the system that its mechanism knows.
    pub limits: Vec<SystemLimit>,
    /// What could not be seen, each in words.
    pub unseen: Vec<String>,
}

/// Every object of this machine that processes pass messages through, whoever made it, as far as
/// this user may see: queues, FIFOs that are open or made by poste, sockets that have a name.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// # let name = format!("fifo:{}/poste-list-{}", std::env::temp_dir().display(), std::process::id());
/// poste::create(&name, &poste::Options::new())?;
/// assert!(poste::list()?.iter().any(|object| object.address.to_string() == name));
/// poste::remove(&name)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// `NotSupported` where /proc is not mounted.
pub fn list() -> Result<Vec<Object>, Error> {
    listing(ALL).map(|listing| listing.objects)
}

/// The objects of some mechanisms, and what could not be seen of them.
///
/// # Errors
/// As [`list`].
pub fn listing(mechanisms: &[&'static Mechanism]) -> Result<Listing, Error> {
    check_proc()?;
    Ok(look(&Survey::new(None), mechanisms))
}

/// One object, even where `list` can't find it (a FIFO that nobody has open), and its limits.
///
/// # Errors
/// `NotFound`; `NotSupported` where the mechanism has no objects; `Mismatch` where something else is
/// there.
pub fn info(address: impl AsRef<str>) -> Result<Info, Error> {
    let text = address.as_ref();
    let address = Address::parse(text).map_err(|error| error.on("look at", &text))?;
    inform(&address).map_err(|error| error.on("look at", &address))
}

fn inform(address: &Address) -> Result<Info, Error> {
    check_proc()?;
    let (mechanism, _) = mechanism::resolve(address, &Options::new())?;
    let place = (mechanism.place)(address)?;
    let survey = Survey::new(Some(place.clone()));
    let listing = (mechanism.list)(&survey);
    let found = listing.objects.into_iter().find(|object| object.address == place);
    let object = found.ok_or_else(|| match mechanism.capabilities.made_by_listening {
        true => Error::new(Kind::NotFound, "nobody has this address"),
        false => Error::new(Kind::NotFound, "no such object"),
    })?;
    let limits = system_limits::of(&survey, mechanism.limits);
    Ok(Info { object, limits, unseen: listing.unseen })
}

/// What the mechanisms find, in their order and that of the addresses.
pub(crate) fn look(survey: &Survey, mechanisms: &[&'static Mechanism]) -> Listing {
    let mut all = Listing::none();
    for mechanism in mechanisms {
        let mut listing = (mechanism.list)(survey);
        listing.objects.sort_by(|one, other| one.address.rest().cmp(other.address.rest()));
        all.add(listing);
    }
    all
}

/// Without /proc nothing is seen of others.
pub(crate) fn check_proc() -> Result<(), Error> {
    if Path::new("/proc/self/fd").exists() {
        return Ok(());
    }
    Err(Error::new(Kind::NotSupported, "what there is can't be seen, as /proc is not mounted")
        .with_hint("mount -t proc proc /proc"))
}
