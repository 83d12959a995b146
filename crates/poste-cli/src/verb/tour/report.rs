//! What a peer tells the tour: lines on its standard error, which is nobody else's.

use std::fmt;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// It receives at this address.
    Ready(String),
    /// The channel took so many messages of it.
    Sent(u32),
    /// It has done its task; what the numbers are stands at the role.
    Done(Vec<u64>),
    /// It failed, for this reason.
    Failed(String),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Ready(address) => write!(f, "ready {address}"),
            Report::Sent(count) => write!(f, "sent {count}"),
            Report::Done(numbers) => {
                write!(f, "done")?;
                numbers.iter().try_for_each(|number| write!(f, " {number}"))
            }
            Report::Failed(why) => write!(f, "failed {}", why.replace('\n', " ")),
        }
    }
}

impl Report {
    /// Reads a line; what is no report (a panic, the dynamic loader) is a failure.
    pub(super) fn parse(line: &str) -> Report {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let report = match word {
            "ready" => Some(Report::Ready(rest.to_owned())),
            "sent" => rest.parse().ok().map(Report::Sent),
            "done" => {
                let numbers: Result<_, _> = rest.split_whitespace().map(str::parse).collect();
                numbers.ok().map(Report::Done)
            }
            "failed" => Some(Report::Failed(rest.to_owned())),
            _ => None,
        };
        report.unwrap_or_else(|| Report::Failed(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_back() {
        for report in [
            Report::Ready("unix:/a b".to_owned()),
            Report::Sent(3),
            Report::Done(vec![]),
            Report::Done(vec![1, u64::MAX]),
            Report::Failed("no".to_owned()),
        ] {
            assert_eq!(Report::parse(&report.to_string()), report);
        }
        let panic = "thread 'main' panicked";
        assert_eq!(Report::parse(panic), Report::Failed(panic.to_owned()));
        assert!(matches!(Report::parse("done x"), Report::Failed(_)));
    }
}
