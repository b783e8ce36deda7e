//! What rules ask of a request beyond what its packets show: for whoever sits where a proxy asks.
//!
//! Packets are judged by addresses, protocols and ports alone, so the dataplane's rules leave out
//! what only a proxy sees: methods and paths of HTTP, and the service accounts that both ends have
//! proven to each other. A [`Requests`] has it for every rule of the state, by the rule's place.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use margay_model::PolicyKey;
use margay_resources::selector::{
    NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL, SERVICE_ACCOUNT_LABEL_PREFIX, Selector,
};

use crate::intent::RuleIntent;
use crate::label::Labels;
use crate::name::ObjectName;
use crate::profiles::{Profiles, of_account, of_namespace};

/// Conditions on HTTP requests; both must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMatch {
    /// One of these methods, `*` for any; empty for any.
    pub methods: Vec<Arc<str>>,
    /// One of these paths; empty for any.
    pub paths: Vec<PathMatch>,
}

/// A condition on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
}

/// What a rule asks of a request, besides what it asks of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMatch {
    /// The request is one of HTTP, and such a one.
    pub http: Option<HttpMatch>,
    /// Over the labels of an identity: its namespace's and its service account's.
    source: Option<Selector>,
    destination: Option<Selector>,
}

/// Who an end of a connection has proven to be.
#[derive(Clone, Debug, Default)]
pub enum Identity {
    /// It has proven nothing: its address alone tells.
    #[default]
    Unproven,
    /// A service account.
    Account(Account),
    /// Something that is no service account, and so in no namespace.
    Other,
}

/// A service account as selectors see it.
#[derive(Clone, Debug)]
pub struct Account(Labels);

/// Where a compiled rule comes from, and what it asks of requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleOrigin {
    /// Its place in the document, from 0.
    pub(crate) number: u32,
    pub(crate) request: Option<Arc<RequestMatch>>,
}

/// The origins of a policy's compiled rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PolicyOrigins {
    pub(crate) ingress: Vec<RuleOrigin>,
    pub(crate) egress: Vec<RuleOrigin>,
}

/// The origins of the rules of all policies of a state.
pub(crate) type Origins = HashMap<PolicyKey, Arc<PolicyOrigins>>;

/// What the rules of a state ask of requests. Cloning shares.
#[derive(Clone, Debug)]
pub struct Requests {
    origins: Arc<Origins>,
    profiles: Arc<Profiles>,
}

// === impl RequestMatch ===

impl RequestMatch {
    /// What the rule asks; `None` if nothing.
    pub(crate) fn of(rule: &RuleIntent) -> Option<Self> {
        let (source, destination) = (rule.src.identity.clone(), rule.dst.identity.clone());
        let asks = rule.http.is_some() || source.is_some() || destination.is_some();
        asks.then(|| Self { http: rule.http.clone(), source, destination })
    }

    /// Whether the identities of both ends are such as the rule asks for. Who has proven nothing
    /// is judged by address alone, as a packet is.
    pub fn admits(&self, source: &Identity, destination: &Identity) -> bool {
        let admits = |asked: &Option<Selector>, identity: &Identity| match (asked, identity) {
            (None, _) | (_, Identity::Unproven) => true,
            (Some(_), Identity::Other) => false,
            (Some(selector), Identity::Account(account)) => selector.matches(&account.0),
        };
        admits(&self.source, source) && admits(&self.destination, destination)
    }
}

// === impl PolicyOrigins ===

impl PolicyOrigins {
    fn rule(&self, ingress: bool, rule: u32) -> Option<&RuleOrigin> {
        let rules = if ingress { &self.ingress } else { &self.egress };
        rules.get(usize::try_from(rule).ok()?)
    }

    /// The place of a rule in its document, from 0.
    pub(crate) fn number(&self, ingress: bool, rule: u32) -> u32 {
        self.rule(ingress, rule).map_or(rule, |origin| origin.number)
    }
}

// === impl Requests ===

impl Requests {
    pub(crate) fn new(origins: Arc<Origins>, profiles: Arc<Profiles>) -> Self {
        Self { origins, profiles }
    }

    /// What a rule of the state asks of requests; `None` if nothing. `rule` is its place among the
    /// policy's compiled rules of the direction.
    pub fn of_rule(&self, policy: &str, ingress: bool, rule: u32) -> Option<&RequestMatch> {
        self.origins.get(policy)?.rule(ingress, rule)?.request.as_deref()
    }

    /// The place of such a rule in its document, from 0.
    pub fn rule_number(&self, policy: &str, ingress: bool, rule: u32) -> u32 {
        self.origins.get(policy).map_or(rule, |origins| origins.number(ingress, rule))
    }

    /// A service account, whether or not there is an object of it, with its namespace's labels and
    /// its own. `told` are labels that somebody else tells of it, which stand behind its own.
    pub fn account<'l>(
        &self,
        namespace: &str,
        name: &str,
        told: impl IntoIterator<Item = (&'l str, &'l str)>,
    ) -> Account {
        let fixed = [(NAMESPACE_LABEL, namespace), (SERVICE_ACCOUNT_LABEL, name)];
        let fixed = fixed.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v)));
        let account = of_account(&ObjectName::new(namespace, name));
        let known = [of_namespace(namespace), account];
        let known = known.iter().filter_map(|p| self.profiles.get(p)).flat_map(|p| p.labels);
        // Of two values for one label the first counts; in order, so that the same question gets
        // the same answer.
        let told: BTreeMap<_, _> = told.into_iter().collect();
        let told = told
            .into_iter()
            .map(|(k, v)| (format!("{SERVICE_ACCOUNT_LABEL_PREFIX}{k}").into(), v.into()));
        Account(fixed.chain(known).chain(told).collect())
    }

    /// Whether the two were taken of states that differ in nothing that requests are asked.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origins, &other.origins) && Arc::ptr_eq(&self.profiles, &other.profiles)
    }
}
