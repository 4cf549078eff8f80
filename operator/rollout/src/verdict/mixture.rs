//! The capital of an e-process, spread over alternatives and over times of change.

/// An e-process: E = reserve + the mean, over the alternatives, of what was wagered on each.
///
/// Two thirds of the capital are wagered at the start; the rest is released little by little,
/// 1/(3 j (j + 1)) before the j-th observation (these sum to one third). So a candidate that was
/// good for long and then turns bad is met by fresh capital, and what was lost while it was good
/// costs ln j, not j. The price at the start is ln 1.5, a seventeenth of what 1/alpha = 1000 asks.
/// The sum is an e-process, because the schedule is fixed beforehand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mixture {
    logs: Vec<f64>,
    observed: u64,
}

/// Share of the capital that is wagered before anything was observed.
const AT_START: f64 = 2.0 / 3.0;
/// Keeps logs finite: JSON knows no infinity.
const FLOOR: f64 = -1e6;

impl Mixture {
    pub fn new(alternatives: usize) -> Self {
        Self {
            logs: vec![AT_START.ln(); alternatives],
            observed: 0,
        }
    }

    /// Goes on from what was kept; anew if it does not fit (the rules' grid has changed).
    pub fn resume(alternatives: usize, logs: &[f64], observed: u64) -> Self {
        if logs.len() != alternatives || logs.iter().any(|log| !log.is_finite()) {
            return Self::new(alternatives);
        }
        Self {
            logs: logs.to_vec(),
            observed,
        }
    }

    /// One observation: `log_factor(i)` is the log of alternative i's likelihood over the null's.
    pub fn observe(&mut self, mut log_factor: impl FnMut(usize) -> f64) {
        self.observed += 1;
        let j = self.observed as f64;
        let released = (1.0 - AT_START).ln() - (j * (j + 1.0)).ln();
        for (i, log) in self.logs.iter_mut().enumerate() {
            *log = (log_add(*log, released) + log_factor(i)).max(FLOOR);
        }
    }

    /// Log of E.
    pub fn log_value(&self) -> f64 {
        let reserve = (1.0 - AT_START).ln() - (self.observed as f64 + 1.0).ln();
        if self.logs.is_empty() {
            return 0.0;
        }
        let sum = self.logs.iter().copied().fold(f64::NEG_INFINITY, log_add);
        log_add(reserve, sum - (self.logs.len() as f64).ln())
    }

    /// What [`Mixture::resume`] takes, rounded to 1e-4.
    pub fn kept(&self) -> (Vec<f64>, u64) {
        let logs = self.logs.iter().map(|log| (log * 1e4).round() / 1e4);
        (logs.collect(), self.observed)
    }
}

/// ln(e^a + e^b).
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        return high;
    }
    high + (low - high).exp().ln_1p()
}

/// `points` numbers from `low` to `high` at equal ratios.
pub(super) fn log_spaced(low: f64, high: f64, points: usize) -> impl Iterator<Item = f64> {
    let step = (high / low).ln() / (points.max(2) - 1) as f64;
    (0..points).map(move |i| low * (step * i as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capital_is_one_at_the_start_and_stays_one_without_news() {
        let mut mixture = Mixture::new(24);
        assert!(mixture.log_value().abs() < 1e-12);
        for _ in 0..1_000 {
            mixture.observe(|_| 0.0);
        }
        assert!(mixture.log_value().abs() < 1e-9);
    }

    #[test]
    fn a_long_good_past_costs_little_when_the_candidate_turns_bad() {
        let mut mixture = Mixture::new(1);
        for _ in 0..1_000 {
            mixture.observe(|_| -1.0);
        }
        let turns = (1..)
            .find(|_| {
                mixture.observe(|_| 1.0);
                mixture.log_value() > 1_000f64.ln()
            })
            .unwrap_or(0);
        assert!(turns < 25, "{turns}");
    }

    #[test]
    fn what_is_kept_goes_on_as_before() {
        let mut mixture = Mixture::new(3);
        mixture.observe(|i| i as f64);
        let (logs, observed) = mixture.kept();
        let resumed = Mixture::resume(3, &logs, observed);
        assert!((resumed.log_value() - mixture.log_value()).abs() < 1e-3);
        assert_eq!(Mixture::resume(4, &logs, observed), Mixture::new(4));
        assert_eq!(Mixture::resume(1, &[f64::NAN], 9), Mixture::new(1));
    }
}
