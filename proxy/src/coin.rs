//! The coin of the weighted arms, and the other harmless chances of the hot path. Not for
//! secrets.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher, RandomState},
};

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
/// One for each worker.
#[derive(Debug)]
pub struct Coin(Cell<u64>);

impl Coin {
    /// A coin whose throws follow from the seed.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// A coin seeded by the process's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// 64 independent bits.
    pub fn bits(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, each equally likely (to within 2^-32 for bounds below 2^32);
    /// 0 for a bound of 0.
    pub fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// A request id in the form of a version 4 UUID.
    pub fn request_id(&self) -> String {
        let (high, low) = (self.bits(), self.bits());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | (low >> 48) & 0x3fff,
            low & 0xffff_ffff_ffff,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_below_a_bound_is_uniform_within_four_sigma() {
        let coin = Coin::seeded(7);
        let (n, bound) = (100_000_u32, 10_u64);
        let mut seen = [0_u32; 10];
        for _ in 0..n {
            let below = usize::try_from(coin.below(bound)).unwrap_or(usize::MAX);
            seen[below] += 1;
        }
        let sigma = (f64::from(n) * 0.1 * 0.9).sqrt();
        for count in seen {
            assert!(
                (f64::from(count) - f64::from(n) * 0.1).abs() < 4.0 * sigma,
                "{seen:?}"
            );
        }
        assert_eq!(coin.below(0), 0);
    }

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        let id = Coin::seeded(1).request_id();
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }
}
