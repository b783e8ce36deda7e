//! Which pools serve a request.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use margay_resources::Selector;
use margay_resources::v3::{AllowedUse, AssignmentMode, IpPoolSpec};

use crate::error::Error;

/// Family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A pool that is fit for use.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Name of the object.
    pub name: String,
    /// Its addresses.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_length: u8,
    /// The rest.
    pub spec: IpPoolSpec,
}

/// Who asks for addresses, and for what.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// The family.
    pub family: Family,
    /// Names or networks of pools; empty for any that fits.
    pub pools: &'a [String],
    /// What the addresses are for.
    pub wanted: AllowedUse,
    /// The node's labels; nothing for what is on no node.
    pub node: Option<&'a Labels>,
    /// The namespace's labels; nothing for what is in none.
    pub namespace: Option<&'a Labels>,
}

/// Labels of a node or a namespace.
pub type Labels = BTreeMap<String, String>;

// === impl Family ===

impl Family {
    /// Prefix length of one address.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Prefix length of blocks where the pool does not say.
    const fn default_block_length(self) -> u8 {
        match self {
            Self::V4 => 26,
            Self::V6 => 122,
        }
    }

    /// Shortest prefix of a block: longer lists of addresses would make one record too large.
    const fn largest_block(self) -> u8 {
        match self {
            Self::V4 => 20,
            Self::V6 => 116,
        }
    }

    /// The family of a network.
    pub fn of(net: IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

// === impl Pool ===

impl Pool {
    /// Takes a pool as it stands in the datastore; nothing if it has no addresses or blocks that
    /// cannot be.
    pub fn new(name: &str, spec: IpPoolSpec) -> Option<Self> {
        let cidr = spec.cidr.as_ref()?.net().trunc();
        let family = Family::of(cidr);
        let length = spec.block_size.unwrap_or(family.default_block_length().into());
        let block_length = u8::try_from(length).ok()?;
        let range = family.largest_block()..=family.bits();
        let fits = range.contains(&block_length) && block_length >= cidr.prefix_len();
        fits.then(|| Self { name: name.to_owned(), cidr, block_length, spec })
    }

    /// Whether the addresses may be used so.
    pub fn allows(&self, wanted: AllowedUse) -> bool {
        // What is missing is the default: all but load balancers.
        let default = self.spec.allowed_uses.is_empty() && wanted != AllowedUse::LoadBalancer;
        default || self.spec.allowed_uses.contains(&wanted)
    }

    /// Whether anybody may get addresses of the family from it for that use.
    pub fn serves(&self, family: Family, wanted: AllowedUse) -> bool {
        !self.spec.disabled && Family::of(self.cidr) == family && self.allows(wanted)
    }

    fn is_automatic(&self) -> bool {
        self.spec.assignment_mode.unwrap_or_default() == AssignmentMode::Automatic
    }

    /// Whether both selectors select.
    fn selects(&self, node: Option<&Labels>, namespace: Option<&Labels>) -> bool {
        let by_node = node.is_none_or(|labels| matches(&self.spec.node_selector, labels));
        let nothing = Labels::new();
        let has_selector = !self.spec.namespace_selector.is_empty();
        let labels = namespace.unwrap_or(&nothing);
        by_node && (!has_selector || matches(&self.spec.namespace_selector, labels))
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || name.parse::<IpNet>().is_ok_and(|net| net.trunc() == self.cidr)
    }
}

/// A selector that cannot be read selects nothing; validation has told its author.
fn matches(selector: &str, labels: &Labels) -> bool {
    selector.parse::<Selector>().is_ok_and(|selector| selector.matches(labels))
}

/// The pools that serve a demand, in the order of their names. Those that are asked for by name
/// need not select the node or the namespace.
///
/// # Errors
/// A pool asked for that is not usable.
pub fn select(pools: &[Pool], demand: &Demand<'_>) -> Result<Vec<Pool>, Error> {
    let usable = |pool: &&Pool| !pool.spec.disabled && Family::of(pool.cidr) == demand.family;
    let mut found: Vec<Pool> = if demand.pools.is_empty() {
        let fits =
            |pool: &&Pool| pool.is_automatic() && pool.selects(demand.node, demand.namespace);
        pools.iter().filter(usable).filter(fits).cloned().collect()
    } else {
        let by_name = |name: &String| {
            let mut usable = pools.iter().filter(usable);
            let pool = usable.find(|pool| pool.is_called(name));
            pool.cloned().ok_or_else(|| Error::PoolUnusable(name.clone()))
        };
        demand.pools.iter().map(by_name).collect::<Result<_, _>>()?
    };
    found.retain(|pool| pool.allows(demand.wanted));
    if demand.pools.is_empty() {
        found.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(name: &str, spec: Value) -> Pool {
        Pool::new(name, serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn names(pools: &[Pool], demand: &Demand<'_>) -> Vec<String> {
        select(pools, demand).unwrap().into_iter().map(|p| p.name).collect()
    }

    fn demand(pools: &[String]) -> Demand<'_> {
        let wanted = AllowedUse::Workload;
        Demand { family: Family::V4, pools, wanted, node: None, namespace: None }
    }

    #[test]
    fn pools_are_taken_by_name_order_and_fitness() {
        let pools = [
            pool("d-disabled", json!({"cidr": "10.1.0.0/16", "disabled": true})),
            pool("c", json!({"cidr": "10.2.0.0/16"})),
            pool("b-six", json!({"cidr": "fd00::/64"})),
            pool("a", json!({"cidr": "10.3.0.0/16"})),
            pool("m", json!({"cidr": "10.4.0.0/16", "assignmentMode": "Manual"})),
            pool("t", json!({"cidr": "10.5.0.0/16", "allowedUses": ["Tunnel"]})),
        ];
        assert_eq!(names(&pools, &demand(&[])), ["a", "c"]);
        assert_eq!(
            names(&pools, &Demand { wanted: AllowedUse::Tunnel, ..demand(&[]) }),
            ["a", "c", "t"]
        );
        assert_eq!(names(&pools, &Demand { family: Family::V6, ..demand(&[]) }), ["b-six"]);
        assert_eq!(names(&pools, &demand(&["m".into(), "10.3.0.0/16".into()])), ["m", "a"]);
        let error = select(&pools, &demand(&["d-disabled".into()])).unwrap_err();
        assert!(matches!(error, Error::PoolUnusable(name) if name == "d-disabled"));
    }

    #[test]
    fn both_selectors_must_select_unless_the_pool_is_asked_for() {
        let selectors = json!({
            "cidr": "10.1.0.0/16",
            "nodeSelector": "zone == 'a'",
            "namespaceSelector": "team == 'x'",
        });
        let pools = [pool("p", selectors)];
        let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        let (a, b, x) = (labels("zone", "a"), labels("zone", "b"), labels("team", "x"));
        let of = |node, namespace| Demand { node, namespace, ..demand(&[]) };
        assert_eq!(names(&pools, &of(Some(&a), Some(&x))), ["p"]);
        assert!(names(&pools, &of(Some(&b), Some(&x))).is_empty());
        assert!(names(&pools, &of(Some(&a), None)).is_empty());
        let by_name = ["p".to_owned()];
        assert_eq!(names(&pools, &Demand { node: Some(&b), ..demand(&by_name) }), ["p"]);
    }

    #[test]
    fn a_pool_whose_blocks_cannot_be_is_left_out() {
        for (cidr, size) in [("10.0.0.0/28", 26), ("10.0.0.0/8", 19), ("10.0.0.0/8", 33)] {
            let spec = serde_json::from_value(json!({"cidr": cidr, "blockSize": size})).unwrap();
            assert!(Pool::new("p", spec).is_none(), "{cidr} {size}");
        }
    }
}
