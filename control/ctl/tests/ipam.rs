//! `margayctl ipam`, on a directory in which addresses were assigned.

mod common;

use std::sync::Arc;

use common::Store;
use margay_datastore::Url;
use margay_ipam::{AutoAssign, Ipam};
use margay_resources::documents::DocumentReader;
use serde_json::json;

/// A pool of two blocks, one address for the pod `a/web` on the node `n1`, which no endpoint uses.
fn one_address() -> (Store, String) {
    let store = Store::with(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pool}\nspec: {cidr: \
         10.0.0.0/25, blockSize: 26}\n",
    );
    let url: Url = format!("dir:{}", store.dir.path().display()).parse().unwrap();
    let address = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ipam = Ipam::new(margay_datastore::open(&url, Arc::new(DocumentReader)).await.unwrap());
        let attributes = [("namespace", "a"), ("pod", "web"), ("node", "n1")];
        let attributes = attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let one = AutoAssign { v4: 1, ..AutoAssign::workload("n1", "net.web", attributes) };
        let assigned = ipam.auto_assign(&one).await;
        assigned.unwrap().v4[0].addr().to_string()
    });
    (store, address)
}

#[test]
fn pools_and_blocks_show_how_full_they_are() {
    let (store, _) = one_address();
    let table = store.good("ipam show", "");
    assert!(
        table.contains("10.0.0.0/25   128         1 (0%)") && !table.contains("Block"),
        "{table}"
    );
    let table = store.good("ipam show --show-blocks", "");
    assert!(table.contains("Block") && table.contains("host:n1"), "{table}");
    let pools = store.json("ipam show --show-blocks")["pools"].clone();
    assert_eq!((&pools[0]["used"], &pools[0]["free"]), (&json!(1), &json!(127)));
    assert_eq!(pools[0]["blocks"][0]["size"], 64);
}

#[test]
fn an_address_tells_who_has_it() {
    let (store, address) = one_address();
    let text = store.good(&format!("ipam show --ip {address}"), "");
    for part in ["is in use", "net.web", "pod: web"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(store.good("ipam show --ip 192.0.2.1", "").contains("in no pool"));
    assert_eq!(store.json("ipam show --ip 10.0.0.127")["state"], "free");
    store.bad("ipam show --ip nonsense", "");
}

#[test]
fn check_finds_the_leak_and_release_gives_it_back() {
    let (store, address) = one_address();
    store.good("ipam check --records-only", "");
    let output = store.run("ipam check -o json", "");
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&address), "{text}");
    let report = store.dir.path().join("report");
    std::fs::write(&report, text).unwrap();
    let said = store.good(&format!("ipam release --from-report {}", report.display()), "");
    assert!(said.contains(&format!("{address} released")), "{said}");
    store.good("ipam check", "");
    assert_eq!(store.json("ipam show")["pools"][0]["used"], 0);
}

#[test]
fn an_address_in_use_by_an_endpoint_is_no_leak() {
    let (store, address) = one_address();
    let endpoint = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"name": "n1-k8s-web-eth0", "namespace": "a"},
        "spec": {
            "node": "n1", "orchestrator": "k8s", "pod": "web", "endpoint": "eth0",
            "interfaceName": "cali1", "ipNetworks": [format!("{address}/32")],
        },
    });
    store.good("apply -f -", &endpoint.to_string());
    let said = store.good("ipam check", "");
    assert!(said.contains("1 addresses in use"), "{said}");
}

#[test]
fn addresses_are_released_one_by_one_or_by_handle() {
    let (store, address) = one_address();
    let said = store.good(&format!("ipam release --ip {address},10.0.0.127"), "");
    assert!(said.contains(&format!("{address} released")) && said.contains("was free"), "{said}");
    let (store, _) = one_address();
    assert_eq!(
        store.json("ipam release --handle net.web")["released"].as_array().unwrap().len(),
        1
    );
    store.bad("ipam release", "");
}

#[test]
fn settings_are_changed_and_contradictions_refused() {
    let (store, _) = one_address();
    let defaults =
        json!({"strictAffinity": false, "autoAllocateBlocks": true, "maxBlocksPerHost": 0});
    assert_eq!(store.json("ipam show --show-configuration"), defaults);
    let errors = store.bad("ipam configure --max-blocks-per-host 3", "");
    assert!(errors.contains("strictAffinity"), "{errors}");
    store.good("ipam configure --strictaffinity=true --max-blocks-per-host 3", "");
    let changed =
        json!({"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": 3});
    assert_eq!(store.json("ipam show --show-configuration"), changed);
}

#[test]
fn a_pool_is_split_and_its_addresses_stay() {
    let (store, address) = one_address();
    let errors = store.bad("ipam split 3 --name pool", "");
    assert!(errors.contains("pool") && errors.contains("power of two"), "{errors}");
    assert!(store.bad("ipam split 2 --cidr 192.0.2.0/24", "").contains("192.0.2.0/24"));
    store.good("ipam split 2 --cidr 10.0.0.0/25", "");
    assert_eq!(store.good("get ippools -o name", ""), "ippool/split-pool-0\nippool/split-pool-1\n");
    assert!(store.good(&format!("ipam show --ip {address}"), "").contains("is in use"));
}
