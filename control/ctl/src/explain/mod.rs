//! `margayctl policy explain`: each step from a flow to its verdict.
//!
//! The verdict is that of [`crate::court`], which `policy simulate` asks too; the steps are walked
//! beside it over the same compiled policies.
//!
//! - [`place`]: who the two ends are; [`question`]: from the command line to one flow;
//! - [`service`]: where a service leads;
//! - [`words`]: rules in words; [`criterion`]: why a rule does not match; [`walk`]: the way through
//!   an endpoint's tiers;
//! - [`passage`]: host endpoints on the way, and what is assumed of them;
//! - [`staged`]: what staged policies would change;
//! - [`report`]: what is told; [`print`]: how it is told to people.

mod place;
mod question;

mod service;

mod words;
mod criterion;
mod walk;

mod passage;

mod staged;

mod report;
mod print;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;

use margay_compile::Compiler;
use margay_resources::Kind;

use crate::court::flow::Flow;
use crate::court::judge::{Part, Refusal, Why};
use crate::court::jury::{Question, Whom};
use crate::court::passage::Gate;
use crate::court::verdict::{Answer, Fate, PassageSide, Side};
use crate::court::{self, Court};
use crate::dataplane::names::Known;
use crate::objects::{self, ReadError};
use crate::options::{Form, NoDatastore, Options};
use crate::output;
use criterion::Reader;
use place::{Catalog, Place, What};
pub(crate) use question::{Args, QuestionError};
use report::{FlowReport, ListReport, PartyReport, PassageReport, Report, SideReport};
use staged::Preview;
use walk::{Walk, Walker};
use words::Meanings;

/// What only this command reads.
const STAGED: [Kind; 3] = [
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
];

/// Nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    /// An option is missing.
    #[error(transparent)]
    NoDatastore(#[from] NoDatastore),
    /// The datastore cannot be read.
    #[error(transparent)]
    Datastore(#[from] ReadError),
    /// The arguments.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// A form that an explanation does not have.
    #[error("an explanation has no names: use -o table, json or yaml")]
    Form,
    /// Standard output.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Explains one flow.
pub(crate) fn run(options: &Options, args: &Args) -> Result<(), ExplainError> {
    let form = options.form();
    if form == Form::Name {
        return Err(ExplainError::Form);
    }
    let resources = objects::read(options.datastore()?, &[court::KINDS, &STAGED].concat())?;
    let catalog = Catalog::new(&resources);
    let preview = Preview::new(&resources);
    let compiler = court::compile(resources);
    let known = Known::of(options);
    let (flow, src, dst) = args.flow(&catalog, &compiler)?;
    let report = Expert { compiler: &compiler, preview: &preview, known: &known, all: args.all }
        .report(&flow, &src, &dst);
    if !output::write_structured(form, &report)? {
        let mut out = BufWriter::new(io::stdout().lock());
        print::write(&mut out, &report)?;
        out.flush()?;
    }
    // The process ends here; to take a large world to pieces would take longer than to explain it.
    std::mem::forget((compiler, preview));
    Ok(())
}

/// Who explains.
struct Expert<'c> {
    compiler: &'c Compiler,
    preview: &'c Option<Preview>,
    known: &'c Known,
    all: bool,
}

// === impl Expert ===

impl<'c> Expert<'c> {
    fn report(&self, flow: &Flow, src: &Place, dst: &Place) -> Report {
        let mut court = Court::small(self.compiler).knowing(self.known);
        let case = court.hear(flow);
        let refused = case.refused;
        let led = case.backend.map_or(*flow, |backend| flow.to(backend));
        let staged =
            self.preview.as_ref().and_then(|preview| preview.report(flow, &case, self.known));
        let egress = self.side(&court, &case.egress);
        let ingress = self.side(&court, &case.ingress);
        let assumed = passage::assumed(&court, flow, &case);
        let gates: Vec<_> =
            case.gates.iter().map(|gate| self.passage(&court, flow, gate)).collect();
        let answer = court.decide(case);
        let said = answer.passages.iter().flatten().map(|passage| passage.side.clone());
        let passages = gates
            .into_iter()
            .zip(said)
            .map(|(passage, side)| PassageReport { side: passage.side.decided(side), ..passage });
        let passages = passages.collect();
        let nowhere = refused == Some(Refusal::Service);
        Report {
            flow: FlowReport::from(flow),
            verdict: answer.verdict,
            because: because(&answer, refused),
            source: self.party(&court, flow.src, src),
            destination: self.party(&court, led.dst, dst),
            service: service::report(&mut court, flow, nowhere),
            egress: egress.decided(answer.egress),
            ingress: ingress.decided(answer.ingress),
            backend: answer.backend,
            passages,
            assumed,
            staged,
        }
    }

    /// How a side comes to its verdict.
    fn side(&self, court: &Court<'c>, part: &Part<'c>) -> SideReport {
        match part {
            Part::Known(side, why) => SideReport::without_policies(side, not_asked(*why)),
            Part::Asks(questions) => self.walked(court, questions),
        }
    }

    /// The way through the policies that are asked, until one decides.
    fn walked(&self, court: &Court<'c>, questions: &[Question<'c>]) -> SideReport {
        let mut lists = Vec::new();
        for question in questions {
            let walk = self.walk(court, question);
            let Whom::Passage(_, passage) = question.whom else {
                return SideReport::walked(lists, Some(walk));
            };
            let is_decided = walk.conclusion.verdict != Fate::None;
            lists.push(ListReport { list: passage::name(passage), walk });
            if is_decided {
                break;
            }
        }
        SideReport::walked(lists, None)
    }

    fn walk(&self, court: &Court<'c>, question: &Question<'c>) -> Walk {
        let flow = Flow::of(&question.facts);
        let endpoint = |address| court.world.party(address).endpoint.map(|end| &*end.key);
        let reader = Reader {
            state: self.compiler.state(),
            meanings: Meanings(self.compiler),
            known: self.known,
            flow,
            endpoints: [endpoint(flow.src), endpoint(flow.dst)],
        };
        let key = match question.whom {
            Whom::End(endpoint) => endpoint.key.clone(),
            Whom::Passage(host, _) => format!("/{}/", host.key).into(),
        };
        let Question { whom, direction, .. } = *question;
        let all = self.all;
        Walker { compiler: self.compiler, reader, whom, key: &key, direction, all }.walk()
    }

    /// What a host endpoint says on the way.
    fn passage(&self, court: &Court<'c>, flow: &Flow, gate: &Gate<'c>) -> PassageReport {
        let [arriving, judged] = gate.flows;
        let other = [judged, arriving].into_iter().find(|other| other != flow);
        PassageReport {
            node: gate.node.clone(),
            host_endpoint: gate.host.key.clone(),
            direction: gate.word(),
            flow: other.as_ref().map(FlowReport::from),
            by: passage::by(court, gate),
            side: self.walked(court, &gate.questions),
        }
    }

    /// Who has an address, by the name that it was given if it is still the same.
    fn party(&self, court: &Court<'_>, address: IpAddr, named: &Place) -> PartyReport {
        let party = court.world.party(address);
        let same = named.addresses.contains(&address) && named.what != What::Address;
        let (what, name) = match (party.endpoint, party.host) {
            (Some(endpoint), _) if party.is_pod => {
                let mut parts = endpoint.key.split('/').map(str::to_owned);
                let name = [parts.next(), parts.next()].map(Option::unwrap_or_default);
                ("pod", Some(name.join("/")))
            }
            (_, Some(node)) => ("node", Some(node.to_string())),
            (Some(endpoint), None) => {
                ("host endpoint", Some(endpoint.key.trim_matches('/').to_owned()))
            }
            (None, None) if same => (named.what.word(), Some(named.name.clone())),
            (None, None) => ("outside", None),
        };
        let labels = party.endpoint.map(|endpoint| self.compiler.labels_of(&endpoint.key));
        let profiles = party.endpoint.map(|endpoint| endpoint.profiles.to_vec());
        PartyReport {
            what,
            name,
            address,
            host_endpoint: party
                .endpoint
                .filter(|_| !party.is_pod)
                .map(|endpoint| endpoint.key.trim_matches('/').to_owned()),
            node: party.node.cloned(),
            labels: labels.into_iter().flatten().collect::<BTreeMap<_, _>>(),
            profiles: profiles.unwrap_or_default(),
        }
    }
}

/// Why no policy was asked.
fn not_asked(why: Why) -> &'static str {
    match why {
        Why::NoEndpoint => "the address belongs to no pod and no host endpoint",
        Why::SamePod => "a pod may always talk to itself",
        Why::FromOwnHost => "a node may always talk to its own pods",
        Why::ToOwnHost => "what its own pods send to a node is decided by their egress policies",
        Why::Tunnel => {
            "it leaves by a tunnel, and no host endpoint of the node is for all interfaces"
        }
        Why::Failsafe => "a failsafe port, which keeps hosts reachable whatever policies say",
        Why::Nowhere => "the service leads nowhere",
    }
}

/// What decided, in a sentence.
fn because(answer: &Answer, refused: Option<Refusal>) -> String {
    let by = |side: &Side| match (&side.policy, side.rule, &side.tier) {
        (Some(policy), Some(rule), _) => format!("rule {rule} of {policy}"),
        (_, _, Some(tier)) => format!("the end of tier {tier}"),
        _ => "no profile, which would have to allow it".to_owned(),
    };
    let mut reasons = Vec::new();
    if refused == Some(Refusal::Service) {
        reasons.push("nothing answers at the service's address and port".to_owned());
    }
    if !answer.egress.passes() {
        reasons.push(format!("the source's egress is denied by {}", by(&answer.egress)));
    }
    if !answer.ingress.passes() {
        reasons.push(format!("the destination's ingress is denied by {}", by(&answer.ingress)));
    }
    for passage in answer.passages.iter().flatten().filter(|passage| !passage.side.passes()) {
        let PassageSide { node, host_endpoint, direction, side } = passage;
        reasons.push(format!(
            "the {direction} of node {node} is denied at host endpoint {host_endpoint} by {}",
            by(side)
        ));
    }
    if refused == Some(Refusal::Host) {
        reasons.push("defaultEndpointToHostAction of the pod's own node is Drop".to_owned());
    }
    if reasons.is_empty() {
        for (side, word) in [(&answer.egress, "egress"), (&answer.ingress, "ingress")] {
            if side.policy.is_some() {
                reasons.push(format!("{word} is allowed by {}", by(side)));
            }
        }
        for passage in answer.passages.iter().flatten().filter(|p| p.side.policy.is_some()) {
            let PassageSide { host_endpoint, side, .. } = passage;
            reasons.push(format!("host endpoint {host_endpoint} allows it by {}", by(side)));
        }
    }
    if reasons.is_empty() { "no policy is asked".to_owned() } else { reasons.join("; ") }
}

#[cfg(test)]
mod tests;
