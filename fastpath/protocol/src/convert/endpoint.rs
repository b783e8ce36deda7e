//! Workload endpoints.

use margay_model::{Endpoint, Limits, PolicyKey, TierPolicies};

use crate::bytes::{addresses, each, from_addresses, mac, messages, names, small, strings};
use crate::error::{At, FieldError};
use crate::proto;

impl From<&Endpoint> for proto::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            key: endpoint.key.to_string(),
            interface: endpoint.interface.to_string(),
            mac: endpoint.mac.0.to_vec(),
            addresses: from_addresses(&endpoint.addresses),
            allowed_sources: messages(&endpoint.allowed_sources),
            mtu: endpoint.mtu.into(),
            tiers: messages(endpoint.tiers.iter()),
            profiles: strings(endpoint.profiles.iter()),
            priority: endpoint.priority,
            limits: (!endpoint.limits.is_none()).then(|| (&endpoint.limits).into()),
            pending: (endpoint.pending.as_ref())
                .map(|tiers| proto::PendingTiers { tiers: messages(tiers.iter()) }),
        }
    }
}

impl TryFrom<proto::Endpoint> for Endpoint {
    type Error = FieldError;

    fn try_from(endpoint: proto::Endpoint) -> Result<Self, FieldError> {
        Ok(Self {
            key: endpoint.key.into(),
            interface: endpoint.interface.into(),
            mac: mac(&endpoint.mac).at("mac")?,
            addresses: addresses(endpoint.addresses, "addresses")?,
            allowed_sources: each(endpoint.allowed_sources, "allowed_sources")?,
            mtu: small(endpoint.mtu).at("mtu")?,
            tiers: each::<_, TierPolicies>(endpoint.tiers, "tiers")?.into(),
            profiles: names::<PolicyKey>(endpoint.profiles).into(),
            priority: endpoint.priority,
            limits: (endpoint.limits)
                .map(Limits::try_from)
                .transpose()
                .at("limits")?
                .unwrap_or_default(),
            pending: (endpoint.pending)
                .map(|pending| each::<_, TierPolicies>(pending.tiers, "tiers"))
                .transpose()
                .at("pending")?
                .map(Into::into),
        })
    }
}
