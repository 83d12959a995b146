//! `poste tour`: real processes pass real messages over every mechanism of this machine; what each
//! can do is proved, what it costs is measured, and both are shown in a table.
//!
//! [`proofs`] and [`measure`] do that for one mechanism; their [`peer`]s are this program again, in
//! one of the [`roles`]. All that is made lies in the [`house`] and goes with it. A mechanism that
//! this machine lacks is shown as such; a proof that fails makes the tour fail.

mod house;
mod ledger;
mod measure;
mod peer;
mod progress;
mod proofs;
mod report;
mod roles;
mod table;
mod ways;

use poste::Kind;
use poste::mechanism::{ALL, Mechanism, find};
use rustix::thread::sched_getaffinity;

use self::ledger::Fault;
use self::measure::{Flow, RoundTrip};
pub(crate) use self::peer::PeerArgs;
use self::progress::Progress;
use self::proofs::{Proof, SUBJECTS};
use crate::args::Tour;
use crate::exit::{Code, Failure, Stop};
use crate::output::Output;

/// What was found out about one mechanism.
#[derive(Debug)]
struct Visit {
    mechanism: &'static Mechanism,
    found: Found,
}

/// Whether it is there at all.
#[derive(Debug)]
enum Found {
    /// This machine lacks it, for this reason.
    Absent(String),
    /// It is there.
    Here(Box<Findings>),
}

/// What a mechanism can do and what it costs; each may have failed.
#[derive(Debug)]
struct Findings {
    /// As in [`SUBJECTS`].
    proofs: Vec<Result<Proof, Fault>>,
    one_core: Result<RoundTrip, Fault>,
    /// `None`: this program may use one processor only.
    two_cores: Option<Result<RoundTrip, Fault>>,
    one_way: Result<Flow, Fault>,
}

/// Makes the tour.
pub(crate) fn run(args: &Tour) -> Result<(), Stop> {
    let mechanisms = chosen(&args.only)?;
    let Some(directory) = &args.inside else { match house::move_in()? {} };
    let processors = processors();
    let house = house::settle(directory)?;
    let progress = Progress::begin(&mechanisms);
    let visits: Vec<_> =
        mechanisms.into_iter().map(|each| visit(each, &processors, &progress)).collect();
    drop((progress, house));
    let mut out = Output::open();
    let text = if args.json { table::json(&visits) } else { table::text(&visits, &processors) };
    out.write(text.as_bytes())?;
    out.flush()?;
    judge(&visits)
}

/// The life of one of its processes.
pub(crate) fn be_peer(args: &PeerArgs) -> Result<(), Stop> {
    peer::live(args);
    Ok(())
}

/// The mechanisms of these schemes; all of them where none is named.
fn chosen(schemes: &[String]) -> Result<Vec<&'static Mechanism>, Stop> {
    if schemes.is_empty() {
        return Ok(ALL.to_vec());
    }
    let wanted = |scheme: &String| {
        let scheme = scheme.trim_end_matches(':');
        find(scheme).ok_or_else(|| {
            let known: Vec<_> = ALL.iter().map(|mechanism| mechanism.scheme).collect();
            let what = format!("tour: no mechanism is called {scheme:?}");
            Failure::new(Code::Usage, what, format!("there are {}", known.join(", "))).into()
        })
    };
    schemes.iter().map(wanted).collect()
}

/// The first two processors that this program may use, or the only one.
fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_default();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&each| allowed.is_set(each)).take(2).collect()
}

fn visit(mechanism: &'static Mechanism, processors: &[usize], progress: &Progress) -> Visit {
    progress.at(mechanism, "is it there?");
    let found = match absence(mechanism) {
        Some(why) => Found::Absent(why),
        None => Found::Here(Box::new(findings(mechanism, processors, progress))),
    };
    progress.done();
    Visit { mechanism, found }
}

/// Why this machine lacks a mechanism, or lets us have none of it. Any other failure is one.
fn absence(mechanism: &'static Mechanism) -> Option<String> {
    let opened = ways::one_way(mechanism).and_then(|(_, from)| from.open().map(drop));
    house::sweep();
    let error = opened.err()?;
    match error.kind() {
        Kind::NotSupported | Kind::Limit { .. } | Kind::Permission => Some(error.to_string()),
        _ => None,
    }
}

fn findings(mechanism: &'static Mechanism, processors: &[usize], progress: &Progress) -> Findings {
    let proofs = SUBJECTS.iter().map(|subject| {
        progress.at(mechanism, subject.title);
        swept((subject.prove)(mechanism))
    });
    let proofs = proofs.collect();
    let first = processors.first().copied().unwrap_or(0);
    progress.at(mechanism, "round trips on one core");
    let one_core = swept(measure::round_trip(mechanism, [first; 2]));
    progress.at(mechanism, "round trips on two cores");
    let two_cores =
        processors.get(1).map(|&second| swept(measure::round_trip(mechanism, [first, second])));
    progress.at(mechanism, "one way");
    let one_way = swept(measure::one_way(mechanism));
    Findings { proofs, one_core, two_cores, one_way }
}

/// After each step nothing stays of it.
fn swept<T>(result: Result<T, Fault>) -> Result<T, Fault> {
    house::sweep();
    result
}

impl Visit {
    /// What failed: the name of the step, and why.
    fn failures(&self) -> Vec<(&'static str, &Fault)> {
        let Found::Here(findings) = &self.found else { return Vec::new() };
        let proofs = SUBJECTS.iter().zip(&findings.proofs);
        let proofs = proofs.map(|(subject, result)| (subject.title, result.as_ref().err()));
        let two_cores = findings.two_cores.as_ref().and_then(|result| result.as_ref().err());
        let costs = [
            ("round trip on one core", findings.one_core.as_ref().err()),
            ("round trip on two cores", two_cores),
            ("one way", findings.one_way.as_ref().err()),
        ];
        proofs.chain(costs).filter_map(|(step, fault)| Some((step, fault?))).collect()
    }
}

/// Fails where anything did.
fn judge(visits: &[Visit]) -> Result<(), Stop> {
    let failures: Vec<_> = visits
        .iter()
        .flat_map(|visit| {
            let scheme = visit.mechanism.scheme;
            visit.failures().into_iter().map(move |(step, fault)| (scheme, step, fault))
        })
        .collect();
    let Some((scheme, step, Fault(why))) = failures.first() else { return Ok(()) };
    let what = match failures.len() {
        1 => format!("tour: {scheme}: {step} failed: {why}"),
        count => format!("tour: {count} steps failed, first {scheme}: {step}: {why}"),
    };
    let hint = format!("look closer: poste tour --only {scheme}, or strace -f poste tour …");
    Err(Failure::new(Code::Failed, what, hint).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_fails_the_tour() {
        let trip = RoundTrip {
            count: 1,
            median: std::time::Duration::ZERO,
            processor: std::time::Duration::ZERO,
        };
        let fault = || Fault::new("it is torn");
        let findings = |proof, one_way| {
            let findings =
                Findings { proofs: vec![proof], one_core: Ok(trip), two_cores: None, one_way };
            [Visit { mechanism: ALL[0], found: Found::Here(Box::new(findings)) }]
        };
        let can = || Ok(Proof::Can(String::new(), serde_json::json!(1)));
        let flow =
            Flow { received: 1, lost: 0, per_second: 1.0, processor: std::time::Duration::ZERO };
        assert!(judge(&findings(can(), Ok(flow))).is_ok());
        assert!(judge(&findings(Err(fault()), Ok(flow))).is_err());
        assert!(judge(&findings(can(), Err(fault()))).is_err());
        let text = table::text(&findings(Err(fault()), Ok(flow)), &[0]);
        assert!(text.contains("FAILED") && text.contains("it is torn"));
        let json = table::json(&findings(Err(fault()), Ok(flow)));
        assert!(json.contains("it is torn"));
    }

    #[test]
    fn schemes_are_known_or_refused() {
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len());
        assert_eq!(chosen(&["mq".to_owned(), "unix:".to_owned()]).unwrap().len(), 2);
        assert!(chosen(&["pigeon".to_owned()]).is_err());
    }
}
