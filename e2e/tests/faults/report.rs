//! What came of the crash plans, as a table in `docs/faults.md`.

use std::{collections::BTreeMap, fmt::Write, path::Path, time::Duration};

use sluice_e2e::faults::{
    plan::{Cut, Plan},
    story::Story,
};

use crate::plans::Results;

/// Between these lines the document is written anew.
const BEGIN: &str = "<!-- crash plans: written by `cargo xtask prove faults` -->";
const END: &str = "<!-- end of the crash plans -->";

/// Writes the results into the document.
pub fn write(document: &Path, results: &Results) {
    let text = std::fs::read_to_string(document).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the document has a place for the results");
    let (_, after) = rest
        .split_once(END)
        .expect("the place for the results has an end");
    let table = table(results);
    std::fs::write(
        document,
        format!("{before}{BEGIN}\n\n{table}\n{END}{after}"),
    )
    .unwrap();
}

fn table(results: &Results) -> String {
    let mut text = String::from(
        "| release | writes | plans | passed | seconds a plan (median, most) |\n|---|---|---|---|---|\n",
    );
    for story in Story::ALL {
        let of_story: Vec<_> = results
            .iter()
            .filter(|(plan, ..)| plan.story == story)
            .collect();
        let mut times: Vec<f32> = of_story
            .iter()
            .map(|(_, _, took)| took.as_secs_f32())
            .collect();
        times.sort_by(f32::total_cmp);
        let passed = of_story
            .iter()
            .filter(|(_, wrongs, _)| wrongs.is_empty())
            .count();
        let most = times.last().copied().unwrap_or_default();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let (writes, plans) = (of_story.len() / Cut::ALL.len(), of_story.len());
        let _ = writeln!(
            text,
            "| {story:?} | {writes} | {plans} | {passed} | {median:.1}, {most:.1} |"
        );
    }
    let _ = writeln!(
        text,
        "\nThe writes of each, in the order of their kinds; cut {}:\n",
        cuts()
    );
    for (story, deeds) in deeds(results) {
        let _ = writeln!(text, "**{story:?}**");
        for deed in deeds {
            let _ = writeln!(text, "- {deed}");
        }
        text.push('\n');
    }
    text
}

fn cuts() -> String {
    Cut::ALL.map(|cut| format!("`{cut:?}`")).join(", ")
}

/// The writes by story, those that failed with what was wrong.
fn deeds(results: &Results) -> BTreeMap<Story, Vec<String>> {
    let mut by_point = BTreeMap::<(Story, String), Vec<&(Plan, Vec<String>, Duration)>>::new();
    for result in results {
        let Plan { story, point, .. } = &result.0;
        let name = format!(
            "{}{}",
            point.deed,
            if point.nth > 0 { ", once more" } else { "" }
        );
        by_point.entry((*story, name)).or_default().push(result);
    }
    let mut deeds = BTreeMap::<Story, Vec<String>>::new();
    for ((story, name), results) in by_point {
        let mut line = name;
        for (plan, wrongs, _) in results.iter().filter(|(_, wrongs, _)| !wrongs.is_empty()) {
            let _ = write!(line, "; {:?} FAILED: {}", plan.cut, wrongs.join("; "));
        }
        deeds.entry(story).or_default().push(line);
    }
    deeds
}
