//! Crash plans: every write of every story, cut in three ways.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{
    history::{Deed, Reader},
    layer::Write,
    rule::{Action, Rule},
    story::Story,
};

/// How a write is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cut {
    /// The operator is killed, and the write never comes.
    KilledBefore,
    /// The write is carried out, and nobody says so.
    ReplyLost,
    /// The write is carried out, and the operator is killed.
    KilledAfter,
}

impl Cut {
    /// All three.
    pub const ALL: [Self; 3] = [Self::KilledBefore, Self::ReplyLost, Self::KilledAfter];

    fn action(self) -> Action {
        match self {
            Self::KilledBefore => Action::KillBefore,
            Self::ReplyLost => Action::CutReply,
            Self::KilledAfter => Action::KillAfter,
        }
    }
}

/// A write of a story.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// What it does.
    pub deed: Deed,
    /// How many writes do the same before it.
    pub nth: u32,
}

/// One write of one story, cut in one way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    /// Which story.
    pub story: Story,
    /// Which write.
    pub point: Point,
    /// How it is cut.
    pub cut: Cut,
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.story, self.point.deed)?;
        if self.point.nth > 0 {
            write!(f, " (number {})", self.point.nth + 1)?;
        }
        write!(f, ", {:?}", self.cut)
    }
}

/// The writes of a story, each told by what it does, so that they are found again.
#[must_use]
pub fn points(namespace: &str, writes: &[Write]) -> Vec<Point> {
    let mut points = Vec::<Point>::new();
    let mut last = BTreeMap::<String, Deed>::new();
    for deed in super::history::deeds(namespace, writes) {
        // Figures of a status, and tries after a conflict, do the same once more.
        let before = last.insert(deed.object.clone(), deed.clone());
        let again = before.as_ref() == Some(&deed) && deed.object != "pod";
        if again || deed.is_figures && points.iter().any(|point| point.deed == deed) {
            continue;
        }
        let nth = points.iter().filter(|point| point.deed == deed).count();
        points.push(Point {
            deed,
            nth: u32::try_from(nth).unwrap_or(u32::MAX),
        });
    }
    points
}

/// The rule that cuts the write.
#[must_use]
pub fn rule(plan: &Plan, namespace: &str) -> Rule {
    let reader = Mutex::new(Reader::new(namespace));
    let deed = plan.point.deed.clone();
    let is_it = move |asked: &super::rule::Asked| {
        reader.lock().read(&asked.call, &asked.body).as_ref() == Some(&deed)
    };
    Rule::once(plan.cut.action(), is_it).after(plan.point.nth)
}

/// A share of the plans, one of `out_of`, the same for the same seed.
#[must_use]
pub fn share(mut plans: Vec<Plan>, out_of: usize, seed: u64) -> Vec<Plan> {
    let wanted = plans.len().div_ceil(out_of.max(1));
    // SplitMix64: small, and the same on every machine.
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    for last in (1..plans.len()).rev() {
        let other = usize::try_from(random() % (last as u64 + 1)).unwrap_or(last);
        plans.swap(last, other);
    }
    plans.truncate(wanted);
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans() -> Vec<Plan> {
        let plan = |n: u32| Plan {
            story: Story::Promotion,
            point: Point {
                deed: Deed {
                    object: "o".to_owned(),
                    what: n.to_string(),
                    is_figures: false,
                },
                nth: 0,
            },
            cut: Cut::ReplyLost,
        };
        (0..25).map(plan).collect()
    }

    #[test]
    fn a_share_is_the_same_for_the_same_seed_and_another_for_another() {
        let tenth = share(plans(), 10, 7);
        assert_eq!(tenth.len(), 3);
        assert_eq!(tenth, share(plans(), 10, 7));
        assert_ne!(tenth, share(plans(), 10, 8));
        let mut all = share(plans(), 1, 7);
        all.sort();
        let mut every = plans();
        every.sort();
        assert_eq!(all, every);
    }
}
