//! The pods' interfaces among the links.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::view::{KernelView, Link};
use super::{KernelError, Result};

/// Names of the host ends of pods' veth pairs begin so, as Calico's do.
pub const PREFIX: &str = "cali";

/// The host ends of pods' veth pairs, by index.
pub fn pod_links(view: &KernelView) -> impl Iterator<Item = &Link> {
    view.links.values().filter(|link| link.veth && link.name.starts_with(PREFIX))
}

/// Waits until an interface of this name is there.
///
/// # Errors
/// It did not appear in time.
pub async fn appearance(
    views: &mut watch::Receiver<KernelView>,
    name: &str,
    limit: Duration,
) -> Result<Link> {
    let missing = || KernelError::NoInterface { name: name.to_owned() };
    let view = timeout(limit, views.wait_for(|view| view.link(name).is_some()));
    let view = view.await.map_err(|_| missing())?.map_err(|_| missing())?;
    view.link(name).cloned().ok_or_else(missing)
}

/// Waits until the interface of this index is gone. An interface that took its name since does not
/// count as it.
pub async fn vanishing(views: &mut watch::Receiver<KernelView>, index: u32) {
    // An error means that the watch has ended: there is nothing more to wait for.
    let _ = views.wait_for(|view| !view.links.contains_key(&index)).await;
}

#[cfg(test)]
mod tests {
    use super::super::Watch;
    use super::super::testing::{in_namespace, run};
    use super::*;

    #[test]
    fn a_pods_interface_is_seen_to_come_and_go() {
        in_namespace(|| async {
            let watch = Watch::start().await.unwrap();
            let mut views = watch.views();
            let brief = Duration::from_millis(50);
            let missing = appearance(&mut views, "cali0123456789a", brief).await;
            assert!(matches!(missing, Err(KernelError::NoInterface { .. })));
            run("ip link add cali0123456789a type veth peer name eth7");
            run("ip link add calidummy type veth peer name califake");
            let long = Duration::from_secs(1);
            let link = appearance(&mut views, "cali0123456789a", long).await.unwrap();
            let names: Vec<_> = pod_links(&views.borrow()).map(|l| l.name.to_string()).collect();
            assert!(
                names.contains(&"cali0123456789a".to_owned()) && !names.contains(&"eth7".into())
            );
            run("ip link del cali0123456789a");
            timeout(long, vanishing(&mut views, link.index)).await.unwrap();
        });
    }
}
