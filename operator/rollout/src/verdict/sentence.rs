//! Verdicts in words, with their numbers.

use super::tally::Tally;
use super::witnesses::Alone;
use crate::observation::{Counts, Witness};
use crate::policy::Rules;

pub(super) fn worse(tally: &Tally, rules: &Rules) -> String {
    format!(
        "the candidate failed {}, stable {} in the same seconds: its odds of failing are more than {} times stable's{}",
        share(tally.candidate),
        share(tally.stable),
        rules.max_relative_risk,
        error_chance(rules),
    )
}

pub(super) fn more_errors(tally: &Tally, rules: &Rules) -> String {
    format!(
        "the candidate failed or answered 4xx on {}, stable on {} in the same seconds: its odds of that are more than {} times stable's{}",
        share(tally.candidate_errors()),
        share(tally.stable_errors()),
        rules.max_relative_risk,
        error_chance(rules),
    )
}

pub(super) fn broken_promise(tally: &Tally, rules: &Rules) -> String {
    format!(
        "the candidate failed {}: more than maxErrorRate {}, which stable keeps with {}{}",
        share(tally.candidate),
        percent(rules.max_error_rate),
        share(tally.stable),
        error_chance(rules),
    )
}

pub(super) fn breach(tally: &Tally, rules: &Rules) -> String {
    format!(
        "the candidate failed {}: more than maxErrorRate {}, and stable has too few requests to compare: {}",
        share(tally.candidate),
        percent(rules.max_error_rate),
        share(tally.stable),
    )
}

pub(super) fn outage(stable: Counts, candidate: Counts, rules: &Rules) -> String {
    format!(
        "both arms break maxErrorRate {} in the same seconds: stable failed {}, the candidate {}; waiting until stable keeps it again",
        percent(rules.max_error_rate),
        share(stable),
        share(candidate),
    )
}

pub(super) fn alone(alone: &Alone) -> String {
    let Alone {
        who,
        accuser,
        others,
    } = alone;
    match who {
        Witness::Proxy(_) => format!(
            "{who} alone says that the candidate fails, {}; all others together saw {} in the same seconds",
            share(*accuser),
            share(*others),
        ),
        Witness::Pod(_) => format!(
            "{who} of the candidate fails alone, {}; its other pods together {} in the same seconds",
            share(*accuser),
            share(*others),
        ),
    }
}

fn error_chance(rules: &Rules) -> String {
    format!(", error chance below {}", percent(rules.alpha))
}

fn share(counts: Counts) -> String {
    let Counts { requests, failures } = counts;
    let noun = if requests == 1 { "request" } else { "requests" };
    format!(
        "{failures} of {requests} {noun} ({:.1} %)",
        100.0 * counts.rate()
    )
}

/// A rate of the rules, at most four digits behind the point.
fn percent(rate: f64) -> String {
    format!("{} %", (rate * 1e6).round() / 1e4)
}
