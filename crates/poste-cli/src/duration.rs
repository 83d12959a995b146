//! Durations as they are typed: a number with its unit, as in `250ms`, `1.5s`, `2m` or `1m30s`.
//!
//! Decimals and any case; a bare number is refused, since nobody could say what it counts.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
/// In words, for the one who typed it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("a time is a number and a unit, as in 250ms, 5s or 2m".to_owned());
    }
    while !rest.is_empty() {
        let (part, after) = part(rest)?;
        total = total.checked_add(part).ok_or("that is longer than a clock can count")?;
        rest = after;
    }
    Ok(total)
}

/// One number and its unit, and what follows them.
fn part(text: &str) -> Result<(Duration, &str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    let is_number = number.starts_with(|c: char| c.is_ascii_digit()) && !number.ends_with('.');
    let Some(value) = number.parse::<f64>().ok().filter(|_| is_number) else {
        return Err(format!("{text:?} does not begin with a number, as in 250ms, 5s or 2m"));
    };
    let seconds = match unit.to_lowercase().as_str() {
        "" => return Err(format!("the unit is missing: {number}s or {number}ms?")),
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("{unit:?} is no unit of time: ns, us, ms, s, m, h or d")),
    };
    let time = Duration::try_from_secs_f64(value * seconds)
        .map_err(|_| "that is longer than a clock can count".to_owned())?;
    Ok((time, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        for (text, millis) in
            [("250ms", 250), ("1.5s", 1500), ("2M", 120_000), ("0s", 0), ("1m30s", 90_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "5", "0", "s", "-1s", "1.s", ".5s", "1..5s", "5 parsecs", "1e3s", "5x"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("{}d", "9".repeat(40))).is_err());
    }
}
