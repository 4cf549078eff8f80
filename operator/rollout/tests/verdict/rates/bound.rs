//! What so many cases among so many trials say of their chance.

/// The upper end of the exact one-sided interval (Clopper and Pearson, Biometrika 1934): with any
/// larger chance, so few cases would be rarer than 1 - `confidence`.
pub fn upper(cases: u64, trials: u64, confidence: f64) -> f64 {
    if cases >= trials {
        return 1.0;
    }
    let (mut low, mut high) = (cases as f64 / trials as f64, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_most(cases, trials, middle) > 1.0 - confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The chance of at most so many cases.
fn at_most(cases: u64, trials: u64, chance: f64) -> f64 {
    let odds = chance.ln() - (-chance).ln_1p();
    let mut ln_term = trials as f64 * (-chance).ln_1p();
    let mut sum = ln_term.exp();
    for k in 1..=cases {
        ln_term += ((trials - k + 1) as f64 / k as f64).ln() + odds;
        sum += ln_term.exp();
    }
    sum
}

#[test]
fn the_bounds_are_those_of_the_tables() {
    // No case: 1 - 0.01^(1/n). The others by exact arithmetic.
    let known = [(0, 100_000, 4.605e-5), (1, 20, 0.288_8), (10, 100, 0.191_3)];
    for (cases, trials, bound) in known {
        let found = upper(cases, trials, 0.99);
        assert!(
            (found / bound - 1.0).abs() < 1e-3,
            "{cases} of {trials}: {found}"
        );
    }
    assert!((upper(3, 3, 0.99) - 1.0).abs() < 1e-12);
}
