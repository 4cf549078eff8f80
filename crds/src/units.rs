//! The two notations of the API: percentages (`1%`, `0.5%`) and durations (`30s`, `2m`, `1h30m`).

use std::time::Duration;

/// Why a percentage or a duration could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number with a percent sign.
    #[error("`{0}` is not a percentage: write it like `1%` or `0.5%`")]
    Percent(String),
    /// Not a sequence of numbers with h, m, s or ms.
    #[error("`{0}` is not a duration: write it like `30s`, `2m` or `1h30m`")]
    Duration(String),
}

/// The schema pattern of a percentage between 0% and 100%.
pub const PERCENT_PATTERN: &str = r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,4})?)%$";

/// The schema pattern of a duration, after GEP-2257: up to four numbers with a unit each.
pub const DURATION_PATTERN: &str = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Reads `1%` as 0.01.
///
/// # Errors
/// [`UnitError::Percent`] when the text is not a percentage between 0% and 100%.
pub fn percent(text: &str) -> Result<f64, UnitError> {
    let bad = || UnitError::Percent(text.to_owned());
    let number = text.strip_suffix('%').ok_or_else(bad)?;
    let value: f64 = number.parse().map_err(|_| bad())?;
    if !(0.0..=100.0).contains(&value) {
        return Err(bad());
    }
    Ok(value / 100.0)
}

/// Reads `1h30m` as 5,400 seconds.
///
/// # Errors
/// [`UnitError::Duration`] when the text is not a GEP-2257 duration.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let bad = || UnitError::Duration(text.to_owned());
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let part = match &rest[..unit_end] {
            "h" => number.checked_mul(3600).map(Duration::from_secs),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            "s" => Some(Duration::from_secs(number)),
            "ms" => Some(Duration::from_millis(number)),
            _ => None,
        };
        total = part.and_then(|p| total.checked_add(p)).ok_or_else(bad)?;
        rest = &rest[unit_end..];
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_read_as_fractions() {
        assert_eq!(percent("1%"), Ok(0.01));
        assert_eq!(percent("0.5%"), Ok(0.005));
        assert!(percent("1").is_err());
        assert!(percent("101%").is_err());
        assert!(percent("-1%").is_err());
        assert!(percent("NaN%").is_err());
    }

    #[test]
    fn durations_are_sums_of_units() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "5", "s", "5d", "1h-1m", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
