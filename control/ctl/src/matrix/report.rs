//! Groups of endpoints, and the outcome of each pair.

use hashbrown::HashMap;
use serde::Serialize;

use crate::court::verdict::{Fate, Side};
use crate::reach::class::Member;
use crate::reach::group::{Group, groups};
use crate::reach::outcome::{Glance, Part};
use crate::reach::probe::{self, Probe};
use crate::reach::survey::Survey;

/// The matrix.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The port that was asked about; none for all.
    pub(super) port: Option<String>,
    pub(super) groups: Vec<Group>,
    /// What may become of a pair.
    pub(super) outcomes: Vec<Cell>,
    /// For each group that sends, the place in `outcomes` for each group that receives.
    pub(super) matrix: Vec<Vec<usize>>,
}

/// What becomes of a pair.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cell {
    pub(super) verdict: Glance,
    pub(super) parts: Vec<CellPart>,
}

/// A part of a pair's traffic.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CellPart {
    /// Which, in words.
    pub(super) what: String,
    pub(super) verdict: Fate,
    pub(super) egress: Side,
    pub(super) ingress: Side,
}

// === impl Report ===

impl Report {
    /// Puts a survey together.
    pub(super) fn new(survey: &Survey<'_>, members: &[Member], port: Option<Probe>) -> Self {
        let groups = groups(survey, members, |outcome| outcome);
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut outcomes = Vec::new();
        let row = |from: &Group, places: &mut HashMap<usize, usize>, all: &mut Vec<Cell>| {
            let cells = survey.cells.get(from.class);
            let cell = |to: &Group| -> usize {
                let outcome = cells.and_then(|row| row.get(to.class)).copied().unwrap_or(0);
                *places.entry(outcome).or_insert_with(|| {
                    all.extend(survey.outcomes.get(outcome).map(|outcome| Cell {
                        verdict: outcome.glance(0),
                        parts: outcome.parts.iter().filter_map(CellPart::new).collect(),
                    }));
                    all.len() - 1
                })
            };
            groups.iter().map(cell).collect::<Vec<_>>()
        };
        let matrix = groups.iter().map(|from| row(from, &mut places, &mut outcomes)).collect();
        Self { port: port.map(|port| probe::word(&port)), groups, outcomes, matrix }
    }
}

impl CellPart {
    fn new(part: &Part) -> Option<Self> {
        let said = part.said.first()?;
        Some(Self {
            what: part.what.clone(),
            verdict: said.verdict,
            egress: said.egress.clone(),
            ingress: said.ingress.clone(),
        })
    }
}
