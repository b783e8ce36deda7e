//! Policies, profiles and tiers.

use margay_model::{DefaultAction, Policy, TierPolicies};

use crate::bytes::{each, messages, names, strings};
use crate::error::{At, FieldError, Problem};
use crate::proto;

impl From<&Policy> for proto::Policy {
    fn from(policy: &Policy) -> Self {
        Self {
            key: policy.key.to_string(),
            ingress: messages(&policy.ingress),
            egress: messages(&policy.egress),
        }
    }
}

impl TryFrom<proto::Policy> for Policy {
    type Error = FieldError;

    fn try_from(policy: proto::Policy) -> Result<Self, FieldError> {
        Ok(Self {
            key: policy.key.into(),
            ingress: each(policy.ingress, "ingress")?,
            egress: each(policy.egress, "egress")?,
        })
    }
}

impl From<DefaultAction> for proto::DefaultAction {
    fn from(action: DefaultAction) -> Self {
        match action {
            DefaultAction::Deny => Self::Deny,
            DefaultAction::Pass => Self::Pass,
        }
    }
}

fn default_action(value: i32) -> Result<DefaultAction, Problem> {
    match proto::DefaultAction::try_from(value) {
        Ok(proto::DefaultAction::Deny) => Ok(DefaultAction::Deny),
        Ok(proto::DefaultAction::Pass) => Ok(DefaultAction::Pass),
        Ok(proto::DefaultAction::Unspecified) | Err(_) => Err(Problem::UnknownValue(value)),
    }
}

impl From<&TierPolicies> for proto::TierPolicies {
    fn from(tier: &TierPolicies) -> Self {
        Self {
            name: tier.name.to_string(),
            default_action: proto::DefaultAction::from(tier.default_action).into(),
            ingress: strings(&tier.ingress),
            egress: strings(&tier.egress),
        }
    }
}

impl TryFrom<proto::TierPolicies> for TierPolicies {
    type Error = FieldError;

    fn try_from(tier: proto::TierPolicies) -> Result<Self, FieldError> {
        Ok(Self {
            name: tier.name.into(),
            default_action: default_action(tier.default_action).at("default_action")?,
            ingress: names(tier.ingress),
            egress: names(tier.egress),
        })
    }
}
