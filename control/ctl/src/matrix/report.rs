//! Groups of endpoints, and the outcome of each pair.

use hashbrown::HashMap;
use serde::Serialize;

use crate::court::verdict::{Fate, Side};
use crate::reach::group::{Group, groups};
use crate::reach::outcome::{Glance, Part};
use crate::reach::probe;
use crate::reach::survey::{Scope, Survey};

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
    /// Services that were asked about, as `NAMESPACE/NAME`.
    pub(super) services: Vec<String>,
    /// For each group that sends, the place in `outcomes` for each service.
    pub(super) service_matrix: Vec<Vec<usize>>,
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
    pub(super) fn new(survey: &Survey<'_>, scope: &Scope<'_>) -> Self {
        let groups = groups(survey, scope.members, |outcome| outcome);
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut outcomes = Vec::new();
        let mut cell = |outcome: Option<usize>| -> usize {
            let outcome = outcome.unwrap_or(0);
            *places.entry(outcome).or_insert_with(|| {
                outcomes.extend(survey.outcomes.get(outcome).map(|outcome| Cell {
                    verdict: outcome.glance(0),
                    parts: outcome.parts.iter().filter_map(CellPart::new).collect(),
                }));
                outcomes.len() - 1
            })
        };
        let (mut matrix, mut service_matrix) = (Vec::new(), Vec::new());
        for from in &groups {
            let to = |to: &Group| survey.cells.get(from.class)?.get(to.class).copied();
            matrix.push(groups.iter().map(|group| cell(to(group))).collect());
            let services = 0..scope.services.len();
            service_matrix.push(services.map(|s| cell(survey.cell(from.class, s))).collect());
        }
        let services = scope.services.iter().map(|service| service.name.clone()).collect();
        let port = scope.port.map(|port| probe::word(&port));
        Self { port, groups, outcomes, matrix, services, service_matrix }
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
