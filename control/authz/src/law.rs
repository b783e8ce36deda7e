//! The policies of a node at one moment.

use std::net::IpAddr;

use hashbrown::HashMap;
use margay_compile::{Identity, Requests};
use margay_model::{EndpointKey, PolicyKey};
use margay_tables::classifier::Verdict;
use margay_tables::{Classifier, Direction, EndpointPolicy};

use crate::http;
use crate::question::{Principal, Question};
use crate::ruling::{Decided, Ruling};

/// Everything that a question is answered by. It does not change.
#[derive(Debug)]
pub struct Law {
    pub(crate) classifier: Classifier,
    /// The node's workloads by address.
    pub(crate) residents: HashMap<IpAddr, Resident>,
    pub(crate) requests: Requests,
}

/// A workload.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) key: EndpointKey,
    /// Of several with one address the highest has it.
    pub(crate) priority: u32,
    pub(crate) policy: EndpointPolicy,
}

// === impl Law ===

impl Law {
    /// Answers a question: by the ingress policy of the workload that has the destination's
    /// address. An address that is no workload's is denied; it has no policy that could allow.
    pub fn rule(&self, question: &Question) -> Ruling {
        let Some(resident) = self.residents.get(&question.destination) else {
            return Ruling::Unknown(question.destination);
        };
        let source = self.identity(&question.source_principal);
        let destination = self.identity(&question.destination_principal);
        let holds = |policy: &PolicyKey, rule| {
            let Some(asked) = self.requests.of_rule(policy, true, rule) else { return true };
            let of_http = match (&asked.http, &question.http) {
                (None, _) => true,
                // What is not shown does not match.
                (Some(_), None) => false,
                (Some(rule), Some(request)) => http::matches(rule, request),
            };
            of_http && asked.admits(&source, &destination)
        };
        let direction = Direction::Ingress;
        let policy = &resident.policy;
        let decision = self.classifier.decide_where(policy, direction, &question.facts, holds);
        let number = |policy: &PolicyKey, rule| self.requests.rule_number(policy, true, rule);
        Ruling::Decided(Decided {
            allowed: decision.verdict == Verdict::Allow,
            cause: decision.cause,
            workload: resident.key.clone(),
            tier: decision.tier.cloned(),
            rule: decision.policy.zip(decision.rule).map(|(policy, rule)| number(policy, rule)),
            policy: decision.policy.cloned(),
        })
    }

    fn identity(&self, principal: &Principal) -> Identity {
        match principal {
            Principal::None => Identity::Unproven,
            Principal::Other => Identity::Other,
            Principal::Account { namespace, name, labels } => {
                let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                Identity::Account(self.requests.account(namespace, name, labels))
            }
        }
    }
}
