//! Routes.

use margay_model::{Route, RouteTarget};

use super::node::encap;
use crate::bytes::needed;
use crate::error::{At, FieldError};
use crate::proto;

impl From<&Route> for proto::Route {
    fn from(route: &Route) -> Self {
        let target = match &route.target {
            RouteTarget::Node { node, encap } => proto::route::Target::Node(proto::NodeTarget {
                node: node.to_string(),
                encap: proto::Encap::from(*encap).into(),
            }),
            RouteTarget::LocalBlock => proto::route::Target::LocalBlock(proto::LocalBlockTarget {}),
        };
        Self { dst: Some((&route.dst).into()), target: Some(target) }
    }
}

impl TryFrom<proto::Route> for Route {
    type Error = FieldError;

    fn try_from(route: proto::Route) -> Result<Self, FieldError> {
        let target = match needed(route.target, "target")? {
            proto::route::Target::Node(target) => RouteTarget::Node {
                node: target.node.into(),
                encap: encap(target.encap).at("encap").at("node")?,
            },
            proto::route::Target::LocalBlock(_) => RouteTarget::LocalBlock,
        };
        Ok(Self { dst: needed(route.dst, "dst")?.try_into().at("dst")?, target })
    }
}
